"""Comparisons: agreement with SciPy on any table, and verdicts that hold their promise."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lessonkit.comparison import (
    crossed_interval,
    holm,
    look_confidence,
    paired_interval,
    seeds_needed,
    summarize,
    verdict,
)
from lessonkit.study.ranking import (
    _interval,
    _weighted,
    cost_ratio,
    discrimination,
    interaction,
    rank_agreement,
)


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


def crossed_study(rng, n_seeds=5, n_photos=80, truth=0.0, seeds=0.05, photos=0.5, rest=0.5) -> np.ndarray:
    """Differences of a study in which both the seeds and the photos are drawn, (n_seeds, n_photos)."""
    parts = rng.normal(0, seeds, (n_seeds, 1)) + rng.normal(0, photos, n_photos) + rng.normal(0, rest, (n_seeds, n_photos))
    return truth + parts


@pytest.mark.parametrize("n_seeds, spreads", [(3, {}), (10, {}), (5, {"photos": 1.0}), (5, {"seeds": 0.2}), (5, {"photos": 0.0})])
def test_interval_over_seeds_and_photos_holds_the_truth_where_both_are_drawn(n_seeds, spreads):
    rng = np.random.default_rng(0)
    intervals = [crossed_interval(crossed_study(rng, n_seeds, truth=0.3, **spreads)) for _ in range(800)]
    assert 0.93 < np.mean([low <= 0.3 <= high for low, high in intervals]) < 0.995


def test_interval_over_seeds_and_photos_by_hand():
    """Two seeds (means 1/3, 0), three photos (1, 1/2, -1): mean squares 13/6 for photos, 7/6 for the rest, so that the
    variance of the mean is (13/6 - 7/6)/6 + 1/9 by photos and 1/36 by seeds; t(1) = 12.706, z = 1.960."""
    half = np.sqrt(12.7062**2 / 36 + 1.95996**2 * (1 / 6 + 1 / 9))
    assert crossed_interval([[1, 0, 0], [1, 1, -2]]) == pytest.approx((1 / 6 - half, 1 / 6 + half), rel=1e-4)
    for too_few in (np.ones((1, 5)), np.ones((5, 1))):
        assert np.isnan(crossed_interval(too_few)).all()
    assert paired_interval([1 / 3, 0]) == pytest.approx((1 / 6 - 12.7062 / 6, 1 / 6 + 12.7062 / 6), rel=1e-4)
    for confidence in (0, -0.1, 1.01, np.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            paired_interval([1, 2], confidence)
    assert paired_interval([1, 2], 1) == (-np.inf, np.inf)


@pytest.mark.parametrize("low, high, said", [
    (0.1, 0.2, "helps"), (-0.2, -0.1, "hurts"), (0, 0.2, "can't tell"), (-0.2, 0, "can't tell"), (-0.01, 0.01, "no difference beyond 0.01"),
    (-0.011, 0.01, "can't tell"), (-0.01, 0.011, "can't tell"), (0.1, np.inf, "can't tell"), (-np.inf, -0.1, "can't tell"), (np.nan, 0.2, "can't tell"),
])  # fmt: skip
def test_verdicts_at_the_edges(low, high, said):
    mirrored = {"helps": "hurts", "hurts": "helps"}
    assert verdict(low, high) == verdict(-high, -low, lower_is_better=True) == said
    assert verdict(low, high, lower_is_better=True) == mirrored.get(said, said)
    for margin in (-0.01, np.inf, np.nan):
        with pytest.raises(ValueError, match="margin must be a number, 0 or more"):
            verdict(low, high, margin)


def test_a_summary_by_hand():
    trials = table({"baseline": {0: 0.5, 1: 0.7, 2: 0.9}, "mixup": {0: 0.6, 1: 0.8, 5: 0.1}, "failed": {0: np.nan, 1: np.nan}})
    trials["train_seconds"] = [10.0, 20, 90, 33, 27, 500, 1, 1]
    trials["predict_seconds"] = [0.0, 0, 0, 1, 1, 1, 1, 1]  # how many times nothing is 1?
    rows = summarize(trials).set_index("technique")
    assert rows.index.tolist() == ["baseline", "mixup", "failed"]
    assert rows.columns.tolist() == [
        "size", "epochs", "recipe", "control", "seeds", "unpaired", "mean", "mean_control", "difference", "low", "high", "covers", "p", "p_holm",
        "verdict", "plain_verdict", "seeds_needed", "train_seconds", "train_seconds_ratio", "predict_seconds", "predict_seconds_ratio",
        "pixels", "pixels_ratio",
    ]  # fmt: skip
    own, row, failed = rows.loc["baseline"], rows.loc["mixup"], rows.loc["failed"]
    assert (own.recipe, own.seeds, own.unpaired, own.verdict, own.plain_verdict, own["size"], own.epochs) == ("baseline", 3, 0, *["reference"] * 2, 64, 5)
    assert (own["mean"], own.train_seconds) == pytest.approx((0.7, 40)) and pd.isna(own.control) and np.isnan(own.mean_control)
    assert (row.recipe, row.control, row.seeds, row.unpaired, row["size"], row.epochs) == ("mixup", "baseline", 2, 2, 64, 5)
    assert (row["mean"], row.mean_control, row.difference) == pytest.approx((0.7, 0.6, 0.1))
    assert (row.train_seconds, row.train_seconds_ratio, row.pixels_ratio) == pytest.approx((30, 2, 1)) and np.isnan(row.predict_seconds_ratio)
    assert (failed.seeds, failed.unpaired, failed.verdict) == (0, 3, "can't tell") and np.isnan(failed.difference)
    assert summarize(trials, setting=[]).columns[1] == "recipe"


def test_techniques_that_a_setting_lacks_take_no_line_from_those_after_them():
    small = table({"baseline": {0: 0.5, 1: 0.7}, "mixup": {0: 0.6, 1: 0.8}, "tta": {0: 0.6, 1: 0.8}}, size=32)
    both = pd.concat([small, table({"baseline": {0: 0.5, 1: 0.7}, "tta": {0: 0.6, 1: 0.8}}, size=64)])
    rows = summarize(both)
    assert list(zip(rows["size"], rows.technique)) == [
        (32, "baseline"), (32, "mixup"), (32, "tta"), (64, "baseline"), (64, "tta")
    ]  # fmt: skip


def test_verdicts_allow_for_the_number_of_lines_unless_told_otherwise():
    # differences 1 ± 0.2, three seeds: p = 2 P(t(2) > 8.66) = 0.013, which 1 line can have by chance, 5 lines can't
    lines = {f"t{i}": {0: 1.3, 1: 1.5, 2: 1.7} for i in range(5)}
    trials = table({"baseline": {0: 0.5, 1: 0.5, 2: 0.5}} | lines)
    careful, plain = summarize(trials), summarize(trials, holm=False)
    assert set(careful.verdict[1:]) == {"can't tell"} and set(plain.verdict[1:]) == {"helps"}
    assert careful.p[1] == pytest.approx(0.0131, abs=1e-4) and careful.p_holm[1] == pytest.approx(5 * careful.p[1])
    assert careful.attrs == {"holm": True} and plain.attrs == {"holm": False}


def test_what_clearly_helps_doesnt_make_it_easier_to_be_called_equal():
    # near: mean 0, standard error 0.00192, so it fits within ± 0.01 at p = 2 P(t(2) > 5.2) = 0.035: among two lines that isn't enough
    trials = table({
        "baseline": {0: 0.5, 1: 0.5, 2: 0.5}, "far": {0: 1.0, 1: 1.0001, 2: 0.9999}, "near": {0: 0.5 - 0.00333, 1: 0.5, 2: 0.5 + 0.00333},
    })  # fmt: skip
    assert summarize(trials).set_index("technique").verdict.to_dict() == {"baseline": "reference", "far": "helps", "near": "can't tell"}
    alone = summarize(trials[trials.technique != "far"])
    assert alone.verdict[1] == "no difference beyond 0.01"


@pytest.mark.parametrize("change, told", [
    (lambda right: right | {"mixup-1": right["mixup-1"][:-1]}, "'mixup-1' doesn't belong"),
    (lambda right: right | {"mixup-0": np.tile(right["mixup-0"], 2)}, "'mixup-1' doesn't belong"),  # the same share of other photos
    (lambda right: right | {"mixup-0": ~right["mixup-0"]}, "'mixup-0' doesn't belong"),
    (lambda right: {name: np.tile(row, 1 + name.startswith("mixup")) for name, row in right.items()}, "other photos: 10 and 20"),
])  # fmt: skip
def test_correctness_that_doesnt_fit_the_table_is_refused(change, told):
    right = np.arange(10) < 4
    trials, correct = with_photos({"baseline": np.stack([right] * 2), "mixup": np.stack([right] * 2)})
    summarize(trials, correct=correct)
    with pytest.raises(ValueError, match=told):
        summarize(trials, correct=change(correct))


# --- many techniques

def test_holms_adjusted_p_values_are_those_of_r():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # p.adjust(c(...), "holm")
    assert holm([0.4, 0.5, 0.01]) == pytest.approx([0.8, 0.8, 0.03])
    assert np.isnan(holm([np.nan, 0.01, np.nan])).tolist() == [True, False, True] and len(holm([])) == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1) | st.just(np.nan), max_size=8), st.sampled_from([0.01, 0.05, 0.2]))
def test_what_holm_leaves_below_alpha_is_what_the_stepwise_procedure_rejects(p_values, alpha):
    waiting, rejected = [i for i, p in enumerate(p_values) if not np.isnan(p)], set()
    while waiting and min(p_values[i] for i in waiting) * len(waiting) <= alpha:
        first = min(waiting, key=lambda i: p_values[i])
        rejected.add(first)
        waiting.remove(first)
    adjusted = holm(p_values)
    assert set(np.flatnonzero(adjusted <= alpha)) == rejected
    there = ~np.isnan(adjusted)
    assert (adjusted[there] >= np.array(p_values)[there]).all() and (adjusted[there] <= 1).all()


@pytest.mark.parametrize("wrong", [[1.2], [-0.1], [[0.1, 0.2]]])
def test_holm_refuses_what_are_no_p_values(wrong):
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm(wrong)


def with_photos(right: dict[str, np.ndarray]) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Trials and their correctness from `{technique: (n_seeds, n_photos)}`."""
    correct = {f"{name}-{seed}": row for name, rows in right.items() for seed, row in enumerate(rows)}
    trials = table({name: dict(enumerate(rows.mean(1))) for name, rows in right.items()})
    return trials.assign(id=trials.technique + "-" + trials.seed.astype(str)), correct


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.4]))
def test_p_belongs_to_the_interval_that_is_shown(seed, gain):
    rng = np.random.default_rng(seed)
    ease = rng.beta(2, 1, 150)
    chances = {"baseline": ease, "mixup": (ease + rng.normal(gain, 0.2, 150)).clip(0, 1)}
    trials, correct = with_photos({name: rng.random((4, 150)) < p for name, p in chances.items()})
    seeds, both = (summarize(trials, correct=c).iloc[1] for c in (None, correct))
    sides = [trials.accuracy[trials.technique == name].to_numpy() for name in ("mixup", "baseline")]
    assert seeds.p == pytest.approx(stats.ttest_rel(*sides).pvalue, rel=1e-6)
    assert both.p >= seeds.p - 1e-12  # the interval over photos too is never narrower
    if 1e-10 < both.p < 1:
        row = summarize(trials, correct=correct, confidence=1 - both.p).iloc[1]
        assert min(abs(row.low), abs(row.high)) == pytest.approx(0, abs=1e-6)


