"""What a study says in the end: the answer, what comes next, what to be wary of."""

import json

import numpy as np
import pandas as pd
import pytest
from made_up_trials import table, with_photos

from lessonkit.comparison import summarize
from lessonkit.study.answer import bottom_line, next_step, warnings_of
from lessonkit.study.rival import with_rival
from lessonkit.study.tables import format_table, sentences


def studied(gains: dict[str, float], seeds: int = 6, spread: float = 0.004,
            metric: str = "accuracy") -> pd.DataFrame:
    """The summary of a made-up study."""
    luck = np.linspace(-spread, spread, seeds)  # of the seeds, with a mean of 0
    trials = table({n: dict(enumerate(0.7 + gain + luck * (n != "baseline")))
                    for n, gain in gains.items()})
    summary = summarize(trials.assign(nll=trials["accuracy"]), metric=metric)
    summary.attrs["metric"] = metric
    return summary


def frozen(folder, accuracy: float, low: float) -> None:
    row = {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": accuracy + 0.02,
           "train_seconds": 42.0}
    (folder / "frozen.json").write_text(json.dumps(row | {"predict_seconds": 1.0, "pixels": 10}))


def test_the_rival_comes_first_where_it_is_beyond_what_was_trained(tmp_path):
    summary = studied({"baseline": 0, "mixup": 0.05})
    assert bottom_line(summary) == "On these photos: mixup (+5.0) helps."
    frozen(tmp_path, 0.9, 0.86)
    told = bottom_line(with_rival(summary, tmp_path))
    assert told.startswith("Start from a pretrained network: "
                           "its frozen features reach 90.0% in 42 s") and "than 75.0%" in told
    assert told.endswith("On these photos: mixup (+5.0) helps.")
    frozen(tmp_path, 0.76, 0.74)  # its interval holds what was trained
    assert bottom_line(with_rival(summary, tmp_path)) == "On these photos: mixup (+5.0) helps."


@pytest.mark.parametrize("metric, ends, first", [
    ("balanced_accuracy", (0.9, 0.86, 0.93), True), ("balanced_accuracy", (0.76, 0.74, 0.8), False),
    ("nll", (0.4, 0.3, 0.5), True), ("nll", (0.9, 0.86, 0.93), False), ("nll", (0.7, 0.6, 0.8), False),
])
def test_the_rival_comes_first_by_the_metric_that_is_compared(tmp_path, metric, ends, first):
    row = dict(zip((metric, f"{metric}_low", f"{metric}_high"), ends)) | {
        "train_seconds": 42.0, "predict_seconds": 1.0, "pixels": 10
    }
    (tmp_path / "frozen.json").write_text(json.dumps(row))
    luck = np.linspace(-0.004, 0.004, 6)
    trials = table({"baseline": dict(enumerate(0.7 + luck)), "mixup": dict(enumerate(0.75 + luck))})
    summary = with_rival(summarize(trials.assign(**{metric: trials["accuracy"]}), metric=metric),
                         tmp_path, metric)
    summary.attrs["metric"] = metric
    assert bottom_line(summary).startswith("Start from a pretrained network") == first
    assert summary["low"].iloc[0] == ends[1]


def test_with_another_metric_all_speaks_of_it():
    summary = studied({"baseline": 0, "mixup": -0.05}, metric="nll")  # a lower nll is better
    assert bottom_line(summary) == "On these photos: mixup (−0.050) helps."
    assert ("adds\n(nats)" not in format_table(summary) and "(nats)" in format_table(summary)
            and "%  " not in format_table(summary))
    assert sentences(summary)[0].startswith("mixup: helps. It adds −0.050 nats (95% interval −0.0")
    assert "−5.0" in format_table(studied({"baseline": 0, "mixup": -0.05}, metric="accuracy"))


def test_the_next_step_is_a_command_with_its_minutes():
    command = "lessonkit ablate photos --seeds {seeds}"
    first = studied({"baseline": 0, "mixup": 0.05}, seeds=2)
    assert (next_step(first, 40, command) == "3 more seeds for a verdict, about 2 min: "
            "lessonkit ablate photos --seeds 5")
    assert next_step(studied({"baseline": 0, "mixup": 0.05}), 40, command) == ""  # all is settled
    close = studied({"baseline": 0, "mixup": 0.006}, seeds=5, spread=0.01)
    needed = close.set_index("technique").loc["mixup", "seeds_needed"]
    assert (close["verdict"].iloc[1] == "can't tell"
            and f"--seeds {needed:.0f}" in next_step(close, 10, command))
    far = close.assign(seeds_needed=220.0)
    assert next_step(far, 10, command).startswith(
        "more seeds would hardly settle mixup"
    ) and "220" not in next_step(far, 10, command)
    assert "hardly settle" in next_step(close.assign(seeds_needed=np.inf), 10, command)


def test_a_baseline_that_learned_nothing_is_told(images, tmp_path):
    trials = table({"baseline": {0: 0.5, 1: 0.55}})
    found = warnings_of(images, trials, tmp_path)
    assert "learned next to nothing: 52.5% right, and 50.0%" in found[0]
    assert found[1] == "Too few validation photos to judge a class by itself: bright (4), dark (4)."
    assert "nothing" not in warnings_of(images, table({"baseline": {0: 0.99}}), tmp_path)[0]


@pytest.mark.parametrize("losses, told",
                         [([2.0, 1.5, 1.2], "fell by 20% in the last of 3"), ([2.0, 1.0, 0.95], ""),
                          ([1.0], "")])
def test_a_baseline_that_still_improves_fast_is_told(images, tmp_path, losses, told):
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks" / "baseline.json").write_text(json.dumps({"losses": losses}))
    found = " ".join(warnings_of(images, table({"baseline": {0: 0.99}}), tmp_path))
    assert told in found and ("improving fast" in found) == bool(told)


def test_the_rival_is_no_part_of_the_family(tmp_path):
    rng = np.random.default_rng(0)
    trials, correct = with_photos({name: rng.random((5, 200)) < 0.7 for name in ("baseline", "a", "b")})
    summary = summarize(trials, correct=correct)
    frozen(tmp_path, 0.9, 0.86)
    assert (with_rival(summary, tmp_path)[["low", "high"]].iloc[2:].to_numpy().tolist()
            == summary[["low", "high"]].iloc[1:].to_numpy().tolist())
