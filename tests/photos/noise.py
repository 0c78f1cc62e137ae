"""Photos of random pixels, for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def save_noise(path: Path, size=(24, 18), seed=0, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path