def test_p_of_a_difference_beyond_all_doubt_is_tiny_or_zero():
    sure = np.full((2, 5000), 0.9) + np.array([[-1e-9], [1e-9]])
    sure[:, ::2] += 0.01
    for right in sure, np.ones((2, 5000)):
        trials, correct = with_photos({"baseline": np.zeros((2, 5000)), "mixup": right})
        with np.errstate(all="raise"):
            row = summarize(trials, correct=correct).iloc[1]
        assert 0 <= row.p < 1e-8 and row.verdict == "helps"


def test_p_of_no_difference_at_all_is_one_and_of_a_difference_without_spread_zero():
    trials = table({"baseline": {0: 0.5, 1: 0.75}, "idle": {0: 0.5, 1: 0.75}, "sure": {0: 0.75, 1: 1.0}, "new": {1: 0.5}})
    rows = summarize(trials).set_index("technique")
    assert (rows.p["idle"], rows.p["sure"]) == (1, 0)
    assert rows.verdict.tolist() == ["reference", "no difference beyond 0.01", "helps", "can't tell"]
    assert rows.loc[["baseline", "new"], ["p", "p_holm", "seeds_needed"]].isna().all(axis=None)
    assert rows.p_holm["sure"] == 0 and rows.p_holm["idle"] == 1
    assert summarize(trials, margin=0).verdict[1] == "no difference beyond 0"


