"""Write constraints.txt, for pip, from uv.lock: the same versions, without the parts of PyTorch's build
for graphics cards."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# other builds of PyTorch come without them, or with other versions
CUDA = ("nvidia-", "cuda-", "triton")
HEADER = """\
# The versions that the course is tested with: pip install -c constraints.txt -e ".[dev]"
# Made from uv.lock by `make constraints`. To move to newer versions: uv lock --upgrade, \
make constraints, make test.
"""


def constraints() -> str:
    """The text of constraints.txt. Where versions differ, as between Pythons, each line says where it
    holds."""
    lines = []
    for package in tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]:
        if "registry" in package["source"] and not package["name"].startswith(CUDA):
            where = " or ".join(f"({marker})" for marker in package.get("resolution-markers", []))
            lines.append(f"{package['name']}=={package['version']}" + (f" ; {where}" if where else ""))
    return HEADER + "".join(f"{line}\n" for line in sorted(lines))


if __name__ == "__main__":
    (ROOT / "constraints.txt").write_text(constraints(), encoding="utf-8")
