"""Trials in several processes and on a cluster: the same table, and what dies costs its own trial."""

import errno
import io
import os
import signal
import sys
import time
import warnings
from functools import partial

import numpy as np
import pandas as pd
import processes
import pytest
import tiny_photos
import torch
from side_by_side_trials import outcome, slow, waits_to_be_seen
from tqdm import tqdm

from lessonkit.ablation import TECHNIQUES, Technique, run_ablation
from lessonkit.study import workers
from lessonkit.study.trials import TrialsFailed, read_correct, read_trials
from lessonkit.study.workers import run_trials

QUICK = tiny_photos.QUICK | {"threads": 1}
SETTINGS = {"size": 8}


@pytest.fixture(scope="module")
def cluster(warm):
    """Address of a Dask scheduler with two workers, as processes of their own on this machine."""
    distributed = pytest.importorskip("distributed")
    options = {"host": "127.0.0.1", "scheduler_port": 0, "dashboard_address": None}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster:
        yield cluster.scheduler_address


def results(trials):
    """What must be the same wherever a trial ran."""
    return trials.drop(columns=[c for c in trials if "seconds" in c])


@pytest.fixture(scope="module")
def alone(images, tmp_path_factory):
    """The study one trial after the other: the folder, and its trials."""
    out = tmp_path_factory.mktemp("alone")
    return out, run_ablation(images, ["normalization", "mixup", "mixup+tta", "tta"], seeds=2, out=out,
                             **QUICK)


@pytest.mark.processor
def test_side_by_side_gives_the_same_table(images, alone, tmp_path):
    together = run_ablation(images, ["normalization", "mixup", "mixup+tta", "tta"], seeds=2,
                            out=tmp_path, jobs=2, **QUICK)
    pd.testing.assert_frame_equal(results(together), results(alone[1]))
    for name, right in read_correct(tmp_path, together).items():
        np.testing.assert_array_equal(right, read_correct(alone[0], alone[1])[name])


def test_a_cluster_gives_the_same_table(images, alone, tmp_path, cluster):
    far = run_ablation(images, ["normalization", "mixup", "mixup+tta", "tta"], seeds=2, out=tmp_path,
                       cluster=cluster, **QUICK)
    pd.testing.assert_frame_equal(results(far), results(alone[1]))


def run(folder, names, seeds=2, marks=None, **where):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run_trials(dict.fromkeys(names, {}), seeds, partial(outcome, marks=marks), folder,
                          SETTINGS, progress=False, **where)


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
def test_a_trial_that_kills_its_process_costs_only_itself(tmp_path):
    trials = run(tmp_path, ["a", "dies", "b", "fails"], 2, jobs=2)
    assert sorted(zip(trials["technique"], trials["seed"])) == [
        (name, seed) for name in "ab" for seed in range(2)
    ]
    failed = read_trials(tmp_path, failed=True).set_index("technique")["error"]
    assert failed["dies"].str.contains("its process died 3 times").all()
    assert (failed["fails"] == "ValueError: loss is NaN").all()
    assert os.getpid() not in set(trials["process"]) and len(read_correct(tmp_path)) == 4


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
def test_a_process_that_dies_once_costs_nothing(tmp_path):
    (tmp_path / "marks").mkdir()
    trials = run(tmp_path / "study", ["a", "dies_once"], 2, marks=str(tmp_path / "marks"), jobs=2)
    assert len(trials) == 4 and read_trials(tmp_path / "study", failed=True).empty


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
def test_a_worker_of_a_cluster_that_dies_costs_only_its_trial(tmp_path, cluster):
    trials = run(tmp_path, ["a", "dies", "b", "fails"], 2, cluster=cluster)
    assert sorted(zip(trials["technique"], trials["seed"])) == [
        (name, seed) for name in "ab" for seed in range(2)
    ]
    failed = read_trials(tmp_path, failed=True).set_index("technique")["error"]
    assert (failed["dies"].str.contains("KilledWorker").all() and (failed["fails"] == "ValueError: "
                                                                   "loss is NaN").all())


