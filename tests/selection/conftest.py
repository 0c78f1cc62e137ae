"""A small set of photos for everything that selects from photos."""

import numpy as np
import pytest
from PIL import Image

from lessonkit.images import ImageSet


@pytest.fixture
def photos(tmp_path):
    """Two classes, photos of one name in several folders, a validation part."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 6), ("val", 2)):
        for label in ("cat", "n01440764"):
            for number in range(n):
                place = tmp_path / "photos" / part / label / ("a" if number % 2 else "b")
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(
                    place / f"{number // 2}.png"
                )
    return ImageSet.from_folder(tmp_path / "photos")
