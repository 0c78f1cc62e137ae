"""With `torch.set_default_device`, what is on the CPU is still computed there: every call gives what it
gives without.

The other device is `meta`, which holds no numbers, so that a single tensor made there is an error.
"""

import copy

import pytest
import torch
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from torch import nn

from lessonkit.foundation.batch_transforms import resize_batch
from lessonkit.foundation.calibration import score
from lessonkit.foundation.models import refresh_batch_norm, small_resnet
from lessonkit.foundation.speedups import UseMuon
from lessonkit.images import image_dataloaders
from lessonkit.label_smoothing import LabelSmoothingCrossEntropy, show_smoothed_labels, smooth_labels
from lessonkit.mixup import CutMix, cutmix, mix_targets, mixed_loss, MixUp, RandomMix, show_mixup
from lessonkit.normalization import channel_stats, denormalize, Normalize, show_normalized
from lessonkit.progressive_resizing import ProgressiveResize
from lessonkit.selection import features
from lessonkit.subset_selection import embed, select_subset
from lessonkit.tta import five_crop, flip, random_views, scales, tta

HALF = [0.5] * 3
X, Y = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
PRED = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    NETWORK = small_resnet(3, 4)
NAMES = ["a", "b", "c"]


def seeded():
    return torch.Generator("cpu").manual_seed(1)


def loaders(photos):
    return image_dataloaders(photos, size=16, batch_size=8, normalize=Normalize(HALF, HALF))


def refreshed(_):
    network = copy.deepcopy(NETWORK)
    refresh_batch_norm(network, [X, X])
    return network[1].running_mean


PURE = {
    "mixing by lists": lambda _: mix_targets([0, 1, 2], 0.3, [1, 2, 0], n_classes=3),
    "cutmix": lambda _: cutmix(X, [0.4] * 6, [1, 2, 3, 4, 5, 0], seeded()),
    "loss": lambda _: mixed_loss(LabelSmoothingCrossEntropy(0.1, [1, 2, 3]), PRED, Y, 0.3),
    "labels": lambda _: smooth_labels([0, 1], 3),
    "normalization": lambda _: (Normalize(HALF, HALF)(X), denormalize(X, HALF, HALF)),
    "statistics": lambda photos: (channel_stats(X).mean, channel_stats(X.numpy()).std,
                                  channel_stats(photos).mean),
    "resizing": lambda _: resize_batch((X * 255).byte(), 8),
    "batch norm": refreshed,
    "tta": lambda _: [tta(NETWORK, X, views).probs
                      for views in (flip, five_crop, scales([16, 20]), random_views(2))],
    "tta of batches": lambda _: tta(NETWORK, [(X, Y)], flip).targets,
    "tta of a loader": lambda photos: tta(NETWORK, loaders(photos).train, flip).targets,
    "scores": lambda _: torch.tensor(list(score(PRED.softmax(1), Y).values()), device="cpu"),
    "choice": lambda _: torch.from_numpy(select_subset(X.flatten(1), 4).indices),
    "photos": lambda photos: [x for x, _ in loaders(photos).train],
    "one photo": lambda photos: loaders(photos).test_dl([photos.paths[0]]).one_batch(),
    "features": lambda photos: torch.from_numpy(embed(photos, NETWORK, size=16, progress=False,
                                                      normalize=Normalize(HALF, HALF))),
    "features by a network of its own":
        lambda photos: torch.from_numpy(embed(photos, size=16, progress=False)),
    "pictures": lambda _: [type(draw) for draw in (
        show_mixup(X, Y, NAMES, [0.2, 0.5], cut=True), show_smoothed_labels([0, 1], NAMES),
        show_normalized(X, Normalize(HALF, HALF)),
    )],
}


def same(one, other):
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("what", PURE)
def test_calls_give_the_same_whatever_the_default_device_is(random_photos, own_cache, monkeypatch, what):
    monkeypatch.setattr(features, "STEPS", 2)
    expected = PURE[what](random_photos)
    with torch.device("meta"):
        assert same(PURE[what](random_photos), expected)


TRAININGS = {
    "plain": lambda: [], "MixUp": lambda: [MixUp(seed=1)], "CutMix": lambda: [CutMix(seed=1)],
    "Muon": lambda: [UseMuon()],
    "one of both": lambda: [RandomMix([MixUp(), CutMix()], seed=1)],
    "sizes": lambda: [ProgressiveResize(8, refresh_bn=True)],
}


@pytest.mark.parametrize("what", TRAININGS)
def test_trainings_end_the_same_whatever_the_default_device_is(random_photos, own_cache, what):
    def train(callbacks):
        learn = Learner(loaders(random_photos), copy.deepcopy(NETWORK), loss_func=CrossEntropyLossFlat(),
                        cbs=callbacks)
        with learn.no_bar(), learn.no_logging():
            learn.fit(1)
        return nn.utils.parameters_to_vector(learn.model.parameters())

    expected = train(TRAININGS[what]())
    with torch.device("meta"):
        found = train(TRAININGS[what]())
    assert expected.isfinite().all() and torch.equal(expected, found)
