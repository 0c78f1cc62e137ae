"""Binder and the dev container: that what they name exists. Whether they start, only they can tell."""

import json
import re
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TRIED = re.search(r'^ +python: \[(.+)\]$',
                  (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"),
                  flags=re.MULTILINE)[1]


def test_binder_installs_the_tested_versions():
    lines = (ROOT / ".binder" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    (constraints,) = (line.removeprefix("-c ") for line in lines if line.startswith("-c "))
    assert (ROOT / ".binder" / constraints).resolve() == ROOT / "constraints.txt"
    (project,) = (line.removeprefix("-e ") for line in lines if line.startswith("-e "))
    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    assert all(f"{extra}_requirements =" in settings
               for extra in Requirement(project.replace(".", "lessonkit", 1)).extras)
    runtime = (ROOT / ".binder" / "runtime.txt").read_text(encoding="utf-8").strip()
    assert runtime.removeprefix("python-") in TRIED


def test_dev_container_makes_the_environment_that_it_shows():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    target = re.match(r"make (\w+)", container["postCreateCommand"])[1]
    assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE)
    assert (container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
            == ".venv/bin/python")
    assert re.search(r"python:(\d\.\d+)", container["image"])[1] in TRIED
