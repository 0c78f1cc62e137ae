"""Processes of their own that begin at once: on Linux they are forked from a server that has imported
all they need. What is about the beginning of a process itself takes `subprocess`."""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from joblib.externals.loky.backend.context import get_start_method, set_start_method

FORKS = sys.platform == "linux"  # elsewhere libraries that are loaded already may not survive a fork


@contextlib.contextmanager
def warm_up() -> Iterator[None]:
    """Let processes of multiprocessing, joblib and Dask begin so; the server keeps its environment."""
    if not FORKS:
        yield
        return
    from multiprocessing import forkserver

    # a first training imports torch._dynamo
    multiprocessing.set_forkserver_preload(["lessonkit.ablation", "torch._dynamo", "distributed"])
    forkserver.ensure_running()
    before = get_start_method()
    set_start_method("forkserver", force=True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD", "forkserver")
            yield
    finally:
        set_start_method(before, force=True)


CONTEXT = multiprocessing.get_context("forkserver" if FORKS else "spawn")
event = CONTEXT.Event  # one process waits for it, another one sets it


def start(do: Callable, *arguments, folder: Path) -> BaseProcess:
    """Call a function of a test module in a new process. It works in the folder, and what it says goes
    into `said.txt` there."""
    process = CONTEXT.Process(target=_begin, args=(do, arguments, folder, dict(os.environ)))
    process.start()
    return process


def _begin(do: Callable, arguments: tuple, folder: Path, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    said = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(said, stream)
    sys.stdout, sys.stderr = (open(stream, "w", encoding="utf-8", buffering=1, closefd=False)
                              for stream in (1, 2))
    # tests in the background inherit "ignore Ctrl-C"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(do(*arguments))