@settings(max_examples=50, deadline=None)
@given(accuracies, st.integers(0, 1000), st.sampled_from([0.002, 0.01, 0.05]))
def test_with_one_line_holm_changes_nothing(values, seed, margin):
    rng = np.random.default_rng(seed)
    other = np.array(values) + rng.normal(0.005, 0.01, len(values))
    rows = summarize(table({"baseline": dict(enumerate(values)), "mixup": dict(enumerate(other))}), margin=margin)
    assert rows.verdict[1] == rows.plain_verdict[1] == verdict(rows.low[1], rows.high[1], margin)
    assert rows.p_holm[1] == rows.p[1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 6), st.sampled_from([0.0, 0.004, 0.01]))
def test_verdicts_among_many_only_become_more_careful_and_the_seeds_needed_agree_with_them(seed, techniques, n_seeds, margin):
    rng = np.random.default_rng(seed)
    gains = rng.choice([0, 0.005, 0.02], techniques)
    base = rng.normal(0.7, 0.02, n_seeds)
    runs = {f"t{i}": dict(enumerate(base + gain + rng.normal(0, 0.003, n_seeds))) for i, gain in enumerate(gains)}
    trials = table({"baseline": dict(enumerate(base)), **runs})
    rows, plain = (summarize(trials, margin=margin, holm=by_holm).iloc[1:] for by_holm in (True, False))
    assert (rows.plain_verdict == plain.verdict).all() and (plain.plain_verdict == plain.verdict).all()
    assert ((rows.verdict == rows.plain_verdict) | (rows.verdict == "can't tell")).all()
    found = rows.verdict.isin(["helps", "hurts"])
    assert (found == (rows.plain_verdict.isin(["helps", "hurts"]) & (rows.p_holm <= 0.05))).all()
    assert np.allclose(rows.p_holm, holm(rows.p))
    for r in (rows, plain):
        assert ((r.verdict != "can't tell") == (r.seeds_needed <= r.seeds)).all()
    expected = [seeds_needed(trials.accuracy[trials.technique == name].to_numpy() - base, margin) for name in plain.technique]
    assert [n for n, v in zip(plain.seeds_needed, plain.verdict) if "no diff" not in v] == [
        n for n, v in zip(expected, plain.verdict) if "no diff" not in v
    ]


def share_of_tables(draw, words: tuple[str, ...], margin: float, n: int = 200) -> tuple[float, float]:
    """In how many tables one line at least says one of the words: by Holm's rule, and without it."""
    tables = [summarize(draw(), margin=margin).iloc[1:] for _ in range(n)]
    columns = "verdict", "plain_verdict"
    return tuple(np.mean([rows[column].str.startswith(words).any() for rows in tables]) for column in columns)


def draw_table(rng, gain: float) -> pd.DataFrame:
    """Six techniques that all have the same true difference, from five seeds."""
    runs = rng.normal(0.7, 0.01, (7, 5)) + gain * (np.arange(7) > 0)[:, None]
    return table({name: dict(enumerate(run)) for name, run in zip(["baseline", *"abcdef"], runs)})


def test_six_techniques_that_do_nothing_seldom_seem_to_do_something():
    rng = np.random.default_rng(0)
    by_holm, plain = share_of_tables(lambda: draw_table(rng, 0.0), ("helps", "hurts"), margin=0)
    assert by_holm <= stats.binom.ppf(0.999, 200, 0.05) / 200 < plain


def test_six_techniques_that_matter_just_so_much_are_seldom_called_equal():
    rng = np.random.default_rng(0)  # the margin is wide, so that the intervals fit inside
    by_holm, plain = share_of_tables(lambda: draw_table(rng, 0.05), ("no difference",), margin=0.05)
    assert by_holm <= stats.binom.ppf(0.999, 200, 0.025) / 200 < plain  # a half of 5 %: they lie beyond one end


# --- how many seeds

