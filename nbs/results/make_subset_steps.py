"""Made subset_steps.csv and subset_steps_correct.npz: python make_subset_steps.py FOLDER [SEEDS]

Do chosen photos save time where the network that chose them has seen no label? Facility location on the
features of a network that was pretrained on ImageNet (efficientnet-lite0, 160 pixels), within each
class; beside it three random draws that give each class the same share. The baseline is trained from
scratch at 32 pixels on 2 to 20% of the training photos, for about as many steps as one, two and five
epochs of the whole set have; row "whole" has the same steps on all photos. `seed` is the training's. The
photos of the stored table: the clothing dataset (small) by Alexey Grigorev and contributors, its ten
most frequent classes, 160 pixels on the shortest side. The machine did other work too: seconds are
rough.
"""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from resume import Table

from lessonkit.ablation import TECHNIQUES
from lessonkit.foundation.models import pretrained_at_hand
from lessonkit.images import ImageSet, load_images
from lessonkit.normalization import channel_stats
from lessonkit.study.rival import frozen_features
from lessonkit.study.settings import Settings
from lessonkit.study.subset_study import steps_per_epoch
from lessonkit.study.trainer import train_trial
from lessonkit.study.trials import photos_identity
from lessonkit.subset_selection import select_subset

BASE, FRACTIONS, LENGTHS = Settings(size=32), (0.02, 0.05, 0.10, 0.20), (1, 2, 5)
DRAWS = {"facility_location": 1, "random": 3}


def run(images: ImageSet, picks: np.ndarray, steps: int, seed: int, stats: Any,
        about: dict) -> list[tuple[dict, np.ndarray]]:
    """Train once on the picks; the row of the table, and which validation photos were right."""
    torch.set_num_threads(1)  # two trainings side by side
    batches = steps_per_epoch(len(picks), BASE.batch_size)
    settings = replace(BASE, epochs=max(1, round(steps / batches)))
    part = images.take(np.concatenate([picks, images.indices("valid")]))
    row, right = train_trial(part, TECHNIQUES["baseline"], seed, settings, stats)
    return [(about | {"seed": seed, "steps": settings.epochs * batches} | row, right)]


def main(folder: str, seeds: int = 5) -> None:
    images = load_images(folder)
    table, train = Table("subset_steps", photos_identity(images)), images.indices("train")
    features, _, _ = frozen_features(images, pretrained_at_hand()[1], 160, progress=False)
    # of all training photos, so that subsets differ in nothing else
    stats = channel_stats(images, BASE.size)
    picks = {("whole", 0, 1.0): train}
    for method, draws in DRAWS.items():
        for draw in range(draws):
            for fraction in FRACTIONS:
                n = round(fraction * len(train))
                chosen = select_subset(features[train], n, images.labels[train], method, seed=draw)
                picks[method, draw, fraction] = chosen.of_rows(train).indices
    jobs = []
    for seed in range(seeds):
        for length in LENGTHS:
            for (method, draw, fraction), rows in picks.items():
                row_id = f"{method} draw={draw} fraction={fraction:g} length={length} seed={seed}"
                about = {"id": row_id, "images": folder.rstrip("/").split("/")[-1], "technique": method}
                about |= {"draw": draw, "fraction": fraction, "n": len(rows), "length": length}
                about["photos"] = len(images.indices("valid"))
                steps = length * steps_per_epoch(len(train), BASE.batch_size)
                if row_id not in table.done:
                    jobs.append(delayed(run)(images, rows, steps, seed, stats, about))
    for rows in Parallel(n_jobs=2, return_as="generator")(jobs):
        table.add(rows)
        print(f"{len(table.rows)}: {rows[0][0]['id']}: {rows[0][0]['accuracy']:.3f}", flush=True)
    table.finish()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
