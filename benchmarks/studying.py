"""A whole study: its minutes, what running trials side by side saves, and what the study itself costs
beside the training."""

import os
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from joblib import Parallel, delayed
from loading import bare_epoch, ready_loaders
from ratios import Ratio

from lessonkit.ablation import TECHNIQUES, run_ablation
from lessonkit.images import load_images

MINUTES = 20  # allowed for all techniques, three seeds, ten epochs, 32 pixels
SIDE_BY_SIDE, OVERHEAD = 1.5, 0.05


def timed(images, techniques: list[str], **settings) -> tuple[float, pd.DataFrame]:
    """Seconds of a study in a new folder, and its trials."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        trials = run_ablation(images, techniques, size=32, out=Path(folder), progress=False, **settings)
        return time.perf_counter() - start, trials


def steps(loaders, n_classes: int, threads: int) -> None:
    """Some epochs of bare training steps."""
    torch.set_num_threads(threads)
    bare_epoch(loaders, n_classes, epochs=10)


def most_to_gain(images, cores: int, rounds: int) -> Ratio:
    """What any way of training side by side could save here: the same bare steps one after another with
    all threads, and side by side with one thread each."""
    loaders, n_classes = ready_loaders(images, 32), len(images.classes)
    alone, together = [], []
    with Parallel(cores) as parallel:
        parallel(delayed(steps)(loaders, n_classes, 1) for _ in range(cores))  # starts the processes
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(cores):
                steps(loaders, n_classes, cores)
            alone.append(time.perf_counter() - start)
            start = time.perf_counter()
            parallel(delayed(steps)(loaders, n_classes, 1) for _ in range(cores))
            together.append(time.perf_counter() - start)
    return Ratio(f"bare training steps one after another / {cores} processes side by side: "
                 "the most to gain here", alone, together)


def ratios(photos: Path, rounds: int) -> list[Ratio]:
    """Half as many trainings as cores would leave cores idle, so the short studies have four trainings
    for each core."""
    images, cores = load_images(photos), os.cpu_count() or 1
    short = {"techniques": ["mixup"], "epochs": 5, "seeds": 2 * cores}
    timed(images, ["mixup"], epochs=1, seeds=1)  # decodes
    alone, together, training = [], [], []
    for number in range(rounds):
        seconds, trials = timed(images, **short)
        alone.append(seconds)
        training.append(trials[["train_seconds", "predict_seconds"]].to_numpy().sum())
        together.append(timed(images, jobs=cores, **short)[0])
        print(f"studying, round {number + 1} of {rounds}: {alone[-1]:.1f} s, side by side "
              f"{together[-1]:.1f} s", flush=True)
    whole, _ = timed(images, list(TECHNIQUES), epochs=10, seeds=3, jobs=cores)
    print(f"studying: all techniques, 3 seeds, 10 epochs at 32 px: {whole / 60:.1f} minutes", flush=True)
    rest = [seconds - used for seconds, used in zip(alone, training)]
    return [Ratio(f"{len(TECHNIQUES)} recipes x 3 seeds, 32 px, 10 epochs: minutes / {MINUTES}", [whole],
                  [60 * MINUTES], "<=", 1), Ratio(f"trials one after another / {cores} side by side, "
                                                  "start of the processes included", alone, together,
                                                  ">=", SIDE_BY_SIDE),
            most_to_gain(images, cores, rounds), Ratio("a study's seconds beside training and "
                                                       "predicting / all its seconds", rest, alone, "<=",
                                                       OVERHEAD)]