@pytest.mark.parametrize("half_width, expected", [(1.0, 7), (0.5, 18), (0.25, 64), (0.1, 387)])
def test_the_number_of_seeds_is_the_sample_size_of_students_interval(half_width, expected):
    # in standard deviations; t(6) = 2.447, t(17) = 2.110, t(63) = 1.998, t(386) = 1.966
    assert seeds_needed(half_width + np.array([-1.0, 0.0, 1.0]), margin=0) == expected
    assert seeds_needed(np.array([-1.0, 0.0, 1.0]), margin=half_width) == expected


@pytest.mark.parametrize("unit", [1e-3, 1, 1e3])
def test_the_number_of_seeds_does_not_depend_on_the_unit(unit):
    assert seeds_needed(unit * np.array([-0.5, 0.5, 1.5]), margin=0) == 18


def test_a_study_of_the_size_needed_settles_it_about_every_other_time():
    rng = np.random.default_rng(0)
    now = np.array([-0.01, 0.0, 0.01]) + 0.006
    needed = seeds_needed(now, margin=0)
    assert 3 < needed < 50

    def settled(n: int) -> float:
        ends = np.array([paired_interval(rng.normal(0.006, 0.01, n)) for _ in range(600)])
        return ((ends[:, 0] > 0) | (ends[:, 1] < 0)).mean()

    assert 0.4 < settled(needed) < 0.65
    assert settled(needed // 2) < 0.35 and settled(2 * needed) > 0.75


def test_more_seeds_shrink_their_own_part_only():
    rng = np.random.default_rng(1)
    study = crossed_study(rng, n_seeds=6, n_photos=400, truth=0.1, seeds=0.15, photos=0.6, rest=0.3)
    needed, for_these_photos = seeds_needed(study), seeds_needed(study.mean(1))
    assert for_these_photos < needed < 100

    def settled(n: int) -> float:
        """How often a study of that size is settled whose truth is what was found."""
        as_now = dict(truth=study.mean(), seeds=study.mean(1).std(ddof=1), photos=0.6, rest=0.3)
        return np.mean([crossed_interval(crossed_study(rng, n, 400, **as_now))[0] > 0 for _ in range(300)])

    assert 0.4 < settled(needed) < 0.65
    assert settled(for_these_photos) < 0.45


def test_where_the_photos_alone_reach_too_far_no_number_of_seeds_is_enough():
    photos = np.repeat([1.0, -1.0, 0.0], [6, 3, 41])  # mean 0.06, standard error 0.06
    noisy = np.tile(photos, (4, 1)) + np.array([-0.1, 0.1, -0.05, 0.05])[:, None]
    assert seeds_needed(noisy) == np.inf
    assert seeds_needed(noisy, margin=0.5) < np.inf  # but they do tell that it is no difference beyond 0.5
    assert seeds_needed(np.tile(noisy, (1, 16)), margin=0) < np.inf  # and more photos would help


def test_the_number_of_seeds_in_the_corners():
    assert np.isnan(seeds_needed([0.1])) and np.isnan(seeds_needed([]))
    assert seeds_needed([0.0, 0.0], margin=0) == 2  # no difference at all
    assert seeds_needed([0.3, 0.3]) == 2
    assert seeds_needed([0.1, 0.3], confidence=1) == np.inf  # no number of seeds makes sure of anything
    assert seeds_needed([-1.0, 1.0], margin=0) == np.inf  # its mean is zero, and nothing but zero is small enough
    for wrong in (dict(margin=-1), dict(margin=np.inf), dict(confidence=95), dict(confidence=2), dict(confidence=0), dict(differences=np.zeros((2, 2, 2)))):
        with pytest.raises(ValueError, match="must"):
            seeds_needed(**({"differences": [0.1, 0.2]} | wrong))


# --- looking again

def test_what_is_spent_is_what_the_published_functions_say():
    # two-sided 5 %, five equal looks: cumulative error as printed by the program of Reboussin et al. 2000
    looks = look_confidence([2, 4, 6, 8, 10], planned=10)
    assert np.cumsum(1 - np.array(looks)) == pytest.approx([1.08e-6, 7.88e-4, 0.00762, 0.0244, 0.05], rel=5e-3)
    pocock = look_confidence([2, 4, 6, 8, 10], planned=10, spending="pocock")
    assert stats.norm.isf((1 - pocock[0]) / 2) == pytest.approx(2.438, abs=1e-3)  # the first bound of their table
    assert sum(1 - c for c in pocock) == pytest.approx(0.05)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(2, 40), min_size=1), st.integers(40, 60), st.sampled_from(["obrien-fleming", "pocock"]))
def test_looks_spend_alpha_at_most_and_later_ones_change_nothing_before(seeds, planned, spending):
    seeds = sorted(seeds)
    looks = look_confidence(seeds, planned, 0.9, spending)
    assert sum(1 - c for c in looks) <= 0.1 + 1e-12 and all(0.9 - 1e-12 <= c <= 1 for c in looks)
    assert look_confidence(seeds[:1], planned, 0.9, spending) == looks[:1]
    assert sum(1 - c for c in look_confidence([*seeds[:-1], planned], planned, 0.9, spending)) == pytest.approx(0.1)


@pytest.mark.parametrize("looks", [(3, 5, 10), (2, 3, 4, 5), tuple(range(3, 13))])
@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_looking_again_keeps_the_promise_that_naive_looking_breaks(looks, spending):
    rng = np.random.default_rng(0)
    studies = rng.normal(0, 1, (20_000, looks[-1]))
    p_values = [stats.ttest_1samp(studies[:, :n], 0, axis=1).pvalue for n in looks]
    spent = look_confidence(looks, looks[-1], spending=spending)
    found = [np.mean(np.any([p <= 1 - c for p, c in zip(p_values, levels)], axis=0)) for levels in (spent, [0.95] * len(looks))]
    assert found[0] < 0.054 and found[1] > 0.1


