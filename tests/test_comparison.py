"""Comparisons: agreement with SciPy on any table, and verdicts that hold their promise."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lessonkit.comparison import (
    cost_ratio,
    crossed_interval,
    discrimination,
    paired_interval,
    rank_agreement,
    summarize,
    verdict,
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


def test_one_seed_gives_no_interval_and_a_constant_table_no_order():
    values = np.array([[0.1, 0.2, 0.3], [0.2, 0.2, 0.4]])
    one = rank_agreement(trials_of(values), trials_of(values[:1]))
    assert one.tau == 1 and np.isnan(one.low) and np.isnan(one.high) and np.isfinite(one.ceiling)
    assert np.isnan(rank_agreement(trials_of(values[:1]), trials_of(values)).ceiling)
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
    (lambda t: t[(t.technique == "t0") != (t.seed == 0)], "no seed that every technique"),
])  # fmt: skip
def test_tables_that_cant_be_compared_are_refused(change, told):
    trials = trials_of(np.arange(6.0).reshape(2, 3))
    with pytest.raises(ValueError, match=told):
        rank_agreement(trials, change(trials))


def test_one_technique_has_no_order():
    trials = trials_of([[1.0], [2.0]])
    with pytest.raises(ValueError, match="two techniques"):
        rank_agreement(trials, trials)
    with pytest.raises(ValueError, match="two techniques"):
        discrimination(trials)
    with pytest.raises(ValueError, match="between 0 and 1"):
        discrimination(trials_of([[1.0, 2.0]]), confidence=95)


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
    assert cost_ratio(trials, "poor", "slow", at=5)[:3] == (np.inf,) * 3
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


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(technique="none"), "no trials of none"),
        (dict(at=7), "none of slow with epochs = 7"),
        (dict(cost="euros"), "no column 'euros'"),
        (dict(baseline="other"), "no seed in common"),
    ],
)
def test_a_cost_ratio_that_cant_be_had_is_refused(change, told):
    trials = pd.concat([lengths("slow", SLOW), lengths("quick", SLOW), lengths("other", SLOW, [7])])
    with pytest.raises(ValueError, match=told):
        cost_ratio(trials, **(dict(technique="quick", baseline="slow", at=5) | change))
