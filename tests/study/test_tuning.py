"""Every arm chooses its settings with the same budget, on photos that aren't the validation photos."""

import json

import pandas as pd
import pytest

from lessonkit.ablation import run_ablation
from lessonkit.study.settings import Settings
from lessonkit.study.tuning import choose_on_grid, tune_techniques


def made_up(best: dict[str, tuple[float, float]], asked: list):
    """A measurement in which each arm is best at a place of its own."""

    def measure(rates, areas):
        asked.append((list(rates), list(areas)))
        return pd.DataFrame(
            [
                {"technique": name, "lr": lr, "min_area": area,
                 "accuracy": -abs(lr - at[0]) - abs(area - at[1]), "nll": 1.0}
                for name, at in best.items() for lr in rates for area in areas
            ]
        )

    return measure


def test_each_arm_gets_what_is_best_for_it():
    asked = []
    best, rates, areas = choose_on_grid(made_up({"a": (2e-3, 0.35), "b": (5e-3, 0.75)}, asked),
                                        ["a", "b"], [2e-3, 5e-3, 1.2e-2], [0.35, 0.75])
    assert (best["lr"].to_dict() == {"a": 2e-3, "b": 5e-3}
            and best["min_area"].to_dict() == {"a": 0.35, "b": 0.75})
    assert len(asked) == 1 and (rates, areas) == ([2e-3, 5e-3, 1.2e-2], [0.35, 0.75])


def test_where_most_choose_an_end_one_more_value_is_tried_there_by_all():
    asked = []
    arms = {name: (1.0, 1.0) for name in "abcde"}
    best, rates, areas = choose_on_grid(made_up(arms, asked), list(arms), [2e-3, 5e-3, 1.2e-2],
                                        [0.35, 0.75])
    assert rates == [2e-3, 5e-3, 1.2e-2, 3e-2] and areas == [0.35, 0.75, 1] and len(asked) == 2
    assert set(best["lr"]) == {3e-2} and set(best["min_area"]) == {1}


def test_a_study_is_tuned_on_an_inner_split_and_trains_with_what_was_chosen(images, tmp_path):
    settings = Settings(16, 1, 8, 4)
    tuned, told = tune_techniques(images, ["mixup", "tta", "normalization"], tmp_path, settings,
                                  progress=False)
    assert [t.variant for t in tuned] == ["baseline", "mixup", "tta", "no_normalization"]
    own = {t.variant: t.own for t in tuned}
    assert own["tta"] == own["baseline"]  # it predicts with that network
    assert all({*one} == {"lr", "crops"} for one in own.values()) and "set aside" in told
    folders = sorted(p.name for p in (tmp_path / "tuning").iterdir())
    assert len(folders) >= 6 and "lr-0.002-crops-0.35" in folders
    for folder in (tmp_path / "tuning").iterdir():
        identity = json.loads((folder / "study.json").read_text())["identity"]
        assert identity["photos"]["train"] + identity["photos"]["valid"] == len(images.indices("train"))
    trials = run_ablation(images, tuned, seeds=1, out=tmp_path / "study", size=16, epochs=1,
                          batch_size=8, width=4, progress=False)
    assert len(trials) == 4
    stored = json.loads((tmp_path / "study" / "study.json").read_text())["techniques"]
    assert stored["mixup"]["own"] == own["mixup"]
    with pytest.raises(ValueError, match="own"):  # other settings are another study
        run_ablation(images, ["mixup"], seeds=2, out=tmp_path / "study", size=16, epochs=1, batch_size=8,
                     width=4, progress=False)
