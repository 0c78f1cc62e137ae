"""Where we differ from other libraries, and why: a table made from the marks of the tests that show it,
`tests/parity`."""

from notebooks import repository
from reference import marks

HEAD = """\
# Where we differ, and why

Values and gradients are those of PyTorch, torchvision, timm and fastai, and tests compare them on
random input, up to a thousand classes. Here is where they differ on purpose. Each row is made from the
test that shows it: it runs the other library beside ours, and fails when that library changes its mind.

| Library | There | Here | Why | Test |
|---|---|---|---|---|
"""


def differences() -> list[dict[str, str]]:
    """What each test marked with `differs` says: library, there, here, why; and its file and name."""
    return sorted(marks("differs"), key=lambda row: row["library"].casefold())


def page() -> str:
    """The table as Markdown."""
    rows = []
    for row in differences():
        name = row["test"].removeprefix("test_").replace("_", " ")
        link = f"[{name}]({repository()}/blob/main/{row['file']})"
        rows.append(f"| {row['library']} | {row['there']} | {row['here']} | {row['why']} | {link} |")
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(page())
