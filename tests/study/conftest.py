"""What the tests of the study share."""

import os

import pytest
from PIL import Image
from tiny_photos import draw, MINE

EVIL, CAT = "<script>alert(1)</script>".replace("/", "∕"), '🐈 & "friends"'


@pytest.fixture(scope="session", autouse=True)
def all_warm(warm):
    """New processes begin at once."""


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


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of tiny photos whose class names are hostile."""
    root, windows = tmp_path_factory.mktemp("cli") / "my photos", os.name == "nt"
    draw(root, ("&amp;", "🐈") if windows else (EVIL, CAT), ".png" if windows else " <b>.png")
    return root


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """Run the command in this process, without the seconds of imports: code, output, errors."""
    from lessonkit.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lessonkit.selection.features.STEPS", 10)  # what is chosen doesn't matter here

    def run(*typed) -> tuple[int, str, str]:
        try:
            code = main([str(t) for t in typed])
        except SystemExit as stop:  # argparse
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def damaged(tmp_path):
    """A folder `photos` of two classes, ten photos each, one of them broken off."""
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(10):
            photo = Image.effect_noise((20, 20), 50).convert("RGB")
            photo.save(tmp_path / "photos" / label / f"{i}.png")
    (tmp_path / "photos/a/2.png").write_bytes(b"\x89PNG")
    return tmp_path / "photos"
