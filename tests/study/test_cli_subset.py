"""`lessonkit subset`, and studies on a subset."""

import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from typed import QUICK

from lessonkit.study.arguments import METHODS
from lessonkit.images import ImageSet


def test_a_chosen_set_is_written_and_can_be_used_at_once(photos, tmp_path, here):
    code, printed, errors = here("subset", photos, "--n", "8", "--size", "16")
    assert code == 0, errors
    assert "Chosen: 8 of 32 training photos." in printed and "Traceback" not in errors
    assert re.search(
        r"^mean distance +[\d.]+ +[\d.]+ \([\d.]+ to [\d.]+\)$", printed, re.M
    )  # random choice stands beside it
    whole, few = ImageSet.from_folder(photos), ImageSet.from_folder(tmp_path / "subset-my photos")
    assert (
        len(few.indices("train")) == 8 and len(few.classes) == 2
    )  # letters that other systems refuse are written as %XX
    assert np.bincount(few.labels[few.indices("train")]).tolist() == [4, 4]

    def contents(images, part):
        return sorted(images.paths[row].read_bytes() for row in images.indices(part))

    assert contents(few, "valid") == contents(whole, "valid")
    assert set(contents(few, "train")) <= set(contents(whole, "train"))
    assert (tmp_path / "subset-my photos/subset.json").exists()
    gallery = (tmp_path / "subset-my photos/gallery.html").read_text(encoding="utf-8")
    assert "8 of 32 training photos" in gallery and "<script" not in gallery
    assert re.search(r"^Describing 32 photos with .*: about \d+ s\.$", printed, re.M)  # before it begins
    assert "So this choice" in printed and "random ones (95% of draws" in printed
    code, printed, _ = here("ablate", tmp_path / "subset-my photos", *QUICK, "--seeds", "1",
                            "--techniques", "tta")
    assert code == 0 and "8 train, 8 valid" in printed


def test_a_share_another_method_and_links(photos, tmp_path, here):
    typed = ["subset", photos, "--n", "0.25", "--method", "random", "--how", "hardlink", "--size", "16",
             "--out", "few"]
    code, printed, _ = here(*typed, "--seed", "1")
    assert (
        code == 0 and "Chosen: 8 of 32 training photos." in printed and "few" in printed.splitlines()[-1]
    )
    few = ImageSet.from_folder(tmp_path / "few")
    assert all(path.stat().st_nlink >= 2 for path in few.paths)
    code, _, _ = here(*typed[:-1], "others", "--seed", "2")
    others = ImageSet.from_folder(tmp_path / "others")
    names = [{images.paths[row].name for row in images.indices("train")} for images in (few, others)]
    assert code == 0 and names[0] != names[1]


def test_features_are_kept_for_another_choice(photos, tmp_path, here):
    typed = ["subset", photos, "--size", "16", "--features", "photos.npy"]
    assert here(*typed, "--n", "8", "--out", "eight")[0] == 0
    kept = (tmp_path / "photos.npy").read_bytes()
    assert np.load(tmp_path / "photos.npy").shape[0] == 40
    assert here(*typed, "--n", "4", "--out", "four")[0] == 0
    assert (tmp_path / "photos.npy").read_bytes() == kept
    eight, four = ({path.read_bytes() for path in (tmp_path / name / "train").rglob("*.png")}
                   for name in ("eight", "four"))
    code, _, errors = here(*typed[:-1], "other.npy", "--n", "4", "--seed", "5", "--out", "five")
    assert code == 0, errors
    # another choice, the same features
    assert here(*typed, "--n", "4", "--seed", "5", "--out", "six")[0] == 0
    code, _, errors = here(*typed[:3], "72", *typed[4:], "--n", "4", "--out", "seven")
    assert code == 2 and "holds other features (size was 64, now 72)" in errors
    assert (tmp_path / "photos.npy").read_bytes() == kept
    assert four < eight  # the first picks of a larger choice are the smaller one


@pytest.mark.parametrize(
    "typed, told",
    [
        (["nowhere", "--n", "8"], "neither a folder"),
        (["{photos}", "--n", "33"], "33 photos can't be chosen from 32 training photos"),
        (["{photos}", "--n", "1"], "fewer than the 2 classes"),
        (["{photos}", "--n", "0.01"], "fewer than the 2 classes"),
        (["{photos}", "--n", "0"], "at least 1, or a share"),
        (["{photos}", "--n", "-3"], "at least 1, or a share"),
        (["{photos}", "--n", "1.5"], "at least 1, or a share"),
        (["{photos}", "--n", "nan"], "at least 1, or a share"),
        (["{photos}"], "--n"),
        (["{photos}", "--n", "8", "--method", "magic"], "'facility_location', 'k_center'"),
        (["{photos}", "--n", "8", "--balance", "fair"], "proportional"),
        (["{photos}", "--n", "8", "--how", "move"], "hardlink"),
        (["{photos}", "--n", "8", "--seed", "-1"], "at least 0"),
        (["{photos}", "--n", "8", "--out", "{photos}/few"], "among the photos"),
        (["{photos}", "--n", "8", "--out", "a file"], "is a file"),
        (["{photos}", "--n", "8", "--out", "full"], "full"),
        (["damaged", "--n", "4"], "2.png can't be decoded"),
    ],
)
def test_bad_input_of_subset_is_told_in_one_line_and_nothing_is_written(
    photos, tmp_path, here, typed, told
):
    (tmp_path / "a file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("years of work")
    for label in "ab":
        (tmp_path / "damaged" / label).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (9, 9), "red").save(tmp_path / "damaged" / label / f"{i}.png")
    (tmp_path / "damaged/a/2.png").write_bytes(b"\x89PNG")
    before = sorted(tmp_path.rglob("*"))
    code, printed, errors = here("subset", *[t.format(photos=photos) for t in typed], "--size", "16")
    assert code == 2 and "Traceback" not in errors + printed
    last = errors.strip().splitlines()[-1]
    assert last.startswith("lessonkit") and told in last
    assert (sorted(tmp_path.rglob("*")) == before
            and (tmp_path / "full/thesis.txt").read_text() == "years of work")


