"""Made label_smoothing_NAME.csv and label_smoothing_NAME_correct.npz: python make_label_smoothing.py
FOLDER NAME

Wrong labels on a known share of the training photos (0, 10, 20, 40 %), four amounts of smoothing for
each; the same seeds, first weights, batches and crops for all of them
(`lessonkit.ablation.run_ablation`). A wrong label is another class, each with the same probability;
which photos and which classes is decided once, and a larger share holds the smaller ones. Validation
labels stay as they are. The last epoch's weights are judged, none are chosen. The seconds were taken on
a busy machine and say nothing. FOLDER is a folder of photos, or `bundled`. label_smoothing_clothing has
the photos of the clothing dataset (small) by Alexey Grigorev and contributors, its ten most frequent
classes, 160 pixels on the shortest side. Trials are kept in STUDIES (below, or `--studies`), so starting
again continues where it stopped. `--tiny` trains a few photos for one epoch, to try the script, and
stores nothing here.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from resume import write_arrays

from lessonkit.foundation.files import write_atomic
from lessonkit.ablation import Technique, run_ablation
from lessonkit.images import ImageSet, load_images
from lessonkit.label_smoothing import LabelSmoothingCrossEntropy
from lessonkit.study.trials import read_correct

NOISES, AMOUNTS = (0.0, 0.1, 0.2, 0.4), (0.1, 0.2, 0.4)
SETTINGS = {"seeds": 4, "epochs": 8, "size": 32, "width": 32}
HERE, STUDIES = Path(__file__).parent, Path(tempfile.gettempdir()) / "label_smoothing_studies"


def with_wrong_labels(images, noise, seed=0):
    """The same set, with wrong labels on a share of its training photos."""
    rng, train = np.random.default_rng(seed), images.indices("train")
    order = rng.permutation(len(train))
    # drawn for all, so that shares don't change them
    others = rng.integers(1, len(images.classes), len(train))
    flipped = order[: round(noise * len(train))]
    labels = images.labels.copy()
    labels[train[flipped]] = (labels[train[flipped]] + others[flipped]) % len(images.classes)
    return ImageSet(images.paths, labels, images.classes, images.split)


def few(images, n_train=96, n_valid=40):
    """A few photos of two classes."""
    rows = []
    for part, n in (("train", n_train), ("valid", n_valid)):
        of_two = [row for row in images.indices(part) if images.labels[row] < 2]
        rows += of_two[:: max(1, len(of_two) // n)]
    small = images.take(rows)
    return ImageSet(small.paths, small.labels, images.classes[:2], small.split)


def main(folder, name, tiny, studies):
    images, settings = load_images(folder), SETTINGS
    if tiny:
        images, settings = few(images), {"seeds": 2, "epochs": 1, "size": 16, "width": 4}
    techniques = [Technique(f"smoothing_{eps}", loss=partial(LabelSmoothingCrossEntropy, eps=eps),
                            settings={"eps": eps}) for eps in AMOUNTS]
    amounts = {technique.name: technique.settings["eps"] for technique in techniques}
    tables, correct = [], {}
    for noise in NOISES:
        out = studies / (name + "_tiny" * tiny) / f"noise_{noise}"
        print(f"{noise:.0%} wrong labels", flush=True)
        trials = run_ablation(with_wrong_labels(images, noise), techniques, out=out, **settings)
        right = read_correct(out, trials)
        prefix = f"noise{noise}-"
        correct |= {prefix + trial: values for trial, values in right.items()}
        trials.insert(2, "noise", noise)
        trials.insert(3, "eps", trials["technique"].map(amounts).fillna(0.0))
        tables.append(trials.assign(id=prefix + trials["id"]).drop(columns=["fingerprint"]))
        if not tiny:
            table = HERE / f"label_smoothing_{name}.csv"
            write_atomic(table, pd.concat(tables).to_csv(index=False, lineterminator="\n"))
            write_arrays(HERE / f"{table.stem}_correct.npz", correct)
    table = pd.concat(tables)
    print(table.groupby(["noise", "eps"])[["accuracy", "nll", "ece"]].mean().round(3))
    return table, correct


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("name")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--studies", type=Path, default=STUDIES)
    main(**vars(parser.parse_args()))
