"""Draw the pictures of the README from stored results and the course's own drawings: `python tools/pictures.py`."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from lessonkit.comparison import summarize
from lessonkit.foundation.plots import show_images
from lessonkit.images import bundled_images, decode
from lessonkit.mixup import mixup
from lessonkit.study.techniques import comparisons
from lessonkit.study.worth import plot_worth

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / ".github" / "pictures"
ROWS = ["smaller_pictures", "progressive_resizing+tta", "tta", "normalization", "label_smoothing", "mixup"]
TITLE = "What wins in 5 epochs isn't what wins in 20"


def worth() -> pd.DataFrame:
    """The summary of the stored study on photos of clothes at 64 pixels."""
    results = ROOT / "nbs" / "results"
    trials = pd.read_csv(results / "ablation_photos.csv")
    trials = trials[trials["size"] == 64].assign(id=lambda rows: rows["key"])
    return summarize(trials, pairs=comparisons(), correct=dict(np.load(results / "ablation_photos_correct.npz")))


def draw_worth() -> None:
    """One figure for light pages and one for dark ones."""
    summary = worth()
    for name, style in (("worth", "default"), ("worth-dark", "dark_background")):
        with plt.style.context([style, {"svg.hashsalt": "lessonkit", "svg.fonttype": "path", "font.size": 11}]):
            ax = plot_worth(summary, ROWS, TITLE)
            ax.figure.patch.set_alpha(0)
            ax.set_facecolor("none")
            ax.figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None})
            plt.close(ax.figure)


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
