"""The command, as a user runs it: options with which a study takes seconds, and a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from tiny_photos import QUICK as SMALL

SCRIPT = str(Path(sys.executable).parent / ("lessonkit.exe" if os.name == "nt" else "lessonkit"))
SETTINGS = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items() if name != "progress"]
SETTINGS += ["--no-frozen"]  # which takes seconds; test_cli_answer.py has it
QUICK = [*SETTINGS, "--jobs", "1"]


def lessonkit(*typed, cwd: Path) -> subprocess.CompletedProcess:
    """Run the command in a process of its own."""
    return subprocess.run(
        [SCRIPT, *map(str, typed)], cwd=cwd, capture_output=True, text=True, encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"},
    )
