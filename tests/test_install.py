"""What `make` says when the environment can't be made: one plain line for each cause."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from install import reason  # noqa: E402

RETRY = ("WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(\"Failed "
         "to establish a new connection\")'\n")
NOT_FOUND = ("ERROR: Could not find a version that satisfies the requirement torch "
             "(from versions: none)\n")


@pytest.mark.parametrize("log, free, said", [
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", 1e6,
     "The disk is full."),
    ("", 1e6, "The disk is full."),  # the log itself could not be written
    (RETRY + NOT_FOUND, 5e10, "The network failed"),
    (NOT_FOUND, 5e10, "pip failed: Could not find a version that satisfies the requirement torch"),
    ("", 5e10, "pip failed"),
])
def test_each_cause_is_told_in_one_line(log, free, said):
    line = reason(log, free)
    assert line.startswith(said) and "\n" not in line


@pytest.mark.skipif(os.name == "nt", reason="there is no make")
def test_an_old_python_is_told_in_one_line(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo Python 3.9.18; else exit 1; fi\n',
                   encoding="utf-8")
    old.chmod(0o755)
    command = ["make", "--no-print-directory", "install", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode != 0 and not (tmp_path / "venv").exists()
    assert (run.stdout == f"lessonkit needs Python 3.11 or newer, and {old} is Python 3.9.18. "
            "For example: make lessons PYTHON=python3.12\n")


@pytest.mark.skipif(os.name == "nt", reason="there is no make")
def test_help_fits_a_screen():
    run = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True,
                         text=True, check=True)
    lines = run.stdout.splitlines()
    assert 10 < len(lines) < 24 and max(map(len, lines)) <= 80
