"""Set-up that several test files share."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photo_set(tmp_path):
    """Ten photos: the training ones in one tone, the validation and test ones in another."""
    from lessonkit.photos.image_set import ImageSet

    paths, split = [], ["train"] * 5 + ["valid"] * 3 + ["test"] * 2
    for i, part in enumerate(split):
        tone = {"train": (40 + i, 90, 120 - i), "valid": (250, 0, 250), "test": (0, 255, 0)}[part]
        picture = Image.new("RGB", (40, 40), tone)
        picture.paste((0, 0, 0), (0, 0, 40, 10 + i))
        paths.append(tmp_path / f"{i}.png")
        picture.save(paths[-1])
    return ImageSet(paths, np.arange(10) % 2, ["a", "b"], split)
