"""Made mixup.csv and mixup_probs.npz: python make_mixup.py FOLDER_WITH_PHOTOS [MOST_EPOCHS]

MixUp against none over trainings of several lengths, and at one length label smoothing and both
together; the same seeds, first weights, batches and crops for all of them, one cycle each. The last
epoch's weights are judged, none are chosen. mixup_probs.npz holds the predicted probabilities of the
validation photos (float16) at that length and at the longest, and the photos' classes. Starting again
continues where it stopped. The photos of the stored table: the clothing dataset (small) by Alexey
Grigorev and contributors, its ten most frequent classes, 160 pixels on the shortest side. The seconds
were taken on a busy machine and say nothing.
"""

import sys
from dataclasses import replace

import numpy as np
import torch
from joblib import Parallel, delayed
from resume import HERE, Rows, write_arrays

from lessonkit.ablation import TECHNIQUES
from lessonkit.images import load_images
from lessonkit.normalization import channel_stats
from lessonkit.study.settings import Settings
from lessonkit.study.trainer import predict_plain, train_trial

SEEDS, ALL_AT, SIZE = {5: 5, 10: 5, 20: 5, 40: 5, 80: 10}, 20, 32  # epochs -> how many seeds
BOTH = "baseline", "mixup"
FOUR = *BOTH, "label_smoothing", "mixup+label_smoothing"
PROBS = HERE / "mixup_probs.npz"


def run(images, stats, name, seed, epochs):
    """Train once; return the row of the table, which photos were right, and the probabilities."""
    torch.set_num_threads(1)  # two trainings side by side
    kept = []

    def keep(learn):
        kept.append(predict_plain(learn))
        return kept[0]

    recipe = Settings(size=SIZE, epochs=epochs)
    row, right = train_trial(images, replace(TECHNIQUES[name], predict=keep), seed, recipe, stats)
    row = {"id": f"{name}-epochs{epochs}-seed{seed}", "technique": name, "seed": seed, **row}
    return row, right, kept[0].half().numpy()


def main(folder, longest=max(SEEDS)):
    images = load_images(folder)
    stats = channel_stats(images, SIZE)
    table = Rows("mixup")
    probs = dict(np.load(PROBS)) if PROBS.exists() else {
        "classes": images.labels[images.indices("valid")]
    }
    wanted = [
        (name, seed, epochs)
        for epochs, seeds in SEEDS.items()
        if epochs <= longest
        for seed in range(seeds)
        for name in (FOUR if epochs == ALL_AT else BOTH)
        if f"{name}-epochs{epochs}-seed{seed}" not in table.done
    ]
    trials = (delayed(run)(images, stats, *trial) for trial in wanted)
    for row, right, prob in Parallel(n_jobs=2, return_as="generator")(trials):
        if row["epochs"] in (ALL_AT, max(SEEDS)):
            probs[row["id"]] = prob
        write_arrays(PROBS, probs)
        table.add([(row, right)])
        print(row["id"], f"{row['accuracy']:.3f}", f"ece {row['ece']:.3f}",
              f"{row['train_seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
