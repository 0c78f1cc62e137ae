"""Made noise.csv and noise_correct.npz: python make_noise.py FOLDER [SEEDS]

When does label smoothing help against wrong labels? A share of the training photos gets another class
at random (0, 20 and 40 %; each seed draws its own), eps is 0, 0.1 and 0.2. Without crops and flips and
for 40 epochs at 32 pixels, so that the network can memorize the wrong labels; the columns
`train_accuracy` and `memorized` tell of how many training photos, and of how many wrong ones, it
predicts the label that it was told. The validation photos keep their classes. One learning rate for all.
Wei et al. 2022, To Smooth or Not? When Label Smoothing Meets Noisy Labels: little helps at high noise.
The photos of the stored table: the clothing dataset (small) by Alexey Grigorev and contributors, its ten
most frequent classes, 160 pixels on the shortest side.
"""

import sys
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from fastai.learner import Learner
from resume import Arm, run

from lessonkit.ablation import Technique
from lessonkit.images import ImageSet
from lessonkit.label_smoothing import LabelSmoothingCrossEntropy
from lessonkit.study.settings import Settings
from lessonkit.tta import tta

SHARES, STRENGTHS = (0.0, 0.2, 0.4), (0.0, 0.1, 0.2)


def wrong_places(photos: int, share: float, seed: int) -> np.ndarray:
    """Which of the training photos, by their place among them, get a wrong label."""
    return np.random.default_rng(seed).permutation(photos)[: round(share * photos)]


def wrong_labels(images: ImageSet, share: float, seed: int,
                 random: np.random.Generator | None = None) -> ImageSet:
    """Give a share of the training photos another class, drawn by `random` or by a stream of its own."""
    train, labels, classes = images.indices("train"), images.labels.copy(), len(images.classes)
    rows = train[wrong_places(len(train), share, seed)]
    random = random or np.random.default_rng([seed, 1])
    labels[rows] = (labels[rows] + random.integers(1, classes, len(rows))) % classes
    return replace(images, labels=labels)


def as_told(learn: Learner, share: float | None = None, seed: int = 0) -> float:
    """Share of the training photos, or of those with a wrong label, whose label is predicted."""
    result = tta(learn, learn.dls.train, n=0)
    right = result.probs.argmax(1) == result.targets
    if share is not None:
        right = right[torch.from_numpy(wrong_places(len(right), share, seed))]
    return round(float(right.float().mean()), 4)


def arm(share: float, eps: float, seed: int) -> Arm:
    """Label smoothing of one strength, on one draw of wrong labels."""
    loss = partial(LabelSmoothingCrossEntropy, eps=eps) if eps else None
    technique = Technique("label_smoothing", data={"augment": False}, loss=loss, settings={"eps": eps})
    name = f"label_smoothing, eps {eps:g}" if eps else "baseline"
    measures = {"train_accuracy": as_told}
    if share:
        measures["memorized"] = partial(as_told, share=share, seed=seed)
    return Arm(technique, Settings(32, 40), name, min_area=1.0, photos=f"{share:.0%} wrong, draw {seed}",
               choose=partial(wrong_labels, share=share, seed=seed), measures=measures)


def arms(seed: int) -> list[Arm]:
    """All that are trained with a seed, on its own wrong labels."""
    return [arm(share, eps, seed) for share in SHARES for eps in STRENGTHS]


def main(folder: str, seeds: int = 10) -> None:
    run("noise", folder, arms, range(seeds))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
