"""Choosing subsets of generated features: times beside apricot's, and goals in seconds and bytes.

A goal in seconds stands as a ratio to the seconds allowed. Memory is what the process's peak grows by,
features excluded.
"""

import random
import warnings

import numpy as np
from ratios import Ratio
from scipy.spatial.distance import cdist
from usage import GIB, timed

from lessonkit.selection import facility_location
from lessonkit.subset_selection import select_subset

SECONDS, BYTES = 60, 2 * GIB  # allowed


def features(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of 64 numbers around the means of their classes, the classes more and less wide."""
    rng = np.random.default_rng(seed)
    means, labels = rng.standard_normal((classes, 64), dtype=np.float32), rng.integers(0, classes, n)
    x = rng.standard_normal((n, 64), dtype=np.float32)
    x *= rng.uniform(0.3, 1.0, classes).astype(np.float32)[labels, None]
    for start in range(0, n, 2**16):
        x[start : start + 2**16] += means[labels[start : start + 2**16]]
    return x, labels


def worth(x: np.ndarray, picks: np.ndarray) -> float:
    """Minus the sum of squared distances to the nearest pick."""
    return -cdist(x, x[picks], "sqeuclidean").min(1).sum()


def closed_gap(n: int = 10_000, picks: int = 100, parts: int = 7) -> tuple[float, float]:
    """How far choosing in parts, as done for 100,000 rows, closes the gap from chance to plain greedy;
    and the gap itself, 1."""
    x, exact = features(n, 200)[0], facility_location.EXACT
    greedy = worth(x, select_subset(x, picks).indices)
    chance = np.mean([worth(x, select_subset(x, picks, method="random", seed=seed).indices)
                      for seed in range(10)])
    try:
        facility_location.EXACT = -(-n // parts)
        found = worth(x, select_subset(x, picks).indices)
    finally:
        facility_location.EXACT = exact
    return (found - chance) / (greedy - chance), 1.0


def against_apricot(rounds: int, rows: int = 10_000, faster: float = 3) -> list[Ratio]:
    """A tenth of the rows is picked; `faster`: the goal."""
    try:
        from apricot import FacilityLocationSelection
    except ImportError:
        print("selecting: apricot-select isn't installed, so its rows are left out "
              "(pip install apricot-select)", flush=True)
        return []
    x, n = features(rows, 200)[0], rows // 10
    norms = (x.astype(np.float64) ** 2).sum(1)
    squared = np.maximum(norms[:, None] + norms - 2 * x.astype(np.float64) @ x.T, 0)
    similar = squared.max() - squared
    found = {}
    calls = {
        "ours": lambda: found.update(ours=select_subset(x, n, n_jobs=2).indices),
        "apricot": lambda: FacilityLocationSelection(n, metric="euclidean", optimizer="lazy").fit(x),
        "apricot, given": lambda: found.update(
            theirs=FacilityLocationSelection(n, metric="precomputed",
                                             optimizer="lazy").fit(similar).ranking
        ),
    }
    FacilityLocationSelection(5, metric="euclidean", optimizer="lazy").fit(x[:50])  # compiles
    FacilityLocationSelection(5, metric="precomputed", optimizer="lazy").fit(similar[:50, :50])
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name, call in random.sample(list(calls.items()), len(calls)):
            seconds[name].append(timed(call)[0])
        print(f"selecting, {rows:,} rows, round {number + 1} of {rounds}: "
              + ", ".join(f"{k} {v[-1]:.2f} s" for k, v in seconds.items()), flush=True)
    values = [similar[:, found[name]].max(axis=1).sum() for name in ("ours", "theirs")]
    name = f"{rows:,} rows, {n:,} picks"
    return [
        Ratio(f"{name}: apricot's lazy greedy, from features / ours", seconds["apricot"],
              seconds["ours"], ">=", faster),
        Ratio(f"{name}: apricot with the similarities given / ours from features",
              seconds["apricot, given"], seconds["ours"]),
        Ratio(f"{name}, objective: ours / apricot's", [values[0]], [values[1]], ">=", 0.999),
    ]


def ratios(rounds: int) -> list[Ratio]:
    warnings.filterwarnings("ignore")
    select_subset(features(2000, 2)[0], 10)  # the first call is slower
    rows = []
    x = features(100_000, 200)[0]
    one_core, _ = timed(lambda: select_subset(x, 1000, n_jobs=1))
    seconds, grown = timed(lambda: select_subset(x, 1000, n_jobs=2))
    print(f"selecting: 100,000 rows, 1,000 picks: {seconds:.1f} s, {grown / GIB:.2f} GiB", flush=True)
    rows.append(Ratio("100,000 x 64, no labels, 1,000 picks: seconds / 60", [seconds], [SECONDS], "<=",
                      1))
    rows.append(Ratio("100,000 x 64, no labels, 1,000 picks: two cores / one", [seconds], [one_core],
                      "<=", 0.6))
    rows.append(Ratio("100,000 x 64, no labels, 1,000 picks: memory / 2 GiB", [grown], [BYTES], "<=", 1))
    rows.append(Ratio("in parts, 10,000 x 64: share of the gap from chance to plain greedy",
                      *([v] for v in closed_gap()), ">=", 0.97))
    few, labels = features(320_292, 250)
    quarter = timed(lambda: select_subset(few, 3203, labels, n_jobs=2))[0]
    few = labels = None  # frees their memory
    x, labels = features(1_281_167, 1000)
    seconds, grown = timed(lambda: select_subset(x, 12_812, labels, n_jobs=2))
    print(f"selecting: 1,281,167 rows, 1,000 classes, 1 %: {seconds:.1f} s, {grown / GIB:.2f} GiB; "
          f"a quarter of it: {quarter:.1f} s", flush=True)
    rows.append(Ratio("1,281,167 x 64, 1,000 classes, 1 %: seconds / 60", [seconds], [SECONDS], "<=", 1))
    rows.append(Ratio("1,281,167 x 64, 1,000 classes, 1 %: memory / 2 GiB", [grown], [BYTES], "<=", 1))
    rows.append(Ratio("1,281,167 x 64, 1,000 classes, 1 %: seconds / 4 times those for a quarter of "
                      "the classes", [seconds], [4 * quarter], "<=", 1.2))
    return rows + against_apricot(rounds, 5000, 1 / 0.15) + against_apricot(rounds)
