"""What users rely on stands in signatures.txt: the names that they import, parameters, defaults, and the
exceptions that the text names.

A changed line there is a change for users, to be seen in review. Write the file anew with `python
tests/test_signatures.py`.
"""

import ast
import difflib
import importlib
import re
from itertools import combinations
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "lessonkit"
SNAPSHOT = Path(__file__).with_name("signatures.txt")
# in folders; the other modules in folders are workings
PUBLIC_TOO = ("lessonkit.study.ranking", "lessonkit.teaching.quiz")
HEADER = "# Public names by module. After a change that is meant: python tests/test_signatures.py\n"


def modules() -> dict[str, ast.Module]:
    paths = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("_"))
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths]
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in zip(names, paths)}


def in_all(code: ast.Module) -> list[str]:
    lists = (node.value for node in code.body if isinstance(node, ast.Assign)
             and ast.unparse(node.targets[0]) == "__all__")
    return ast.literal_eval(next(lists, ast.List([])))


def parameters(function: ast.FunctionDef) -> str:
    """As in the code, less their types: "(x, lam, partner=None)"."""
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return f"({ast.unparse(function.args)})".replace("(self, ", "(").replace("(self)", "()")


def raised(node: ast.AST) -> str:
    said = re.search(r"Raises? .*", ast.get_docstring(node) or "", flags=re.DOTALL)
    kinds = set(re.findall(r"`(\w*(?:Error|DamagedPhoto|Study\w+|TrialsFailed))`",
                           said[0])) if said else set()
    return f"  raises {', '.join(sorted(kinds))}" if kinds else ""


def lines_of(node: ast.stmt, value: str = "") -> list[str]:
    """A function's line, or a class's with one for each of its fields and public methods."""
    if isinstance(node, ast.FunctionDef):
        return [node.name + parameters(node) + raised(node)]
    members = []
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and not part.target.id.startswith("_"):
            members.append(
                f".{part.target.id}" + (f" = {ast.unparse(part.value)}" if part.value else "")
            )
        elif isinstance(part, ast.FunctionDef) and (
            part.name in ("__init__", "__call__") or part.name[0] != "_"
        ):
            marks = "".join(f"@{ast.unparse(mark)} " for mark in part.decorator_list)
            members.append(f".{marks}{part.name}{parameters(part)}{raised(part)}")
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    return [f"class {node.name}({bases}){raised(node)}", *(f"    {member}" for member in members)]


def snapshot() -> str:
    text, code_of = HEADER, modules()
    defined = {node.name: node for code in code_of.values() for node in code.body
               if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in in_all(code)}
    for module, code in code_of.items():
        if module.count(".") > 1 and module not in PUBLIC_TOO:
            continue
        text += f"\n{module}\n"
        for name in in_all(code):
            lines = lines_of(defined[name]) if name in defined else [name]
            text += "".join(f"    {line}\n" for line in lines)
    return text


def test_public_names_parameters_and_exceptions_are_as_they_were():
    before, now = SNAPSHOT.read_text(encoding="utf-8").splitlines(), snapshot().splitlines()
    changes = "\n".join(difflib.unified_diff(before, now, "signatures.txt", "the package", lineterm="",
                                             n=1))
    assert not changes, f"if this is meant: python tests/test_signatures.py\n{changes}"


def test_star_imports_of_any_two_modules_collide_in_nothing():
    found = {name: importlib.import_module(name) for name in modules()}
    names = {module: set(getattr(found[module], "__all__", ())) for module in found}
    assert not [(name, one, other) for one, other in combinations(found, 2)
                for name in sorted(names[one] & names[other])
                if getattr(found[one], name) is not getattr(found[other], name)]


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
