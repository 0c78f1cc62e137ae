"""Made noise.csv and noise_correct.npz: python make_noise.py FOLDER [SEEDS] [DRAWS]

When does label smoothing help against wrong labels? A share of the training photos gets another class
at random (0, 20 and 40 %, several draws), eps is 0, 0.1 and 0.2. Without crops and flips and for 40
epochs at 32 pixels, so that the network can memorize the wrong labels; the validation photos keep
their classes. One learning rate for all. `photos_used` tells share and draw: chance in the draw
belongs in an interval. Wei et al. 2022, To Smooth or Not? When Label Smoothing Meets Noisy Labels:
little helps at high noise. The photos of the stored table: the clothing dataset (small) by Alexey
Grigorev and contributors, its ten most frequent classes, 160 pixels on the shortest side.
"""

import sys
from dataclasses import replace
from functools import partial

import numpy as np
from resume import Arm, run

from lessonkit.ablation import Technique
from lessonkit.images import ImageSet
from lessonkit.label_smoothing import LabelSmoothingCrossEntropy
from lessonkit.study.settings import Settings

SHARES, STRENGTHS = (0.0, 0.2, 0.4), (0.0, 0.1, 0.2)


def wrong_labels(images: ImageSet, share: float, draw: int) -> ImageSet:
    """Give a share of the training photos another class at random."""
    random, train, labels = np.random.default_rng(draw), images.indices("train"), images.labels.copy()
    rows = random.permutation(train)[: round(share * len(train))]
    labels[rows] = (labels[rows] + random.integers(1, len(images.classes), len(rows))) % len(
        images.classes
    )
    return replace(images, labels=labels)


def arm(share: float, draw: int, eps: float) -> Arm:
    """Label smoothing of one strength, on one draw of wrong labels."""
    loss = partial(LabelSmoothingCrossEntropy, eps=eps) if eps else None
    technique = Technique("label_smoothing", data={"augment": False}, loss=loss, settings={"eps": eps})
    name = f"label_smoothing, eps {eps:g}" if eps else "baseline"
    photos = f"{share:.0%} wrong, draw {draw}" if share else "all right"
    choose = partial(wrong_labels, share=share, draw=draw)
    return Arm(technique, Settings(32, 40), name, min_area=1.0, photos=photos, choose=choose)


def main(folder: str, seeds: int = 2, draws: int = 5) -> None:
    arms = [arm(s, draw, eps)
            for draw in range(draws) for s in SHARES if s or not draw for eps in STRENGTHS]
    run("noise", folder, arms, range(seeds))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
