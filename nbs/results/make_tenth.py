"""Made tenth.csv and tenth_correct.npz: python make_tenth.py FOLDER [SEEDS] [EPOCHS ...]

Do techniques rank on a tenth of the photos as on all of them, trained for the same number of epochs? A
tenth of each class's training photos: once chosen by facility location on the features of a network
pretrained on ImageNet (efficientnet-lite0, 160 pixels), and five times drawn at random. The arms of
`make_main.py` with the settings that it chose for them on all photos (main_choice.json), whose stored
trials are the other side of the comparison. The photos of the stored table: Imagenette (fast.ai), a copy
of 224 x 224 pixels.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from make_main import arms
from resume import HERE, Arm, run

from lessonkit.foundation.models import pretrained_at_hand
from lessonkit.images import ImageSet, load_images
from lessonkit.study.rival import frozen_features
from lessonkit.subset_selection import select_subset

FRACTION, DRAWS = 0.1, 5


def tenths(images: ImageSet) -> dict[str, np.ndarray]:
    """The chosen training photos, and the draws."""
    features, _, _ = frozen_features(images, pretrained_at_hand()[1], 160, progress=False)
    train = images.indices("train")
    n, labels = round(FRACTION * len(train)), images.labels[train]
    picks = {"a tenth, chosen": select_subset(features[train], n, labels)}
    for draw in range(DRAWS):
        picks[f"a tenth, draw {draw}"] = select_subset(features[train], n, labels, "random", seed=draw)
    return {name: subset.of_rows(train).indices for name, subset in picks.items()}


def taken(images: ImageSet, rows: np.ndarray) -> ImageSet:
    """These training photos, and all validation photos."""
    return images.take(np.sort(np.concatenate([rows, images.indices("valid")])))


def on_tenths(picks: dict[str, np.ndarray], epochs: int) -> list[Arm]:
    """Each arm on each tenth, with its own settings."""
    chosen = json.loads((HERE / "main_choice.json").read_text(encoding="utf-8"))[f"{epochs} epochs"]
    return [
        replace(arm, settings=replace(arm.settings, lr=chosen[arm.name]["lr"]),
                min_area=chosen[arm.name]["min_area"], photos=photos, choose=partial(taken, rows=rows),
                views={name: view for name, view in arm.views.items() if name.endswith("tta")})
        for photos, rows in picks.items()
        for arm in arms(epochs)
    ]


def main(folder: str, seeds: int = 2, lengths: Sequence[int] = (5, 20)) -> None:
    picks = tenths(load_images(folder))
    arms_of_all = [on_tenths(picks, epochs) for epochs in lengths]
    for arms_of_one in arms_of_all:
        run("tenth", folder, arms_of_one, range(seeds))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]),
         *([list(map(int, sys.argv[3:]))] if sys.argv[3:] else []))
