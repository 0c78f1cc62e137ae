"""The practitioner's face: the same settings for all calls, choosing unseen, looking again."""

import inspect
import json
from dataclasses import fields

import numpy as np
import pytest
from tiny_photos import QUICK

from lessonkit.ablation import best_recipe, choose_best, inner_split, run_ablation, smallest_subset
from lessonkit.comparison import look_confidence
from lessonkit.study.report import ablation_report
from lessonkit.study.settings import SEEDS, Settings


def test_the_inner_split_never_sees_a_validation_photo(images):
    inner = inner_split(images, 0.25, seed=1)
    held_out = {images.paths[i] for i in images.indices("valid")}
    assert len(inner) == 32 and not held_out & set(inner.paths)
    assert np.bincount(inner.labels[inner.indices("valid")]).tolist() == [4, 4]
    again = inner_split(images, 0.25, seed=1)
    assert (again.split == inner.split).all() and (
        inner_split(images, 0.25, seed=2).split != inner.split
    ).any()


def test_choosing_looks_at_inner_photos_only_and_takes_the_best(images, tmp_path, monkeypatch):

    seen = []
    values = {"baseline": 0.2, "mixup": 0.8, "tta": 0.5}

    def trial(photos, technique, seed, *args):
        seen.append(photos)
        right = np.arange(len(photos.indices("valid"))) < values[technique.variant] * len(
            photos.indices("valid")
        )
        return {
            "size": 16,
            "epochs": 1,
            "accuracy": right.mean(),
            "train_seconds": 1.0,
            "predict_seconds": 1.0,
            "pixels": 1,
        }, right

    monkeypatch.setattr("lessonkit.study.study.train_trial", trial)
    chosen, told = choose_best(images, ["tta", "mixup"], out=tmp_path, seeds=2, **QUICK)
    assert [t.variant for t in chosen] == [
        "baseline",
        "mixup",
    ] and "Chosen among 3 variants: mixup" in told
    assert (tmp_path / "choice" / "trials.jsonl").exists() and not (tmp_path / "trials.jsonl").exists()
    held_out = {images.paths[i] for i in images.indices("valid")}
    assert seen and not any(held_out & set(photos.paths) for photos in seen)
    values["baseline"] = 1.0
    assert ([t.variant for t in choose_best(images, ["tta", "mixup"], seeds=1, **QUICK)[0]]
            == ["baseline"])
    with pytest.raises(ValueError, match="one technique beside the baseline"):
        choose_best(images, [], seeds=1, **QUICK)


def test_looks_are_noted_and_widen_the_interval(images, tmp_path):
    def report(seeds, planned=10):
        trials = run_ablation(images, ["mixup"], seeds=seeds, out=tmp_path, **QUICK)
        return ablation_report(images, trials, tmp_path, ["mixup"], planned=planned)

    wide = report(3)
    assert (
        f"{look_confidence([3], 10)[0]:.4%} interval" in wide
        and "Looked at with 3 of 10 planned seeds" in wide
    )
    assert report(3) == wide  # the same look again is no further look
    assert f"{look_confidence([3, 5], 10)[1]:.1%} interval" in report(
        5, planned=None
    )  # the plan is remembered
    assert json.loads((tmp_path / "looks.json").read_text()) == {"planned": 10, "looks": [3, 5]}
    with pytest.raises(ValueError, match="10 seeds were planned before the first look, now 20"):
        report(5, planned=20)


@pytest.mark.parametrize("call", [run_ablation, smallest_subset, choose_best])
def test_help_and_tab_show_every_setting_with_its_default(call):
    shown = inspect.signature(call).parameters
    for field in fields(Settings):
        assert shown[field.name].default == field.default
    assert (shown["seeds"].default == SEEDS == 5
            and {"jobs", "threads", "cluster", "progress", "out"} <= shown.keys())
    assert len(shown) < 30 and not [name for name, one in shown.items() if one.kind is one.VAR_KEYWORD]


def test_the_best_recipe_has_the_defaults_of_the_settings():
    shown = inspect.signature(best_recipe).parameters
    assert {name: shown[name].default for name in ("size", "batch_size", "device")} == {
        name: getattr(Settings, name) for name in ("size", "batch_size", "device")
    }
