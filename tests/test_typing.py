"""`py.typed` promises that types are there and right: mypy reads the package and what a user would write."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_mypy_finds_nothing_in_the_package_and_each_mistake_in_the_examples(tmp_path):
    pytest.importorskip("mypy")
    call = [sys.executable, "-m", "mypy", "--warn-unused-ignores", "--cache-dir", tmp_path]
    run = subprocess.run(call, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
