"""Make-believe trials for `test_workers.py`: in a module that other processes import quickly."""

import os
import signal
import time
from pathlib import Path

import numpy as np


def outcome(technique, seed, tick, marks=None):
    """A trial that does what its name says."""
    right = np.random.default_rng(seed).random(20) < 0.7
    if technique == "dies" or (technique == "dies_once" and _first(Path(marks) / str(seed))):
        os.kill(os.getpid(), signal.SIGKILL)
    if technique == "fails":
        raise ValueError("loss is NaN")
    return {"size": 8, "epochs": 1, "accuracy": float(right.mean()), "process": os.getpid()}, right


def slow(technique, seed, tick, study=0):
    """A trial that never ends with seed 3, however late one looks, but with the process that asked for
    it."""
    while seed == 3:
        time.sleep(0.1)
        if os.getppid() != study:
            os._exit(1)
    return {"accuracy": 0.5}, [True, False]


def waits_to_be_seen(technique, seed, tick, seen):
    """A trial of three epochs that ends when somebody has seen that two are over."""
    tick(), tick()
    for _ in range(1200):
        if Path(seen).exists():
            return {"accuracy": 0.5}, [True, False]
        time.sleep(0.1)
    raise TimeoutError("nobody looks")


def _first(mark):
    """Whether this is the first time."""
    try:
        open(mark, "x").close()
        return True
    except FileExistsError:
        return False