def test_a_full_folder_is_told_before_anything_is_computed(photos, tmp_path, here, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").touch()
    for module in ("selection.features", "study.subset_study"):
        monkeypatch.setattr(f"lessonkit.{module}.embed", lambda *args, **kwargs: pytest.fail("computed"))
    assert here("subset", photos, "--n", "8", "--out", "full")[0] == 2
    assert here("subset", photos, "--n", "33")[0] == 2
    assert here("ablate", photos, "--subset", "33")[0] == 2


def test_damaged_photos_are_never_chosen(damaged, tmp_path, here):
    code, printed, _ = here("subset", "photos", "--n", "0.99", "--size", "16", "--skip-damaged")
    assert code == 0 and "Left out 1 of 20 photos" in printed
    assert not list((tmp_path / "subset-photos").rglob("a/*2.png"))


def test_ctrl_c_while_choosing_says_that_nothing_is_written(photos, here, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("lessonkit.selection.features.embed", stop)
    code, _, errors = here("subset", photos, "--n", "8")
    assert code == 130 and "Stopped. The set isn't written" in errors and "Traceback" not in errors


def test_every_method_that_can_be_typed_is_one(photos):
    from lessonkit.subset_selection import select_subset

    features = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    for method in METHODS:
        assert len(set(select_subset(features, 5, method=method).indices.tolist())) == 5


def test_a_study_on_a_subset_says_so_and_never_mixes_with_one_on_the_whole(photos, tmp_path, here):
    typed = ["ablate", photos, *QUICK, "--seeds", "1", "--techniques", "tta"]
    code, printed, _ = here(*typed, "--subset", "0.25")
    assert code == 0 and printed.count("8 of 32 training photos") >= 2
    assert re.search(r"Choosing took .*(saved\.|quicker without --subset\.)", printed)
    out = tmp_path / "ablation-my photos-subset-0.25"
    record = json.loads((out / "study.json").read_text(encoding="utf-8"))["identity"]["subset"]
    assert (record["photos"], record["of"], record["method"]) == (8, 32, "facility_location")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Trained on 8 of 32 training photos" in page and "method: facility_location" in page
    code, printed, _ = here(*typed, "--subset", "0.25")
    assert code == 0 and "to train" not in printed  # the same choice is found again
    code, _, errors = here(*typed, "--out", out)
    assert code == 2 and "subset was" in errors and "now not set" in errors
    code, _, errors = here(*typed, "--subset", "16", "--out", out)
    assert code == 2 and "photos was 8, now 16" in errors
    assert here(*typed)[0] == 0  # the whole has a folder of its own


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_a_class_whose_name_is_no_text(photos, tmp_path, here):
    """Such a name can't be written into a file as it is; the report stands a mark for it."""
    odd = tmp_path / "photos" / os.fsdecode(b"d\xff")
    for source, target in zip(sorted(photos.iterdir()), (odd, tmp_path / "photos" / "plain $x_1$")):
        shutil.copytree(source, target)
    code, _, errors = here("ablate", tmp_path / "photos", *QUICK, "--seeds", "1", "--techniques",
                           "mixup", "--out", tmp_path / "out")
    assert code == 0, errors
    for name in ("report.html", "report.md"):
        assert (tmp_path / "out" / name).read_text(encoding="utf-8")
    small = ("--n", "4", "--size", "16", "--out")
    code, _, errors = here("subset", tmp_path / "photos", *small, tmp_path / "few")
    assert code == 0, errors
    assert ImageSet.from_folder(tmp_path / "few").classes == ["d\udcff", "plain $x_1$"]
    code, _, errors = here("subset", tmp_path / "photos", *small, tmp_path / "table", "--how", "csv")
    assert code == 2 and "use how='copy'" in errors


def test_a_study_reads_the_table_of_a_chosen_set(photos, tmp_path, here):
    assert here("subset", photos, "--n", "8", "--size", "16", "--out", "few", "--how", "csv")[0] == 0
    code, printed, errors = here("ablate", "few/photos.csv", *QUICK, "--seeds", "1", "--techniques",
                                 "tta", "--no-frozen")
    assert code == 0, errors
    assert "(8 train, 8 valid)" in printed and (tmp_path / "ablation-photos" / "report.html").exists()