def test_looking_again_keeps_the_promise_with_photos_and_many_techniques():
    rng = np.random.default_rng(0)
    looks, n, photos = (3, 5, 8), 100, 60
    levels = look_confidence(looks, 8)
    found = []
    for _ in range(n):
        ease = rng.beta(2, 2, photos)
        noisy = {t: (rng.random((8, photos)) < ease) for t in ("baseline", "a", "b", "c")}  # all equally good
        trials, correct = with_photos(noisy)
        tables = [summarize(trials[trials.seed < k], correct=correct, confidence=c, margin=0) for k, c in zip(looks, levels)]
        found.append(any(rows.verdict.isin(["helps", "hurts"]).any() for rows in tables))
    assert np.sum(found) <= stats.binom.ppf(0.999, n, 0.05)


@pytest.mark.parametrize("wrong", [
    dict(look_seeds=[]), dict(look_seeds=[1, 3]), dict(look_seeds=[3, 3]), dict(look_seeds=[3, 11]), dict(look_seeds=[np.nan]),
    dict(spending="all"), dict(confidence=95), dict(confidence=0), dict(confidence=1),
])  # fmt: skip
def test_looks_without_a_plan_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        look_confidence(**({"look_seeds": [3, 5], "planned": 10} | wrong))


def test_an_early_look_whose_confidence_rounds_to_one_cant_tell():
    trials = table({"baseline": {0: 0.5, 1: 0.52, 2: 0.5}, "mixup": {0: 0.9, 1: 0.91, 2: 0.9}})
    rows = summarize(trials, confidence=look_confidence([3], planned=1000)[-1])
    assert rows.verdict[1] == "can't tell" and rows.seeds_needed[1] == np.inf
    with pytest.raises(ValueError, match="between 0 and 1"):
        summarize(trials, confidence=95)


# --- two techniques together

FOUR = {
    "baseline": {0: 0.70, 1: 0.72, 2: 0.74},
    "a": {0: 0.73, 1: 0.74, 2: 0.78},  # +3, +2, +4
    "b": {0: 0.72, 1: 0.74, 2: 0.76},  # +2 each
    "ab": {0: 0.74, 1: 0.75, 2: 0.79},  # +4, +3, +5: over the sum -1, -1, -1 and so surely
}


def test_interaction_of_worked_numbers():
    rows = interaction(table(FOUR), "a", "b", "ab").set_index("effect")
    assert rows.index.tolist() == ["a alone", "a with b on", "b alone", "b with a on", "together minus the sum of both"]
    assert rows.difference.tolist() == pytest.approx([0.03, 0.02, 0.02, 0.01, -0.01])
    # a alone: standard deviation 0.01, three seeds, t(2) = 4.303
    assert rows.loc["a alone", ["low", "high"]].tolist() == pytest.approx([0.03 - 0.02484, 0.03 + 0.02484], abs=1e-5)
    assert rows.low["together minus the sum of both"] == pytest.approx(-0.01) == rows.high["together minus the sum of both"]
    assert (rows.seeds == 3).all() and rows.verdict["a alone"] == "helps"
    strict = interaction(table(FOUR), "a", "b", "ab", margin=0.005).set_index("effect")
    assert strict.verdict["together minus the sum of both"] == "hurts"
    pd.testing.assert_frame_equal(interaction(table(FOUR), "a", "b", "ab", setting=[]).set_index("effect"), rows.drop(columns=["size", "epochs"]))
    swapped = interaction(table(FOUR), "b", "a", "ab").difference
    assert swapped.tolist() == pytest.approx(rows.difference.iloc[[2, 3, 0, 1, 4]].tolist())


def test_interaction_takes_the_seeds_and_settings_that_all_four_have():
    extra = table({"a": {3: 0.1, 4: 0.9}, "ab": {3: 0.2}})
    other = table({**FOUR, "ab": {s: v + 0.02 for s, v in FOUR["ab"].items()}}, size=128)
    lonely = table({"baseline": {0: 0.5}, "a": {0: 0.6}}, size=32)
    rows = interaction(pd.concat([table(FOUR), extra, other, lonely]).sample(frac=1, random_state=0), "a", "b", "ab")
    assert rows["size"].tolist() == [64] * 5 + [128] * 5
    pd.testing.assert_frame_equal(rows[:5], interaction(table(FOUR), "a", "b", "ab"))
    assert rows.difference.iloc[9] == pytest.approx(0.01)
    with pytest.raises(ValueError, match="all four of a, b, none, baseline"):
        interaction(table(FOUR), "a", "b", "none")


def test_an_effect_alone_is_the_line_of_the_summary_with_and_without_photos():
    rng = np.random.default_rng(0)
    ease = {"baseline": 0.5, "a": 0.6, "b": 0.55, "ab": 0.7}
    trials, correct = with_photos({name: rng.random((4, 200)) < p for name, p in ease.items()})
    pairs = {"a alone": ("a", "baseline"), "a with b on": ("ab", "b"), "b alone": ("b", "baseline"), "b with a on": ("ab", "a")}
    columns = ["difference", "low", "high", "p", "seeds"]
    for known, covers in ((correct, "seeds and photos"), (None, "seeds")):
        rows = interaction(trials, "a", "b", "ab", correct=known).set_index("effect")
        lines = summarize(trials, pairs=pairs, correct=known).set_index("technique").loc[list(pairs)]
        assert np.allclose(rows.loc[list(pairs), columns].astype(float), lines[columns].astype(float))
        assert (rows.covers == covers).all()
    sides = {name: np.stack([correct[f"{name}-{s}"] for s in range(4)]).astype(float) for name in ease}
    by_photo = sides["ab"] - sides["a"] - sides["b"] + sides["baseline"]
    last = interaction(trials, "a", "b", "ab", correct=correct).iloc[-1]
    assert (last.low, last.high) == pytest.approx(crossed_interval(by_photo))
    some = {name: right for name, right in correct.items() if name != "b-2"}
    assert set(interaction(trials, "a", "b", "ab", correct=some).covers) == {"seeds"}  # all rows alike


