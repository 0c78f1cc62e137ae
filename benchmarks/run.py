"""Speed, as ratios measured side by side in one run, and how time and memory grow.

python benchmarks/run.py [FOLDER_OF_PHOTOS] [--rounds 3] [--only PART ...] [--out benchmarks/results.md]

Without a folder: the one that LESSONKIT_IMAGES names, else the bundled pictures.

Rounds are interleaved (each contender once a round) and medians compared, since a laptop's speed changes
from minute to minute. What was measured is kept beside the page: with `--only` the other parts stay as
they were, which takes the same machine, versions, photos and rounds.
"""

import argparse
import json
import os
import warnings
from dataclasses import asdict
from datetime import date
from pathlib import Path

import growth
import loading
import mixing
import page
import predicting
import recipe
import resizing
import selecting
import studying
from growth import Curve
from ratios import Stored

from lessonkit.foundation.files import write_atomic
from lessonkit.images import ImageSet
from lessonkit.photos.bundled import make_bundled

PARTS = {
    "loading": loading.ratios,
    "mixing": lambda folder, rounds: mixing.ratios(rounds),
    "predicting": predicting.ratios,
    "resizing": lambda folder, rounds: resizing.ratios(),
    "selecting": lambda folder, rounds: selecting.ratios(rounds),
    "studying": studying.ratios,
    "recipe": recipe.ratios,
}


def keep(path: Path, parts: dict[str, list[Stored]], curves: list[Curve], about: str,
         measured: dict[str, str]) -> tuple:
    """Put what was measured beside what an earlier run has kept, and store both.

    Exits where that was another machine, with other versions, photos or rounds.
    """
    where = {"about": about, **page.where()}
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"parts": {}}
    others = [key for key in where if kept.get(key) != where[key]]
    if others and (lost := [part for part in kept["parts"] if part not in parts]):
        raise SystemExit(f"{path} keeps {', '.join(lost)} from a run in which {', '.join(others)} "
                         "differed. Measure all parts, or name another --out.")
    if others:
        kept = where | {"measured": {}, "parts": {}, "curves": []}
    kept["parts"] |= {part: [asdict(line) for line in lines] for part, lines in parts.items()}
    kept["measured"] |= measured
    kept["curves"] = [asdict(curve) for curve in curves] or kept["curves"]
    write_atomic(path, json.dumps(kept, indent=1) + "\n")
    found = {part: [Stored(**line) for line in kept["parts"][part]]
             for part in page.TITLES if part in kept["parts"]}
    return found, [Curve(**curve) for curve in kept["curves"]], about, kept["measured"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?",
                        help="photos in the Imagenette layout: train/<class>, val/<class>")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=[*PARTS, "growth"], default=[*PARTS, "growth"],
                        help="parts to measure; all of them if left out, none to write the page again")
    parser.add_argument("--out", type=Path, help="also write a page, with pictures beside it")
    args = parser.parse_args()
    folder = args.folder or Path(os.environ.get("LESSONKIT_IMAGES") or make_bundled())
    warnings.filterwarnings("ignore")
    parts, curves = {}, []
    for part in args.only:
        if part == "growth":
            curves = growth.curves(folder, args.rounds)
            parts[part] = [curve.ratio() for curve in curves]
        else:
            parts[part] = PARTS[part](folder, args.rounds)
    about = f"{ImageSet.from_folder(folder)}; {args.rounds} rounds."
    parts = {part: [Stored.of(line) for line in lines] for part, lines in parts.items()}
    measured = dict.fromkeys(parts, f"{date.today():%d %B %Y}")
    print("\n" + page.text(parts, curves, about, measured))
    if args.out:
        page.write(args.out, *keep(args.out.with_suffix(".json"), parts, curves, about, measured))


if __name__ == "__main__":
    main()
