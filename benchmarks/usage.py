"""Seconds and bytes that a call takes, and an empty cache to take them in."""

import contextlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

MIB, GIB = 2**20, 2**30
STATUS = Path("/proc/self/status")  # Linux


def peak() -> int:
    """The process's largest memory since it was last reset, in bytes; where it can't be reset, so
    far."""
    if STATUS.exists():
        return 1024 * int(next(line.split()[1]
                               for line in STATUS.read_text(encoding="utf-8").splitlines()
                               if line.startswith("VmHWM")))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def timed(call: Callable) -> tuple[float, int]:
    """Seconds, and bytes by which memory grew at its peak."""
    with contextlib.suppress(OSError):  # elsewhere than on Linux
        (STATUS.parent / "clear_refs").write_text("5", encoding="utf-8")  # the peak is what is used now
    before, start = peak(), time.perf_counter()
    call()
    return time.perf_counter() - start, peak() - before


@contextlib.contextmanager
def empty_cache():
    """Decoded photos of an earlier run would hide what decoding costs."""
    kept = os.environ.get("LESSONKIT_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LESSONKIT_CACHE"] = folder
        try:
            yield
        finally:
            del os.environ["LESSONKIT_CACHE"]
            if kept is not None:
                os.environ["LESSONKIT_CACHE"] = kept
