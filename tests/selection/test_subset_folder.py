"""A chosen subset as a folder: it reads back equal, appears as a whole, and never touches what isn't its
own."""

import errno
import json

import numpy as np
import pytest

from lessonkit.images import ImageSet
from lessonkit.selection import subset_folder
from lessonkit.subset_selection import Subset, select_subset, write_subset


def chosen(images, n=4):
    train = images.indices("train")
    x = np.random.default_rng(0).standard_normal((len(train), 3))
    return select_subset(x, n, images.labels[train]).of_rows(train)


def content(images):
    return sorted((path.read_bytes(), images.classes[label], part)
                  for path, label, part in zip(images.paths, images.labels, images.split))


@pytest.mark.parametrize("how", ["copy", "hardlink", "symlink", "csv"])
def test_written_subset_reads_back_equal(photos, tmp_path, how):
    subset = chosen(photos)
    place = write_subset(photos, subset, tmp_path / "out", how, about={"method": "facility_location"})
    record = json.loads((tmp_path / "out" / "subset.json").read_text(encoding="utf-8"))
    back = ImageSet.from_csv(place, record["root"]) if how == "csv" else ImageSet.from_folder(place)
    rows_kept = np.sort(np.concatenate([subset.indices, photos.indices("valid")]))
    assert back.classes == photos.classes == ["cat", "tench"] and content(back) == content(
        photos.take(rows_kept)
    )
    assert (record["about"] == {"method": "facility_location"}
            and [pick["weight"] for pick in record["picks"]] == subset.weights.tolist())
    assert not (tmp_path / "out.unfinished").exists()
    write_subset(photos, chosen(photos, 6), tmp_path / "out", how)  # its own folder may be replaced


def test_write_refuses(photos, tmp_path):
    valid = photos.indices("valid")[0]
    with pytest.raises(ValueError, match=f"rows {valid}.*of_rows"):
        write_subset(photos, Subset(np.array([0, valid]), np.ones(2), np.ones(2)), tmp_path / "out")
    with pytest.raises(ValueError, match="No pick for tench"):
        write_subset(photos, chosen(photos, 1)._replace(indices=photos.indices("train")[:1]),
                     tmp_path / "out")
    with pytest.raises(ValueError, match="'hardlink'"):
        write_subset(photos, chosen(photos), tmp_path / "out", how="move")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="not empty"):
        write_subset(photos, chosen(photos), tmp_path / "mine")
    place = write_subset(photos, chosen(photos), tmp_path / "out")
    (place / "train" / "cat" / "note.txt").write_text("added later")
    with pytest.raises(ValueError, match="more than the subset"):
        write_subset(photos, chosen(photos), tmp_path / "out")
    assert ((tmp_path / "mine" / "thesis.txt").exists()
            and (place / "train" / "cat" / "note.txt").exists())


def test_interrupted_writing_leaves_no_folder(photos, tmp_path, monkeypatch):
    calls = []

    def stop(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(subset_folder.shutil, "copy2", stop)
    with pytest.raises(KeyboardInterrupt):
        write_subset(photos, chosen(photos), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_across_file_systems_are_explained(photos, tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EXDEV, "cross-device link")

    monkeypatch.setattr(subset_folder.os, "link", refuse)
    with pytest.raises(ValueError, match="different file systems.*how='copy'"):
        write_subset(photos, chosen(photos), tmp_path / "out", "hardlink")


def test_odd_names_of_classes_stay_inside(photos, tmp_path):
    odd = ImageSet(photos.paths, photos.labels, ["../up", ".hidden"], photos.split)
    place = write_subset(odd, chosen(odd), tmp_path / "out")
    assert not (tmp_path / "up").exists() and not (place / "up").exists()
    assert len(ImageSet.from_folder(place)) == 4 + 4
