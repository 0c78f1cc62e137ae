"""Draw the pictures of the README from stored results and the course's own drawings: `python
tools/pictures.py`."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import torch

from lessonkit.comparison import summarize
from lessonkit.foundation.plots import show_images
from lessonkit.images import bundled_images, decode
from lessonkit.mixup import mixup
from lessonkit.study.worth import plot_sets, read_study

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / ".github" / "pictures"
ROWS = ("smaller_pictures progressive_resizing progressive_resizing+tta tta normalization "
        "label_smoothing mixup".split())
TITLE = "Progressive resizing and TTA help on Imagenette, MixUp hurts on both sets in five epochs"
STUDIES = {"Imagenette": "main", "clothes": "clothing"}


def worth() -> dict[str, pd.DataFrame]:
    """The summaries of the stored studies at 64 pixels, of both sets of photos."""
    pairs = {name: (name, "baseline") for name in ROWS} | {
        "normalization": ("baseline", "no_normalization")
    }
    found = {}
    for photos, name in STUDIES.items():
        trials, right = read_study(ROOT / "nbs" / "results" / f"{name}.csv")
        found[photos] = summarize(trials, pairs=pairs, correct=right, family=len(ROWS))
    return found


def draw_worth() -> None:
    """One figure for light pages and one for dark ones."""
    summaries = worth()
    for name, style in (("worth", "default"), ("worth-dark", "dark_background")):
        with plt.style.context([style,
                                {"svg.hashsalt": "lessonkit", "svg.fonttype": "path", "font.size": 11}]):
            figure = plot_sets(summaries, ROWS, TITLE)
            figure.patch.set_alpha(0)
            for ax in figure.axes:
                ax.set_facecolor("none")
            figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None})


def draw_mixup() -> None:
    """Two drawings, and what MixUp makes of them, from one to the other."""
    images = bundled_images()
    pair = torch.tensor(decode(images, 96)[[images.labels.tolist().index(k) for k in (2, 5)]]) / 255
    shares = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
    mixed = [mixup(pair, share)[0] for share in shares]
    figure = show_images(mixed, [f"{share:.0%} cat" for share in shares], columns=6)
    figure.savefig(PICTURES / "mixup.png", dpi=80, facecolor="white")


if __name__ == "__main__":
    PICTURES.mkdir(parents=True, exist_ok=True)
    draw_worth()
    draw_mixup()
