"""Forty tiny photos of two classes that are easy to tell apart, and settings for trials of a second."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import Callback
from PIL import Image

from lessonkit.ablation import TECHNIQUES
from lessonkit.images import ImageSet
from lessonkit.study.settings import Settings
from lessonkit.study.trainer import train_trial

QUICK = {"size": 16, "epochs": 1, "batch_size": 8, "width": 4, "progress": False}
MINE = """
from dataclasses import dataclass
from torch import nn
from lessonkit.ablation import Technique

@dataclass
class Smooth(nn.Module):
    eps: "float" = 0.2
    def __post_init__(self):
        super().__init__()
    def forward(self, x, y):
        return nn.functional.cross_entropy(x, y, label_smoothing=self.eps)

mine = Technique("mine", loss=Smooth, card="Of my own.")
more = [Technique("other", data={"augment": False})]

def tiny(n_classes):
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), *pool, nn.Linear(4, n_classes))
"""


def draw(root: Path, names: tuple[str, str] = ("bright", "dark"), ending: str = ".png") -> ImageSet:
    """Draw bright ones and dark ones into a folder; 32 are for training."""
    rng = np.random.default_rng(0)
    for label, light in zip(names, (150, 60)):
        (root / label).mkdir(parents=True)
        for i in range(20):
            pixels = (light + rng.normal(0, 40, (20, 24, 3))).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(root / label / f"{i}{ending}")
    return ImageSet.from_folder(root)


def trained(folder: str | Path, threads: int) -> dict:
    """Each loss of a training on such photos, and its scores."""
    before, seen = torch.get_num_threads(), Losses()
    torch.set_num_threads(threads)
    try:
        technique = replace(TECHNIQUES["label_smoothing"], callbacks=lambda: [seen])
        row, right = train_trial(ImageSet.from_folder(folder), technique, 0,
                                 Settings(size=32, epochs=4, batch_size=16, width=16))
    finally:
        torch.set_num_threads(before)
    return {"losses": seen.seen, "right": right.tolist()} | {
        name: value for name, value in row.items() if "seconds" not in name
    }


class Losses(Callback):
    """Remembers the loss of each step."""

    def before_fit(self):
        self.seen = []

    def after_loss(self):
        if self.training:
            self.seen.append(self.loss.item())
