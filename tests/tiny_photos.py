"""Forty tiny photos of two classes that can be told apart at once, for tests that train."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import Callback
from PIL import Image

from lessonkit.ablation import TECHNIQUES
from lessonkit.images import ImageSet
from lessonkit.study.trainer import Recipe, train_trial


def draw(root: Path) -> ImageSet:
    """Draw bright ones and dark ones into a folder; 32 are for training."""
    rng = np.random.default_rng(0)
    for label, light in (("bright", 150), ("dark", 60)):
        (root / label).mkdir()
        for i in range(20):
            pixels = (light + rng.normal(0, 40, (20, 24, 3))).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    return ImageSet.from_folder(root)


def trained(folder: str | Path, threads: int) -> dict:
    """Each loss of a training on such photos, and its scores."""
    before, seen = torch.get_num_threads(), Losses()
    torch.set_num_threads(threads)
    try:
        technique = replace(TECHNIQUES["label_smoothing"], callbacks=lambda: [seen])
        row, right = train_trial(ImageSet.from_folder(folder), technique, 0, Recipe(size=32, epochs=4, batch_size=16, width=16))
    finally:
        torch.set_num_threads(before)
    return {"losses": seen.seen, "right": right.tolist()} | {name: value for name, value in row.items() if "seconds" not in name}


class Losses(Callback):
    """Remembers the loss of each step."""

    def before_fit(self):
        self.seen = []

    def after_loss(self):
        if self.training:
            self.seen.append(self.loss.item())
