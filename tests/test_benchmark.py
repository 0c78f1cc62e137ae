"""The benchmark keeps what was measured beside its page; nothing is measured here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("kornia")  # one of the libraries that it compares
ROOT = Path(__file__).resolve().parent.parent
LINE = {"name": "ours / theirs", "number": 0.5, "ends": [0.4, 0.7], "sign": "<=", "limit": 0.6}


def write_page(out: Path) -> subprocess.CompletedProcess:
    """Write the page again from what is kept, on the bundled pictures."""
    environment = {key: value for key, value in os.environ.items() if key != "LESSONKIT_IMAGES"}
    return subprocess.run([sys.executable, "benchmarks/run.py", "--only", "--out", str(out)], cwd=ROOT,
                          env=environment, capture_output=True, text=True)


def test_page_is_written_again_from_what_is_kept(tmp_path):
    out, kept = tmp_path / "page.md", tmp_path / "page.json"
    made = write_page(out)
    assert made.returncode == 0, made.stderr
    assert "**0 of 0 goals are met.**" in out.read_text(encoding="utf-8")

    found = json.loads(kept.read_text(encoding="utf-8"))
    found["parts"]["mixing"] = [LINE, LINE | {"name": "slow / quick", "number": 2.0, "ends": [1.9, 2.5]}]
    found["measured"]["mixing"] = "1 March 2026"
    kept.write_text(json.dumps(found), encoding="utf-8")
    made = write_page(out)
    assert made.returncode == 0, made.stderr
    page = out.read_text(encoding="utf-8")
    assert "**1 of 2 goals are met.**" in page and "measured this on 1 March 2026" in page
    assert "| ours / theirs | 0.50 | 0.40 to 0.70 | <= 0.6 | yes |" in page
    assert "| slow / quick | 2.00 | 1.90 to 2.50 | <= 0.6 | NO |" in page

    other = json.dumps(found | {"about": "other photos; 3 rounds."})
    kept.write_text(other, encoding="utf-8")
    refused = write_page(out)
    assert refused.returncode != 0
    assert "keeps mixing from a run in which about differed" in refused.stderr
    assert kept.read_text(encoding="utf-8") == other and out.read_text(encoding="utf-8") == page
