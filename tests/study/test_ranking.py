"""Rankings, interactions and costs: agreement with SciPy, worked numbers, and promises that hold."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_trials import table, with_photos
from scipy import stats

from lessonkit.comparison import crossed_interval, summarize
from lessonkit.study.ranking import cost_ratio, discrimination, interaction, rank_agreement

# --- two techniques together

FOUR = {
    "baseline": {0: 0.70, 1: 0.72, 2: 0.74},
    "a": {0: 0.73, 1: 0.74, 2: 0.78},  # +3, +2, +4
    "b": {0: 0.72, 1: 0.74, 2: 0.76},  # +2 each
    "ab": {0: 0.74, 1: 0.75, 2: 0.79},  # +4, +3, +5: over the sum -1, -1, -1 and so surely
}


def more_seeds(runs: dict) -> dict:
    """The same numbers twice, as six seeds."""
    return {name: seeds | {seed + 3: value for seed, value in seeds.items()}
            for name, seeds in runs.items()}


def test_interaction_of_worked_numbers():
    rows = interaction(table(FOUR), "a", "b", "ab").set_index("effect")
    assert rows.index.tolist() == ["a alone", "a with b on", "b alone", "b with a on",
                                   "together minus the sum of both"]
    assert rows.difference.tolist() == pytest.approx([0.03, 0.02, 0.02, 0.01, -0.01])
    # a alone: standard deviation 0.01, three seeds, at 99% t(2) = 9.925
    assert rows.loc["a alone", ["low", "high"]].tolist() == pytest.approx(
        [0.03 - 0.0573, 0.03 + 0.0573], abs=1e-5
    )
    assert np.allclose(rows.level, 0.99)
    sums = "together minus the sum of both"
    assert rows.low[sums] == pytest.approx(-0.01) == rows.high[sums]
    assert (rows.seeds == 3).all() and (rows.verdict == "first look").all()
    strict = interaction(table(more_seeds(FOUR)), "a", "b", "ab", margin=0.005).set_index("effect")
    assert strict.verdict[sums] == "hurts" and strict.verdict["a alone"] == "helps"
    one = interaction(table(FOUR), "a", "b", "ab", family=1).set_index("effect")
    assert one.loc["a alone", ["low", "high"]].tolist() == pytest.approx(
        [0.03 - 0.02484, 0.03 + 0.02484], abs=1e-5
    )
    pd.testing.assert_frame_equal(interaction(table(FOUR), "a", "b", "ab",
                                              setting=[]).set_index("effect"),
                                  rows.drop(columns=["size", "epochs"]))
    swapped = interaction(table(FOUR), "b", "a", "ab").difference
    assert swapped.tolist() == pytest.approx(rows.difference.iloc[[2, 3, 0, 1, 4]].tolist())


def test_interaction_takes_the_seeds_and_settings_that_all_four_have():
    extra = table({"a": {3: 0.1, 4: 0.9}, "ab": {3: 0.2}})
    other = table({**FOUR, "ab": {s: v + 0.02 for s, v in FOUR["ab"].items()}}, size=128)
    lonely = table({"baseline": {0: 0.5}, "a": {0: 0.6}}, size=32)
    rows = interaction(pd.concat([table(FOUR), extra, other, lonely]).sample(frac=1, random_state=0),
                       "a", "b", "ab")
    assert rows["size"].tolist() == [64] * 5 + [128] * 5
    pd.testing.assert_frame_equal(rows[:5], interaction(table(FOUR), "a", "b", "ab", family=10))
    assert rows.difference.iloc[9] == pytest.approx(0.01)
    with pytest.raises(ValueError, match="all four of a, b, none, baseline"):
        interaction(table(FOUR), "a", "b", "none")


def test_an_effect_alone_is_the_line_of_the_summary_with_and_without_photos():
    rng = np.random.default_rng(0)
    ease = {"baseline": 0.5, "a": 0.6, "b": 0.55, "ab": 0.7}
    trials, correct = with_photos({name: rng.random((4, 200)) < p for name, p in ease.items()})
    pairs = {"a alone": ("a", "baseline"), "a with b on": ("ab", "b"), "b alone": ("b", "baseline"),
             "b with a on": ("ab", "a")}
    columns = ["difference", "low", "high", "level", "seeds"]
    for known, covers in ((correct, "seeds and photos"), (None, "seeds")):
        rows = interaction(trials, "a", "b", "ab", correct=known).set_index("effect")
        lines = summarize(trials, pairs=pairs, correct=known,
                          family=5).set_index("technique").loc[list(pairs)]
        assert np.allclose(rows.loc[list(pairs), columns].astype(float), lines[columns].astype(float))
        assert (rows.covers == covers).all()
    sides = {name: np.stack([correct[f"{name}-{s}"] for s in range(4)]).astype(float) for name in ease}
    by_photo = sides["ab"] - sides["a"] - sides["b"] + sides["baseline"]
    last = interaction(trials, "a", "b", "ab", correct=correct).iloc[-1]
    assert (last.low, last.high) == pytest.approx(crossed_interval(by_photo, 0.99))
    some = {name: right for name, right in correct.items() if name != "b-2"}
    assert set(interaction(trials, "a", "b", "ab", correct=some).covers) == {"seeds"}  # all rows alike


def test_interaction_of_losses_is_better_when_lower():
    trials = table(more_seeds(FOUR)).assign(nll=lambda t: 1 - t.accuracy)
    assert interaction(trials, "a", "b", "ab", metric="nll").verdict[0] == "helps"


# --- the order of techniques, and whether they can be told apart

def trials_of(values, names=None) -> pd.DataFrame:
    """Trials from rows of seeds and columns of techniques, in a random order of rows."""
    names = names or [f"t{i}" for i in range(np.shape(values)[1])]
    rows = [{"technique": t, "seed": s, "accuracy": v}
            for s, row in enumerate(values) for t, v in zip(names, row)]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


tables = st.integers(2, 5).flatmap(lambda k: st.lists(
    st.lists(st.integers(0, 6).map(float), min_size=k, max_size=k), min_size=2, max_size=5
))


@settings(max_examples=60, deadline=None)
@given(tables, st.randoms(use_true_random=False))
def test_tau_is_scipys_of_the_means_whatever_the_order_of_rows(values, random):
    whole = np.array(values)
    subset = np.array([random.sample(row, len(row)) for row in values])
    found = rank_agreement(trials_of(whole), trials_of(subset), draws=20)
    sums = whole.sum(0), subset.sum(0)  # of small whole numbers, so that ties are exact
    assert found.tau == pytest.approx(stats.kendalltau(*sums).statistic, nan_ok=True)
    again = rank_agreement(trials_of(whole).sort_values("accuracy"),
                           trials_of(subset).sort_values("seed"), draws=20)
    assert np.allclose(found, again, equal_nan=True)
    swapped = rank_agreement(trials_of(subset), trials_of(whole), draws=20)
    assert swapped.tau == pytest.approx(found.tau, nan_ok=True)


def test_tau_counts_pairs_as_a_person_would():
    # one of the six pairs is the other way round: (5 - 1) / 6
    whole, subset = [[0.70, 0.72, 0.74, 0.78]], [[0.50, 0.55, 0.53, 0.60]]
    assert rank_agreement(trials_of(whole), trials_of(subset)).tau == pytest.approx(4 / 6)
    # a tie on one side: (5 - 0) / sqrt(5 * 6)
    assert (rank_agreement(trials_of(whole), trials_of([[0.5, 0.5, 0.55, 0.6]])).tau
            == pytest.approx(5 / 30**0.5))
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
    plain, shifted = (rank_agreement(trials_of(whole), trials_of(v), draws=200)
                      for v in (values, values + shift))
    assert np.allclose(plain, shifted)
    assert np.allclose(discrimination(trials_of(values)), discrimination(trials_of(values + shift)))


def test_the_ceiling_is_low_where_techniques_are_equal_and_high_where_they_differ():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, (30, 6, 5))
    equal = [rank_agreement(trials_of(n), trials_of(n), draws=200).ceiling for n in noise]
    differ = [rank_agreement(trials_of(n + 0.1 * np.arange(5)), trials_of(n), draws=200).ceiling
              for n in noise]
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


def test_the_interval_of_tau_leaves_out_draws_in_which_all_are_equal():
    """Two seeds: the first has no order, the second the whole's. A draw is one of them alone, or both
    (the order of the second)."""
    whole, subset = np.array([[0.1, 0.2], [0.1, 0.2]]), np.array([[0.3, 0.3], [0.1, 0.2]])
    found = rank_agreement(trials_of(whole), trials_of(subset))
    assert (found.tau, found.low, found.high) == (1, 1, 1)


def test_one_seed_gives_no_interval_and_a_constant_table_no_order():
    values = np.array([[0.1, 0.2, 0.3], [0.2, 0.2, 0.4]])
    one = rank_agreement(trials_of(values), trials_of(values[:1]))
    assert one.tau == 1 and np.isnan(one.low) and np.isnan(one.high) and np.isfinite(one.ceiling)
    two = rank_agreement(trials_of(values), trials_of(values))
    # two seeds: one whose order has a tie, one without
    assert np.isfinite(two).all() and two.low < two.high == 1
    assert np.isnan(rank_agreement(trials_of(values[:1]), trials_of(values))[1:]).all()
    assert np.isnan(rank_agreement(trials_of(values), trials_of(np.ones((2, 3)))).tau)


def test_seeds_that_a_technique_lacks_are_left_out_for_all():
    values = np.array([[0.1, 0.2, 0.3], [0.2, 0.3, 0.4], [0.9, 0.1, 0.2]])
    trials = trials_of(values)
    gap = trials[(trials.technique != "t2") | (trials.seed != 2)]
    two = trials[trials.seed != 2]
    assert rank_agreement(gap, trials) == rank_agreement(two, trials)
    failed = trials.assign(
        accuracy=trials.accuracy.where((trials.technique != "t2") | (trials.seed != 2))
    )
    assert discrimination(gap) == discrimination(failed) == discrimination(two)


@pytest.mark.parametrize("change, told", [
    (lambda t: t[t.technique != "t1"], "'whole' have t1"),
    (lambda t: t.drop(columns="seed"), "no column"),
    (lambda t: pd.concat([t, t]), "more than once"),
    (lambda t: t.assign(epochs=np.arange(len(t))), "several settings"),
    (lambda t: t.assign(size=np.arange(len(t))), "several settings"),
    (lambda t: t[(t.technique == "t0") != (t.seed == 0)], "no seed that every technique"),
])
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
    assert found.f == pytest.approx(f) and found.p == pytest.approx(
        stats.f.sf(f, n_techniques - 1, freedom)
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.sampled_from([0.9, 0.95, 0.99]))
def test_pairs_told_apart_are_those_whose_t_test_passes_the_divided_level(
    seed, n_techniques, confidence
):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 0.5, (5, n_techniques)) + rng.normal(0, 1, n_techniques)
    pairs = [(i, j) for i in range(n_techniques) for j in range(i)]
    p_values = [stats.ttest_rel(values[:, i], values[:, j]).pvalue for i, j in pairs]
    told = sum(p < (1 - confidence) / len(pairs) for p in p_values)
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


def lengths(technique: str, curve: dict[int, tuple[float, float]], seeds=range(3),
            noise: float = 0.0) -> pd.DataFrame:
    """Trials of several lengths: `{epochs: (seconds, accuracy)}`, the same for all seeds but for some
    noise."""
    rng = np.random.default_rng(0)
    rows = [(technique, seed, n, cost, result + noise * rng.normal())
            for seed in seeds for n, (cost, result) in curve.items()]
    return pd.DataFrame(rows, columns=["technique", "seed", "epochs", "train_seconds", "accuracy"])


SLOW = {5: (100, 0.6), 10: (200, 0.7)}


def test_a_technique_twice_as_fast_needs_half_wherever_it_is_measured():
    quick = {2: (20, 0.6 - 0.1 * np.log2(2.5)), 4: (40, 0.6 - 0.1 * np.log2(1.25)),
             8: (80, 0.6 + 0.1 * np.log2(1.6))}
    trials = pd.concat([lengths("slow", SLOW), lengths("quick", quick)])
    found = cost_ratio(trials.sample(frac=1, random_state=0), "quick", "slow", at=5)
    assert found == pytest.approx((0.5, 0.5, 0.5, False))
    assert (cost_ratio(trials.assign(train_seconds=7 * trials["train_seconds"]), "quick", "slow",
                       at=5).ratio == pytest.approx(0.5))


def test_the_baseline_needs_all_of_its_own_cost():
    trials = lengths("slow", SLOW)
    assert cost_ratio(trials, "slow", "slow", at=10)[:3] == pytest.approx((1, 1, 1))


def test_what_is_never_reached_costs_without_end_and_what_is_reached_at_once_at_most_so_much():
    trials = pd.concat([lengths("slow", SLOW), lengths("poor", {5: (50, 0.5), 10: (90, 0.55)}),
                        lengths("good", {1: (30, 0.8)})])
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
    trials = pd.concat([lengths("slow", SLOW), lengths("quick", {4: (50, 0.55)}),
                        lengths("quick", {8: (100, 0.65)}, [1])])
    assert cost_ratio(trials, "quick", "slow", at=5).ratio == pytest.approx(np.sqrt(50 * 100) / 100)


def test_the_interval_of_a_cost_ratio_by_hand():
    """Two seeds, both as good at once, at a quarter and at half of the cost. A draw of two is one of
    them alone (chance 1/4 each), or both."""
    slow, curve = lengths("slow", {5: (100, 0.6)}, range(2)), [(25, 0.6), (50, 0.6)]
    quick = pd.concat([lengths("quick", {1: point}, [seed]) for seed, point in enumerate(curve)])
    found = cost_ratio(pd.concat([slow, quick]), "quick", "slow", at=5)
    assert found == pytest.approx((0.375, 0.25, 0.5, True))
    assert (cost_ratio(pd.concat([slow, quick]), "quick", "slow", at=5, confidence=0.4)[:3]
            == pytest.approx((0.375,) * 3))
    one = cost_ratio(pd.concat([slow, quick[quick.seed == 0]]), "quick", "slow", at=5)
    assert one.ratio == pytest.approx(0.25) and np.isnan(one.low) and np.isnan(one.high)
    # where only the second seed was trained long enough to get there, the first alone never does
    late = pd.concat([lengths("quick", {1: (25, 0.5)}, range(2)), lengths("quick", {2: (50, 0.7)}, [1])])
    assert cost_ratio(pd.concat([slow, late]), "quick", "slow", at=5).high == np.inf
    # many lengths that only the second seed has: where the first is drawn alone their means are of no
    # seed, and nothing may be made up
    long = {n: (25 + n, 0.5 + n / 1000) for n in range(2, 100)}
    late = pd.concat([lengths("quick", {1: (25, 0.5)}, range(2)),
                      lengths("quick", long | {200: (500, 0.7)}, [1])])
    assert cost_ratio(pd.concat([slow, late]), "quick", "slow", at=5).high == np.inf


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