def test_a_cluster_that_isnt_there_is_told(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    connect = distributed.Client
    # not 20 seconds
    monkeypatch.setattr(distributed, "Client", lambda address, timeout,
                        **how: connect(address, timeout=1, **how))
    with pytest.raises(ValueError, match="No Dask scheduler answers at 'tcp://127.0.0.1:9'"):
        run(tmp_path, ["a"], cluster="tcp://127.0.0.1:9")
    with pytest.raises(ValueError, match="No Dask scheduler answers at 'nonsense:'"):
        run(tmp_path, ["a"], cluster="nonsense:")


@pytest.mark.parametrize(
    "jobs, error",
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("two", TypeError)],
)
def test_a_wrong_number_of_jobs_is_told(tmp_path, jobs, error):
    with pytest.raises(error, match="jobs=.* must be a whole number"):
        run(tmp_path, ["a"], jobs=jobs)


@pytest.mark.parametrize(
    "seeds, error",
    [
        (-1, ValueError),
        ([0, -1], ValueError),
        (1.5, TypeError),
        ([0.5], TypeError),
        (True, TypeError),
        (0, ValueError),
        ([], ValueError),
    ],
)
def test_wrong_seeds_are_told(tmp_path, seeds, error):
    with pytest.raises(error):
        run(tmp_path, ["a"], seeds)


def slow_study(folder):
    run_trials({"a": {}, "b": {}}, 6, partial(slow, study=os.getpid()), folder, SETTINGS, progress=False,
               jobs=2)


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows")
@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_a_killed_study_keeps_what_was_finished_and_goes_on(tmp_path, how):
    process = processes.start(slow_study, tmp_path / "out", folder=tmp_path)
    try:
        while len(read_trials(tmp_path / "out")) < 6:
            assert process.is_alive()
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL if how == "kill" else signal.SIGINT)
        process.join()
    finally:
        process.kill()
    stored = read_trials(tmp_path / "out")
    assert len(stored) == 6 and set(read_correct(tmp_path / "out")) >= set(stored["id"])
    ran = []
    rest = run_trials({"a": {}, "b": {}}, 6, lambda *trial: ran.append(trial[:2])
                      or ({"accuracy": 0.5}, [True, False]),
        tmp_path / "out", SETTINGS, progress=False)
    assert len(rest) == 12 and len(ran) == 6 and not {*ran} & {*zip(stored["technique"], stored["seed"])}


def test_threads_are_given_back(images):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        trials = run_ablation(images, [], seeds=1, **QUICK)
        assert torch.get_num_threads() == 2 and (trials["threads"] == 1).all()
    finally:
        torch.set_num_threads(before)


def test_a_technique_of_ones_own_travels_to_other_processes(images, tmp_path):
    calls = []
    own = Technique("own", loss=lambda: torch.nn.CrossEntropyLoss(label_smoothing=0.3),
                    callbacks=lambda: calls.append(1) or [])
    trials = run_ablation(images, [own, TECHNIQUES["mixup"]], seeds=1, out=tmp_path, jobs=2, **QUICK)
    assert sorted(trials["technique"]) == ["baseline", "mixup", "own"] and not calls


def test_nothing_finished_is_an_error(tmp_path):
    with pytest.raises(TrialsFailed,
                       match="2 of 2 trials failed, first fails with seed 0: ValueError: loss is NaN"):
        run(tmp_path, ["fails"], jobs=2)


def steps_of(dask_scheduler):
    """How much a scheduler has done so far."""
    return dask_scheduler.transition_counter


def test_classes_are_chosen_from_on_a_cluster_by_the_same_call(cluster):
    from joblib import parallel_config

    from lessonkit.subset_selection import select_subset

    distributed = pytest.importorskip("distributed")
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((400, 8)).astype("float32"), rng.integers(0, 5, 400)
    here = select_subset(features, 60, labels)
    with distributed.Client(cluster, set_as_default=False, timeout=600) as client:
        client.wait_for_workers(2, timeout=600)  # one may have died in another test
        before = client.run_on_scheduler(steps_of)
        with parallel_config(backend="dask", client=client, wait_for_workers_timeout=600):
            there = select_subset(features, 60, labels, n_jobs=2)
        assert client.run_on_scheduler(steps_of) > before  # it was the cluster that worked
    np.testing.assert_array_equal(there.indices, here.indices)
    np.testing.assert_allclose(there.weights, here.weights)


class Future:
    """A trial on `FakeCluster`."""

    def __init__(self, status, found=None):
        self.status, self.found = status, found

    def result(self, timeout):
        return self.found

    def exception(self):
        return self.found


