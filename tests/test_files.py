"""What may lie in the repository."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import files as rules  # noqa: E402


def test_every_file_belongs_here():
    run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True,
                         encoding="utf-8")
    if run.returncode:
        pytest.skip("this is no git checkout")
    names = [name for name in run.stdout.split("\0") if name and (ROOT / name).is_file()]
    assert {name: said for name in names if (said := rules.fault(ROOT / name))} == {}


def notebook(output: dict) -> bytes:
    return json.dumps({"cells": [{"cell_type": "markdown"},
                                 {"cell_type": "code", "outputs": [output]}]}).encode()


@pytest.mark.parametrize("name, content, said", [
    ("a.py", b"x = 1\n", ""),
    ("a.csv", bytes(3_000_001), "more than 3 MB"),
    ("cat.JPG", b"", "a photo"),
    ("cat.png", b"", "a picture"),
    ("benchmarks/speed.png", b"", ""),
    ("nbs/a.ipynb", notebook({"output_type": "stream"}), ""),
    ("nbs/a.ipynb", notebook({"output_type": "error"}), "an error"),
])
def test_what_does_not_belong_is_named(tmp_path, monkeypatch, capsys, name, content, said):
    monkeypatch.setattr(rules, "ROOT", tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    assert rules.main([name]) == bool(said)
    assert said in capsys.readouterr().out
