"""Print the section of CHANGELOG.md on the version of a tag: `python tools/release_notes.py v0.1.0`."""

import re
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def release_notes(tag: str, version: str, changes: str) -> str:
    """The notes on `version`. Stops where the tag is another version's, or where the section isn't
    ready."""
    if tag != f"v{version}":
        raise SystemExit(f"The tag {tag} isn't v{version}, the version in settings.ini.")
    section = re.search(rf"^## {re.escape(version)} \(([^)\n]+)\)\n(.*?)(?=^## |\Z)", changes,
                        flags=re.MULTILINE | re.DOTALL)
    if not section or not section[2].strip():
        raise SystemExit(f"CHANGELOG.md has no section on {version}.")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", section[1]):
        raise SystemExit(f"In CHANGELOG.md, the day of the release must stand behind {version}, "
                         f"not {section[1]!r}.")
    return section[2].strip() + "\n"


if __name__ == "__main__":
    settings = ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    print(release_notes(sys.argv[1], settings["DEFAULT"]["version"], changes), end="")