class FakeCluster:
    """What `run_trials` uses of `distributed`; None in place of a scripted outcome runs the trial."""

    def __init__(self, *outcomes):
        self.outcomes, self.sent, self.loop = list(outcomes), [], None
        self.Client = lambda address, **options: self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait_for_workers(self, n, timeout):
        pass

    def submit(self, act, *args, key):
        self.sent.append(key)
        scripted = self.outcomes.pop(0)
        if isinstance(scripted, str):
            return Future(scripted)
        return Future("error", scripted) if isinstance(scripted, Exception) else Future(
            "finished", act(*args)
        )

    def as_completed(self, futures, loop, timeout):
        return list(futures)


def test_a_result_that_is_lost_on_a_cluster_is_fetched_again(tmp_path, monkeypatch):
    """A worker may die between finishing a trial and telling its outcome."""
    fake = FakeCluster("lost", "lost", None)
    monkeypatch.setitem(sys.modules, "distributed", fake)
    assert len(run(tmp_path, ["a"], 1, cluster="tcp://fake")) == 1 and len(fake.sent) == 3


def test_a_cluster_that_has_lost_all_its_workers_is_told(tmp_path, monkeypatch):
    """Nobody waits for ever: what finished is kept, and the message says what to do."""
    distributed = pytest.importorskip("distributed")
    fake = FakeCluster(None, "pending", "pending")
    monkeypatch.setitem(sys.modules, "distributed", fake)
    answers = iter([None, distributed.TimeoutError()])  # a worker at first, none later

    def first_ones_only(futures, loop, timeout):
        yield from [future for future in futures if future.status != "pending"]
        raise distributed.TimeoutError

    def wait_for_workers(n, timeout):
        if error := next(answers):
            raise error

    fake.as_completed, fake.wait_for_workers = first_ones_only, wait_for_workers
    with pytest.raises(ValueError, match="has had no worker for some minutes. Start one, and repeat"):
        run(tmp_path, ["a", "b", "c"], 1, cluster="tcp://fake")
    assert read_trials(tmp_path)["technique"].tolist() == ["a"]


def test_long_trials_on_a_cluster_are_waited_for(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    fake = FakeCluster(None, None)
    monkeypatch.setitem(sys.modules, "distributed", fake)
    calls = []

    def one_each_time(futures, loop, timeout):
        calls.append(len(futures))
        yield futures[0]
        raise distributed.TimeoutError

    fake.as_completed = one_each_time
    assert len(run(tmp_path, ["a", "b"], 1, cluster="tcp://fake")) == 2 and calls == [2, 1]


def test_a_trial_that_kills_its_workers_is_tried_alone_once(tmp_path, monkeypatch):
    killed = type("KilledWorker", (Exception,), {})("four times")
    fake = FakeCluster(killed, killed)
    monkeypatch.setitem(sys.modules, "distributed", fake)
    with pytest.raises(TrialsFailed, match="KilledWorker: four times"):
        run(tmp_path, ["a"], 1, cluster="tcp://fake")
    assert len(fake.sent) == 2


def test_a_display_that_fails_costs_itself_only(tmp_path):
    def broken(trials):
        raise KeyError("seed")

    with pytest.warns(UserWarning, match="can't be shown: KeyError: 'seed'") as told:
        trials = run_trials({"a": {}, "b": {}}, 3, outcome, tmp_path, {}, progress=False, each=broken)
    assert len(trials) == 6 and len(told) == 1


def test_the_bar_moves_with_the_epochs_of_other_processes(tmp_path, monkeypatch):
    """It shows two of three epochs of each trial while none of them has ended, and all in the end."""
    shown = []

    class Seen(tqdm):
        def refresh(self, *args, **kwargs):
            shown.append(self.n)
            if self.n == 4:
                (tmp_path / "seen").touch()

    monkeypatch.setattr(workers, "_EVERY", (0.05, 0.05))
    monkeypatch.setattr(workers, "tqdm", lambda total, **_: Seen(total=total, file=io.StringIO()))
    trial = partial(waits_to_be_seen, seen=str(tmp_path / "seen"))
    assert len(run_trials({"a": {}, "b": {}}, 1, trial, tmp_path / "study", {}, steps=3, jobs=2)) == 2
    assert 4 in shown and max(shown) <= 6


def test_a_full_disk_ends_trials_side_by_side_with_one_error_and_no_advice_for_developers(
    tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lessonkit.study.trials.StudyFolder.store", full)
    with warnings.catch_warnings(action="error"), pytest.raises(
        OSError, match=r"No space left.*0 finished trials are kept"
    ):
        run_trials({"a": {}, "b": {}}, 20, outcome, tmp_path, {}, progress=False, jobs=2)
