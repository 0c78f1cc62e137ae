"""Made subset.csv: python make_subset.py FOLDER_WITH_PHOTOS [SEEDS] [EPOCHS]

Chooses 2 to 50 % of the training photos by each method (at random three times), and trains the baseline
on each subset; on those chosen by facility location and by two of the random draws also several
techniques, whose order is to be compared. Several seeds; judged on all validation photos. Every training
takes the same number of steps as the whole set does in EPOCHS epochs: a subset gets more epochs. Row
"whole": all training photos. Besides what scores a trial, a row has the subset's coverage. Features are
those of the small network of `embed`. Starting again continues where it stopped. The photos of the
stored table: the clothing dataset (small) by Alexey Grigorev and contributors, its ten most frequent
classes, 160 pixels on the shortest side. Seconds were taken with two trainings side by side.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from resume import Rows

from lessonkit.ablation import TECHNIQUES, Technique
from lessonkit.images import load_images
from lessonkit.normalization import channel_stats
from lessonkit.study.settings import Settings
from lessonkit.study.subset_study import steps_per_epoch
from lessonkit.study.trainer import train_trial
from lessonkit.subset_selection import coverage, embed, select_subset

SIZE, BATCH = 32, 64
FRACTIONS = (0.02, 0.05, 0.10, 0.20, 0.50)
DRAWS = {"facility_location": 1, "k_center": 1, "herding": 1, "random": 3}
# method, draw: where all techniques are trained
RANKED = ("facility_location", 0), ("random", 0), ("random", 1)
MORE_SEEDS = 5  # of the baseline, and of all trainings on the whole set
BASE = Settings(size=SIZE, batch_size=BATCH)
# name -> what is trained, and its recipe: some that differ little from the baseline, some a lot
VARIANTS = {"baseline": (TECHNIQUES["baseline"], BASE), "mixup": (TECHNIQUES["mixup"], BASE),
            "label_smoothing": (TECHNIQUES["label_smoothing"], BASE),
            "no_augment": (Technique("no_augment", card="No random crops and flips.",
                                     data={"augment": False}), BASE),
            "slow": (TECHNIQUES["baseline"], replace(BASE, lr=BASE.lr / 10)),
            "narrow": (TECHNIQUES["baseline"], replace(BASE, width=8))}


def subsets(images, features):
    """Yield method, draw, fraction and the chosen rows of the set; last the whole."""
    train = images.indices("train")
    for method, draws in DRAWS.items():
        for draw in range(draws):
            for fraction in FRACTIONS:
                n = round(fraction * len(train))
                subset = select_subset(features[train], n, images.labels[train], method, seed=draw)
                yield method, draw, fraction, subset.of_rows(train).indices
    yield "whole", 0, 1.0, train


def measured(images, features, picks):
    """How well the picks cover the training photos."""
    train = images.indices("train")
    row = coverage(features[train], np.searchsorted(train, picks), images.labels[train],
                   draws=2).loc["chosen"]
    return {name: round(float(row[name]), 5)
            for name in ("mean_distance", "largest_distance", "mmd", "class_distance")}


def run(images, picks, steps, name, seed, stats, about):
    """Train once; the row of the table."""
    torch.set_num_threads(1)  # two trainings side by side
    technique, recipe = VARIANTS[name]
    batches = steps_per_epoch(len(picks), BATCH)
    recipe = replace(recipe, epochs=max(1, round(steps / batches)))
    part = images.take(np.concatenate([picks, images.indices("valid")]))
    row, _ = train_trial(part, technique, seed, recipe, stats)
    return about | {"technique": name, "seed": seed, "steps": recipe.epochs * batches, **row}


def main(folder, seeds=3, epochs=5):
    images = load_images(folder)
    table = Rows("subset")
    features_file = Path(tempfile.gettempdir()) / "lessonkit_subset_features.npy"
    features = np.array(embed(images, out=features_file, size=64))
    stats = channel_stats(images, SIZE)  # of all training photos, so that subsets differ in nothing else
    steps = epochs * steps_per_epoch(len(images.indices("train")), BATCH)
    jobs = []
    for method, draw, fraction, picks in subsets(images, features):
        about = {"method": method, "draw": draw, "fraction": fraction, "n": len(picks)}
        for seed in range(max(seeds, MORE_SEEDS)):
            ranked = (method, draw) in RANKED and seed < seeds
            for name in VARIANTS if method == "whole" or ranked else ["baseline"]:
                key = f"{method}{draw}-{fraction:g}-{name}-seed{seed}"
                if key not in table.done:
                    jobs.append((picks, name, seed, {"id": key, **about}))
    # the most telling first, so that a stopped study has something of everything
    jobs.sort(key=lambda job: (job[2] > 1 and job[1] != "baseline" and job[3]["method"] != "whole",
                               job[2]))
    coverages = {}
    for picks, _, _, about in jobs:
        key = about["method"], about["draw"], about["fraction"]
        coverages[key] = coverages.get(key) or measured(images, features, picks)
        about |= coverages[key]
    trials = (delayed(run)(images, picks, steps, name, seed, stats, about)
              for picks, name, seed, about in jobs)
    for row in Parallel(n_jobs=2, return_as="generator")(trials):
        table.add([(row, None)])
        print(f"{len(table.rows)}: {row['id']} {row['accuracy']:.3f}, {row['train_seconds']:.0f} s",
              flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
