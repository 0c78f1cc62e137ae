"""Comparisons: agreement with SciPy on any table, and verdicts that hold their promise."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lessonkit.comparison import crossed_interval, paired_interval, summarize, verdict


def table(accuracies: dict, size: int = 64, epochs: int = 5) -> pd.DataFrame:
    """A table of trials from `{technique: {seed: accuracy}}`."""
    return pd.DataFrame(
        [
            {"technique": name, "seed": seed, "size": size, "epochs": epochs, "accuracy": accuracy,
             "train_seconds": 10.0, "predict_seconds": 1.0, "pixels": 100}
            for name, seeds in accuracies.items()
            for seed, accuracy in seeds.items()
        ]
    )  # fmt: skip


accuracies = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=12)


@settings(max_examples=50, deadline=None)
@given(accuracies, st.randoms())
def test_interval_is_that_of_the_paired_t_test_in_any_order_of_rows(values, random):
    rng = np.random.default_rng(random.randrange(1000))
    with_it = dict(enumerate(values))
    without = {seed: float(np.clip(v + rng.normal(0, 0.05), 0, 1)) for seed, v in with_it.items()}
    trials = table({"baseline": without, "mixup": with_it})
    row = summarize(trials.sample(frac=1, random_state=1)).set_index("technique").loc["mixup"]
    expected = stats.ttest_rel(list(with_it.values()), list(without.values())).confidence_interval()
    assert np.allclose([row.low, row.high], [expected.low, expected.high], atol=1e-9)
    assert row.difference == pytest.approx(row["mean"] - row.mean_control)


@settings(max_examples=30, deadline=None)
@given(accuracies)
def test_swapping_the_sides_mirrors_everything(values):
    trials = table({"a": dict(enumerate(values)), "b": dict(enumerate(values[::-1]))})
    rows = summarize(trials, baseline="a", pairs={"ab": ("a", "b"), "ba": ("b", "a")}).set_index("technique")
    assert np.allclose(rows.loc["ab", ["difference", "low", "high"]].astype(float),
                       -rows.loc["ba", ["difference", "high", "low"]].astype(float))  # fmt: skip
    mirrored = {"helps": "hurts", "hurts": "helps"}
    assert rows.verdict["ba"] == mirrored.get(rows.verdict["ab"], rows.verdict["ab"])


def test_one_seed_says_nothing():
    row = summarize(table({"baseline": {0: 0.5}, "mixup": {0: 0.9}})).set_index("technique").loc["mixup"]
    assert row.verdict == "can't tell" and np.isnan(row.low) and np.isnan(row.high)
    assert row.difference == pytest.approx(0.4)


def test_seeds_without_partner_are_left_out_and_counted():
    trials = table({"baseline": {0: 0.5, 1: 0.6, 2: 0.9}, "mixup": {0: 0.6, 1: 0.7, 7: 0.1, 8: 0.1}})
    row = summarize(trials).set_index("technique").loc["mixup"]
    assert (row.seeds, row.unpaired) == (2, 3)
    assert row.difference == pytest.approx(0.1)


def test_other_sizes_and_epochs_are_never_paired():
    trials = pd.concat([table({"baseline": {0: 0.5, 1: 0.5}}), table({"mixup": {0: 0.9, 1: 0.9}}, size=32)])
    rows = summarize(trials)
    assert not ((rows.technique == "mixup") & (rows.seeds > 0)).any()


def test_no_effect_is_found_in_at_most_about_five_of_a_hundred_studies():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        base, same = rng.normal(0.7, 0.02, (2, 5))
        found.append(summarize(table({"baseline": dict(enumerate(base)), "same": dict(enumerate(same))})).verdict[1])
    assert found.count("helps") + found.count("hurts") < 0.08 * len(found)


def test_interval_over_seeds_and_photos_holds_the_truth_for_new_photos():
    rng = np.random.default_rng(0)
    held, narrow_held, n = 0, 0, 400
    for _ in range(n):  # seeds agree almost wholly, so that all chance is in the photos
        gain = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=200)
        differences = np.tile(gain, (6, 1)) * (rng.random((6, 200)) < 0.95)
        (low, high), (narrow_low, narrow_high) = crossed_interval(differences), paired_interval(differences.mean(1))
        held += low <= 0.095 <= high
        narrow_held += narrow_low <= 0.095 <= narrow_high
    assert held / n > 0.93
    assert narrow_held / n < 0.8  # seeds alone promise too much


def test_photos_are_covered_only_where_every_trial_has_its_correctness():
    rng = np.random.default_rng(0)
    correct = {f"{t}-{s}": rng.random(100) < 0.6 for t in ("baseline", "mixup") for s in range(3)}
    trials = pd.DataFrame(
        [{"id": i, "technique": i[:-2], "seed": int(i[-1]), "size": 64, "epochs": 5, "accuracy": r.mean()}
         for i, r in correct.items()]
    )  # fmt: skip
    assert summarize(trials, correct=correct).covers[1] == "seeds and photos"
    assert summarize(trials, correct={k: v for k, v in correct.items() if k != "mixup-1"}).covers[1] == "seeds"
    assert summarize(trials).covers[1] == "seeds"


def test_losses_are_better_when_lower():
    trials = table({"baseline": dict(enumerate([0.5, 0.51, 0.52])), "mixup": dict(enumerate([0.4, 0.41, 0.42]))})
    trials["nll"] = trials["accuracy"]
    assert summarize(trials).verdict[1] == "hurts"
    assert summarize(trials, metric="nll").verdict[1] == "helps"


@pytest.mark.parametrize("margin", [0, 0.005, 0.02])
def test_margin_decides_what_counts_as_no_difference(margin):
    expected = "no difference beyond 0.02" if margin == 0.02 else "helps"
    assert verdict(0.008, 0.012, margin) == expected


def test_a_table_with_no_trials_gives_a_table_with_no_rows():
    assert len(summarize(table({"baseline": {0: 0.5}}).iloc[:0])) == 0
