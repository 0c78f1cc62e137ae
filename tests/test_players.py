"""tools/players.py: sliders inside a page, small, of the course's own pictures, and of use without
scripts."""

import base64
import html
import io
import json
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402
import players  # noqa: E402
import website  # noqa: E402

letters = pytest.mark.parametrize("letter", players.PLAYERS)


def frames(letter: str) -> list[dict]:
    return json.loads(html.unescape(re.search(r'data-frames="([^"]+)"', players.player(letter))[1]))


def pixels(frame: dict) -> np.ndarray:
    kind, data = frame["src"].split(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(float)


@letters
def test_pictures_are_few_small_different_and_of_one_size(letter):
    pictures = [pixels(frame) for frame in frames(letter)]
    assert 8 <= len(pictures) <= 11 and len(players.player(letter)) < 200_000
    assert len({picture.shape for picture in pictures}) == 1 and pictures[0].shape[1] <= 900
    assert all(np.abs(one - other).max() > 50 for one, other in zip(pictures, pictures[1:]))
    assert len({frame["alt"] for frame in frames(letter)}) == len(pictures)


def test_a_mix_is_as_far_from_the_first_picture_as_its_share_says():
    pictures = [pixels(frame) for frame in frames("λ")]
    height, width, _ = pictures[0].shape
    # the third
    mixed = [picture[height // 5 : height // 2, round(0.77 * width) : round(0.93 * width)]
             for picture in pictures]
    whole = np.abs(mixed[0] - mixed[-1]).mean()
    assert whole > 20
    for place in range(11):
        assert np.abs(mixed[place] - mixed[-1]).mean() / whole == pytest.approx(1 - place / 10, abs=0.1)


@letters
def test_without_scripts_a_picture_with_its_value_is_there_and_no_slider(letter):
    shown = players.player(letter)
    start = players.PLAYERS[letter]().start
    picture = re.search(r'<img src="([^"]+)" alt="([^"]+)"', shown)
    assert (picture[1], html.unescape(picture[2])) == (frames(letter)[start]["src"],
                                                       frames(letter)[start]["alt"])
    assert f">{frames(letter)[start]['value']}<" in shown
    assert re.search(r"<input [^>]*hidden>", shown)


def test_every_slider_of_the_lessons_has_a_player_that_begins_where_it_does():
    found = []
    for path in notebooks.lessons():
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and re.search(r"^with_slider\(", cell.source,
                                                      flags=re.MULTILINE):
                found.append(letter := players.letter_of(cell.source))
                still = cell.outputs[0].data["text/plain"]
                assert (letter and f"{frames(letter)[players.PLAYERS[letter]().start]['value']}, "
                        "and a slider" in still), path.stem
    assert sorted(found) == sorted(players.PLAYERS)


def test_a_page_and_the_site_have_the_player(tmp_path):
    path = notebooks.NBS / "06_label_smoothing.ipynb"
    notebooks.write_page(nbformat.read(path, as_version=4), tmp_path / "page.html")
    site = [output.data["text/html"] for cell in website.source_of_notebook(path).cells
            for output in cell.get("outputs", [])
            if 'class="player"' in output.get("data", {}).get("text/html", "")]
    assert len(site) == 1
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count('class="player"') == 1
