"""A study that plans itself into a time: real trials on tiny photos, with a clock that the test
moves."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lessonkit.ablation import Technique
from lessonkit.study import study as study_module
from lessonkit.study.budget import about_plan, plan_for, RESERVE, run_in_time
from lessonkit.study.planner import Plan
from lessonkit.study.settings import Settings
from lessonkit.study.study import Study
from lessonkit.study.trainer import Pace


@pytest.fixture
def made_up(images, tmp_path, monkeypatch):
    """A study whose trials take ten made-up seconds; `level`: how often each technique is right."""
    clock, level, rng = SimpleNamespace(now=0.0), {"baseline": 0.5}, np.random.default_rng(0)

    def trial(photos, technique, seed, settings, *_):
        clock.now += 10
        right = np.random.default_rng(seed).random(2000) < 0.5
        right ^= rng.random(2000) < 0.04
        right[: int(2000 * (level.get(technique.variant, 0.5) - 0.5))] = True
        return {"size": 16, "epochs": settings.epochs, "accuracy": right.mean(), "train_seconds": 9.5,
                "predict_seconds": 0.5, "pixels": 1}, right

    monkeypatch.setattr(study_module, "train_trial", trial)
    names = [Technique(name, settings={"number": name}, data={"augment": True})
             for name in ("clear", "close")]
    study = Study(images, names, tmp_path, Settings(16, 2, 8, 4))
    vars(study)["pace"] = Pace(start=0, epoch=5, valid=0)
    return SimpleNamespace(study=study, clock=clock, level=level)


def test_the_plan_is_stored_before_the_first_trial_and_stays(made_up):
    plan, study = plan_for(made_up.study, 400, epochs=2)
    # 0.9 * 400 - 5 seconds
    assert plan == Plan(2, 11, (5,)) and study.settings.epochs == 2 and len(study.seeds) == 11
    assert json.loads((study.folder / "plan.json").read_text())["seeds"] == 11
    assert plan_for(made_up.study, 9999)[0] == plan


def test_what_is_settled_is_dropped_at_the_planned_look(made_up):
    made_up.level.update(clear=0.8)
    plan, study = Plan(2, 10, (5,)), plan_for(made_up.study, 365, epochs=2, seeds=10)[1]
    trials = run_in_time(study, plan, deadline=1e6, clock=lambda: made_up.clock.now, progress=False)
    assert trials.groupby("technique").size().to_dict() == {"baseline": 10, "clear": 5, "close": 10}
    assert json.loads((study.folder / "looks.json").read_text()) == {"planned": 10, "looks": [5]}
    (told,) = about_plan(study.folder)
    assert "Dropped: clear after 5 seeds." in told and "at most 7%" in told
    again = run_in_time(study, plan, deadline=1e6, clock=lambda: made_up.clock.now, progress=False)
    assert again.equals(trials)  # it goes on where it was, with what it had dropped


def test_the_study_stops_in_time_with_whole_seeds_first(made_up):
    plan, study = Plan(2, 10, (5,)), plan_for(made_up.study, 365, epochs=2, seeds=10)[1]
    trials = run_in_time(study, plan, deadline=100 + RESERVE, clock=lambda: made_up.clock.now,
                         progress=False)
    assert made_up.clock.now == 100 and len(trials) == 10
    assert trials.groupby("seed").size().to_dict() == {0: 3, 1: 3, 2: 3, 3: 1}
    assert not (study.folder / "looks.json").exists()


def test_a_time_that_is_too_short_is_told_and_leaves_no_folder(made_up):
    with pytest.raises(ValueError, match="two seeds of 2 epochs take about 60 s"):
        plan_for(made_up.study, 30, epochs=2)
    assert (not made_up.study.folder.joinpath("plan.json").exists()
            and about_plan(made_up.study.folder) == [])
