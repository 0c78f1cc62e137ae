"""Speed, as ratios measured side by side in one run.

    python benchmarks/run.py [FOLDER_OF_PHOTOS] [--rounds 3] [--only PART ...] [--out benchmarks/results.md]

Without a folder: the one that LESSONKIT_IMAGES names, else the bundled pictures.

Rounds are interleaved (each contender once a round) and medians compared, since a laptop's speed changes from minute to
minute.
"""

import argparse
import os
import platform
import warnings
from pathlib import Path

import loading
import mixing
import predicting
import recipe
import resizing
import selecting
import studying
import torch

from lessonkit.bundled import make_bundled
from lessonkit.images import ImageSet

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="photos in the Imagenette layout: train/<class>, val/<class>")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure; all of them if left out")
    parser.add_argument("--out", type=Path, help="also write the table into this Markdown file")
    args = parser.parse_args()
    folder = args.folder or Path(os.environ.get("LESSONKIT_IMAGES") or make_bundled())
    warnings.filterwarnings("ignore")
    lines = [
        "# Speed",
        "",
        f"{ImageSet.from_folder(folder)}; {os.cpu_count()} cores, {platform.machine()}, {platform.system()}; "
        f"torch {torch.__version__}; medians of {args.rounds} interleaved rounds.",
        "",
        "| ratio | median | over rounds | goal | met |",
        "|---|---|---|---|---|",
    ]
    for part in args.only:
        lines += [ratio.row() for ratio in PARTS[part](folder, args.rounds)]
    print("\n" + "\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
