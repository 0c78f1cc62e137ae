"""Studies that are killed, torn, repeated, changed and doubled."""

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import processes
import pytest

from lessonkit.photos import photo_cache
from lessonkit.study.trials import (
    StudyBusy, StudyMismatch, TrialsFailed, open_study, photos_identity, read_correct, read_trials,
)
from lessonkit.study.workers import run_trials

IDENTITY = {"size": 32, "epochs": 1}


def endless(technique, seed, tick):
    """A trial; the sixth one never ends, however late one looks."""
    while (technique, seed) == ("mixup", 2):
        time.sleep(1)
    right = np.random.default_rng(seed).random(1000) < 0.7
    return {"size": 32, "epochs": 1, "accuracy": float(right.mean())}, right


def endless_study(folder):
    run_trials({"baseline": {}, "mixup": {}}, 50, endless, folder, IDENTITY, progress=False)


@contextmanager
def child(folder: Path):
    """A process in the middle of a study: five trials are stored, and it works at the sixth."""
    process = processes.start(endless_study, folder, folder=folder.parent)
    lines = folder / "trials.jsonl"
    try:
        while not (lines.exists() and lines.read_bytes().count(b"\n") == 5):
            assert process.is_alive()
            time.sleep(0.02)
        yield process
    finally:
        process.kill()  # SIGKILL: nothing can be tidied up
        process.join()


def make_believe(trained: list, fail=()):
    """A `run` function that writes down what it is asked for."""

    def run(technique, seed, tick):
        trained.append((technique, seed))
        if (technique, seed) in fail:
            raise RuntimeError("out of luck")
        right = np.random.default_rng(seed).random(50) < 0.7
        return {"size": 32, "epochs": 1, "accuracy": float(right.mean())}, right

    return run


def study(folder: Path, techniques="ab", seeds=2, identity=IDENTITY, fail=()):
    trained = []
    settings = techniques if isinstance(techniques, dict) else dict.fromkeys(techniques, {})
    table = run_trials(settings, seeds, make_believe(trained, fail), folder, identity, progress=False)
    return table, trained


def test_kill_in_the_middle_costs_the_running_trial_only(tmp_path):
    with child(tmp_path):
        pass
    before = read_trials(tmp_path)
    assert len(before) == 5 and set(read_correct(tmp_path)) >= set(before["id"])
    trained = []
    table = run_trials({"baseline": {}, "mixup": {}}, 6, make_believe(trained), tmp_path, IDENTITY,
                       progress=False)
    assert len(table) == 12
    kept = table.merge(before, on=["technique", "seed"])
    assert (kept["accuracy_x"] == kept["accuracy_y"]).all() and len(kept) == 5
    assert len(trained) == 7 and trained[0] == ("mixup", 2)
    for row in table.to_dict("records"):
        assert read_correct(tmp_path)[row["id"]].mean() == pytest.approx(row["accuracy"])


def test_a_second_study_is_refused_while_the_first_runs_and_allowed_after_its_death(tmp_path):
    with child(tmp_path), pytest.raises(StudyBusy, match="right now"):
        study(tmp_path)
    study(tmp_path, "ab", 1)


@pytest.mark.parametrize(
    "torn", [b'{"technique": "b", "se', b"\0" * 20, '{"technique": "ü'.encode()[:-1], b"{}"]
)
def test_torn_last_line_is_read_past_and_repaired(tmp_path, torn):
    table, _ = study(tmp_path)
    with open(tmp_path / "trials.jsonl", "ab") as file:
        file.write(torn)
    assert len(read_trials(tmp_path)) == 4
    again, trained = study(tmp_path, "abc")
    assert len(again) == 6 and trained == [("c", 0), ("c", 1)]
    for line in (tmp_path / "trials.jsonl").read_text(encoding="utf-8").splitlines():
        assert json.loads(line)["technique"] in "abc"


def test_only_the_last_line_cut_short_is_trained_again(tmp_path):
    study(tmp_path)
    path = tmp_path / "trials.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    _, trained = study(tmp_path)
    assert trained == [("b", 1)]


