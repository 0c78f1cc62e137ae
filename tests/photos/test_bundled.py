"""The generated pictures: the same everywhere, varied, and as wrong as was asked for."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lessonkit.images import ImageSet
from lessonkit.photos.bundled import make_bundled, near_copy
from lessonkit.photos.drawings import CLASSES, draw

SMALL = {"n_train": 200, "n_valid": 20, "size": 48, "label_noise": 0.2, "near_duplicates": 0.25,
         "progress": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_bundled(tmp_path_factory.mktemp("pictures") / "set", **SMALL)


@pytest.fixture(scope="module")
def truth(made):
    with open(made / "truth.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pixels(picture) -> np.ndarray:
    return np.asarray(picture.resize((24, 24), Image.Resampling.BOX), dtype=float)


def test_every_file_can_be_read_and_no_damage_or_copy_is_unknown(made, truth):
    images = ImageSet.from_folder(made)
    assert (len(images), images.classes) == (220, sorted(CLASSES))
    assert len(images.check(progress=False)) == 0
    assert sorted(row["path"] for row in truth) == sorted(path.relative_to(made).as_posix()
                                                          for path in images.paths)


def test_another_process_with_other_hashes_draws_the_same(made, tmp_path):
    program = ("from lessonkit.photos.bundled import make_bundled; "
               f"make_bundled({str(tmp_path / 'again')!r}, **{SMALL!r})")
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": "7"}, check=True)
    for path in made.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(made)).read_bytes(), path


def test_labels_are_wrong_as_often_as_asked_in_training_alone(truth):
    train = [row for row in truth if row["path"].startswith("train")]
    wrong = [row for row in train if row["is_wrong"] == "1"]
    assert len(wrong) == 0.2 * len(train)
    assert all((row["given_label"] != row["true_class"]) == (row["is_wrong"] == "1") for row in truth)
    assert all(row["path"].split("/")[1] == row["given_label"] for row in truth)
    # of 40: mistaken for anything
    assert len({(row["true_class"], row["given_label"]) for row in wrong}) > 25
    assert not [row for row in truth if row["path"].startswith("val")
                and (row["is_wrong"] == "1" or row["copy_of"])]


def test_the_truth_says_what_was_drawn(made, truth):
    for row in truth[::20]:
        if not row["copy_of"]:
            drawn, stored = draw(row["true_class"], int(row["seed"]), 48), Image.open(made / row["path"])
            # JPEG's loss
            assert drawn.size == stored.size and np.abs(pixels(drawn) - pixels(stored)).mean() < 6


def test_a_copy_is_nearer_to_its_original_than_anything_else_is(made, truth):
    train = [row for row in truth if row["path"].startswith("train")]
    shown = {row["path"]: pixels(Image.open(made / row["path"])) for row in train}
    copies = [row for row in train if row["copy_of"]]
    assert len(copies) == 0.25 * len(train)
    found = 0
    for row in copies:
        family = {other["path"] for other in train
                  if row["copy_of"] in (other["copy_of"], other["path"])} - {row["path"]}
        away = {path: np.abs(x - shown[row["path"]]).mean()
                for path, x in shown.items() if path != row["path"]}
        found += min(away, key=away.get) in family
    assert found >= 0.9 * len(copies)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_many_looks_and_both_formats(name):
    pictures = [draw(name, seed, 48) for seed in range(40)]
    assert ({min(picture.size) for picture in pictures} == {48}
            and {picture.mode for picture in pictures} == {"RGB"})
    assert {picture.width > picture.height for picture in pictures} == {True, False}
    shown = np.stack([pixels(picture) for picture in pictures])
    assert min(np.abs(one - other).mean() for i, one in enumerate(shown) for other in shown[:i]) > 8
    assert shown.mean((1, 2, 3)).std() > 10  # bright ones and dark ones
    assert np.array_equal(draw(name, 3, 48), pictures[3])


def test_a_near_copy_keeps_size_and_differs():
    picture = draw("owl", 0, 64)
    copy = near_copy(picture, 1)
    assert copy.size == picture.size and 0.5 < np.abs(pixels(copy) - pixels(picture)).mean() < 40


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"n_train": 9}, ValueError, "n_train"), ({"n_valid": 10.5}, TypeError, "n_valid"),
        ({"size": 4}, ValueError, "size"),
        ({"seed": -1}, ValueError, "seed"), ({"label_noise": 1.5}, ValueError, "label_noise"),
        ({"label_noise": True}, TypeError, "label_noise"),
        ({"near_duplicates": 0.6}, ValueError, "near_duplicates"),
        ({"n_train": 10, "near_duplicates": 0.5}, ValueError, "original"),
    ],
)
def test_options_that_make_no_sense_draw_nothing(tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        make_bundled(tmp_path / "new", **(SMALL | options))
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_class():
    with pytest.raises(ValueError, match="'dog'.*beetle"):
        draw("dog", 0)


def test_a_set_is_found_again_and_never_mixed(made, tmp_path):
    before = (made / "truth.csv").stat().st_mtime_ns
    assert make_bundled(made, **SMALL) == made and (made / "truth.csv").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="label_noise=0.2"):
        make_bundled(made, **(SMALL | {"label_noise": 0.3}))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds no bundled pictures"):
        make_bundled(tmp_path / "mine", **SMALL)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_missing_picture_is_named(tmp_path):
    few = SMALL | {"n_train": 10, "n_valid": 10, "near_duplicates": 0}
    folder = make_bundled(tmp_path / "set", **few)
    gone = next(folder.glob("train/*/*.jpg"))
    gone.unlink()
    with pytest.raises(ValueError, match=f"1 of 20 pictures are missing .*{gone.name}"):
        make_bundled(folder, **few)
