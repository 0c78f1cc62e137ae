"""The site's reference: a page for each module, and a table of the public names. Both are made from the
package and its tests."""

import ast
from functools import cache
from pathlib import Path

from notebooks import ROOT, repository

PACKAGE = ROOT / "lessonkit"
PARITY = ROOT / "tests" / "parity"
PUBLIC_TOO = ("study.ranking", "teaching.quiz")  # in folders; the other modules in folders are workings
MODULE_PAGE = """\
# {name}

{lesson}{elsewhere}

```{{eval-rst}}
.. automodule:: lessonkit.{name}
   :members:
   :exclude-members: {excluded}
```
"""
NAMES_PAGE = """\
# Public names

What you import, and what it is for. A link in the last column leads to a test that runs that function of
another library beside ours and compares the numbers. [Where we differ](differences.md) lists what comes
out otherwise, and why, and [the benchmark](benchmark.md) how quick some of them are.
"""


def module_files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("_"))


def module_name(module: Path) -> str:
    """As it is imported, less the package's own name: "study.trials"."""
    return ".".join(module.relative_to(PACKAGE).with_suffix("").parts)


def public_modules() -> list[str]:
    """The lessons' modules and `ablation`, which people import from."""
    names = [module_name(path) for path in module_files()]
    return [name for name in names if name in PUBLIC_TOO or "." not in name and name != "cli"]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def exported(code: ast.Module) -> list[str]:
    """What stands in a module's `__all__`."""
    lists = (node.value for node in code.body if isinstance(node, ast.Assign)
             and ast.unparse(node.targets[0]) == "__all__")
    return ast.literal_eval(next(lists, ast.List([])))


@cache
def homes() -> dict[str, str]:
    """Each public name, and the module on whose page it is documented: where a lesson hands a function
    or class on, that lesson's; data, whose comment Sphinx reads where it is defined, there."""
    found, data = {}, set()
    for path in sorted(module_files(), key=lambda path: len(path.parts), reverse=True):  # lessons last
        code = tree(path)
        found |= {name: module_name(path) for name in exported(code) if name not in data}
        data |= {ast.unparse(node.targets[0]) for node in code.body if isinstance(node, ast.Assign)}
    return found


def module_page(module: Path, lesson: str) -> str:
    """What Sphinx reads for the page of a module; `lesson` says where it is explained."""
    name, home = module_name(module), homes()
    elsewhere = [other for other in exported(tree(module)) if home[other] != name]
    links = ", ".join(f"`{other}`" for other in elsewhere)
    return MODULE_PAGE.format(name=name, lesson=lesson,
                              elsewhere=f" On pages of their own: {links}." if links else "",
                              excluded=", ".join(elsewhere))


def marks(kind: str) -> list[dict[str, str]]:
    """What the marks of one kind say at the tests of `tests/parity`; with the file and the name of each
    test."""
    found = []
    for path in sorted(PARITY.glob("test_*.py")):
        for part in tree(path).body:
            for mark in getattr(part, "decorator_list", []):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == f"pytest.mark.{kind}":
                    said = {word.arg: ast.literal_eval(word.value) for word in mark.keywords}
                    found.append(said | {"file": path.relative_to(ROOT).as_posix(), "test": part.name})
    return found


def meanings() -> dict[str, str]:
    """The first sentence on each function and class of the package, and the comment `#: ` above what is
    neither."""
    found = {}
    for path in module_files():
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in tree(path).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = (ast.get_docstring(node) or "").split("\n\n")[0]
            elif isinstance(node, ast.Assign) and (comment := lines[node.lineno - 2]).startswith("#: "):
                found[ast.unparse(node.targets[0])] = comment.removeprefix("#: ")
    texts = {name: " ".join(text.split()).partition(" Raises ")[0] for name, text in found.items()}
    return {name: text.replace("|", r"\|") for name, text in texts.items() if text}


def names_page() -> str:
    """The table of what people import, as Markdown: name, meaning, and what a test compares it with."""
    page, meaning, peers = NAMES_PAGE, meanings(), {}
    for mark in marks("against"):
        link = f"[{mark['theirs']}]({repository()}/blob/main/{mark['file']})"
        peers[mark["ours"]] = ", ".join(dict.fromkeys([*filter(None, [peers.get(mark["ours"])]), link]))
    for name in public_modules():
        code = tree(PACKAGE / f"{name.replace('.', '/')}.py")
        rows = [[f"`{public}`", meaning[public], peers.get(public, "")]
                for public in exported(code) if public in meaning]
        columns = ["Name", "What it is for", "Tested against"][: 3 if any(row[2] for row in rows) else 2]
        page += f"\n## {name}\n\n{ast.get_docstring(code)} [More](reference/{name}.md).\n\n"
        page += "".join(f"| {' | '.join(row[: len(columns)])} |\n"
                        for row in (columns, ["---"] * 3, *rows))
    return page
