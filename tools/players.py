"""Sliders for pages that have no kernel: a picture for each place of the slider, all inside the page."""

import base64
import html
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import nbformat

VALUES = [round(0.1 * step, 1) for step in range(11)]  # of λ and ε, in the order of the slider's places

STYLE = """<style>
.player { margin: 0.5em 0; max-width: 62em; font-family: system-ui, sans-serif; font-size: 1rem;
  line-height: 1.5; }
.player img { display: block; max-width: 100%; height: auto; background: white; }
.player label { display: flex; flex-wrap: wrap; align-items: center; gap: 0 0.8em; }
.player .value { min-width: 4em; }
.player input { flex: 1 1 12em; max-width: 24em; }
.player input:focus-visible { outline: 3px solid #2f7fd0; outline-offset: 3px; }
.player [hidden] { display: none; }
</style>"""

# Without scripts the slider stays hidden, and the first picture, with its value, stands for all.
SCRIPT = """<script>
for (const player of document.querySelectorAll(".player")) {
  const [slider, picture, value] = ["input", "img", ".value"].map(name => player.querySelector(name));
  const frames = JSON.parse(player.dataset.frames);
  slider.hidden = false;
  slider.addEventListener("input", () => {
    const frame = frames[slider.value];
    Object.assign(picture, {src: frame.src, alt: frame.alt});
    value.textContent = frame.value;
    slider.setAttribute("aria-valuetext", frame.value);
  });
}
</script>"""


@dataclass(frozen=True)
class Player:
    """What a slider shows: a picture for each of `VALUES`."""

    draw: Callable[[float], Any]  # a Matplotlib figure for a value
    letter: str  # how the value is called
    start: int  # which of the values comes first
    caption: str  # what it shows, and what to look for
    says: Callable[[float], str]  # what is in the picture, for those who can't see it


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def mixup_player() -> Player:
    """A picture through another one, and the label of the mix."""
    import torch

    from lessonkit.images import bundled_images, decode
    from lessonkit.mixup import show_mixup

    images = bundled_images()
    two = images.take([images.labels.tolist().index(number) for number in (2, 7)])
    pictures, labels = torch.tensor(decode(two, 128)) / 255, torch.tensor(two.labels)
    one, other = (images.classes[label] for label in two.labels)
    return Player(lambda lam: show_mixup(pictures, labels, images.classes, lam,
                                         partner=torch.tensor([1, 0])), "λ", 5,
                  "Two of the course's own pictures, one through the other, and the label of the mix.",
                  lambda lam: f"{one}, {other}, and a mix of {percent(lam)} {one} and "
                  f"{percent(1 - lam)} {other} with bars of its label")


def smoothing_player() -> Player:
    """The label of a picture before and after smoothing."""
    from lessonkit.images import bundled_images, decode
    from lessonkit.label_smoothing import show_smoothed_labels

    images = bundled_images()
    one, n = images.take([images.labels.tolist().index(3)]), len(images.classes)
    name = images.classes[one.labels[0]]
    return Player(lambda eps: show_smoothed_labels(one.labels.tolist(), images.classes, eps,
                                                   images=decode(one, 128)), "ε", 3,
                  "At ε = 0 the label is as it was; at 1 it says the same of every class, "
                  "and so nothing.", lambda eps: f"{name}, its label before, and after: "
                  f"{percent(1 - eps + eps / n)} for {name}, {percent(eps / n)} for each other")


PLAYERS = {"λ": mixup_player, "ε": smoothing_player}


def as_webp(figure) -> bytes:
    """A figure as a WebP file, 72 pixels an inch."""
    from matplotlib import pyplot as plt
    from PIL import Image

    file, small = io.BytesIO(), io.BytesIO()
    figure.savefig(file, format="png", dpi=72)
    plt.close(figure)
    Image.open(file).convert("RGB").save(small, format="webp", quality=70, method=6)
    return small.getvalue()


@cache
def player(letter: str) -> str:
    """The slider of λ or ε as HTML."""
    import matplotlib

    matplotlib.use("agg")
    made = PLAYERS[letter]()
    frames = [{"src": "data:image/webp;base64," + base64.b64encode(as_webp(made.draw(value))).decode(),
               "alt": f"Picture for {letter} = {value}: {made.says(value)}",
               "value": f"{letter} = {value}"} for value in VALUES]
    first = frames[made.start]
    slider = (f'<input type="range" min="0" max="{len(VALUES) - 1}" step="1" value="{made.start}" '
              'autocomplete="off" ' f'aria-label="{letter}" aria-valuetext="{first["value"]}" hidden>')
    return (f'<figure class="player" data-frames="{html.escape(json.dumps(frames))}">'
            f'<img src="{first["src"]}" alt="{html.escape(first["alt"])}">'
            f'<label><span class="value">{first["value"]}</span>{slider}</label>'
            f"<figcaption>{made.caption}</figcaption></figure>")


def letter_of(source: str) -> str | None:
    """What the slider of a cell is called, when there is a player for it."""
    found = re.search(r"^with_slider\(.*?[\"'](\w)[\"']\s*,?\s*\)\s*$", source,
                      flags=re.MULTILINE | re.DOTALL)
    return found[1] if found and found[1] in PLAYERS else None


def with_players(notebook):
    """The same notebook with a player in place of the still picture that stands for a slider."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and (letter := letter_of(cell.source)):
            data = {"text/html": STYLE + player(letter) + SCRIPT, "text/plain": "pictures with a slider"}
            cell.outputs = [nbformat.v4.new_output("display_data", data=data)]
    return notebook
