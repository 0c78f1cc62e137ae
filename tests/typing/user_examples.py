"""How people use the package, for mypy to read: what comes back has a type, and a mistake is found."""

from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from torch import nn, Tensor

from lessonkit.comparison import paired_interval, verdict
from lessonkit.images import bundled_images, decode, image_dataloaders, ImageSet, load_images
from lessonkit.label_smoothing import LabelSmoothingCrossEntropy, smooth_labels
from lessonkit.mixup import (
    CutMix, CutMixCollate, mixed_loss, MixUp, mixup, MixUpCollate, RandomMix, RandomMixCollate,
    sample_lambda,
)
from lessonkit.normalization import channel_stats, ChannelStats, denormalize, Normalize
from lessonkit.progressive_resizing import size_schedule
from lessonkit.subset_selection import (
    coverage, embed, select_classes, select_subset, Subset, write_subset,
)
from lessonkit.tta import flip, random_views, tta, TTA


def train(loader: torch.utils.data.DataLoader, model: nn.Module) -> None:
    normalize, loss_function = Normalize(channel_stats(loader)), LabelSmoothingCrossEntropy(eps=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for photos, labels in loader:
        lam = sample_lambda(len(photos), alpha=0.4)
        mixed = assert_type(mixup(normalize(photos), lam), Tensor)
        assert_type(mixed_loss(loss_function, model(mixed), labels, lam), Tensor).backward()
        optimizer.step()
    switch = RandomMixCollate([MixUpCollate(n_classes=3), CutMixCollate(3, where=("photo", "label"))],
                              chances=[0.7, 0.3])
    torch.utils.data.DataLoader(loader.dataset, collate_fn=switch)
    RandomMix([MixUp(), CutMix(alpha=0.5)], seed=0)


def layers(model: nn.Module, photos: Tensor) -> Tensor:
    whole = nn.Sequential(Normalize(0.5, 0.25).to("cpu"), model)
    stats = assert_type(ChannelStats().update(photos), ChannelStats)
    assert_type(stats.mean, Tensor)
    assert_type(smooth_labels(torch.arange(3), n_classes=3), Tensor)
    assert_type(smooth_labels(torch.eye(3), eps=0.2), Tensor)
    assert_type(denormalize(photos, stats.mean, stats.std), Tensor)
    return whole(photos)


def predict(model: nn.Module, photos: Tensor) -> Tensor:
    found = assert_type(tta(model, photos, views=[*flip, *random_views(2)], merge="mean"), TTA)
    return found.probs


def photos(folder: Path) -> np.ndarray:
    images = assert_type(load_images(folder), ImageSet)
    assert_type(load_images("imagenette2-160").classes, list[str])
    image_dataloaders(images, size=64, normalize=Normalize([0.5] * 3, [0.25] * 3)).train.size = 32
    few = images.take(images.indices("train")[:10])
    few.take([0, 1, 2]).check(progress=False)
    return assert_type(decode(bundled_images(n_train=100), 64), np.ndarray)


def choose(images: ImageSet, model: nn.Module) -> Path:
    features = embed(images, model, out="features.npy")
    subset = assert_type(select_subset(features, 10, images.labels, n_jobs=2), Subset)
    select_classes(features, images.labels, 5, kind="hard")
    coverage(features, subset.indices, labels=images.labels)
    return assert_type(write_subset(images, subset, "few", how="hardlink"), Path)


def compare(differences: list[float]) -> str:
    low, high = paired_interval(differences)
    assert_type(size_schedule(10, 32, 64), list[int])
    return assert_type(verdict(low, high), str)


def mistakes(images: ImageSet, photos: Tensor) -> None:
    """Each of these lines is wrong; mypy would say so if one were not."""
    mixup(photos, "half")  # type: ignore[arg-type]
    Normalize().to("cpu")  # type: ignore[call-arg]
    LabelSmoothingCrossEntropy(eps="0.1")  # type: ignore[arg-type]
    select_subset(photos, 10)  # type: ignore[arg-type]
    select_subset(np.zeros((3, 2)), 1).weigths  # type: ignore[attr-defined]
    images.take("train")  # type: ignore[arg-type]
    size_schedule(10, 32)  # type: ignore[call-arg]