def test_interaction_of_losses_is_better_when_lower():
    trials = table(FOUR).assign(nll=lambda t: 1 - t.accuracy)
    assert interaction(trials, "a", "b", "ab", metric="nll").verdict[0] == "helps"


# --- the order of techniques, and whether they can be told apart

def trials_of(values, names=None) -> pd.DataFrame:
    """Trials from rows of seeds and columns of techniques, in a random order of rows."""
    names = names or [f"t{i}" for i in range(np.shape(values)[1])]
    rows = [{"technique": t, "seed": s, "accuracy": v} for s, row in enumerate(values) for t, v in zip(names, row)]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


tables = st.integers(2, 5).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 6).map(float), min_size=k, max_size=k), min_size=2, max_size=5)
)


@settings(max_examples=60, deadline=None)
@given(tables, st.randoms(use_true_random=False))
def test_tau_is_scipys_of_the_means_whatever_the_order_of_rows(values, random):
    whole = np.array(values)
    subset = np.array([random.sample(row, len(row)) for row in values])
    found = rank_agreement(trials_of(whole), trials_of(subset), draws=20)
    sums = whole.sum(0), subset.sum(0)  # of small whole numbers, so that ties are exact
    assert found.tau == pytest.approx(stats.kendalltau(*sums).statistic, nan_ok=True)
    again = rank_agreement(trials_of(whole).sort_values("accuracy"), trials_of(subset).sort_values("seed"), draws=20)
    assert np.allclose(found, again, equal_nan=True)
    swapped = rank_agreement(trials_of(subset), trials_of(whole), draws=20)
    assert swapped.tau == pytest.approx(found.tau, nan_ok=True)


def test_tau_counts_pairs_as_a_person_would():
    # one of the six pairs is the other way round: (5 - 1) / 6
    whole, subset = [[0.70, 0.72, 0.74, 0.78]], [[0.50, 0.55, 0.53, 0.60]]
    assert rank_agreement(trials_of(whole), trials_of(subset)).tau == pytest.approx(4 / 6)
    # a tie on one side: (5 - 0) / sqrt(5 * 6)
    assert rank_agreement(trials_of(whole), trials_of([[0.5, 0.5, 0.55, 0.6]])).tau == pytest.approx(5 / 30**0.5)
    # the means decide, not the single seeds: means .1, .2 against .2, .1
    assert rank_agreement(trials_of([[0, 0.1], [0.2, 0.3]]), trials_of([[0.4, 0.1], [0, 0.1]])).tau == -1


def test_clear_orders_agree_wholly_and_reversed_ones_not_at_all():
    values = np.array([[0.1, 0.5, 0.3, 0.8], [0.2, 0.6, 0.4, 0.9], [0.0, 0.4, 0.2, 0.7]])
    assert rank_agreement(trials_of(values), trials_of(values / 3)) == (1, 1, 1, 1, 1, 1)
    assert rank_agreement(trials_of(values), trials_of(-values)) == (-1, -1, -1, 1, 1, 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_what_a_seed_adds_to_all_techniques_changes_neither_order_nor_clarity(seed):
    rng = np.random.default_rng(seed)
    values, shift = rng.normal(0, 1, (4, 5)), rng.normal(0, 1, (4, 1))
    whole = rng.normal(0, 1, (3, 5))
    plain, shifted = (rank_agreement(trials_of(whole), trials_of(v), draws=200) for v in (values, values + shift))
    assert np.allclose(plain, shifted)
    assert np.allclose(discrimination(trials_of(values)), discrimination(trials_of(values + shift)))


def test_the_ceiling_is_low_where_techniques_are_equal_and_high_where_they_differ():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, (30, 6, 5))
    equal = [rank_agreement(trials_of(n), trials_of(n), draws=200).ceiling for n in noise]
    differ = [rank_agreement(trials_of(n + 0.1 * np.arange(5)), trials_of(n), draws=200).ceiling for n in noise]
    assert abs(np.mean(equal)) < 0.15 and np.mean(differ) == 1


def test_the_ceiling_of_two_seeds_is_their_tau():
    values = np.array([[0.1, 0.2, 0.3], [0.1, 0.3, 0.2]])
    found = rank_agreement(trials_of(values), trials_of(values))
    assert found[3:] == pytest.approx([1 / 3] * 3)


def test_the_interval_holds_what_other_seeds_give():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        gain = rng.normal(0, 0.02, 6)
        studies = [trials_of(gain + rng.normal(0, 0.01, (6, 6))) for _ in range(4)]
        found, other = rank_agreement(*studies[:2], draws=400), rank_agreement(*studies[2:], draws=1).tau
        held.append(found.low - 1e-9 <= other <= found.high + 1e-9)
        assert -1 <= found.low <= found.high <= 1
    assert np.mean(held) > 0.9


def test_the_middle_95_percent_of_draws_without_those_that_are_nan():
    assert _interval(np.append(np.arange(101.0), np.nan)) == pytest.approx((2.5, 97.5))
    assert np.isnan(_interval(np.array([np.nan]))).all()


