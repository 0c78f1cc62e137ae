"""Write constraints.txt: the versions, in this environment, of all that lessonkit needs, directly or not."""

from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TARGET = Path(__file__).resolve().parent.parent / "constraints.txt"
# Parts of PyTorch's build for graphics cards: other builds come without them.
CUDA = ("nvidia-", "cuda-", "triton")
HEADER = """\
# The versions that the course is tested with: pip install -c constraints.txt -e ".[dev]"
# Made by `make constraints` from an environment in which all tests pass: whatever lessonkit[dev,browser,site] needs,
# directly or not, without the parts of PyTorch's CUDA build. To move to newer versions: pip install --upgrade
# --upgrade-strategy eager -e ".[dev,browser,site]", then make test, then make constraints.
"""


def closure(root: str) -> dict[str, str]:
    """Name and version of each installed package that `root` (such as "lessonkit[dev]") needs, but for itself."""
    start = Requirement(root)
    todo, seen, pins = [(start.name, extra) for extra in ("", *start.extras)], set(), {}
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            pins[name], needed = version(name).split("+")[0], requires(name) or []
        except PackageNotFoundError:
            if name == "pip":
                continue
            raise SystemExit(f"{name} is needed but not installed: run pip install -e '.[dev,browser,site]' first.") from None
        for requirement in map(Requirement, needed):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                todo += [(canonicalize_name(requirement.name), e) for e in ("", *requirement.extras)]
    return {name: pin for name, pin in pins.items() if name != start.name and not name.startswith(CUDA)}


if __name__ == "__main__":
    pins = closure("lessonkit[dev,browser,site]")
    TARGET.write_text(HEADER + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins)), encoding="utf-8")
    print(f"{TARGET.name}: {len(pins)} packages")