def test_more_seeds_or_techniques_run_only_what_is_missing(tmp_path):
    first, trained = study(tmp_path, "ab", 2)
    assert len(trained) == 4
    again, trained = study(tmp_path, "ab", 2)
    assert trained == [] and again.equals(first)
    _, trained = study(tmp_path, "ab", 3)
    assert trained == [("a", 2), ("b", 2)]
    _, trained = study(tmp_path, "abc", 1)
    assert trained == [("c", 0)]
    fewer, trained = study(tmp_path, "a", 2)
    assert trained == [] and len(fewer) == 2


def test_changed_settings_never_mix_and_the_message_says_what_changed(tmp_path):
    study(tmp_path, {"a": {"alpha": 0.4}})
    before = (tmp_path / "trials.jsonl").read_bytes()
    with pytest.raises(StudyMismatch, match="size was 32, now 64.*another folder"):
        study(tmp_path, identity=IDENTITY | {"size": 64})
    with pytest.raises(StudyMismatch, match="photos was not set, now"):
        study(tmp_path, identity=IDENTITY | {"photos": "others"})
    with pytest.raises(StudyMismatch, match="a: alpha was 0.4, now 1"):
        study(tmp_path, {"a": {"alpha": 1}})
    (tmp_path / "study.json").unlink()
    with pytest.raises(StudyMismatch, match="no study.json"):
        study(tmp_path)
    assert (tmp_path / "trials.jsonl").read_bytes() == before


def test_rows_of_another_study_in_the_file_are_not_used(tmp_path):
    study(tmp_path / "other", identity=IDENTITY | {"size": 64})
    study(tmp_path / "mine", "a", 1)
    with open(tmp_path / "mine/trials.jsonl", "ab") as file:
        file.write((tmp_path / "other/trials.jsonl").read_bytes())
    _, trained = study(tmp_path / "mine", "ab", 2)
    assert trained == [("b", 0), ("a", 1), ("b", 1)]


def test_a_failing_trial_is_recorded_told_and_tried_again(tmp_path):
    with pytest.warns(UserWarning,
                      match="1 of 4 trials failed, first b with seed 0: RuntimeError: out of luck"):
        table, trained = study(tmp_path, fail=[("b", 0)])
    assert len(table) == 3 and len(trained) == 4
    assert read_trials(tmp_path, failed=True)["error"].tolist() == ["RuntimeError: out of luck"]
    table, trained = study(tmp_path)
    assert len(table) == 4 and trained == [("b", 0)]
    assert read_trials(tmp_path, failed=True).empty


def test_when_everything_fails_that_is_an_error(tmp_path):
    with pytest.raises(TrialsFailed, match="out of luck"):
        study(tmp_path, "a", 1, fail=[("a", 0)])


def test_correctness_files_hold_no_objects(tmp_path):
    study(tmp_path, "a", 1)
    np.save(tmp_path / "correct/a-seed0.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert read_correct(tmp_path) == {}  # never unpickled, and not taken for a result


@pytest.mark.parametrize("damage", [None, b"", b"\x93NUMPY\x01\x00"])
def test_a_trial_whose_photos_are_gone_or_damaged_is_trained_again(tmp_path, damage):
    table, _ = study(tmp_path, "ab", 2)
    file = tmp_path / "correct/a-seed0.npy"
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    assert len(read_correct(tmp_path)) == 3
    again, trained = study(tmp_path, "ab", 2)
    assert trained == [("a", 0)] and len(read_correct(tmp_path)) == 4
    assert again.equals(table)


def test_a_full_disk_stops_the_study_and_spoils_nothing(tmp_path, monkeypatch):
    study(tmp_path, "ab", 1)
    before = (tmp_path / "trials.jsonl").read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError,
                           match="a, seed 1 can't be stored.*No space left.*2 finished trials are kept"):
            study(tmp_path, "ab", 3)
        with open_study(tmp_path, IDENTITY) as opened, pytest.raises(OSError):
            opened.store("a", 1, {"accuracy": 0.5})
    assert (tmp_path / "trials.jsonl").read_bytes() == before
    assert study(tmp_path, "ab", 2)[1] == [("a", 1), ("b", 1)]


