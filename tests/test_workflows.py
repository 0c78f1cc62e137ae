"""The files that tell GitHub what to do, and what is published by a tag."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from release_notes import release_notes  # noqa: E402

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path
               for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")


def run(tool: str, *arguments: str) -> None:
    command = shutil.which(tool, path=sysconfig.get_path("scripts"))
    assert command, f'{tool} is missing: pip install -c constraints.txt -e ".[dev]"'
    done = subprocess.run([command, *arguments], cwd=ROOT, capture_output=True, text=True,
                          encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_nothing():
    run("zizmor", "--offline", "--no-progress", ".github")


def test_workflows_are_well_formed():
    run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS))


def test_the_constraints_stand_in_every_install():
    """But in the workflow that tries the newest versions of everything."""
    for path in WORKFLOWS:
        lines = re.findall(r"^.*pip install.*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert path.stem == "weekly" or not [line for line in lines if "-c constraints.txt" not in line]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_ask_for_the_output_of_a_cell_that_exists(path):
    asked = re.findall(r'the cell under "(.+?)" of the front page, nbs/index.ipynb',
                       path.read_text(encoding="utf-8"))
    front = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    titles = re.findall(r"^#+ (.+)$", "\n".join("".join(cell["source"]) for cell in front),
                        flags=re.MULTILINE)
    assert asked and set(asked) <= set(titles)
    assert {part["type"] for part in yaml.safe_load(path.read_text(encoding="utf-8"))["body"]} <= {
        "input", "textarea", "markdown"
    }


CHANGES = ("# Changes\n\n## 0.2.0 (not published yet)\n\n- Soon.\n\n## 0.1.0 (2026-12-01)\n\n- "
           "First.\n\n## 0.0.1 (2026-01-01)\n\n- Zero.\n")


def test_release_notes_are_the_section_of_the_version():
    assert release_notes("v0.1.0", "0.1.0", CHANGES) == "- First.\n"


@pytest.mark.parametrize("tag, version, message", [
    ("v0.1.1", "0.1.0", "isn't v0.1.0"),
    ("v0.2.0", "0.2.0", "the day of the release"),
    ("v0.3.0", "0.3.0", "no section on 0.3.0"),
])
def test_a_tag_that_is_not_ready_stops_the_release(tag, version, message):
    with pytest.raises(SystemExit, match=message):
        release_notes(tag, version, CHANGES)


def test_version_stands_in_one_place():
    version = re.search(r"^version = (\S+)$", (ROOT / "settings.ini").read_text(encoding="utf-8"),
                        flags=re.MULTILINE)[1]
    for name in ("setup.py", "pyproject.toml", "CITATION.cff", "README.md", "lessonkit/__init__.py"):
        assert version not in (ROOT / name).read_text(encoding="utf-8"), name
    assert re.search(rf"^## {re.escape(version)} \(",
                     (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
