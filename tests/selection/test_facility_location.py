"""The engine: the picks of the definition, whatever the pieces, the precision and the rounds."""

import contextlib

import joblib
import numpy as np
import pytest
from joblib import Parallel

from lessonkit.selection import facility_location as engine
from lessonkit.selection.facility_location import Points, distinct_rows, facility_location
from lessonkit.subset_selection import select_subset


def rows(n=200, d=6, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def worth(x, picks):
    """The sum over all rows of the similarity to the nearest pick."""
    reach = 4 * ((x - x.mean(0)) ** 2).sum(1).max()
    return (reach - ((x[:, None] - x[picks]) ** 2).sum(2).min(1)).sum()


def test_picks_among_so_many_candidates_that_work_is_shared_are_those_of_the_definition():
    x = rows(2100, 3)
    picks = facility_location(Points(x, np.ones(2100, int)), 12, Parallel(2, prefer="threads"))
    away = ((x[:, None] - x) ** 2).sum(2)
    nearest = away[:, picks[0]]
    assert picks[0] == away.sum(0).argmin()
    for pick in picks[1:]:
        assert pick == np.maximum(nearest[:, None] - away, 0).sum(0).argmax()
        nearest = np.minimum(nearest, away[:, pick])


def test_pieces_of_any_size_give_the_same(monkeypatch):
    x = rows()
    whole = select_subset(x, 200).indices.tolist()
    monkeypatch.setattr(engine, "TILE_COLUMNS", 7)
    monkeypatch.setattr(engine, "TILE_ROWS", 5)
    assert select_subset(x, 200).indices.tolist() == whole


def test_in_single_precision_and_in_parts_nearly_as_good(monkeypatch):
    x = rows(1000, 4)
    exact = select_subset(x, 25)
    monkeypatch.setattr(engine, "DOUBLE", 10)
    single = select_subset(x, 25)
    assert worth(x, single.indices) == pytest.approx(worth(x, exact.indices), rel=1e-4)
    monkeypatch.setattr(engine, "EXACT", 500)
    parts = select_subset(x, 25)
    chance = np.mean([worth(x, np.random.default_rng(s).choice(1000, 25, replace=False))
                      for s in range(10)])
    assert (worth(x, parts.indices) - chance) / (worth(x, exact.indices) - chance) > 0.9
    everything = select_subset(x, 200)  # more than the 124 candidates: the others are admitted
    assert (everything.indices[:25].tolist() == parts.indices.tolist()
            and len(set(everything.indices)) == 200)


def test_rows_that_occur_several_times_among_many():
    x = np.random.default_rng(0).integers(0, 300, (150_000, 2)).astype(np.float32)
    first, counts, repeats = distinct_rows(x)
    rows_found, occur = np.unique(x, axis=0, return_counts=True)
    assert np.array_equal(x[first], rows_found) and np.array_equal(counts, occur)
    assert np.array_equal(np.sort(np.concatenate([first, repeats])), np.arange(len(x)))


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_parts_chosen_by_two_workers_are_worth_what_the_whole_is(backend, monkeypatch):
    distributed = pytest.importorskip("distributed") if backend == "dask" else None
    x = rows(3000, 8) + 3 * rows(40, 8)[np.arange(3000) % 40]
    whole = select_subset(x, 60)
    monkeypatch.setattr(engine, "EXACT", 600)  # five parts
    parts = select_subset(x, 60)
    with contextlib.ExitStack() as stack:
        if distributed:
            cluster = stack.enter_context(
                distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
            )
            stack.enter_context(distributed.Client(cluster))
        stack.enter_context(joblib.parallel_config(backend))
        shared = select_subset(x, 60, n_jobs=2)
    assert shared.indices.tolist() == parts.indices.tolist()
    chance = np.mean([worth(x, np.random.default_rng(s).choice(3000, 60, replace=False))
                      for s in range(10)])
    assert worth(x, parts.indices) - chance >= 0.97 * (worth(x, whole.indices) - chance)
