"""Planning on measured seconds with a clock of one's own; what a plan promises, by simulation on the
real statistics."""

import json

import numpy as np
import pandas as pd
import pytest
from made_up_trials import with_photos
from scipy import stats

from lessonkit.comparison import FIRST_LOOK, look_confidence, summarize
from lessonkit.study.answer import next_step
from lessonkit.study.planner import (
    Forecast, Plan, next_confidence, note_look, plan_study, undecided, usable_cores,
)


# --- how long the rest takes


def test_a_forecast_learns_from_what_trials_took():
    forecast = Forecast(jobs=2)
    forecast.expect(
        {("a", seed): 10.0 for seed in range(10)} | {("tta", seed): 1.0 for seed in range(10)}
    )
    assert forecast.left == 55
    for seed in range(4):
        forecast.finish(("a", seed), {"train_seconds": 29.0, "predict_seconds": 1.0})
        # of the network that it uses
        forecast.finish(("tta", seed), {"train_seconds": 29.0, "predict_seconds": 1.0})
    # 66 guessed seconds, each nearly three, two at once
    assert 2.5 < forecast.scale < 3 and 80 < forecast.left < 100
    forecast.finish(("a", 4), {"error": "ValueError", "seconds": 0.1})
    assert 2.5 < forecast.scale < 3  # a failure tells nothing of how long others take
    for trial in list(forecast.waiting):
        words = forecast.finish(trial, {"train_seconds": 29.0, "predict_seconds": 1.0})
    assert words == "" and forecast.left == 0


def test_no_trial_begins_that_would_not_end_in_time():
    now = [100.0]
    forecast = Forecast(clock=lambda: now[0])
    forecast.expect({"a": 10.0, "b": 1.0})
    assert forecast.fits(["a", "b"], 111) and not forecast.fits(["a", "b"], 110.9)
    now[0] = 105.0
    assert not forecast.fits(["a", "b"], 111) and forecast.fits(["b"], 111)


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # joblib reads it beside affinity and cgroups
    assert usable_cores() == 1


# --- how much fits


@pytest.mark.parametrize(
    "budget, plan",
    [
        (10_000, Plan(20, 20, (5, 10, 15))),  # more than that nobody needs
        (200, Plan(20, 10, (5,))),  # the longest of which ten seeds fit
        (75, Plan(7, 10, (5,))),
        (50, Plan(5, 10, (5,))),
        (49, Plan(7, 7, ())),  # ten of five epochs don't fit: the longest of which five do
        (11, Plan(2, 5, ())),
        (4, Plan(2, 2, ())),  # a first look
    ],
)
def test_a_budget_becomes_seeds_and_epochs(budget, plan):
    found = plan_study(budget, lambda epochs: epochs)
    assert found == plan and found.seeds * found.epochs <= budget


def test_what_the_user_fixed_stays_fixed():
    assert plan_study(100, lambda epochs: epochs, epochs=30).epochs == 30
    assert plan_study(1000, lambda epochs: epochs, seeds=3) == Plan(20, 3, ())
    assert plan_study(1000, lambda epochs: epochs, epochs=5, seeds=12) == Plan(5, 12, (5,))
    with pytest.raises(ValueError, match="2 min of training are too short: two seeds of 60 epochs"):
        plan_study(100, lambda epochs: epochs, epochs=60)
    with pytest.raises(ValueError, match="two seeds of 2 epochs take about 4 s"):
        plan_study(3.9, lambda epochs: epochs)


@pytest.mark.parametrize("budget", np.geomspace(5, 1e5, 40))
def test_every_plan_keeps_within_its_time(budget):
    plan = plan_study(budget, lambda epochs: 0.3 + epochs)
    assert plan.seeds * (0.3 + plan.epochs) <= budget and 2 <= plan.seeds <= 20
    assert all(FIRST_LOOK <= look < plan.seeds for look in plan.looks)
    look_confidence([*plan.looks, plan.seeds], plan.seeds)  # a valid plan of looks


