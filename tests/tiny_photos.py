"""Forty tiny photos of two classes that can be told apart at once, for tests that train."""

from pathlib import Path

import numpy as np
from PIL import Image

from lessonkit.images import ImageSet


def draw(root: Path) -> ImageSet:
    """Draw bright ones and dark ones into a folder; 32 are for training."""
    rng = np.random.default_rng(0)
    for label, light in (("bright", 150), ("dark", 60)):
        (root / label).mkdir()
        for i in range(20):
            pixels = (light + rng.normal(0, 40, (20, 24, 3))).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    return ImageSet.from_folder(root)
