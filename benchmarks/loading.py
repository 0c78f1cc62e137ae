"""How fast photos get to the network: lessonkit's loaders against fastai's own and against no loading at
all.

An epoch is training and validation with the same small network, the same optimizer and batches of 64.
"""

import statistics
import time
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
from ratios import Ratio
from torch import nn
from usage import empty_cache

from lessonkit.foundation.models import small_resnet
from lessonkit.images import ImageSet, image_dataloaders
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
    learn = Learner(loaders, network(n_classes), CrossEntropyLossFlat(), opt_func=optimizer,
                    cbs=EpochSeconds())
    learn.remove_cb(ProgressCallback)
    learn.logger = lambda *_: None
    return learn


def warm_epoch(learn: Learner, epochs: int) -> float:
    """Seconds of an epoch from the second on: the median of them."""
    learn.fit(epochs, 1e-3)
    return statistics.median(learn.epoch_seconds.seconds[1:])


def fastai_loaders(folder: Path, size: int) -> DataLoaders:
    """fastai's own way, as its book has it: every photo resized to 160, the batch augmented to
    `size`."""
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        splitter=GrandparentSplitter(valid_name="val"),
        get_y=parent_label,
        item_tfms=Resize(160),
        batch_tfms=aug_transforms(size=size),
    )
    return block.dataloaders(folder, bs=BATCH, num_workers=WORKERS, device=torch.device("cpu"))


class Ready:
    """As many batches as n photos fill, already in memory; a loader as far as fastai's training asks for
    one."""

    def __init__(self, n: int, size: int, device: torch.device = torch.device("cpu")):
        self.n, self.device = n, device
        # a few different ones, so that the processor's caches don't hold the answer
        self.batches = [(torch.randn(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last),
                         torch.randint(0, 10, (BATCH,))) for _ in range(8)]

    def __len__(self) -> int:
        return -(-self.n // BATCH)

    def __iter__(self):
        for i in range(len(self)):
            x, y = self.batches[i % len(self.batches)]
            yield x[: self.n - i * BATCH], y[: self.n - i * BATCH]


def ready_loaders(images: ImageSet, size: int) -> DataLoaders:
    return DataLoaders(*(Ready(len(images.indices(part)), size) for part in ("train", "valid")),
                       device=torch.device("cpu"))


def bare_epoch(loaders: DataLoaders, n_classes: int, epochs: int) -> float:
    """Seconds of the model's steps alone, on tensors that are already in memory: the limit for every
    loader. The median of all epochs but the first."""
    model, loss_func = network(n_classes), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        model.train()
        for x, y in loaders.train:
            loss_func(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            for x, y in loaders.valid:
                loss_func(model(x), y)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def first_decode(images: ImageSet, size: int) -> float:
    """Seconds until every photo is decoded for training at `size`, from an empty cache."""
    with empty_cache():
        start = time.perf_counter()
        image_dataloaders(images, size, BATCH)
        return time.perf_counter() - start


def loading_alone(loaders: DataLoaders) -> float:
    """Seconds to go once through both loaders with no training."""
    start = time.perf_counter()
    for loader in loaders.loaders:
        for _ in loader:
            pass
    return time.perf_counter() - start


def measure(folder: Path, size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender, one number a round."""
    images = ImageSet.from_folder(folder)
    n_classes, ready = len(images.classes), ready_loaders(images, size)
    ours = learner(image_dataloaders(images, size, BATCH, normalize=Normalize(*STATS)), n_classes)
    theirs, unloaded = learner(fastai_loaders(folder, size), n_classes), learner(ready, n_classes)
    names = "bare", "no loading", "ours", "our batches", "fastai", "first decode", "fastai loading"
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        seconds["bare"].append(bare_epoch(ready, n_classes, epochs=4))
        seconds["no loading"].append(warm_epoch(unloaded, epochs=4))
        seconds["ours"].append(warm_epoch(ours, epochs=4))
        seconds["our batches"].append(loading_alone(ours.dls))
        seconds["fastai"].append(warm_epoch(theirs, epochs=2))
        seconds["first decode"].append(first_decode(images, size))
        seconds["fastai loading"].append(loading_alone(theirs.dls))
        print(f"{size} px, round {number + 1} of {rounds}: "
              + ", ".join(f"{k} {v[-1]:.1f} s" for k, v in seconds.items()), flush=True)
    return seconds


def ratios(folder: Path, rounds: int) -> list[Ratio]:
    rows = []
    for size, faster, slower in ((64, 3, 1.15), (32, 6, 1.2)):
        seconds = measure(folder, size, rounds)
        rows += [
            Ratio(f"{size} px: fastai's epoch / ours", seconds["fastai"], seconds["ours"], ">=", faster),
            Ratio(f"{size} px: our epoch / bare model steps", seconds["ours"], seconds["bare"], "<=",
                  slower),
            Ratio(f"{size} px: fastai's training of tensors in memory, no loading / bare model steps",
                  seconds["no loading"], seconds["bare"]),
            Ratio(f"{size} px: our batches alone / bare model steps", seconds["our batches"],
                  seconds["bare"]),
            Ratio(f"{size} px: our epoch / fastai's training of tensors in memory", seconds["ours"],
                  seconds["no loading"]),
            Ratio(f"{size} px: first decode / fastai's loading of an epoch", seconds["first decode"],
                  seconds["fastai loading"], "<=", 0.5),
        ]
    return rows