def test_a_trial_that_finds_the_disk_full_stops_the_study_too(tmp_path):
    """Its weights and answers are written before its row; every later trial would fail in the same
    way."""
    begun = []

    def run(technique, seed, tick):
        begun.append(seed)
        if seed:
            raise OSError(28, "No space left on device")
        return {"accuracy": 0.5}, None

    with pytest.raises(
        OSError, match="a, seed 1 can't be stored.*No space left on device.*1 finished trials are kept"
    ):
        run_trials({"a": {}}, 9, run, tmp_path, IDENTITY, progress=False)
    assert begun == [0, 1]


def test_a_study_with_no_finished_trial_takes_new_settings(tmp_path):
    with open_study(tmp_path, IDENTITY):
        pass
    with open_study(tmp_path, IDENTITY | {"size": 64}):
        pass


def test_a_running_study_does_not_read_everything_again_for_each_trial(tmp_path, monkeypatch):
    """The time for 1,280 trials of no training grew with the square of their number."""
    read, real = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or real(path))
    counts, seen = [], []
    for name, seeds in ("few", 3), ("many", 30):
        read.clear()
        table = run_trials({"a": {}}, seeds, lambda *_: ({"accuracy": float("nan")}, [True]),
                           tmp_path / name, {}, progress=False, each=seen.append)
        counts.append(len(read))
    assert counts[0] == counts[1] and [len(shown) for shown in seen] == [*range(1, 4), *range(1, 31)]
    again = run_trials({"a": {}}, 30, lambda *_: 1 / 0, tmp_path / "many", {}, progress=False)
    assert table.equals(again) and table.dtypes.equals(
        again.dtypes
    )  # kept in memory and read from the disk: the same


@pytest.mark.parametrize("length", [1, 16_384, 16_385, 32_768, 32_769, 100_000])
def test_any_byte_of_a_photo_changes_the_photos_identity(tmp_path, monkeypatch, length):
    """Once only both ends of a photo counted. Length and time of change stay, as of a file that was
    restored."""
    monkeypatch.setenv("LESSONKIT_CACHE", str(tmp_path / "cache"))
    path, content = tmp_path / "1.jpg", bytearray(length)
    images = SimpleNamespace(paths=[path], labels=[0], classes=["cat"], split=["train"])
    path.write_bytes(content)
    first = photos_identity(images)
    assert photos_identity(images) == first
    for place in sorted({0, length // 2, length - 1}):
        other, times = content.copy(), path.stat()
        other[place] = 1
        path.write_bytes(other)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert photos_identity(images) != first, place
    path.write_bytes(content)
    assert photos_identity(images) == first


def test_a_long_photo_is_read_once(tmp_path, monkeypatch):
    monkeypatch.setattr(photo_cache, "SETTLED", -1.0)  # as if it had been written long ago
    monkeypatch.setenv("LESSONKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "1.jpg").write_bytes(bytes(50_000))
    images = SimpleNamespace(paths=[tmp_path / "1.jpg"], labels=[0], classes=["cat"], split=["train"])
    first = photos_identity(images)
    monkeypatch.setattr(photo_cache, "digest_of", None)
    assert photos_identity(images) == first


def test_the_identity_of_stored_studies_stays(tmp_path):
    """The stored studies name their photos so; those have less than 32 KB each."""
    for name, content in (("cat/1.jpg", b"a cat"), ("dog/2.jpg", bytes(range(256)) * 100)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / "cat/1.jpg", tmp_path / "dog/2.jpg"]
    images = SimpleNamespace(paths=paths, labels=[0, 1], classes=["cat", "dog"],
                             split=["train", "valid"])
    assert photos_identity(images) == {"classes": 2, "train": 1, "valid": 1,
                                       "contents": "de3b4a28a16f575f"}
