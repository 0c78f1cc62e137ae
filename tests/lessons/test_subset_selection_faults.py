"""Known faults of subset selection: numbers that round to 0 or overflow, marks for missing values, half
precision, sparse input."""

import numpy as np
import pytest
import torch

from lessonkit.subset_selection import coverage, select_classes, select_subset

ALL = pytest.mark.parametrize("method", ("facility_location", "k_center", "herding", "random"))


def rows(n=200, d=6, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def classes(n=200, k=5, seed=1):
    return np.random.default_rng(seed).integers(0, k, n)


NUMBERS = np.random.default_rng(0)
FORTY = np.repeat(NUMBERS.standard_normal((40, 8)), 125, axis=0)
NEARLY_EQUAL = {
    "three of four": np.array([[0.0], [1], [1 + 1e-9], [1 + 2e-9]]),
    "time stamps beside small numbers": np.hstack([1.7e9 + 1e5 * NUMBERS.random((5000, 1)),
                                                   NUMBERS.standard_normal((5000, 3))]),
    "time stamps of a moment": np.hstack([1.7e9 + 1e-6 * NUMBERS.random((500, 1)),
                                          NUMBERS.standard_normal((500, 3))]),
    "nanoseconds": np.hstack([1.7e18 + 1e14 * NUMBERS.random((500, 1)),
                              NUMBERS.standard_normal((500, 3))]),
    "copies but for the last digit": np.nextafter(FORTY,
                                                  np.where(NUMBERS.random(FORTY.shape) < 0.5, np.inf,
                                                           -np.inf)),
    "the same in float32": np.nextafter(FORTY.astype("f4"),
                                        np.where(NUMBERS.random(FORTY.shape) < 0.5, np.inf,
                                                 0).astype("f4")),
    "frames of a film": np.repeat(NUMBERS.integers(1, 255, (20, 48)), 50, axis=0)
    + NUMBERS.integers(-1, 2, (1000, 48)),
    "far from 0": 1e8 + 1e-8 * NUMBERS.standard_normal((300, 4)),
    "one far away": np.where(np.arange(300)[:, None] == 5, 1e9, NUMBERS.standard_normal((300, 4))),
    "squares that vanish": 1e-200 * NUMBERS.standard_normal((300, 4)),
    "squares that vanish in float32": (1e-30 * NUMBERS.standard_normal((5000, 4))).astype("f4"),
    "squares that overflow in float32": (1e37 * NUMBERS.standard_normal((5000, 4))).astype("f4"),
    "large": 1e100 * NUMBERS.standard_normal((300, 4)),
}


@ALL
@pytest.mark.parametrize("name", NEARLY_EQUAL)
def test_fault_distances_that_round_to_0_or_overflow(name, method):
    """The log of an empty step was read as a whole: IndexError, or picks from uninitialised memory; NaN
    never ended."""
    x = NEARLY_EQUAL[name]
    n = min(len(x), 600)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for y in None, np.arange(len(x)) % 3:
            subset = select_subset(x, n, y, method)
            assert len(np.unique(subset.indices)) == n and subset.weights.sum() == len(x)
            assert (np.isfinite(subset.gains).all()
                    and (subset.gains >= -1e-12 * subset.gains.max()).all())
            parts = [subset.gains] if y is None else [subset.gains[y[subset.indices] == label]
                                                      for label in range(3)]
            assert (method != "facility_location"
                    or max(np.diff(part).max(initial=0) for part in parts) <= 0)


def test_fault_one_row_far_away_leaves_the_others_well_chosen():
    x = NEARLY_EQUAL["one far away"]
    picks, rest = select_subset(x, 40).indices, np.delete(np.arange(300), 5)
    without = rest[select_subset(x[rest], 39).indices]
    away = [((x[rest][:, None] - x[some]) ** 2).sum(2).min(1).mean() for some in (picks, without)]
    assert 5 in picks[:2] and away[0] < 1.1 * away[1]


@pytest.mark.parametrize("method", ["facility_location", "k_center"])
@pytest.mark.parametrize("share", [0.01, 0.5])
@pytest.mark.parametrize("value, count, kind",
                         [(-999_999, 5000, "f4"), (1e8, 300, "f8"), (9e14, 300, "f8"),
                          (1e12, 5000, "f8")])
def test_fault_among_marks_for_missing_values_the_other_numbers_still_count(
    method, share, value, count, kind
):
    """Products lost what is small beside a mark's square, and all picks but a few were worse than random
    ones."""
    x, marked = rows(count, 3).astype(kind), np.arange(count) < share * count
    x[marked, 1] = value
    picks = select_subset(x, 60, method=method).indices

    def away(some, chosen):
        return ((x[some][:, None] - x[chosen]) ** 2).sum(2).min(1).mean()

    seeds = range(5)
    chance = np.mean([away(~marked, np.random.default_rng(seed).choice(np.flatnonzero(~marked), 20))
                      for seed in seeds])
    assert away(~marked, picks) < chance and select_subset(x, 60, method=method).weights.sum() == count


def test_fault_weights_and_gains_beside_a_far_row():
    x = rows(300, 3)
    x[5] = 1e12
    subset = select_subset(x, 40)
    away = ((x[:, None] - x[subset.indices]) ** 2).sum(2)
    assert subset.weights.tolist() == np.bincount(away.argmin(1), minlength=40).tolist()
    nearest = np.minimum.accumulate(away, axis=1)
    # before, the far row's own distance rounds the others away
    later = np.flatnonzero(subset.indices == 5)[0] + 1
    gains = (nearest[:, later - 1 : -1] - nearest[:, later:]).sum(0)
    np.testing.assert_allclose(subset.gains[later:], gains, rtol=1e-6)


@ALL
@pytest.mark.parametrize("value", [1e20, -3.4e38, 1e300])
def test_fault_numbers_beside_which_all_others_vanish_are_named(method, value):
    x = rows().astype(np.float64 if value == 1e300 else np.float32)
    x[[17, 40], 2] = value
    for call in (lambda: select_subset(x, 20, method=method), lambda: coverage(x, [0, 1]),
                 lambda: select_classes(x, classes(), 2)):
        with pytest.raises(ValueError, match="all others vanish.*in row 17, 40"):
            call()


def test_fault_classes_apart_beside_one_far_away():
    """The spread of a class was lost beside the distance of another one from the mean of all."""
    x = np.tile(rows(100, 3), (5, 1)).reshape(5, 100, 3)
    x[:2] *= 0.1  # two narrow classes nearer to each other than two wide ones, which overlap more
    x[2:4] *= 5
    x[1] += 5
    x[2:4] += [[[100]], [[108]]]
    x[4] += 1e10
    assert (sorted(select_classes(x.reshape(500, 3), np.repeat(range(5), 100), 2, "hard").tolist())
            == [2, 3])


def test_fault_numbers_whose_squares_overflow_are_named():
    with pytest.raises(ValueError, match="beyond 1e150, in row 0, 1"):
        select_subset(1e200 * (1 + rows()), 20)


def test_fault_short_rows_have_a_direction_too():
    x = rows().astype(np.float32)
    wanted = select_subset(x, 20, similarity="cosine").indices.tolist()
    small = x.copy()
    small[::2] *= np.float32(2.0**-100)  # squares of these are 0 in float32
    assert select_subset(small, 20, similarity="cosine").indices.tolist() == wanted


@ALL
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_fault_features_in_half_precision(method, kind):
    x = torch.from_numpy(rows()).to(kind)
    wanted = select_subset(x.float().numpy(), 30, classes(), method)
    assert (select_subset(x, 30, torch.from_numpy(classes()), method).indices.tolist()
            == wanted.indices.tolist())
    assert coverage(x, wanted.indices, draws=2).equals(coverage(x.float(), wanted.indices, draws=2))


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_fault_sparse_features_are_told_in_one_line():
    from scipy import sparse

    dense = np.eye(5)
    for x in (sparse.csr_matrix(dense), sparse.coo_array(dense), torch.from_numpy(dense).to_sparse(),
              torch.from_numpy(dense).to_sparse_csr()):
        with pytest.raises(TypeError, match="dense array, not a sparse one") as caught:
            select_subset(x, 2)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_fault_features_of_one_byte(kind):
    x = torch.from_numpy(rows()).float().to(kind)
    assert select_subset(x, 9).indices.tolist() == select_subset(x.float(), 9).indices.tolist()


def test_fault_numbers_that_numpy_cannot_see_are_told_in_one_line():
    """A mask was dropped, and the hidden numbers counted; others ended in an error from inside
    PyTorch."""
    x = torch.rand(5, 2)
    for hidden in (torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), torch.nested.nested_tensor([x, x]),
                   x.to("meta")):
        with pytest.raises(TypeError, match="pass an ordinary one|dense"):
            select_subset(hidden, 2)
    with pytest.raises(ValueError, match="are masked"):
        select_subset(np.ma.array(x.numpy(), mask=x.numpy() > 0.5), 2)