def test_one_seed_gives_no_interval_and_a_constant_table_no_order():
    values = np.array([[0.1, 0.2, 0.3], [0.2, 0.2, 0.4]])
    one = rank_agreement(trials_of(values), trials_of(values[:1]))
    assert one.tau == 1 and np.isnan(one.low) and np.isnan(one.high) and np.isfinite(one.ceiling)
    two = rank_agreement(trials_of(values), trials_of(values))
    assert np.isfinite(two).all() and two.low < two.high == 1  # two seeds: one whose order has a tie, one without
    assert np.isnan(rank_agreement(trials_of(values[:1]), trials_of(values))[1:]).all()
    assert np.isnan(rank_agreement(trials_of(values), trials_of(np.ones((2, 3)))).tau)


def test_seeds_that_a_technique_lacks_are_left_out_for_all():
    values = np.array([[0.1, 0.2, 0.3], [0.2, 0.3, 0.4], [0.9, 0.1, 0.2]])
    trials = trials_of(values)
    gap = trials[(trials.technique != "t2") | (trials.seed != 2)]
    two = trials[trials.seed != 2]
    assert rank_agreement(gap, trials) == rank_agreement(two, trials)
    failed = trials.assign(accuracy=trials.accuracy.where((trials.technique != "t2") | (trials.seed != 2)))
    assert discrimination(gap) == discrimination(failed) == discrimination(two)


@pytest.mark.parametrize("change, told", [
    (lambda t: t[t.technique != "t1"], "'whole' have t1"),
    (lambda t: t.drop(columns="seed"), "no column"),
    (lambda t: pd.concat([t, t]), "more than once"),
    (lambda t: t.assign(epochs=np.arange(len(t))), "several settings"),
    (lambda t: t.assign(size=np.arange(len(t))), "several settings"),
    (lambda t: t[(t.technique == "t0") != (t.seed == 0)], "no seed that every technique"),
])  # fmt: skip
def test_tables_that_cant_be_compared_are_refused(change, told):
    trials = trials_of(np.arange(6.0).reshape(2, 3))
    with pytest.raises(ValueError, match=told):
        rank_agreement(trials, change(trials))
    if "'whole'" not in told:
        with pytest.raises(ValueError, match=told):
            rank_agreement(change(trials), trials)


def test_techniques_that_only_the_subset_has_are_refused_and_one_setting_is_fine():
    trials = trials_of(np.arange(6.0).reshape(2, 3))
    with pytest.raises(ValueError, match="'subset' have t1"):
        rank_agreement(trials[trials.technique != "t1"], trials)
    assert rank_agreement(trials.assign(size=64, epochs=5), trials).tau == 1
    with pytest.raises(ValueError, match=r"whole has trials of several settings, size \[32, 64\]"):
        rank_agreement(trials.assign(size=[32, 64] * 3), trials)
    with pytest.raises(ValueError, match=r"subset has no seed .*'t0': 1, 't1': 1, 't2': 1"):
        rank_agreement(trials, trials[(trials.technique == "t0") != (trials.seed == 0)])


def test_one_technique_has_no_order():
    trials = trials_of([[1.0], [2.0]])
    with pytest.raises(ValueError, match="two techniques"):
        rank_agreement(trials, trials)
    with pytest.raises(ValueError, match="two techniques"):
        discrimination(trials)
    with pytest.raises(ValueError, match="between 0 and 1"):
        discrimination(trials_of([[1.0, 2.0]]), confidence=95)
    for wrong in 0, 1:
        with pytest.raises(ValueError, match="between 0 and 1"):
            discrimination(trials_of([[1.0, 2.0]]), confidence=wrong)
    with pytest.raises(ValueError, match="The table has trials of several settings"):
        discrimination(trials_of([[1.0, 2.0]]).assign(size=[32, 64]))


def test_f_of_worked_numbers():
    # means of techniques 61, 64, 67: 2 * 9 between; what is left sums to 4 with 2 degrees of freedom
    found = discrimination(trials_of([[60, 62, 67], [62, 66, 67]]))
    assert (found.f, found.p, found.pairs) == (pytest.approx(9), pytest.approx(0.1), 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 6))
def test_f_is_that_of_a_linear_model_with_techniques_and_seeds(seed, n_seeds, n_techniques):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, (n_seeds, n_techniques)) + rng.normal(0, 1, n_techniques)
    rows, columns = np.divmod(np.arange(values.size), n_techniques)
    seeds, techniques = np.eye(n_seeds)[rows], np.eye(n_techniques)[columns][:, 1:]

    def left(design):
        return np.linalg.lstsq(design, values.ravel(), rcond=None)[1][0]

    whole, small = left(np.hstack([seeds, techniques])), left(seeds)
    freedom = (n_techniques - 1) * (n_seeds - 1)
    f = (small - whole) / (n_techniques - 1) / (whole / freedom)
    found = discrimination(trials_of(values))
    assert found.f == pytest.approx(f) and found.p == pytest.approx(stats.f.sf(f, n_techniques - 1, freedom))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.sampled_from([0.9, 0.95, 0.99]))
def test_pairs_told_apart_are_those_of_holms_procedure(seed, n_techniques, confidence):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 0.5, (5, n_techniques)) + rng.normal(0, 1, n_techniques)
    pairs = [(i, j) for i in range(n_techniques) for j in range(i)]
    p_values = sorted(stats.ttest_rel(values[:, i], values[:, j]).pvalue for i, j in pairs)
    told = next((k for k, p in enumerate(p_values) if p > (1 - confidence) / (len(pairs) - k)), len(pairs))
    found = discrimination(trials_of(values), confidence=confidence)
    assert found.told_apart == pytest.approx(told / len(pairs)) and found.pairs == len(pairs)


def test_equal_techniques_are_seldom_told_apart():
    rng = np.random.default_rng(0)
    found = [discrimination(trials_of(rng.normal(0, 1, (4, 5)))) for _ in range(300)]
    assert np.mean([f.told_apart > 0 for f in found]) < 0.08
    assert 0.02 < np.mean([f.p < 0.05 for f in found]) < 0.08


