"""A study on a subset, and the smallest subset on which one comes to the same conclusions."""

import json

import numpy as np
import pandas as pd
import pytest
from tiny_photos import QUICK
from PIL import Image

from lessonkit.ablation import run_ablation, smallest_subset, Technique
from lessonkit.images import image_dataloaders
from lessonkit.study.ranking import rank_agreement
from lessonkit.study.report import ablation_report
from lessonkit.study.subset_study import photo_count, steps_per_epoch, take_subset
from lessonkit.study.tables import format_subsets, smallest_passing
from lessonkit.study.trials import read_trials, StudyMismatch


STRANGE = [Technique("flat", data={"augment": False}), Technique("raw", data={"normalize": False})]


def brightness(images) -> np.ndarray:
    """A feature for each photo."""
    return np.array([[np.asarray(Image.open(path)).mean()] for path in images.paths], dtype=np.float32)


@pytest.mark.parametrize(
    "size, count", [(0.25, 8), (8, 8), (np.int64(8), 8), (0.07, 2), (1.0, 32), (32, 32)]
)
def test_photo_count_takes_shares_and_numbers(images, size, count):
    assert photo_count(images, size) == count


@pytest.mark.parametrize("size, told", [
    (33, "33 photos can't be chosen from 32"), (1, "fewer than the 2 classes"),
    (0.03, "fewer than the 2 classes"), (0, "above 0, a share"), (-0.5, "above 0, a share"),
    (1.5, "must be a share"), (float("nan"), "above 0, a share"),
])
def test_photo_count_refuses_what_cant_be_chosen(images, size, told):
    with pytest.raises(ValueError, match=told):
        photo_count(images, size)
    for no_number in (True, "ten"):
        with pytest.raises(TypeError, match="must be a number"):
            photo_count(images, no_number)


def test_steps_are_those_of_the_loader(images):
    for photos, batch_size in [(8, 4), (9, 4), (10, 4), (3, 4), (4, 4), (5, 2), (32, 8), (1, 4)]:
        rows = np.concatenate([images.indices("train")[:photos], images.indices("valid")])
        loaders = image_dataloaders(images.take(rows), size=8, batch_size=batch_size)
        assert steps_per_epoch(photos, batch_size) == len(loaders.train)


def test_take_subset_keeps_validation_photos_and_says_how_it_chose(images):
    subset, record = take_subset(images, 0.25, brightness(images))
    assert [images.paths[row] for row in images.indices("valid")] == [
        subset.paths[row] for row in subset.indices("valid")
    ]
    chosen = [subset.paths[row] for row in subset.indices("train")]
    assert len(set(chosen)) == 8 and set(chosen) <= {images.paths[row]
                                                     for row in images.indices("train")}
    assert (np.bincount(subset.labels[subset.indices("train")]).tolist() == [4, 4]
            and subset.classes == images.classes)
    assert record == {"method": "facility_location", "balance": "proportional", "seed": 0, "photos": 8,
                      "of": 32}
    with pytest.raises(ValueError, match="3 rows of features for 40 photos"):
        take_subset(images, 8, np.zeros((3, 1)))
    with pytest.raises(ValueError, match="method"):
        take_subset(images, 8, brightness(images), method="magic")


def test_trials_of_the_subset_and_the_whole_never_mix(images, tmp_path):
    subset, record = take_subset(images, 8, brightness(images))
    run_ablation(subset, [], seeds=1, out=tmp_path / "subset", subset=record, **QUICK)
    assert json.loads((tmp_path / "subset/study.json").read_text())["identity"]["subset"] == record
    with pytest.raises(StudyMismatch, match="subset was .*, now not set"):
        run_ablation(images, [], seeds=1, out=tmp_path / "subset", **QUICK)
    other = take_subset(images, 8, brightness(images), method="random", seed=3)
    with pytest.raises(StudyMismatch, match="subset: method was facility_location, now random"):
        run_ablation(other[0], [], seeds=1, out=tmp_path / "subset", subset=other[1], **QUICK)
    run_ablation(images, [], seeds=1, out=tmp_path / "whole", **QUICK)
    assert (
        "subset" not in json.loads((tmp_path / "whole/study.json").read_text())["identity"]
    )  # as in older studies
    report = ablation_report(subset, read_trials(tmp_path / "subset"), tmp_path / "subset", [])
    assert "baseline" in report and "photos: 8, of: 32" in (tmp_path / "subset/report.html").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    "same, epochs, steps", [("epochs", [2, 2, 2], [2, 4, 8]), ("steps", [8, 4, 2], [8, 8, 8])]
)
def test_smallest_subset_compares_each_size_with_the_whole(images, tmp_path, same, epochs, steps):
    settings = QUICK | {"epochs": 2}
    arguments = dict(sizes=(16, 0.25), seeds=2, same=same, features=brightness(images), out=tmp_path,
                     **settings)
    table = smallest_subset(images, STRANGE, **arguments)
    assert table["photos"].tolist() == [8, 16, 32] and table["size"].tolist() == [0.25, 0.5, 1]
    assert table["epochs"].tolist() == epochs and table["steps"].tolist() == steps
    assert np.isnan(table["tau"][2]) and table["ceiling"].nunique(dropna=False) == 1
    assert (table["saved"].iloc[-1] == 0 and table["coverage"].iloc[-1] == 0
            and (table["techniques"] == 3).all())
    assert len(pd.read_csv(tmp_path / "smallest_subset.csv")) == 3
    whole = read_trials(tmp_path / "whole")
    part = read_trials(tmp_path / f"facility_location-8-same-{same}")
    assert table["tau"][0] == pytest.approx(rank_agreement(whole, part).tau, nan_ok=True)
    assert (part["photos"] == len(images.indices("valid"))).all()  # judged on all of them

    def fail(*args):
        pytest.fail("trained again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lessonkit.study.study.train_trial", fail)
        assert smallest_subset(images, STRANGE, **arguments).equals(table)
    assert "of the training photos" in format_subsets(table) or "None of these" in format_subsets(table)


