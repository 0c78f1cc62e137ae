"""`py.typed` promises that types are there and right: mypy reads the package and what a user would
write."""

import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parent.parent


def test_mypy_finds_nothing_in_the_package_and_each_mistake_in_the_examples():
    """What it knows of other libraries it keeps for the next time: reading them takes most of its
    time."""
    pytest.importorskip("mypy")
    call = [sys.executable, "-m", "mypy", "--warn-unused-ignores", "--cache-dir",
            ROOT / ".cache" / "mypy"]
    run = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