def test_discrimination_without_noise_and_without_difference():
    assert discrimination(trials_of([[0.1, 0.2, 0.4], [0.3, 0.4, 0.6]])) == (np.inf, 0, 1, 3)
    same = discrimination(trials_of([[0.1, 0.1], [0.3, 0.3]]))
    assert np.isnan(same.f) and same.told_apart == 0
    one = discrimination(trials_of([[0.1, 0.2]]))
    assert np.isnan([one.f, one.p, one.told_apart]).all() and one.pairs == 1


def lengths(technique: str, curve: dict[int, tuple[float, float]], seeds=range(3), noise: float = 0.0) -> pd.DataFrame:
    """Trials of several lengths: `{epochs: (seconds, accuracy)}`, the same for all seeds but for some noise."""
    rng = np.random.default_rng(0)
    rows = [(technique, seed, n, cost, result + noise * rng.normal()) for seed in seeds for n, (cost, result) in curve.items()]
    return pd.DataFrame(rows, columns=["technique", "seed", "epochs", "train_seconds", "accuracy"])


SLOW = {5: (100, 0.6), 10: (200, 0.7)}


def test_a_technique_twice_as_fast_needs_half_wherever_it_is_measured():
    quick = {2: (20, 0.6 - 0.1 * np.log2(2.5)), 4: (40, 0.6 - 0.1 * np.log2(1.25)), 8: (80, 0.6 + 0.1 * np.log2(1.6))}
    trials = pd.concat([lengths("slow", SLOW), lengths("quick", quick)])
    found = cost_ratio(trials.sample(frac=1, random_state=0), "quick", "slow", at=5)
    assert found == pytest.approx((0.5, 0.5, 0.5, False))
    assert cost_ratio(trials.assign(train_seconds=7 * trials["train_seconds"]), "quick", "slow", at=5).ratio == pytest.approx(0.5)


def test_the_baseline_needs_all_of_its_own_cost():
    trials = lengths("slow", SLOW)
    assert cost_ratio(trials, "slow", "slow", at=10)[:3] == pytest.approx((1, 1, 1))


def test_what_is_never_reached_costs_without_end_and_what_is_reached_at_once_at_most_so_much():
    trials = pd.concat([lengths("slow", SLOW), lengths("poor", {5: (50, 0.5), 10: (90, 0.55)}), lengths("good", {1: (30, 0.8)})])
    assert cost_ratio(trials, "poor", "slow", at=5) == (np.inf, np.inf, np.inf, False)
    assert cost_ratio(trials, "good", "slow", at=5) == pytest.approx((0.3, 0.3, 0.3, True))


def test_the_interval_holds_the_ratio_and_seeds_that_only_one_side_has_are_left_out():
    quick = {4: (50, 0.55), 8: (100, 0.65)}
    trials = pd.concat([lengths("slow", SLOW, range(8), 0.01), lengths("quick", quick, range(8), 0.01)])
    found = cost_ratio(trials, "quick", "slow", at=5)
    assert 0.5 < found.low < found.ratio < found.high < 1
    alone = pd.concat([trials, lengths("quick", {4: (1, 0.99), 8: (2, 0.99)}, [8, 9])])
    assert cost_ratio(alone, "quick", "slow", at=5) == found


def test_a_length_that_few_seeds_have_still_counts():
    trials = pd.concat([lengths("slow", SLOW), lengths("quick", {4: (50, 0.55)}), lengths("quick", {8: (100, 0.65)}, [1])])
    assert cost_ratio(trials, "quick", "slow", at=5).ratio == pytest.approx(np.sqrt(50 * 100) / 100)


def test_the_interval_of_a_cost_ratio_by_hand():
    """Two seeds, both as good at once, at a quarter and at half of the cost. A draw of two is one of them alone (chance 1/4 each), or both."""
    slow, curve = lengths("slow", {5: (100, 0.6)}, range(2)), [(25, 0.6), (50, 0.6)]
    quick = pd.concat([lengths("quick", {1: point}, [seed]) for seed, point in enumerate(curve)])
    found = cost_ratio(pd.concat([slow, quick]), "quick", "slow", at=5)
    assert found == pytest.approx((0.375, 0.25, 0.5, True))
    assert cost_ratio(pd.concat([slow, quick]), "quick", "slow", at=5, confidence=0.4)[:3] == pytest.approx((0.375,) * 3)
    one = cost_ratio(pd.concat([slow, quick[quick.seed == 0]]), "quick", "slow", at=5)
    assert one.ratio == pytest.approx(0.25) and np.isnan(one.low) and np.isnan(one.high)
    # where only the second seed was trained long enough to get there, the first alone never does
    late = pd.concat([lengths("quick", {1: (25, 0.5)}, range(2)), lengths("quick", {2: (50, 0.7)}, [1])])
    assert cost_ratio(pd.concat([slow, late]), "quick", "slow", at=5).high == np.inf
    for _ in range(20):  # means of no seed at all: not what memory happens to hold
        assert np.isnan(_weighted(np.array([[1.0] + [np.nan] * 99]), np.array([1]))).sum() == 99


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(technique="none"), "no trials of none"),
        (dict(baseline="none"), "none of none with epochs = 5"),
        (dict(at=7), "none of slow with epochs = 7"),
        (dict(cost="euros"), "no column 'euros'"),
        (dict(baseline="other"), "no seed in common"),
    ],
)
def test_a_cost_ratio_that_cant_be_had_is_refused(change, told):
    trials = pd.concat([lengths("slow", SLOW), lengths("quick", SLOW), lengths("other", SLOW, [7])])
    with pytest.raises(ValueError, match=told):
        cost_ratio(trials, **(dict(technique="quick", baseline="slow", at=5) | change))