def made_up_study(monkeypatch, gains):
    """Let trials have an accuracy by technique and number of training photos, in place of training."""

    def trial(images, technique, seed, settings, *args):
        gain = gains(technique.variant, len(images.indices("train")))
        if gain is None:
            raise RuntimeError("failed")
        accuracy = 0.5 + gain + 0.001 * np.random.default_rng([seed, len(technique.variant)]).normal()
        return {
            "size": settings.size,
            "epochs": settings.epochs,
            "accuracy": accuracy,
            "train_seconds": 60.0 * len(images),
            "predict_seconds": 0.0,
        }, None

    monkeypatch.setattr("lessonkit.study.study.train_trial", trial)


def test_the_answer_is_the_smallest_size_from_which_on_all_pass(images, monkeypatch):
    order = {"baseline": 0, "flat": 0.1, "raw": 0.2}
    made_up_study(monkeypatch, lambda name, photos: order[name] * (-1 if photos == 8 else 1))
    arguments = dict(sizes=(4, 8, 16, 24), features=brightness(images), **QUICK)
    table = smallest_subset(images, STRANGE, **arguments)
    assert (table["tau"].tolist()[:4] == [1, -1, 1, 1]
            and table["passes"].tolist() == [True, False, True, True, True])
    assert smallest_passing(table) == 16 and table["why"][1] == "agreement -1.00 below 0.8"
    assert table["minutes"].tolist() == pytest.approx([3 * 5 * (n + 8) for n in (4, 8, 16, 24, 32)])
    told = " ".join(format_subsets(table).split())
    assert (
        "The smallest subset that is enough: 50% of the training photos, 16." in told
        and "12.5% passes too" in told
    )
    strict = smallest_subset(images, STRANGE, min_agreement=1.1, **arguments)
    assert smallest_passing(strict) is None and "None of these subsets is enough" in format_subsets(
        strict
    )


def test_noise_that_hides_the_techniques_is_told(images, monkeypatch):
    made_up_study(monkeypatch, lambda name,
                  photos: 0 if photos < 32 else {"baseline": 0, "flat": 0.1, "raw": 0.2}[name])
    table = smallest_subset(images, STRANGE, sizes=(8,), features=brightness(images), min_agreement=-1,
                            **QUICK)
    assert (not table["passes"][0] and "0% of pairs told apart, below 50%" in table["why"][0]
            and table["passes"][1])


def test_a_technique_that_fails_on_a_subset_doesnt_end_the_study(images, monkeypatch):
    made_up_study(monkeypatch, lambda name,
                  photos: None if (name, photos) == ("raw", 8) else len(name) / 10)
    with pytest.warns(UserWarning, match="trials failed"):
        table = smallest_subset(images, STRANGE, sizes=(8, 16), features=brightness(images), **QUICK)
    assert (np.isnan(table["tau"][0]) and table["why"][0] == "only one side has trials of raw"
            and table["passes"][1])
    assert "nan" not in format_subsets(table)


@pytest.mark.parametrize("change, told", [
    ({"same": "pixels"}, "'epochs', 'steps'"), ({"sizes": (32, 1.0)}, "no part"),
    ({"sizes": (99,)}, "can't be chosen"), ({"techniques": []}, "one technique beside"),
    ({"epochs": 0}, "epochs=0"), ({"method": "magic"}, "method"),
])
def test_smallest_subset_tells_bad_settings_before_it_trains(images, monkeypatch, change, told):
    monkeypatch.setattr("lessonkit.study.study.train_trial", lambda *args: pytest.fail("trained"))
    arguments = dict(techniques=STRANGE, sizes=(8,), features=brightness(images), **QUICK) | change
    with pytest.raises(ValueError, match=told):
        smallest_subset(images, **arguments)


def test_the_smallest_subset_takes_all_settings_of_a_study(images, tmp_path):
    settings = QUICK | {"jobs": 2, "threads": 1, "cost": "epochs", "lr": 0.01}
    table = smallest_subset(images, ["tta"], sizes=(16,), seeds=1, features=brightness(images),
                            out=tmp_path, **settings)
    assert table["photos"].tolist() == [16, 32]
    about = json.loads((tmp_path / "whole/study.json").read_text())["identity"]
    assert (about["cost"], about["lr"]) == ("epochs", 0.01) and set(
        read_trials(tmp_path / "whole")["threads"]
    ) == {1}
