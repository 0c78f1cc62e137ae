"""Speed, as ratios measured side by side in one run: lessonkit's loading against fastai's and against no loading at all.

    python benchmarks/run.py [FOLDER_OF_PHOTOS] [--rounds 3] [--sizes 64 32] [--out benchmarks/results.md]

Without a folder: the one that LESSONKIT_IMAGES names, else the bundled pictures.

Rounds are interleaved (each contender once a round) and medians compared, since a laptop's speed changes from minute to
minute. An epoch is training and validation with the same small network, the same optimizer and batches of 64.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import GrandparentSplitter, get_image_files, parent_label
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import OptimWrapper
from fastai.vision.augment import Resize, aug_transforms
from fastai.vision.data import ImageBlock
from torch import nn

from lessonkit.bundled import make_bundled
from lessonkit.images import ImageSet, image_dataloaders
from lessonkit.models import small_resnet
from lessonkit.normalization import Normalize

BATCH = 64
WORKERS = 2
STATS = ([0.5, 0.5, 0.5], [0.3, 0.3, 0.3])  # any will do: only the time counts here


class EpochSeconds(Callback):
    """How long each epoch took, training and validation together."""

    def before_fit(self):
        self.seconds = []

    def before_train(self):
        self.start = time.perf_counter()

    def after_validate(self):
        self.seconds.append(time.perf_counter() - self.start)


def network(n_classes: int) -> nn.Module:
    torch.manual_seed(0)
    return small_resnet(n_classes).to(memory_format=torch.channels_last)


def learner(loaders: DataLoaders, n_classes: int) -> Learner:
    """The same for both: only the loaders differ."""
    optimizer = partial(OptimWrapper, opt=torch.optim.AdamW, fused=True)
    learn = Learner(loaders, network(n_classes), CrossEntropyLossFlat(), opt_func=optimizer, cbs=EpochSeconds())
    learn.remove_cb(ProgressCallback)
    learn.logger = lambda *_: None
    return learn


def second_epoch(learn: Learner) -> float:
    """Seconds of an epoch when everything is warm."""
    learn.fit(2, 1e-3)
    return learn.epoch_seconds.seconds[1]


def fastai_loaders(folder: Path, size: int) -> DataLoaders:
    """fastai's own way, as its book has it: every photo resized to 160, the batch augmented to `size`."""
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        splitter=GrandparentSplitter(valid_name="val"),
        get_y=parent_label,
        item_tfms=Resize(160),
        batch_tfms=aug_transforms(size=size),
    )
    return block.dataloaders(folder, bs=BATCH, num_workers=WORKERS, device=torch.device("cpu"))


def bare_epoch(images: ImageSet, size: int) -> float:
    """Seconds of the model's steps alone, on tensors that are already in memory: the limit for every loader."""
    model, loss_func = network(len(images.classes)), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    counts = {part: len(images.indices(part)) for part in ("train", "valid")}
    # a few different batches, so that the processor's caches don't hold the answer
    ready = [
        (torch.randn(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last), torch.randint(0, 10, (BATCH,)))
        for _ in range(8)
    ]

    def batches(n: int):
        for i in range(-(-n // BATCH)):
            x, y = ready[i % len(ready)]
            yield x[: n - i * BATCH], y[: n - i * BATCH]

    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        model.train()
        for x, y in batches(counts["train"]):
            loss_func(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            for x, y in batches(counts["valid"]):
                loss_func(model(x), y)
        seconds.append(time.perf_counter() - start)
    return seconds[1]


def first_decode(images: ImageSet, size: int) -> float:
    """Seconds until every photo is decoded for training at `size`, from an empty cache."""
    kept = os.environ.get("LESSONKIT_CACHE")
    with tempfile.TemporaryDirectory() as empty:
        os.environ["LESSONKIT_CACHE"] = empty
        start = time.perf_counter()
        loaders = image_dataloaders(images, size, BATCH)
        seconds = time.perf_counter() - start
        del loaders
        if kept is None:
            del os.environ["LESSONKIT_CACHE"]
        else:
            os.environ["LESSONKIT_CACHE"] = kept
    return seconds


def loading_alone(loaders: DataLoaders) -> float:
    """Seconds to go once through both loaders with no training."""
    start = time.perf_counter()
    for loader in loaders.loaders:
        for _ in loader:
            pass
    return time.perf_counter() - start


def measure(folder: Path, size: int, rounds: int) -> dict[str, list[float]]:
    images = ImageSet.from_folder(folder)
    ours = learner(image_dataloaders(images, size, BATCH, normalize=Normalize(*STATS)), len(images.classes))
    theirs = learner(fastai_loaders(folder, size), len(images.classes))
    seconds: dict[str, list[float]] = {name: [] for name in ("bare", "ours", "fastai", "first decode", "fastai loading")}
    for number in range(rounds):
        seconds["bare"].append(bare_epoch(images, size))
        seconds["ours"].append(second_epoch(ours))
        seconds["fastai"].append(second_epoch(theirs))
        seconds["first decode"].append(first_decode(images, size))
        seconds["fastai loading"].append(loading_alone(theirs.dls))
        print(f"{size} px, round {number + 1} of {rounds}: " + ", ".join(f"{k} {v[-1]:.1f} s" for k, v in seconds.items()), flush=True)
    return seconds


LIMITS = {  # from the project's goals: what is compared, with what, which way, and the limit for 64 and 32 px
    "fastai's epoch / ours": ("fastai", "ours", ">=", {64: 3, 32: 6}),
    "our epoch / bare model steps": ("ours", "bare", "<=", {64: 1.15, 32: 1.25}),
    "first decode / fastai's loading of an epoch": ("first decode", "fastai loading", "<=", {64: 0.5, 32: 0.5}),
}


def table(size: int, seconds: dict[str, list[float]]) -> list[str]:
    """A row a ratio, of medians; the spread is the ratio's over rounds."""
    rows = []
    for name, (above, below, sign, limits) in LIMITS.items():
        ratio = statistics.median(seconds[above]) / statistics.median(seconds[below])
        each = [a / b for a, b in zip(seconds[above], seconds[below])]
        limit = limits.get(size)
        met = "" if limit is None else "yes" if (ratio >= limit if sign == ">=" else ratio <= limit) else "NO"
        goal = "" if limit is None else f"{sign} {limit}"
        rows.append(f"| {size} | {name} | {ratio:.2f} | {min(each):.2f} to {max(each):.2f} | {goal} | {met} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="photos in the Imagenette layout: train/<class>, val/<class>")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 32])
    parser.add_argument("--out", type=Path, help="also write the table into this Markdown file")
    args = parser.parse_args()
    folder = args.folder or Path(os.environ.get("LESSONKIT_IMAGES") or make_bundled())
    warnings.filterwarnings("ignore")
    lines = [
        "# Speed",
        "",
        f"{ImageSet.from_folder(folder)}; batches of {BATCH}; {os.cpu_count()} cores, {platform.machine()}, "
        f"{platform.system()}; torch {torch.__version__}; medians of {args.rounds} interleaved rounds.",
        "",
        "| px | ratio | median | over rounds | goal | met |",
        "|---:|---|---:|---|---|---|",
    ]
    for size in args.sizes:
        lines += table(size, measure(folder, size, args.rounds))
    print("\n" + "\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
