"""What several tests of photos set up."""

from pathlib import Path

import pytest
from noise import save_noise


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of ten photos, each photo different."""
    for number in range(20):
        save_noise(tmp_path / "photos" / ("cat" if number < 10 else "dog") / f"{number}.png",
                   seed=number)
    return tmp_path / "photos"
