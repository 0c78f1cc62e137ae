"""Comparisons: agreement with SciPy on any table, and verdicts that hold their promise."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_trials import table, with_photos
from scipy import stats

from lessonkit.comparison import (
    crossed_interval, estimate, look_confidence, paired_interval, seeds_needed, summarize, verdict,
)


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
    rows = summarize(trials, baseline="a",
                     pairs={"ab": ("a", "b"), "ba": ("b", "a")}).set_index("technique")
    assert np.allclose(rows.loc["ab", ["difference", "low", "high"]].astype(float),
                       -rows.loc["ba", ["difference", "high", "low"]].astype(float))
    mirrored = {"helps": "hurts", "hurts": "helps"}
    assert rows.verdict["ba"] == mirrored.get(rows.verdict["ab"], rows.verdict["ab"])


def test_one_seed_says_nothing():
    row = summarize(table({"baseline": {0: 0.5}, "mixup": {0: 0.9}})).set_index("technique").loc["mixup"]
    assert row.verdict == "first look" and np.isnan(row.low) and np.isnan(row.high)
    assert row.difference == pytest.approx(0.4)


@pytest.mark.parametrize("seeds, said",
                         [(2, "first look"), (3, "first look"), (4, "first look"), (5, "helps"),
                          (10, "helps")])
def test_fewer_than_five_seeds_give_an_interval_and_no_verdict(seeds, said):
    trials = table({"baseline": {s: 0.5 + 0.001 * s for s in range(seeds)},
                    "mixup": {s: 0.9 - 0.001 * s for s in range(seeds)}})
    row = summarize(trials).iloc[1]
    assert row.verdict == said and row.low > 0.3 and row.high < 0.5
    assert row.seeds_needed == (5 if seeds < 5 else row.seeds_needed) and (said == "first look") == (
        row.seeds_needed > seeds
    )


def test_seeds_without_partner_are_left_out_and_counted():
    trials = table({"baseline": {0: 0.5, 1: 0.6, 2: 0.9}, "mixup": {0: 0.6, 1: 0.7, 7: 0.1, 8: 0.1}})
    row = summarize(trials).set_index("technique").loc["mixup"]
    assert (row.seeds, row.unpaired) == (2, 3)
    assert row.difference == pytest.approx(0.1)


def test_other_sizes_and_epochs_are_never_paired():
    trials = pd.concat([table({"baseline": {0: 0.5, 1: 0.5}}),
                        table({"mixup": {0: 0.9, 1: 0.9}}, size=32)])
    rows = summarize(trials)
    assert not ((rows.technique == "mixup") & (rows.seeds > 0)).any()


def test_no_effect_is_found_in_at_most_about_five_of_a_hundred_studies():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        base, same = rng.normal(0.7, 0.02, (2, 5))
        found.append(summarize(table({"baseline": dict(enumerate(base)),
                                      "same": dict(enumerate(same))})).verdict[1])
    assert found.count("helps") + found.count("hurts") < 0.08 * len(found)


def test_interval_over_seeds_and_photos_holds_the_truth_for_new_photos():
    rng = np.random.default_rng(0)
    held, narrow_held, n = 0, 0, 400
    for _ in range(n):  # seeds agree almost wholly, so that all chance is in the photos
        gain = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=200)
        differences = np.tile(gain, (6, 1)) * (rng.random((6, 200)) < 0.95)
        (low, high), (narrow_low,
                      narrow_high) = crossed_interval(differences), paired_interval(differences.mean(1))
        held += low <= 0.095 <= high
        narrow_held += narrow_low <= 0.095 <= narrow_high
    assert held / n > 0.93
    assert narrow_held / n < 0.8  # seeds alone promise too much


def test_photos_are_covered_only_where_every_trial_has_its_correctness():
    rng = np.random.default_rng(0)
    correct = {f"{t}-{s}": rng.random(100) < 0.6 for t in ("baseline", "mixup") for s in range(3)}
    trials = pd.DataFrame(
        [{"id": i, "technique": i[:-2], "seed": int(i[-1]), "size": 64, "epochs": 5,
          "accuracy": r.mean()}
         for i, r in correct.items()]
    )
    assert summarize(trials, correct=correct).covers[1] == "seeds and photos"
    assert (summarize(trials, correct={k: v for k, v in correct.items() if k != "mixup-1"}).covers[1]
            == "seeds")


def test_correctness_of_other_trials_is_refused_and_not_left_out_in_silence():
    trials, correct = with_photos({"baseline": np.eye(2, 8), "mixup": np.eye(2, 8)})
    named = {f"{name}-64px": right for name, right in correct.items()}
    with pytest.raises(ValueError, match="correct knows none of these trials"):
        summarize(trials, correct=named)
    assert summarize(trials, correct={}).covers[1] == "seeds"
    assert summarize(trials).covers[1] == "seeds"


def test_losses_are_better_when_lower():
    trials = table({"baseline": dict(enumerate([0.5, 0.51, 0.52, 0.53, 0.54])),
                    "mixup": dict(enumerate([0.4, 0.41, 0.42, 0.43, 0.44]))})
    trials["nll"] = trials["accuracy"]
    assert summarize(trials).verdict[1] == "hurts"
    assert summarize(trials, metric="nll").verdict[1] == "helps"


@pytest.mark.parametrize("margin", [0, 0.005, 0.02])
def test_margin_decides_what_counts_as_no_difference(margin):
    expected = "no difference beyond 0.02" if margin == 0.02 else "helps"
    assert verdict(0.008, 0.012, margin) == expected


def test_a_table_with_no_trials_gives_a_table_with_no_rows():
    assert len(summarize(table({"baseline": {0: 0.5}}).iloc[:0])) == 0


def crossed_study(rng, n_seeds=5, n_photos=80, truth=0.0, seeds=0.05, photos=0.5,
                  rest=0.5) -> np.ndarray:
    """Differences of a study in which both the seeds and the photos are drawn, (n_seeds, n_photos)."""
    parts = rng.normal(0, seeds, (n_seeds, 1)) + rng.normal(0, photos, n_photos) + rng.normal(
        0, rest, (n_seeds, n_photos)
    )
    return truth + parts


@pytest.mark.parametrize("n_seeds, spreads",
                         [(3, {}), (10, {}), (5, {"photos": 1.0}), (5, {"seeds": 0.2}),
                          (5, {"photos": 0.0})])
def test_interval_over_seeds_and_photos_holds_the_truth_where_both_are_drawn(n_seeds, spreads):
    rng = np.random.default_rng(0)
    intervals = [crossed_interval(crossed_study(rng, n_seeds, truth=0.3, **spreads)) for _ in range(800)]
    assert 0.93 < np.mean([low <= 0.3 <= high for low, high in intervals]) < 0.995


def test_interval_over_seeds_and_photos_by_hand():
    """Two seeds (means 1/3, 0), three photos (1, 1/2, -1): mean squares 13/6 for photos, 7/6 for the
    rest, so that the variance of the mean is (13/6 - 7/6)/6 + 1/9 by photos and 1/36 by seeds; t(1) =
    12.706, z = 1.960."""
    half = np.sqrt(12.7062**2 / 36 + 1.95996**2 * (1 / 6 + 1 / 9))
    assert crossed_interval([[1, 0, 0], [1, 1, -2]]) == pytest.approx(
        (1 / 6 - half, 1 / 6 + half), rel=1e-4
    )
    for too_few in (np.ones((1, 5)), np.ones((5, 1))):
        assert np.isnan(crossed_interval(too_few)).all()
    assert paired_interval([1 / 3, 0]) == pytest.approx((1 / 6 - 12.7062 / 6, 1 / 6 + 12.7062 / 6),
                                                        rel=1e-4)
    for confidence in (0, -0.1, 1.01, np.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            paired_interval([1, 2], confidence)
    assert paired_interval([1, 2], 1) == (-np.inf, np.inf)


@pytest.mark.parametrize("low, high, said", [
    (0.1, 0.2, "helps"), (-0.2, -0.1, "hurts"), (0, 0.2, "can't tell"), (-0.2, 0, "can't tell"),
    (-0.01, 0.01, "no difference beyond 0.01"),
    (-0.011, 0.01, "can't tell"), (-0.01, 0.011, "can't tell"), (0.1, np.inf, "can't tell"),
    (-np.inf, -0.1, "can't tell"), (np.nan, 0.2, "can't tell"),
])
def test_verdicts_at_the_edges(low, high, said):
    mirrored = {"helps": "hurts", "hurts": "helps"}
    assert verdict(low, high) == verdict(-high, -low, lower_is_better=True) == said
    assert verdict(low, high, lower_is_better=True) == mirrored.get(said, said)
    for margin in (-0.01, np.inf, np.nan):
        with pytest.raises(ValueError, match="margin=.* must be a number, at least 0"):
            verdict(low, high, margin)


def test_a_summary_by_hand():
    trials = table({"baseline": {0: 0.5, 1: 0.7, 2: 0.9}, "mixup": {0: 0.6, 1: 0.8, 5: 0.1},
                    "failed": {0: np.nan, 1: np.nan}})
    trials["train_seconds"] = [10.0, 20, 90, 33, 27, 500, 1, 1]
    trials["predict_seconds"] = [0.0, 0, 0, 1, 1, 1, 1, 1]  # how many times nothing is 1?
    rows = summarize(trials).set_index("technique")
    assert rows.index.tolist() == ["baseline", "mixup", "failed"]
    assert rows.columns.tolist() == [
        "size", "epochs", "recipe", "control", "seeds", "unpaired", "mean", "mean_control", "difference",
        "low", "high", "level", "covers",
        "verdict", "seeds_needed", "train_seconds", "train_seconds_ratio", "predict_seconds",
        "predict_seconds_ratio",
        "pixels", "pixels_ratio",
    ]
    own, row, failed = rows.loc["baseline"], rows.loc["mixup"], rows.loc["failed"]
    assert ((own.recipe, own.seeds, own.unpaired, own.verdict, own["size"], own.epochs)
            == ("baseline", 3, 0, "reference", 64, 5))
    assert ((own["mean"], own.train_seconds) == pytest.approx((0.7, 40)) and pd.isna(own.control)
            and np.isnan(own.mean_control))
    assert ((row.recipe, row.control, row.seeds, row.unpaired, row["size"], row.epochs)
            == ("mixup", "baseline", 2, 2, 64, 5))
    assert (row["mean"], row.mean_control, row.difference) == pytest.approx((0.7, 0.6, 0.1))
    assert ((row.train_seconds, row.train_seconds_ratio, row.pixels_ratio) == pytest.approx((30, 2, 1))
            and np.isnan(row.predict_seconds_ratio))
    assert ((failed.seeds, failed.unpaired, failed.verdict) == (0, 3, "can't tell")
            and np.isnan(failed.difference))
    assert summarize(trials, setting=[]).columns[1] == "recipe"


def test_techniques_that_a_setting_lacks_take_no_line_from_those_after_them():
    small = table({"baseline": {0: 0.5, 1: 0.7}, "mixup": {0: 0.6, 1: 0.8}, "tta": {0: 0.6, 1: 0.8}},
                  size=32)
    both = pd.concat([small, table({"baseline": {0: 0.5, 1: 0.7}, "tta": {0: 0.6, 1: 0.8}}, size=64)])
    rows = summarize(both)
    assert list(zip(rows["size"], rows.technique)) == [(32, "baseline"), (32, "mixup"), (32, "tta"),
                                                       (64, "baseline"), (64, "tta")]


def test_the_level_is_divided_by_the_number_of_rows_unless_told_otherwise():
    # differences 1 ± 0.2, five seeds
    lines = {f"t{i}": {0: 1.3, 1: 1.5, 2: 1.7, 3: 1.4, 4: 1.6} for i in range(5)}
    trials = table({"baseline": dict.fromkeys(range(5), 0.5)} | lines)
    gains = np.array(list(lines["t0"].values())) - 0.5
    for family, m in ((None, 5), (1, 1), (20, 20)):
        rows = summarize(trials, family=family).iloc[1:]
        assert np.allclose(rows.level, 1 - 0.05 / m)
        assert np.allclose(rows[["low", "high"]], paired_interval(gains, 1 - 0.05 / m))
    assert np.allclose(summarize(trials, confidence=0.9).level[1:], 0.98)
    for wrong, error in ((0, ValueError), (2.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="family="):
            summarize(trials, family=wrong)


def test_rows_that_failed_and_other_settings_count_in_the_family():
    runs = {"baseline": {0: 0.5, 1: 0.6}, "a": {0: 0.5, 1: 0.7}, "failed": {0: np.nan, 1: np.nan}}
    trials = pd.concat([table(runs),
                        table({"baseline": {0: 0.5, 1: 0.6}, "a": {0: 0.5, 1: 0.7}}, size=32)])
    rows = summarize(trials).set_index(["technique", "size"])
    assert rows.loc[("failed", 64), "verdict"] == "can't tell" and rows.loc[("failed", 64), "seeds"] == 0
    m = (rows.verdict != "reference").sum()
    assert m == 4 if ("failed", 32) in rows.index else m == 3
    assert np.allclose(rows.level.dropna(), 1 - 0.05 / m)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 7), st.sampled_from([0.0, 0.004, 0.01]))
def test_one_interval_one_verdict(seed, techniques, n_seeds, margin):
    """The verdict reads off the interval that is shown, and the seeds that are needed agree with it."""
    rng = np.random.default_rng(seed)
    gains = rng.choice([0, 0.005, 0.02], techniques)
    base = rng.normal(0.7, 0.02, n_seeds)
    runs = {f"t{i}": dict(enumerate(base + gain + rng.normal(0, 0.003, n_seeds)))
            for i, gain in enumerate(gains)}
    trials = table({"baseline": dict(enumerate(base)), **runs})
    for row in summarize(trials, margin=margin).iloc[1:].itertuples():
        differences = np.array(list(runs[row.technique].values())) - base
        assert (row.low, row.high) == pytest.approx(paired_interval(differences, 1 - 0.05 / techniques))
        assert row.verdict == (verdict(row.low, row.high, margin) if n_seeds >= 5 else "first look")
        needed = seeds_needed(differences, margin, row.level)
        assert row.seeds_needed == (needed if n_seeds >= 5 else max(5, needed))
        assert (row.verdict not in ("can't tell", "first look")) == (row.seeds_needed <= row.seeds)


@pytest.mark.parametrize("change, told", [
    (lambda right: right | {"mixup-1": right["mixup-1"][:-1]}, "'mixup-1' doesn't belong"),
    # the same share of other photos
    (lambda right: right | {"mixup-0": np.tile(right["mixup-0"], 2)}, "'mixup-1' doesn't belong"),
    (lambda right: right | {"mixup-0": ~right["mixup-0"]}, "'mixup-0' doesn't belong"),
    (lambda right: {name: np.tile(row, 1 + name.startswith("mixup")) for name, row in right.items()},
     "other photos: 10 and 20"),
])
def test_correctness_that_doesnt_fit_the_table_is_refused(change, told):
    right = np.arange(10) < 4
    trials, correct = with_photos({"baseline": np.stack([right] * 2), "mixup": np.stack([right] * 2)})
    summarize(trials, correct=correct)
    with pytest.raises(ValueError, match=told):
        summarize(trials, correct=change(correct))


# --- what isn't a table of numbers

@pytest.mark.parametrize("change, error, told", [
    (lambda t: t.assign(accuracy=t.accuracy.astype(str)), TypeError,
     "'accuracy' must hold numbers, not '0.5'"),
    (lambda t: t.assign(pixels="many"), TypeError, "'pixels' must hold numbers, not 'many'"),
    (lambda t: "trials.csv", TypeError, "trials must be a pandas table, .* not str"),
    (lambda t: t.to_dict("records"), TypeError, "not list"),
    (lambda t: t.drop(columns="seed"), ValueError, r"no column \['seed'\]"),
    (lambda t: pd.concat([t, t]), ValueError, "more than once"),
    (lambda t: t[t.technique != "baseline"], ValueError, "no trial of the baseline 'baseline'"),
])
def test_what_is_no_table_of_trials_is_refused(change, error, told):
    with pytest.raises(error, match=told):
        summarize(change(table({"baseline": {0: 0.5, 1: 0.6}, "mixup": {0: 0.6, 1: 0.7}})))


def test_numbers_that_pandas_holds_as_objects_are_numbers():
    trials = table({"baseline": {0: 0.5, 1: 0.6}, "mixup": {0: 0.6, 1: 0.7}})
    pd.testing.assert_frame_equal(summarize(trials.astype({"accuracy": object})), summarize(trials),
                                  check_dtype=False)


@pytest.mark.parametrize("interval, differences, error, told", [
    (paired_interval, np.zeros((5, 713)), ValueError,
     "one difference for each seed.*take crossed_interval"),
    (paired_interval, np.zeros((5, 7, 3)), ValueError, "one difference for each seed"),
    (paired_interval, 0.1, ValueError, "one difference for each seed"),
    (crossed_interval, [0.1, 0.2], ValueError, r"\(n_seeds, n_photos\), not \(2,\)"),
    (paired_interval, ["0.1", "0.2"], TypeError, "must be numbers"),
    (crossed_interval, [["a", "b"], ["c", "d"]], TypeError, "must be numbers"),
    (seeds_needed, ["a", "b"], TypeError, "must be numbers"),
    (paired_interval, np.ma.array([0.1, 0.2, 99], mask=[0, 0, 1]), ValueError, "masked"),
])
def test_differences_of_another_shape_or_kind_are_refused_with_advice(
    interval, differences, error, told
):
    with pytest.raises(error, match=told):
        interval(differences)


# --- photos that belong together

def test_photos_of_one_group_are_summed_first():
    """Two seeds, six photos in groups of 1, 2 and 3. By hand: means 1/3 and 1/2; what each group adds to
    them is 2/3, -2/3, 0 and 1/2, 0, -1/2, times 3/6, so the columns are 2/3, 0, 1/3 and 3/4, 1/2, 1/4.
    """
    differences = np.array([[1.0, 1, -1, 0, 0, 1], [1, 1, 0, 1, 0, 0]])
    columns = np.array([[2 / 3, 0, 1 / 3], [3 / 4, 1 / 2, 1 / 4]])
    found = estimate(differences, groups=["a", "b", "b", "c", "c", "c"])
    assert found.mean == pytest.approx(5 / 12) and found.seeds == pytest.approx((1 / 6) ** 2 / 4)
    rest = columns - columns.mean(0) - columns.mean(1, keepdims=True) + columns.mean()
    between = 2 * columns.mean(0).var(ddof=1)
    assert found.photos == pytest.approx(max(between - (rest**2).sum() / 2, 0) / 6 + 1 / 36)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 30))
def test_groups_of_one_photo_change_nothing_and_their_names_and_order_neither(seed, n_seeds, n_photos):
    rng = np.random.default_rng(seed)
    differences = rng.integers(-1, 2, (n_seeds, n_photos))
    named = [np.arange(n_photos).astype(kind)
             for kind in ("float16", "bool" if n_photos < 3 else "uint8", "U", object)]
    assert all(crossed_interval(differences, groups=one) == pytest.approx(crossed_interval(differences))
               for one in named)
    assert crossed_interval(differences, groups=np.arange(n_photos)) == pytest.approx(
        crossed_interval(differences)
    )
    groups, order = rng.integers(0, 3, n_photos), rng.permutation(n_photos)
    shuffled = crossed_interval(differences[:, order], groups=[f"scene {g}" for g in groups[order]])
    assert np.allclose(shuffled, crossed_interval(differences, groups=groups), equal_nan=True)


def test_eight_copies_of_each_photo_say_no_more_than_one():
    rng = np.random.default_rng(0)
    gain = rng.choice([-1.0, 0, 1], 200, p=[0.1, 0.7, 0.2])
    once = gain * (rng.random((6, 200)) < 0.95)  # the seeds agree on most photos
    low, high = crossed_interval(np.repeat(once, 8, axis=1), groups=np.repeat(np.arange(200), 8))
    expected = crossed_interval(once)
    assert (low + high) / 2 == pytest.approx(np.mean(expected))
    # but for the one disagreement that is added
    assert 0.9 < (high - low) / (expected[1] - expected[0]) <= 1
    naive = crossed_interval(np.repeat(once, 8, axis=1))
    assert naive[1] - naive[0] < 0.8 * (high - low)


@pytest.mark.parametrize("groups", [[0, 1], [[0, 1, 2]], [0, 1, None], 3])
def test_groups_that_dont_fit_the_photos_are_refused(groups):
    with pytest.raises(ValueError, match="groups must be one for each of 3 photos"):
        crossed_interval(np.zeros((2, 3)), groups=groups)
    assert np.isnan(crossed_interval(np.zeros((2, 3)), groups=[0, 0, 0])).all()  # one group says nothing


def test_groups_reach_the_table():
    rng = np.random.default_rng(0)
    right = {name: np.repeat(rng.random((6, 40)) < 0.6, 8, axis=1) for name in ("baseline", "mixup")}
    trials, correct = with_photos(right)
    groups = np.repeat(np.arange(40), 8)
    row = summarize(trials, correct=correct, groups=groups).iloc[1]
    expected = crossed_interval(right["mixup"].astype(float) - right["baseline"], groups=groups)
    assert (row.low, row.high) == pytest.approx(expected)


# --- many techniques

def share_of_tables(draw, words: tuple[str, ...], margin: float, n: int = 200) -> tuple[float, float]:
    """In how many tables one row at least says one of the words: at the divided level, and at 95% for
    each row."""
    tables = [draw() for _ in range(n)]
    said = [[summarize(trials, margin=margin, family=m).verdict.str.startswith(words).any()
             for trials in tables] for m in (None, 1)]
    return tuple(np.mean(said, axis=1))


def draw_table(rng, gain: float) -> pd.DataFrame:
    """Six techniques that all have the same true difference, from five seeds."""
    runs = rng.normal(0.7, 0.01, (7, 5)) + gain * (np.arange(7) > 0)[:, None]
    return table({name: dict(enumerate(run)) for name, run in zip(["baseline", *"abcdef"], runs)})


def test_six_techniques_that_do_nothing_seldom_seem_to_do_something():
    rng = np.random.default_rng(0)
    divided, undivided = share_of_tables(lambda: draw_table(rng, 0.0), ("helps", "hurts"), margin=0)
    assert divided <= stats.binom.ppf(0.999, 200, 0.05) / 200 < undivided


def test_six_techniques_that_matter_just_so_much_are_seldom_called_equal():
    rng = np.random.default_rng(0)  # the margin is wide, so that the intervals fit inside
    divided, undivided = share_of_tables(lambda: draw_table(rng, 0.05), ("no difference",), margin=0.05)
    # a half of 5%: they lie beyond one end
    assert divided <= stats.binom.ppf(0.999, 200, 0.025) / 200 < undivided


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
        return np.mean([crossed_interval(crossed_study(rng, n, 400, **as_now))[0] > 0
                        for _ in range(300)])

    assert 0.4 < settled(needed) < 0.65
    assert settled(for_these_photos) < 0.45


def test_where_the_photos_alone_reach_too_far_no_number_of_seeds_is_enough():
    photos = np.repeat([1.0, -1.0, 0.0], [6, 3, 41])  # mean 0.06, standard error 0.06
    noisy = np.tile(photos, (4, 1)) + np.array([-0.1, 0.1, -0.05, 0.05])[:, None]
    assert seeds_needed(noisy) == np.inf
    # but they do tell that it is no difference beyond 0.5
    assert seeds_needed(noisy, margin=0.5) < np.inf
    assert seeds_needed(np.tile(noisy, (1, 16)), margin=0) < np.inf  # and more photos would help


def test_the_number_of_seeds_in_the_corners():
    assert np.isnan(seeds_needed([0.1])) and np.isnan(seeds_needed([]))
    assert seeds_needed([0.0, 0.0], margin=0) == 2  # no difference at all
    assert seeds_needed([0.3, 0.3]) == 2
    assert seeds_needed([0.1, 0.3], confidence=1) == np.inf  # no number of seeds makes sure of anything
    # its mean is zero, and nothing but zero is small enough
    assert seeds_needed([-1.0, 1.0], margin=0) == np.inf
    for wrong in (dict(margin=-1), dict(margin=np.inf), dict(confidence=95), dict(confidence=2),
                  dict(confidence=0), dict(differences=np.zeros((2, 2, 2)))):
        with pytest.raises(ValueError, match="must"):
            seeds_needed(**({"differences": [0.1, 0.2]} | wrong))


# --- looking again

def test_what_is_spent_is_what_the_published_functions_say():
    # two-sided 5 %, five equal looks: cumulative error as printed by the program of Reboussin et al.
    # 2000
    looks = look_confidence([2, 4, 6, 8, 10], planned=10)
    assert np.cumsum(1 - np.array(looks)) == pytest.approx([1.08e-6, 7.88e-4, 0.00762, 0.0244, 0.05],
                                                           rel=5e-3)
    pocock = look_confidence([2, 4, 6, 8, 10], planned=10, spending="pocock")
    # the first bound of their table
    assert stats.norm.isf((1 - pocock[0]) / 2) == pytest.approx(2.438, abs=1e-3)
    assert sum(1 - c for c in pocock) == pytest.approx(0.05)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(2, 40), min_size=1), st.integers(40, 60),
       st.sampled_from(["obrien-fleming", "pocock"]))
def test_looks_spend_alpha_at_most_and_later_ones_change_nothing_before(seeds, planned, spending):
    seeds = sorted(seeds)
    looks = look_confidence(seeds, planned, 0.9, spending)
    assert sum(1 - c for c in looks) <= 0.1 + 1e-12 and all(0.9 - 1e-12 <= c <= 1 for c in looks)
    assert look_confidence(seeds[:1], planned, 0.9, spending) == looks[:1]
    assert (sum(1 - c for c in look_confidence([*seeds[:-1], planned], planned, 0.9, spending))
            == pytest.approx(0.1))


@pytest.mark.parametrize("looks", [(3, 5, 10), (2, 3, 4, 5), tuple(range(3, 13))])
@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_looking_again_keeps_the_promise_that_naive_looking_breaks(looks, spending):
    rng = np.random.default_rng(0)
    studies = rng.normal(0, 1, (20_000, looks[-1]))
    p_values = [stats.ttest_1samp(studies[:, :n], 0, axis=1).pvalue for n in looks]
    spent = look_confidence(looks, looks[-1], spending=spending)
    found = [np.mean(np.any([p <= 1 - c for p, c in zip(p_values, levels)], axis=0))
             for levels in (spent, [0.95] * len(looks))]
    assert found[0] < 0.054 and found[1] > 0.1


def test_looking_again_keeps_the_promise_with_photos_and_many_techniques():
    rng = np.random.default_rng(0)
    looks, n, photos = (3, 5, 8), 100, 60
    levels = look_confidence(looks, 8)
    found = []
    for _ in range(n):
        ease = rng.beta(2, 2, photos)
        # all equally good
        noisy = {t: (rng.random((8, photos)) < ease) for t in ("baseline", "a", "b", "c")}
        trials, correct = with_photos(noisy)
        tables = [summarize(trials[trials.seed < k], correct=correct, confidence=c, margin=0)
                  for k, c in zip(looks, levels)]
        found.append(any(rows.verdict.isin(["helps", "hurts"]).any() for rows in tables))
    assert np.sum(found) <= stats.binom.ppf(0.999, n, 0.05)


@pytest.mark.parametrize("wrong", [
    dict(look_seeds=[]), dict(look_seeds=[1, 3]), dict(look_seeds=[3, 3]), dict(look_seeds=[3, 11]),
    dict(look_seeds=[np.nan]),
    dict(spending="all"), dict(confidence=95), dict(confidence=0), dict(confidence=1),
])
def test_looks_without_a_plan_are_refused(wrong):
    with pytest.raises(ValueError, match="must|is not known"):
        look_confidence(**({"look_seeds": [3, 5], "planned": 10} | wrong))


def test_an_early_look_whose_confidence_rounds_to_one_cant_tell():
    trials = table({"baseline": dict(enumerate([0.5, 0.52, 0.5, 0.51, 0.5])),
                    "mixup": dict(enumerate([0.9, 0.91, 0.9, 0.92, 0.9]))})
    rows = summarize(trials, confidence=look_confidence([5], planned=2000)[-1])
    assert rows.verdict[1] == "can't tell" and rows.seeds_needed[1] == np.inf
    with pytest.raises(ValueError, match="between 0 and 1"):
        summarize(trials, confidence=95)


def test_a_table_without_trials_or_values_is_summarized():
    columns = ["technique", "seed", "size", "epochs", "accuracy", "pixels"]
    assert summarize(pd.DataFrame(columns=columns)).empty
    nothing = pd.DataFrame([["baseline", 0, 32, 5, None, None], ["mixup", 0, 32, 5, None, None]],
                           columns=columns)
    assert summarize(nothing)["verdict"].tolist() in ([], ["can't tell"])


def test_numbers_whose_squares_overflow_settle_nothing():
    rows = [[name, seed, 32, 5, 3e154 * seed * (name == "baseline")]
            for name in ("baseline", "mixup") for seed in range(5)]
    with np.errstate(all="ignore"):
        found = summarize(pd.DataFrame(rows,
                                       columns=["technique", "seed", "size", "epochs",
                                                "accuracy"])).iloc[1]
    assert found.verdict == "can't tell" and found.seeds_needed == np.inf


def test_the_order_of_rows_changes_no_digit():
    """Sums of numbers far apart come out otherwise in another order: seeds are sorted first."""
    pixels = [-1e308, 2.0, 1.0, 1e308, 0.1]
    rows = [[name, seed, 32, 5, 0.5, pixels[seed]]
            for name in ("baseline", "mixup") for seed in range(5)]
    trials = pd.DataFrame(rows, columns=["technique", "seed", "size", "epochs", "accuracy", "pixels"])
    for seed in range(5):
        pd.testing.assert_frame_equal(summarize(trials.sample(frac=1, random_state=seed)),
                                      summarize(trials))
