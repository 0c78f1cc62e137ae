"""What the tests of the study share."""

import pytest
from tiny_photos import draw, MINE


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def folder(images):
    return images.paths[0].parent.parent


@pytest.fixture
def mine(tmp_path):
    """A file with techniques and a network of one's own."""
    (tmp_path / "my.py").write_text(MINE)
    return tmp_path / "my.py"
