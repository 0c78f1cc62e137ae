"""What test-time augmentation costs: each library's way against its own plain prediction, with the same
network on the validation photos.

Five views each: four views and the photo as it is. fastai decodes and augments the photos anew for every
view; ttach is given views that cost next to nothing (brighter and darker), so that its row shows the
passes alone.
"""

import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from loading import BATCH, STATS, EpochSeconds, fastai_loaders, learner
from ratios import Ratio

from lessonkit.images import ImageSet, image_dataloaders
from lessonkit.normalization import Normalize
from lessonkit.tta import five_crop, tta

SIZE, THREADS = 64, 2


def with_ttach(model: torch.nn.Module, loader) -> torch.Tensor | None:
    """Five views merged by ttach's wrapper."""
    from ttach import ClassificationTTAWrapper, Compose, Multiply

    wrapper = ClassificationTTAWrapper(model, Compose([Multiply([0.8, 0.9, 1, 1.1, 1.2])]),
                                       merge_mode="mean").eval()
    with torch.no_grad():
        return torch.cat([wrapper(x.as_subclass(torch.Tensor)) for x, _ in loader])


def contenders(folder: Path) -> dict[str, Callable]:
    """What to time, by name."""
    images = ImageSet.from_folder(folder)
    ours = learner(image_dataloaders(images, SIZE, BATCH, normalize=Normalize(*STATS)),
                   len(images.classes))
    theirs = learner(fastai_loaders(folder, SIZE), len(images.classes))
    for learn in (ours, theirs):
        learn.remove_cb(EpochSeconds)
    calls = {
        "plain": partial(tta, ours, n=0),
        "ours": partial(tta, ours, n=4),
        "five crops": partial(tta, ours, views=five_crop),
        "fastai plain": theirs.get_preds,
        "fastai": theirs.tta,
    }
    try:
        with_ttach(ours.model, [next(iter(ours.dls.valid))])
    except ImportError:
        print("predicting: ttach isn't installed, so its row is left out (pip install --no-deps ttach)",
              flush=True)
        return calls
    return calls | {"ttach": partial(with_ttach, ours.model, ours.dls.valid)}


def measure(calls: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender, one number a round: the median of three (fastai's, which take long,
    once); in another order each time."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        if "fastai" not in name:
            call()  # the first call is slower
    for number in range(rounds):
        times: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(3):
            for name, call in random.sample(list(calls.items()), len(calls)):
                if turn == 0 or "fastai" not in name:
                    start = time.perf_counter()
                    call()
                    times[name].append(time.perf_counter() - start)
        for name, taken in times.items():
            seconds[name].append(statistics.median(taken))
        shown = ", ".join(f"{name} {taken[-1]:.2f} s" for name, taken in seconds.items())
        print(f"predicting, round {number + 1} of {rounds}: {shown}", flush=True)
    return seconds


def ratios(folder: Path, rounds: int) -> list[Ratio]:
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        seconds = measure(contenders(folder), rounds)
    finally:
        torch.set_num_threads(threads)
    rows = [
        Ratio("TTA, 4 random views + plain: ours / our plain prediction", seconds["ours"],
              seconds["plain"], "<=", 5.3),
        Ratio("TTA, five crops + plain: ours / our plain prediction", seconds["five crops"],
              seconds["plain"], "<=", 6.36),
        Ratio("TTA, 4 views + plain: fastai's / fastai's plain prediction", seconds["fastai"],
              seconds["fastai plain"]),
        Ratio("TTA, 4 views + plain: fastai's / ours", seconds["fastai"], seconds["ours"]),
    ]
    if "ttach" in seconds:
        rows.append(Ratio("TTA, 5 views: ttach's / our plain prediction", seconds["ttach"],
                          seconds["plain"]))
    return rows
