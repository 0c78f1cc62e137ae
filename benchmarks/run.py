"""Speed, as ratios measured side by side in one run, and how time and memory grow.

python benchmarks/run.py [FOLDER_OF_PHOTOS] [--rounds 3] [--only PART ...] [--out benchmarks/results.md]

Without a folder: the one that LESSONKIT_IMAGES names, else the bundled pictures.

Rounds are interleaved (each contender once a round) and medians compared, since a laptop's speed changes
from minute to minute.
"""

import argparse
import os
import warnings
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?",
                        help="photos in the Imagenette layout: train/<class>, val/<class>")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "growth"], default=[*PARTS, "growth"],
                        help="parts to measure; all of them if left out")
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
    print("\n" + page.text(parts, curves, about))
    if args.out:
        page.write(args.out, parts, curves, about)


if __name__ == "__main__":
    main()
