"""How fast a batch is mixed: lessonkit's MixUp with a share for each photo against other libraries and plain copying; and
what the losses cost against PyTorch's own.

Each contender draws its shares, mixes photos and labels, and returns new ones (timm's changes the batch it is given, so
it has its own). fastai's mixes the photos alone, since its loss mixes the rest. All are called in turns.
"""

import random
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from fastai.callback.mixup import MixUp as FastaiMixUp
from kornia.augmentation import RandomMixUpV2
from ratios import Ratio
from timm.data.mixup import Mixup as TimmMixUp
from torch import nn
from torchvision.transforms import v2

from lessonkit.label_smoothing import LabelSmoothingCrossEntropy
from lessonkit.mixup import mix_targets, mixed_loss, mixup, sample_lambda

SHAPE, CLASSES, THREADS = (64, 3, 128, 128), 10, 2


def in_turns(contenders: dict[str, Callable], rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds of one call of each contender: the median of `calls`, once a round; in another order each time."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        call()
    for _ in range(rounds):
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(calls):
            for name, call in random.sample(list(contenders.items()), len(contenders)):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
        for name, taken in times.items():
            seconds[name].append(sorted(taken)[calls // 2])
    return seconds


def mixers() -> dict[str, Callable]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(SHAPE, generator=generator), torch.randint(0, CLASSES, SHAPE[:1], generator=generator)
    of_timm = x.clone()

    def ours():
        lam = sample_lambda(len(x), 0.4, generator)
        return mixup(x, lam), mix_targets(y, lam, n_classes=CLASSES)

    fastais = FastaiMixUp(0.4)
    fastais.learn, fastais.stack_y = SimpleNamespace(x=x, y=y, xb=(x,), yb=(y,)), True
    torchvisions = v2.MixUp(alpha=0.4, num_classes=CLASSES)
    timms = TimmMixUp(mixup_alpha=0.4, mode="elem", label_smoothing=0.0, num_classes=CLASSES)
    kornias = RandomMixUpV2(p=1.0, data_keys=["input", "class"])

    def fastai():
        fastais.learn.xb = (x,)
        fastais.before_batch()
        return fastais.learn.xb

    return {
        "ours": ours,
        "two copies": lambda: (x.clone(), x.clone()),
        "torchvision": lambda: torchvisions(x, y),
        "fastai": fastai,
        "timm": lambda: timms(of_timm, y),
        "kornia": lambda: kornias(x, y),
    }


def losses(n_classes: int) -> dict[str, Callable]:
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(64, n_classes, generator=generator, requires_grad=True)
    y, lam = torch.randint(0, n_classes, (64,), generator=generator), torch.rand(64, generator=generator)
    smoothing = LabelSmoothingCrossEntropy(0.1)

    def by_rows():
        one, other = F.one_hot(y, n_classes), F.one_hot(y.roll(1), n_classes)
        F.cross_entropy(pred, lam[:, None] * one + (1 - lam[:, None]) * other).backward()

    return {
        "mixed": lambda: mixed_loss(nn.functional.cross_entropy, pred, y, lam).backward(),
        "by rows": by_rows,
        "smoothing": lambda: smoothing(pred, y).backward(),
        "torch's smoothing": lambda: F.cross_entropy(pred, y, label_smoothing=0.1).backward(),
    }


def ratios(rounds: int) -> list[Ratio]:
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        seconds = in_turns(mixers(), rounds, calls=40)
        limits = {"torchvision": 0.8, "fastai": 0.5, "timm": 0.5, "kornia": 0.5, "two copies": None}
        rows = [Ratio(f"MixUp: ours / {name}", seconds["ours"], seconds[name], "<=", limit) for name, limit in limits.items()]
        for n_classes in (10, 1000):
            of = in_turns(losses(n_classes), rounds, calls=200)
            name = f"loss and gradient, 64 photos, {n_classes} classes"
            rows += [Ratio(f"{name}: mixed / PyTorch's of mixed rows", of["mixed"], of["by rows"], "<=", 1),
                     Ratio(f"{name}: smoothed / PyTorch's", of["smoothing"], of["torch's smoothing"], "<=", 1)]
    finally:
        torch.set_num_threads(threads)
    print(f"mixing: ours {1e3 * min(seconds['ours']):.1f} ms a batch", flush=True)
    return rows
