"""Refuse files that don't belong into the repository: `python tools/files.py FILE...`; before each
commit, pre-commit runs it."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 3_000_000  # bytes
PHOTOS = {".jpg", ".jpeg", ".heic", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"}
DRAWN = {".github/pictures", "benchmarks"}  # where tools/pictures.py and benchmarks/run.py draw


def fault(path: Path) -> str:
    """What is wrong with a file, in a few words; empty if nothing is."""
    suffix, folder = path.suffix.lower(), path.resolve().parent.relative_to(ROOT).as_posix()
    if path.stat().st_size > LARGEST:
        return f"more than {LARGEST / 1e6:.0f} MB"
    if suffix in PHOTOS:
        return "a photo: the course shows its own drawings, as PNG or SVG"
    if suffix == ".png" and folder not in DRAWN:
        return f"a picture that isn't drawn by the course, outside of {' and '.join(sorted(DRAWN))}"
    if suffix != ".ipynb":
        return ""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "the output of a cell is an error: run it again" if "error" in {output["output_type"]
                                                                           for output in outputs} else ""


def main(names: list[str]) -> int:
    faults = {name: said for name in names if (said := fault(ROOT / name))}
    for name, said in faults.items():
        print(f"{name}: {said}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
