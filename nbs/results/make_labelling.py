"""Made labelling.csv and labelling_correct.npz: python make_labelling.py FOLDER [POOLS]

You can label a few of many photos: which? Ten pools, each a random half of the training photos. From
each pool every rule chooses 50 to 400 photos by the features of a network that was pretrained on
ImageNet (efficientnet-lite0, 160 pixels), which has seen none of the labels. "unlabelled": the rule
knows no labels; "labelled": each class gets its share. A logistic regression learns from the photos
chosen, its C chosen by cross-validation among them, and is scored on the validation photos. `seed` is
the pool: rules are compared within pools. Pools share photos, so intervals speak of this collection, not
of others. The photos of the stored table: the clothing dataset (small) by Alexey Grigorev and
contributors, its ten most frequent classes, 160 pixels on the shortest side. The machine did other work
too: seconds are rough.
"""

import sys

import numpy as np
import torch
from joblib import Parallel, delayed
from resume import Table

from lessonkit.foundation.models import pretrained_at_hand
from lessonkit.images import ImageSet, load_images
from lessonkit.study.rival import frozen_features, score_frozen
from lessonkit.study.trials import photos_identity
from lessonkit.subset_selection import select_subset

SIZE, COUNTS = 160, (50, 100, 200, 400)
RULES = {"unlabelled": ("random", "facility_location", "k_center", "herding"),
         "labelled": ("random", "facility_location")}


def run(images: ImageSet, features: np.ndarray, pool: int, known: str, rule: str, counts: list[int],
        about: dict) -> list[tuple[dict, np.ndarray]]:
    """Choose in one pool by one rule; for each count a row, and which validation photos were right."""
    torch.set_num_threads(1)  # two side by side
    train = images.indices("train")
    rows = np.sort(np.random.default_rng(pool).permutation(train)[: len(train) // 2])
    labels = images.labels[rows] if known == "labelled" else None
    found = []
    for n in counts:
        picks = select_subset(features[rows], n, labels, rule, seed=pool).of_rows(rows).indices
        scores, right = score_frozen(images, features, picks)
        row = {"id": f"{known} {rule} n={n} seed={pool}", "technique": rule, "labels": known}
        row |= {"seed": pool, "n": n, "pool": len(rows), "classes": len(set(images.labels[picks]))}
        found.append((row | about | scores | {"pixels": n * SIZE**2}, right))
    return found


def main(folder: str, pools: int = 10) -> None:
    images = load_images(folder)
    table = Table("labelling", photos_identity(images))
    name, network = pretrained_at_hand()
    features, _, _ = frozen_features(images, network, SIZE, progress=False)
    about = {"images": folder.rstrip("/").split("/")[-1], "size": SIZE, "network": name}
    about |= {"epochs": 1, "photos": len(images.indices("valid"))}
    jobs = []
    for pool in range(pools):
        for known, rule in ((known, rule) for known, rules in RULES.items() for rule in rules):
            counts = [n for n in COUNTS if f"{known} {rule} n={n} seed={pool}" not in table.done]
            if counts:
                jobs.append(delayed(run)(images, features, pool, known, rule, counts, about))
    for rows in Parallel(n_jobs=2, return_as="generator")(jobs):
        table.add(rows)
        print(*(f"{row['id']}: {row['accuracy']:.3f}" for row, _ in rows), sep=", ", flush=True)
    table.finish()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
