"""Subset selection: plain greedy from its definition, apportionment worked by hand, hostile input, and
each known fault by name."""

import warnings

import numpy as np
import pytest
import torch
from scipy import sparse

from lessonkit.subset_selection import coverage, select_classes, select_subset

METHODS = ("facility_location", "k_center", "herding", "random")
ALL = pytest.mark.parametrize("method", METHODS)
BY_RULE = pytest.mark.parametrize("method", METHODS[:3])


def rows(n=200, d=6, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def classes(n=200, k=5, seed=1):
    return np.random.default_rng(seed).integers(0, k, n)


def similarities(x):
    return 4 * ((x - x.mean(0)) ** 2).sum(1).max() - ((x[:, None] - x) ** 2).sum(2)


def worth(x, picks):
    """The sum over all rows of the similarity to the nearest pick."""
    return similarities(x)[:, picks].max(1).sum()


def plain_greedy(x, n):
    """From the definition: try every row, keep the best; among equals the first."""
    similar, best, picks = similarities(x), np.zeros(len(x)), []
    for _ in range(n):
        gains = np.maximum(similar - best, 0).sum(1)
        gains[picks] = -np.inf
        picks.append(int(np.flatnonzero(gains >= gains.max() - 1e-8)[0]))
        best = np.maximum(best, similar[picks[-1]])
    return picks


def with_copies(n=200, of=80, d=3):
    """Rows of which many occur several times, in canonical order."""
    x = rows(of, d)[np.random.default_rng(7).integers(0, of, n)]
    return x[np.lexsort(x.T[::-1])]


# --- facility location

def test_two_of_five_points_on_a_line():
    x = np.array([[0.0], [1], [2], [10], [11]])
    # a best pair
    assert worth(x, [1, 3]) >= max(worth(x, [a, b]) for a in range(5) for b in range(a)) - 1e-9
    subset = select_subset(x, 2)
    assert subset.indices[0] == 2 and subset.indices[1] in (3, 4)  # the middle, then the far group
    assert subset.weights.tolist() == [3, 2]


@pytest.mark.parametrize("seed", range(3))
def test_same_picks_as_plain_greedy(seed):
    x = rows(500, 16, seed)
    x = x[np.argsort(x[:, 0])]  # so that "the first among equals" means the same
    assert select_subset(x, 500).indices.tolist() == plain_greedy(x, 500)


def test_gains_add_up_to_the_worth_and_never_rise():
    x = rows()
    subset = select_subset(x, 50)
    assert np.isclose(subset.gains.sum(), worth(x, subset.indices))
    assert np.diff(subset.gains).max() <= 1e-9 * subset.gains[0]
    y = classes()
    within = select_subset(x, 100, y)
    for label in range(5):
        assert np.diff(within.gains[y[within.indices] == label]).max() <= 1e-9 * within.gains.max()



def test_a_row_counts_as_often_as_it_occurs():
    x = with_copies()
    k = len(np.unique(x, axis=0))
    assert x[select_subset(x, k).indices].tolist() == x[plain_greedy(x, k)].tolist()



@pytest.mark.parametrize("n, d, picks, shift", [(60, 3, 7, 0), (2500, 4, 500, 0), (60, 3, 7, 1e5)])
def test_weights_and_gains_by_brute_force(n, d, picks, shift):
    x = rows(n, d)
    subset = select_subset(x + shift, picks, method="random")
    away = ((x[:, None] - x[subset.indices]) ** 2).sum(2)
    assert subset.weights.tolist() == np.bincount(away.argmin(1), minlength=picks).tolist()
    worths = 4 * n * ((x - x.mean(0)) ** 2).sum(1).max() - np.minimum.accumulate(away, axis=1).sum(0)
    assert np.cumsum(subset.gains) == pytest.approx(worths, rel=1e-6)



# --- what holds for every method

@ALL
@pytest.mark.parametrize("labelled", [False, True])
def test_every_prefix_is_the_subset_of_that_size(method, labelled):
    x, y = rows(), classes() if labelled else None
    whole = select_subset(x, 200, y, method)
    assert sorted(whole.indices) == list(range(200))
    for n in (1, 2, 7, 63, 150):
        part = select_subset(x, n, y, method)
        assert part.indices.tolist() == whole.indices[:n].tolist()
        assert part.weights.sum() == pytest.approx(200) and np.isfinite(part.gains).all()


@BY_RULE
def test_the_same_rows_whatever_their_order(method):
    x, y, order = rows(), classes(), np.random.default_rng(5).permutation(200)
    assert (order[select_subset(x[order], 60, y[order], method).indices].tolist()
            == select_subset(x, 60, y, method).indices.tolist())
    assert (order[select_subset(x[order], 60, method=method).indices].tolist()
            == select_subset(x, 60, method=method).indices.tolist())


@BY_RULE
@pytest.mark.parametrize("first", ["equal", "two alike"])
def test_the_same_rows_whatever_their_order_though_rows_begin_alike(method, first):
    x, order = rows(), np.random.default_rng(5).permutation(200)
    x[:, 0] = 1 if first == "equal" else (np.arange(200) + 1) // 2  # the smallest alone
    assert (order[select_subset(x[order], 60, method=method).indices].tolist()
            == select_subset(x, 60, method=method).indices.tolist())


@BY_RULE
def test_another_unit_changes_gains_by_its_square_and_nothing_else(method):
    whole, small = (select_subset(unit * rows(), 30, method=method) for unit in (1, 2.0**-10))
    assert (small.indices.tolist() == whole.indices.tolist()
            and small.weights.tolist() == whole.weights.tolist())
    assert small.gains == pytest.approx(whole.gains * 2.0**-20, rel=1e-6, abs=1e-12)


@BY_RULE
def test_copies_of_a_row_come_last(method):
    # two outliers, 15 times each
    x = np.concatenate([rows(20, 3), np.repeat(rows(2, 3, seed=9) * 10, 15, axis=0)])
    picks = x[select_subset(x, 50, method=method).indices]
    assert len(np.unique(picks[:22], axis=0)) == 22
    assert sorted(select_subset(x, 50, method=method).indices) == list(range(50))


@BY_RULE
def test_copies_are_found_though_rows_begin_alike(method):
    x = np.random.default_rng(0).integers(0, 3, (300, 3)).astype(float)  # 27 rows, many times each
    picks = x[select_subset(x, 300, method=method).indices]
    assert len(np.unique(picks[:27], axis=0)) == 27
    again = x[::-1][select_subset(x[::-1], 27, method=method).indices]
    assert again.tolist() == picks[:27].tolist()



@ALL
def test_number_of_cores_and_backend_change_nothing(method):
    from joblib import parallel_config

    x, y = rows(), classes()
    one = select_subset(x, 60, y, method)
    assert select_subset(x, 60, y, method, n_jobs=2).indices.tolist() == one.indices.tolist()
    with parallel_config("sequential"):
        assert select_subset(x, 60, y, method, n_jobs=2).indices.tolist() == one.indices.tolist()


@ALL
def test_nothing_everything_and_a_class_of_one(method):
    x, y = rows(30), np.array([7] + [3] * 29)
    nothing = select_subset(x, 0, y, method)
    assert [len(part) for part in nothing] == [0, 0, 0] and x[nothing.indices].shape == (0, x.shape[1])
    assert 0 in select_subset(x, 2, y, method).indices  # not rounded away
    assert sorted(select_subset(x, 30, y, method).indices) == list(range(30))
    with pytest.raises(ValueError, match="31 is more than the 30"):
        select_subset(x, 31, y, method)
    same = np.ones((5, 2))
    assert sorted(select_subset(same, 5, method=method).indices) == list(range(5))
    assert select_subset(rows(1), 1, method=method).weights.tolist() == [1]


def test_seed_decides_random_alone():
    x = rows()
    assert (select_subset(x, 20, method="random").indices.tolist()
            == select_subset(x, 20, method="random", seed=0).indices.tolist())
    assert (select_subset(x, 20, method="random").indices.tolist()
            != select_subset(x, 20, method="random", seed=1).indices.tolist())
    assert select_subset(x, 20).indices.tolist() == select_subset(x, 20, seed=1).indices.tolist()


def test_input_stays_and_tensors_and_memory_maps_do(tmp_path):
    x = rows().astype(np.float32)
    kept, wanted = x.copy(), select_subset(x, 30, classes()).indices.tolist()
    np.save(tmp_path / "x.npy", x)
    assert select_subset(torch.from_numpy(x), 30, torch.from_numpy(classes())).indices.tolist() == wanted
    assert (select_subset(np.load(tmp_path / "x.npy", mmap_mode="r"), 30,
                          classes().astype(str)).indices.tolist() == wanted)
    assert (x == kept).all()


# --- classes

def quotas(y, n, balance):
    return np.bincount(y[select_subset(rows(len(y)), n, y, "random", balance).indices],
                       minlength=y.max() + 1).tolist()


def test_seats_as_huntington_and_hill_give_them():
    """By hand: 53/√2 = 37.5, 53/√6 = 21.6, 24/√2 = 17.0, 23/√2 = 16.3, 53/√12 = 15.3 ..."""
    y = np.repeat([0, 1, 2], [53, 24, 23])
    assert quotas(y, 3, "proportional") == [1, 1, 1]
    assert quotas(y, 4, "proportional") == [2, 1, 1]
    assert quotas(y, 5, "proportional") == [3, 1, 1]  # 21.6 before 17.0
    assert quotas(y, 6, "proportional") == [3, 2, 1]
    assert quotas(y, 7, "proportional") == [3, 2, 2]  # 16.3 before 53/√12 = 15.3
    # then 15.3, 53/√20 = 11.9, 24/√6 = 9.8 before 53/√30 = 9.7
    assert quotas(y, 10, "proportional") == [5, 3, 2]
    assert quotas(y, 2, "proportional") == [1, 1, 0]  # more classes than picks: the larger ones
    assert quotas(y, 9, "equal") == [3, 3, 3] and quotas(y, 90, "equal") == [43, 24, 23]


def test_labels_ignored_and_weights_of_classes_without_a_pick():
    x, y = rows(), classes()
    assert (select_subset(x, 20, y, balance=None).indices.tolist()
            == select_subset(x, 20).indices.tolist())
    few = select_subset(x, 2, y)
    assert len(few.indices) == 2 and few.weights.sum() == 200


@pytest.mark.parametrize("similarity, weights", [("euclidean", [4, 5]), ("cosine", [6, 3])])
def test_rows_of_a_class_without_a_pick_go_to_the_nearest_pick(similarity, weights):
    # two large classes around (1, 0) and (0, 10); three rows of a small one are near the second but in
    # the first's direction
    x = np.array([[1.0, 0.1], [1, 0], [1, -0.1], [0.1, 10], [0, 10], [-0.1, 10], [9, 8], [9, 7],
                  [0.9, 0.8]])
    subset = select_subset(x, 2, np.array(["a"] * 3 + ["b"] * 3 + ["c"] * 3)[:9], "k_center",
                           similarity=similarity)
    picks = (x[subset.indices] if similarity == "euclidean"
             else x[subset.indices] / np.linalg.norm(x[subset.indices], axis=1)[:, None])
    others = x if similarity == "euclidean" else x / np.linalg.norm(x, axis=1)[:, None]
    nearest = ((others[6:, None] - picks) ** 2).sum(2).argmin(1)
    assert subset.weights.tolist() == [3 + (nearest == 0).sum(), 3 + (nearest == 1).sum()] == weights


def test_the_same_picks_in_other_row_numbers():
    subset = select_subset(rows(9), 3)
    elsewhere = subset.of_rows(np.arange(100, 109))
    assert (elsewhere.indices == subset.indices + 100).all() and elsewhere.weights is subset.weights


def test_weights_count_the_nearest_within_the_class():
    x, y = np.array([[0.0], [1], [5], [0.4], [9]]), np.array([0, 0, 0, 1, 1])
    subset = select_subset(x, 3, y, "k_center")
    for row, weight in zip(subset.indices, subset.weights):
        mates = subset.indices[y[subset.indices] == y[row]]
        nearest = mates[np.abs(x[y == y[row]] - x[mates].T).argmin(1)]
        assert (nearest == row).sum() == weight


# --- the other methods

def test_k_center_starts_next_to_the_mean_and_takes_the_farthest():
    x = rows(60, 3)
    picks = select_subset(x, 20, method="k_center").indices
    assert picks[0] == ((x - x.mean(0)) ** 2).sum(1).argmin()
    for k in range(1, 20):
        away = ((x[:, None] - x[picks[:k]]) ** 2).sum(2).min(1)
        assert away[picks[k]] == pytest.approx(away.max())


def test_herding_keeps_the_mean():
    x = rows(60, 3)
    picks = select_subset(x, 15, method="herding").indices
    for k in range(15):
        free = np.setdiff1d(np.arange(60), picks[:k])
        missed = [np.linalg.norm(x[[*picks[:k], row]].mean(0) - x.mean(0)) for row in free]
        assert np.linalg.norm(x[picks[: k + 1]].mean(0) - x.mean(0)) == pytest.approx(min(missed))


def test_herding_and_k_center_of_rows_that_occur_several_times():
    x = with_copies(60, 20)
    mean, once = x.mean(0), np.unique(x, axis=0)
    picks = x[select_subset(x, 12, method="herding").indices]
    for k in range(12):
        free = [row for row in once if not (picks[:k] == row).all(1).any()]
        missed = [np.linalg.norm(np.vstack([picks[:k], row]).mean(0) - mean) for row in free]
        assert np.linalg.norm(picks[: k + 1].mean(0) - mean) == pytest.approx(min(missed))
    first = x[select_subset(x, 1, method="k_center").indices[0]]
    assert np.linalg.norm(first - mean) == pytest.approx(np.linalg.norm(once - mean, axis=1).min())


def test_cosine_ignores_lengths_and_refuses_zeros():
    x, stretch = rows(), np.random.default_rng(3).uniform(0.5, 5, (200, 1))
    assert (select_subset(x * stretch, 20, similarity="cosine").weights.tolist()
            == select_subset(x, 20, similarity="cosine").weights.tolist())
    x[17] = 0
    with pytest.raises(ValueError, match="17 are all zeros"):
        select_subset(x, 20, similarity="cosine")


# --- bad input

@pytest.mark.parametrize("change, error, words", [
    ({"n": -1}, ValueError, "n=-1"), ({"n": 2.5}, TypeError, "whole number"),
    ({"n": True}, TypeError, "whole number"),
    ({"method": "best"}, ValueError, "'k_center'"), ({"balance": "fair"}, ValueError, "'equal'"),
    ({"seed": -1}, ValueError, "seed"),
    ({"similarity": "dot"}, ValueError, "'cosine'"),
    ({"labels": np.zeros(3)}, ValueError, "one for each of the 10 rows"),
    ({"labels": [0.0, np.nan] * 5}, ValueError, "5 labels are missing, in row 1, 3"),
    ({"labels": ["a", None] * 5}, ValueError, "labels are missing"),
    ({"features": np.ones(10)}, ValueError, r"\(N, D\)"),
    ({"features": np.full((10, 2), "x")}, TypeError, "numbers"),
])
def test_one_clear_error(change, error, words):
    with pytest.raises(error, match=words):
        select_subset(**({"features": rows(10), "n": 3} | change))


def test_rows_that_are_not_finite_are_named():
    x = rows(10)
    x[[3, 7], 1] = np.nan, np.inf
    with pytest.raises(ValueError, match="in row 3, 7"):
        select_subset(x, 3)


# --- classes to choose, coverage

def test_select_classes():
    centres = np.array([[0, 0], [1, 0], [30, 0], [0, 40], [31, 1]])
    y = np.repeat(np.arange(5), 40) * 10
    x = np.repeat(centres, 40, axis=0) + 0.3 * rows(200, 2)
    assert set(select_classes(x, y, 3, "spread")) in ({0, 40, 30}, {10, 20, 30}, {0, 20, 30},
                                                      {10, 40, 30})
    assert set(select_classes(x, y, 2, "hard")) in ({0, 10}, {20, 40})
    assert len({int(label) for label in select_classes(x, y, 4, "typical")}) == 4
    assert sorted(select_classes(x, y, 5, "random")) == [0, 10, 20, 30, 40] == sorted(
        select_classes(x, y, 5)
    )
    assert len(select_classes(x, y, 1)) == 1
    drawn = {tuple(select_classes(x, y, 3, "random", seed=seed)) for seed in range(20)}
    assert len(drawn) > 10 and tuple(select_classes(x, y, 3, "random", seed=7)) in drawn
    for _ in range(2):
        assert (select_classes(x, y, 3, "random", seed=7).tolist()
                == select_classes(x, y, 5, "random", seed=7)[:3].tolist())
    with pytest.raises(ValueError, match="6 is more than the 5 classes"):
        select_classes(x, y, 6)
    with pytest.raises(ValueError, match="'typical'"):
        select_classes(x, y, 2, "easy")


def test_select_classes_by_hand():
    """Means 0, 10, 16, 40, mean squares around them 1, 1, 9, 25: the distances squared over their sums
    are ab 50, ac 25.6, ad 61.5, bc 3.6, bd 34.6, cd 16.9."""
    x, y = np.array([-1.0, 1, 9, 11, 13, 19, 35, 45])[:, None], np.repeat(list("abcd"), 2)
    # the two farthest; then b's 34.6 before c's 16.9
    assert "".join(select_classes(x, y, 4, "spread")) == "adbc"
    # the two nearest; on average d 25.8, a 37.8
    assert "".join(select_classes(x, y, 4, "hard")) == "bcda"
    # next to 16.5; gains 576 for d, then 256 for a
    assert "".join(select_classes(x, y, 4, "typical")) == "cdab"
    assert "".join(select_classes(x, y, 1, "spread")) == "a" and "".join(select_classes(x, y, 1)) == "a"
    assert ([len(select_classes(x, y, k, kind)) for k in (1, 2, 3)
             for kind in ("spread", "hard", "typical")] == [1] * 3 + [2] * 3 + [3] * 3)


@pytest.mark.parametrize("scale", [1, 1e-100, 1e100])
@pytest.mark.parametrize("each", [1, 2])
def test_classes_without_any_spread_are_told_apart_by_their_distance(each, scale):
    x, y = np.repeat([[0.0], [3], [7], [8]], each, axis=0) * scale, np.repeat([6, 7, 8, 9], each)
    with np.errstate(all="raise", under="ignore"):
        assert select_classes(x, y, 4, "spread").tolist() == [6, 9, 7, 8]
        assert select_classes(x, y, 4, "hard").tolist() == [8, 9, 7, 6]


@pytest.mark.parametrize("seed", range(3))
def test_classes_of_many_rows_are_as_far_apart_as_by_definition(seed):
    rng = np.random.default_rng(seed)
    y = np.arange(2**16 + 900) % 4
    centres, widths = rng.uniform(0, 5, (4, 2)), rng.uniform(0.5, 2, 4)
    x = (rng.standard_normal((len(y), 2)) * widths[y][:, None] + 1000 + centres[y]).astype(np.float32)
    own = [x[y == label].astype(float) for label in range(4)]
    means, spreads = np.array([part.mean(0) for part in own]), np.array(
        [part.var(0).sum() for part in own]
    )
    apart = ((means[:, None] - means) ** 2).sum(2) / (spreads[:, None] + spreads)
    farthest, nearest = apart.argmax(), (apart + np.diag([np.inf] * 4)).argmin()
    assert select_classes(x, y, 2, "spread").tolist() == list(np.unravel_index(farthest, (4, 4)))
    assert select_classes(x, y, 2, "hard").tolist() == list(np.unravel_index(nearest, (4, 4)))



@pytest.mark.parametrize("n", [1, 5])
def test_equal_rows_are_covered_by_any_of_them(n):
    # no kernel of width 0, no median of nothing
    with np.errstate(all="raise"), warnings.catch_warnings(action="error"):
        found = coverage(np.ones((n, 3)), [n - 1], draws=2)
    assert found.loc["chosen", ["mean_distance", "largest_distance", "mmd"]].tolist() == [0, 0, 0]


def test_another_unit_changes_no_choice_of_classes_and_no_kernel():
    x, y = 0.01 * rows(40, 3) + 0.01 * np.arange(4)[classes(40) % 4][:, None], classes(40) % 4
    for kind in "spread", "hard", "typical":
        assert select_classes(x, y, 4, kind).tolist() == select_classes(1000 * x, y, 4, kind).tolist()
    for seen in x, x[:2]:
        small, large = (coverage(unit * seen, [0], draws=2).loc["chosen", "mmd"] for unit in (1, 1000))
        assert 0 < small == pytest.approx(large)


def test_coverage_of_chance_is_that_of_its_draws():
    x, y = rows(40, 3), classes(40)
    table = coverage(x, [3, 1, 4, 15, 9], y, draws=30, seed=3)
    rng = np.random.default_rng(3)
    drawn = [rng.choice(40, 5, replace=False) for _ in range(30)]
    away = [np.sqrt(((x[:, None] - x[picks]) ** 2).sum(2).min(1)) for picks in drawn]
    shares = [np.abs(np.bincount(y[picks], minlength=5) / 5 - np.bincount(y) / 40).sum() / 2
              for picks in drawn]
    expected = {"mean_distance": [a.mean() for a in away], "largest_distance": [a.max() for a in away],
                "class_distance": shares}
    for name, values in expected.items():
        found = table.loc["random", [name, f"{name}_low", f"{name}_high"]].astype(float)
        assert found.tolist() == pytest.approx([np.mean(values), *np.quantile(values, [0.025, 0.975])])
    assert table.loc["chosen", [f"{name}_low" for name in expected]].isna().all()
    parts = [f"{name}{end}" for name in ("mean_distance", "largest_distance", "mmd", "class_distance")
             for end in ("", "_low", "_high")]
    assert table.columns.tolist() == parts
    assert coverage(x, [3, 1]).equals(coverage(x, [3, 1], None, 20, 0))


def test_of_many_rows_some_spread_evenly_are_measured():
    x = np.zeros((40_000, 1))
    x[1::2] = 5  # every second row is left out: 20,000 are measured
    assert (coverage(x, [0], draws=2).loc["chosen", ["mean_distance", "largest_distance"]].tolist()
            == [0, 0])
    line = np.arange(4000.0)[:, None]  # the kernel takes 2,000 of them, and of the picks
    some, picks = line[::2], np.arange(0, 4000, 1)
    width = np.median([(a - b) ** 2 for i, a in enumerate(some[:, 0]) for b in some[:i, 0]])
    table = coverage(line, [0, 3999], draws=2)
    inner, between, outer = (np.exp(-((a - b.T) ** 2) / (2 * width)).mean()
                             for a, b in ((some, some), (some, line[[0, 3999]]), (line[[0, 3999]],) * 2))
    assert table.loc["chosen", "mmd"] == pytest.approx(np.sqrt(inner + outer - 2 * between))
    assert coverage(line, picks, draws=2).loc["chosen", "mmd"] == pytest.approx(0, abs=1e-6)


def test_coverage_by_hand():
    x, y = np.array([[0.0], [1], [2], [10], [11]]), np.array([0, 0, 0, 1, 1])
    table = coverage(x, [1, 3], y)
    assert table.index.tolist() == ["chosen", "random"]
    assert table.loc["chosen", "mean_distance"] == pytest.approx((1 + 0 + 1 + 0 + 1) / 5)
    assert table.loc["chosen", "largest_distance"] == 1
    assert table.loc["chosen", "class_distance"] == pytest.approx(abs(3 / 5 - 1 / 2))
    width = np.median([abs(a - b) ** 2 for i, a in enumerate(x[:, 0]) for b in x[:i, 0]])
    kernel = np.exp(-((x - x.T) ** 2) / (2 * width))
    mmd = kernel.mean() + kernel[np.ix_([1, 3], [1, 3])].mean() - 2 * kernel[[1, 3]].mean()
    assert table.loc["chosen", "mmd"] == pytest.approx(np.sqrt(mmd))
    assert table.loc["random", "mean_distance_low"] <= table.loc["random", "mean_distance"] <= table.loc[
        "random", "mean_distance_high"
    ]


def test_coverage_of_everything_is_perfect_and_facility_location_beats_chance():
    x, y = rows(), classes()
    assert coverage(x, np.arange(200), y).loc["chosen"].dropna().to_numpy() == pytest.approx(0, abs=1e-6)
    table = coverage(x, select_subset(x, 20).indices)
    assert table.loc["chosen", "mean_distance"] < table.loc["random", "mean_distance_low"]
    assert coverage(x, [3, 5], seed=1).equals(coverage(x, [3, 5], seed=1))
    for bad in ([], [0, 0], [200], [-1]):
        with pytest.raises(ValueError, match="indices"):
            coverage(x, bad)
    with pytest.raises(TypeError, match="indices"):
        coverage(x, [0.5])


# --- rows chosen already, and similarities that are given

def greedy_from(similar, n, first=()):
    """The definition: the first picks as given, then always the largest gain, the first among equals."""
    best, picks = np.zeros(len(similar)), []
    for number in range(n):
        gains = np.maximum(similar - best[:, None], 0).sum(0)
        gains[picks] = -1
        picks.append(int(first[number]) if number < len(first) else int(gains.argmax()))
        best = np.maximum(best, similar[:, picks[-1]])
    return picks


@pytest.mark.parametrize("method", ["facility_location", "k_center", "herding", "random"])
@pytest.mark.parametrize("balance", ["proportional", "equal", None])
def test_a_subset_continued_is_the_larger_subset(method, balance):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((90, 4)), rng.choice(3, 90, p=[0.6, 0.3, 0.1])
    x[50:60] = x[:10]  # copies
    small, large = (select_subset(x, n, labels, method, balance) for n in (25, 90))
    again = select_subset(x, 90, labels, method, balance, initial=small.indices)
    assert again.indices.tolist() == large.indices.tolist()
    np.testing.assert_allclose(again.weights, large.weights)
    np.testing.assert_allclose(again.gains, large.gains, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_any_rows_can_be_the_first_ones(seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 50, (60, 3)).astype(float)
    x = x[np.lexsort(x.T[::-1])]  # so that the first among equals is the first row
    squared = ((x[:, None] - x) ** 2).sum(2)
    first = rng.permutation(60)[:7]
    found = select_subset(x, 25, initial=first)
    assert found.indices.tolist() == greedy_from(squared.max() - squared, 25, first)
    assert found.weights.sum() == 60


def test_classes_with_rows_chosen_already_wait_for_their_turn():
    labels = np.repeat([0, 1], 20)
    x = np.random.default_rng(0).standard_normal((40, 2))
    found = select_subset(x, 8, labels, initial=[0, 1, 2, 3, 4])
    assert labels[found.indices].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert np.unique(select_subset(x, 40, labels, initial=[39, 3]).indices).size == 40


@pytest.mark.parametrize("given, error", [
    ([0, 0], ValueError), ([12], ValueError), ([-1], ValueError), ([0.5], TypeError),
    (range(11), ValueError), (3, TypeError),
])
def test_rows_chosen_already_that_cant_be(given, error):
    with pytest.raises(error):
        select_subset(np.arange(24.0).reshape(12, 2), 10, initial=given)


@pytest.mark.parametrize("seed", range(4))
def test_given_similarities_are_plain_greedy_on_them(seed):
    rng = np.random.default_rng(seed)
    alike = rng.integers(0, 40, (50, 50)) * (rng.random((50, 50)) < 0.3)
    first = rng.permutation(50)[: 3 * (seed % 2)]
    expected = greedy_from(alike, 30, first)
    for matrix in (alike, sparse.csr_matrix(alike), sparse.coo_array(alike)):
        found = select_subset(None, 30, similarity=matrix, initial=first)
        assert found.indices.tolist() == expected and found.weights.sum() == 50
        assert found.gains.sum() == alike[:, expected].max(1).sum()


def test_similarities_made_from_features_choose_what_the_features_choose():
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((80, 3)), rng.integers(0, 4, 80)
    squared = ((x[:, None] - x) ** 2).sum(2)
    by_rows = select_subset(x, 40, labels)
    by_similarity = select_subset(x, 40, labels, similarity=squared.max() - squared, n_jobs=2)
    assert by_similarity.indices.tolist() == by_rows.indices.tolist()
    np.testing.assert_allclose(by_similarity.weights, by_rows.weights)
    # two classes have no pick of their own
    few = select_subset(x, 2, labels, similarity=squared.max() - squared)
    np.testing.assert_allclose(few.weights, select_subset(x, 2, labels).weights)


@pytest.mark.parametrize("matrix, error", [
    (np.zeros((3, 4)), ValueError), (np.eye(3) * np.nan, ValueError), (-np.eye(3), ValueError),
    (-sparse.eye_array(3), ValueError),
    (np.full((3, 3), "a"), TypeError), (np.eye(4), ValueError), (None, TypeError),
    ("manhattan", ValueError),
])
def test_similarities_that_cant_be(matrix, error):
    with pytest.raises(error):
        select_subset(np.zeros((3, 2)), 1, similarity=matrix)


def test_similarities_are_for_facility_location():
    with pytest.raises(ValueError, match="needs features"):
        select_subset(None, 1, method="k_center", similarity=np.eye(3))
