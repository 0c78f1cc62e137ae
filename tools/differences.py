"""Where we differ from other libraries, and why: a table made from the marks of the tests that show it, `tests/parity`."""

import ast
from pathlib import Path

from notebooks import ROOT, repository

PARITY = ROOT / "tests" / "parity"
HEAD = """\
# Where we differ, and why

Values and gradients are those of PyTorch, torchvision, timm and fastai, and tests compare them on random input, up to a
thousand classes. Here is where they differ on purpose. Each row is made from the test that shows it: it runs the other
library beside ours, and fails when that library changes its mind.

| Library | There | Here | Why | Test |
|---|---|---|---|---|
"""


def differences(folder: Path = PARITY) -> list[dict[str, str]]:
    """What each test marked with `differs` says: library, there, here, why; and its file and name."""
    found = []
    for path in sorted(folder.glob("test_*.py")):
        for part in ast.parse(path.read_text(encoding="utf-8")).body:
            for mark in getattr(part, "decorator_list", []):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.differs":
                    said = {word.arg: ast.literal_eval(word.value) for word in mark.keywords}
                    found.append(said | {"file": path.relative_to(folder.parent.parent).as_posix(), "test": part.name})
    return sorted(found, key=lambda row: row["library"].casefold())


def page() -> str:
    """The table as Markdown."""
    rows = []
    for row in differences():
        link = f"[{row['test'].removeprefix('test_')}]({repository()}/blob/main/{row['file']})"
        rows.append(f"| {row['library']} | {row['there']} | {row['here']} | {row['why']} | {link} |")
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(page())