# --- what is dropped, and what that costs in errors


def test_what_is_settled_or_hopeless_is_dropped():
    rng, photos = np.random.default_rng(0), 2000
    base = rng.random((5, photos)) < 0.6
    right = {"baseline": base, "better": base | (rng.random((5, photos)) < 0.3), "same": base.copy()}
    right["open"] = base ^ (rng.random((5, photos)) < 0.03)
    right["open"][:, :60] = True
    trials, correct = with_photos(right)
    now = summarize(trials, correct=correct, confidence=0.99)
    at_end = summarize(trials, correct=correct)
    assert undecided(now, at_end, 10) == ["open"]
    # hopeless: twice the planned seeds are too few
    assert undecided(now, at_end.assign(seeds_needed=21), 10) == []
    unknown = now["verdict"].where(now["verdict"] == "reference", "first look")
    assert undecided(now.assign(verdict=unknown), at_end.assign(seeds_needed=np.nan), 10) == [
        "better", "same", "open"
    ]


def test_looks_are_noted_and_a_plan_stays(tmp_path):
    assert note_look(tmp_path, 5, 10) == look_confidence([5], 10)[0]
    # the same look again is no further one
    assert note_look(tmp_path, 5, 10) == look_confidence([5], 10)[0]
    assert note_look(tmp_path, 10, None) == look_confidence([5, 10], 10)[1]
    assert json.loads((tmp_path / "looks.json").read_text()) == {"planned": 10, "looks": [5, 10]}
    with pytest.raises(ValueError, match="10 seeds were planned before the first look, now 20"):
        note_look(tmp_path, 10, 20)


def test_seeds_that_are_added_after_a_look_cost_half_of_what_the_look_before_might_err(tmp_path):
    assert note_look(tmp_path, 3, None) == 0.95 and next_confidence(tmp_path) is None  # gives no verdict
    assert note_look(tmp_path, 5, None) == pytest.approx(0.95) and next_confidence(tmp_path) == 0.975
    assert note_look(tmp_path, 9, None) == 0.975 and note_look(tmp_path, 12, None) == 0.9875
    # seen already
    assert note_look(tmp_path, 9, None) == 0.975 and note_look(tmp_path, 5, None) == pytest.approx(0.95)
    with pytest.raises(ValueError, match="5 seeds were planned before the first look, now 20"):
        note_look(tmp_path, 13, 20)


def test_after_the_last_planned_look_it_is_the_same(tmp_path):
    assert note_look(tmp_path, 5, 10) > 0.99 and next_confidence(tmp_path) is None
    note_look(tmp_path, 10, 10)
    assert next_confidence(tmp_path) == 0.975 == note_look(tmp_path, 11, None)


def null_study(rng: np.random.Generator, arms: int, seeds: int, photos: int) -> dict[str, np.ndarray]:
    """Right answers of arms that differ from the baseline by nothing but luck: hard photos, and lucky
    trainings."""
    difficulty = rng.normal(0.9, 1.5, photos)
    names = ["baseline", *(f"null{number}" for number in range(arms))]
    # photos that suit this recipe: no effect on average
    own = {name: rng.normal(0, 0.6, photos) for name in names}
    skill = {name: rng.normal(0, 0.08, (seeds, 1)) for name in names}
    return {name: rng.random((seeds, photos)) < 1 / (1 + np.exp(-difficulty - own[name] - skill[name]))
            for name in names}


def verdicts_in_time(right: dict[str, np.ndarray], plan: Plan) -> pd.Series:
    """The verdicts of a study that drops arms at its looks, as `run_in_time` and its report find
    them."""
    going, kept = [name for name in right if name != "baseline"], {}
    trials, correct = with_photos(right)
    confidences = look_confidence([*plan.looks, plan.seeds], plan.seeds)
    for look, confidence in zip(plan.looks, confidences):
        part = trials[(trials["seed"] < look) & trials["technique"].isin(["baseline", *going])]
        among = {"correct": correct, "family": len(right) - 1}
        now = summarize(part, confidence=confidence, **among)
        goes_on = undecided(now, summarize(part, **among), plan.seeds)
        kept |= {name: look for name in going if name not in goes_on}
        going = goes_on
    shown = trials[trials["seed"] < trials["technique"].map(kept).fillna(plan.seeds)]
    return (
        summarize(shown, correct=correct, confidence=confidences[-1]).set_index("technique")["verdict"]
    )


def share_of_studies(plan: Plan, studies: int, arms: int = 6, photos: int = 300) -> tuple[int, int]:
    """In how many null studies something is called a help, and in how many a help or a harm."""
    rng, helped, erred = np.random.default_rng(1), 0, 0
    for _ in range(studies):
        found = set(verdicts_in_time(null_study(rng, arms, plan.seeds, photos), plan))
        helped += "helps" in found
        erred += bool(found & {"helps", "hurts"})
    return helped, erred


@pytest.mark.parametrize("plan", [Plan(5, 5, ()), Plan(5, 10, (5,)), Plan(5, 20, (5, 10, 15))])
def test_techniques_that_do_nothing_are_rarely_called_a_help(plan, studies=60):
    helped, erred = share_of_studies(plan, studies)
    assert (helped <= stats.binom.ppf(0.999, studies, 0.05)
            and erred <= stats.binom.ppf(0.999, studies, 0.07))


@pytest.mark.slow
@pytest.mark.parametrize("plan", [Plan(5, 5, ()), Plan(5, 10, (5,)), Plan(5, 20, (5, 10, 15))])
def test_the_error_of_a_whole_study_is_7_percent_at_most(plan, studies=1500):
    helped, erred = share_of_studies(plan, studies)
    assert helped / studies <= 0.05 and erred / studies <= 0.07


# --- the advice: "7 more seeds for mixup"


def verdicts_as_advised(right: dict[str, np.ndarray], folder) -> list[set[str]]:
    """What somebody is told at each look who adds seeds as long as the report advises it."""
    seeds, most, told = FIRST_LOOK, len(right["baseline"]), []
    while seeds <= most:
        trials, correct = with_photos({name: rows[:seeds] for name, rows in right.items()})
        found = summarize(trials, correct=correct, confidence=note_look(folder, seeds, None))
        later = summarize(trials, correct=correct, confidence=next_confidence(folder))
        told.append(set(found["verdict"]))
        advice = next_step(found.assign(seeds_needed=later["seeds_needed"]), 1.0, "{seeds}")
        if ", about " not in advice:
            break
        seeds = int(advice.rpartition(" ")[2])
    return told


def share_as_advised(folder, studies: int, arms: int, photos: int) -> tuple[int, int, int]:
    """In how many null studies something was ever called a help; a help or a harm; and how many looks
    there were."""
    rng, found = np.random.default_rng(2), []
    for number in range(studies):
        (place := folder / str(number)).mkdir()
        found.append(verdicts_as_advised(null_study(rng, arms, 40, photos), place))
    erred = [set().union(*told) & {"helps", "hurts"} for told in found]
    return sum("helps" in one for one in erred), sum(map(bool, erred)), sum(map(len, found))


def test_who_adds_seeds_as_advised_is_rarely_misled(tmp_path, studies=40):
    helped, erred, looks = share_as_advised(tmp_path, studies, 6, 300)
    assert looks > studies  # the advice was given
    assert (helped <= stats.binom.ppf(0.999, studies, 0.05)
            and erred <= stats.binom.ppf(0.999, studies, 0.07))


@pytest.mark.slow
@pytest.mark.parametrize("arms, photos", [(6, 300), (6, 1500), (1, 1500)])
def test_the_error_with_added_seeds_is_7_percent_at_most(tmp_path, arms, photos, studies=1000):
    helped, erred, _ = share_as_advised(tmp_path, studies, arms, photos)
    assert helped / studies <= 0.05 and erred / studies <= 0.07
