"""How fast a batch is mixed: lessonkit's MixUp with a share for each photo against other libraries and
plain copying, as functions, in a collate and as a callback with its loss; and what the losses cost
against PyTorch's own.

Each contender draws its shares, mixes photos and labels, and returns new ones (timm's changes the batch
it is given, so it has its own; its quickest mode draws one share for the batch). All are called in
turns, with one thread.

Contenders called "least" do what can't be left out, in PyTorch's own calls and without looking at any
value: a goal below their ratio can't be met by shorter code. "Shares" draws a share for each photo from
a generator of its own, and mixes nothing. "Idle" is a callback that does nothing, without a backward
pass: the loop's own events, and the loss of the labels as they are, which fastai has computed before a
callback can mix it.
"""

import random
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp as FastaiMixUp
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from kornia.augmentation import RandomMixUpV2
from ratios import Ratio
from timm.data.mixup import Mixup as TimmMixUp
from torch import nn
from torch.utils.data import default_collate
from torchvision.transforms import v2

from lessonkit.label_smoothing import LabelSmoothingCrossEntropy
from lessonkit.mixup import mix_targets, mixed_loss, MixUp, mixup, MixUpCollate, sample_lambda

CLASSES = 10
SHAPES = {"64 photos of 128 px": (64, 3, 128, 128), "64 of 64 px": (64, 3, 64, 64),
          "16 of 32 px": (16, 3, 32, 32)}
# The goals, for each of these shapes: a ratio at most, or None.
LIMITS = {"torchvision": (0.8, 0.8, 1), "timm in place": (None, 0.7, 1.5),
          "timm, a share for each": (0.5, 0.5, 0.5), "kornia": (0.5, 0.5, 0.5),
          "two copies": (None, None, None)}
IN_COLLATE, AS_CALLBACK = (1, 1, 1), (0.3, 0.5, 0.8)


def in_turns(contenders: dict[str, Callable], rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds of one call of each contender: the median of `calls`, once a round; in another order each
    time."""
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


def batch(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator), torch.randint(
        0, CLASSES, shape[:1], generator=generator
    )


def one_hot(y: torch.Tensor, n_classes: int = CLASSES) -> torch.Tensor:
    return F.one_hot(y, n_classes).float()


def mixers(shape: tuple[int, ...]) -> dict[str, Callable]:
    generator, (x, y) = torch.Generator().manual_seed(0), batch(shape)
    of_timm, in_place = x.clone(), x.clone()

    def ours():
        lam = sample_lambda(len(x), 0.4, generator)
        return mixup(x, lam), mix_targets(y, lam, n_classes=CLASSES)

    rng = np.random.default_rng(0)

    def least():
        lam, rows = torch.from_numpy(rng.beta(0.4, 0.4, len(x)).astype(np.float32)), one_hot(y)
        photos = torch.lerp(x.roll(1, 0), x, lam[:, None, None, None])
        return photos, torch.lerp(rows.roll(1, 0), rows, lam[:, None])

    torchvisions = v2.MixUp(alpha=0.4, num_classes=CLASSES)
    for_each, for_all = (TimmMixUp(mixup_alpha=0.4, mode=mode, label_smoothing=0.0, num_classes=CLASSES)
                         for mode in ("elem", "batch"))
    kornias = RandomMixUpV2(p=1.0, data_keys=["input", "class"])
    return {
        "ours": ours,
        "least": least,
        "shares": lambda: sample_lambda(len(x), 0.4, generator),
        "two copies": lambda: (x.clone(), x.clone()),
        "torchvision": lambda: torchvisions(x, y),
        "timm in place": lambda: for_all(in_place, y),
        "timm, a share for each": lambda: for_each(of_timm, y),
        "kornia": lambda: kornias(x, y),
    }


def collates(shape: tuple[int, ...]) -> dict[str, Callable]:
    samples = [(photo, int(label)) for photo, label in zip(*batch(shape))]
    ours, theirs = MixUpCollate(CLASSES), v2.MixUp(alpha=0.4, num_classes=CLASSES)
    return {"ours": lambda: ours(samples), "least": lambda: default_collate(samples),
            "torchvision": lambda: theirs(*default_collate(samples))}


def callbacks(shape: tuple[int, ...]) -> dict[str, Callable]:
    """What a callback does with a batch in a Learner, from `before_batch` to the loss's gradient."""
    (x, y), logits = batch(shape), torch.randn(shape[0], CLASSES, requires_grad=True)
    loader = DataLoader(list(zip(x[:4], y[:4])), bs=4, shuffle=True, num_workers=0)

    def steps(callback: Callback, backward: bool = True) -> Callable:
        learn = Learner(DataLoaders(loader, loader), nn.Linear(2, 2), loss_func=CrossEntropyLossFlat(),
                        cbs=callback)
        learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
        learn.dl, learn.training, logits.grad = loader, True, None
        callback("before_train")  # where fastai's swaps the loss function

        def step():
            learn.xb, learn.yb, learn.pred, logits.grad = (x,), (y,), logits, None
            callback("before_batch")
            learn.loss_grad = learn.loss_func(learn.pred, *learn.yb)
            learn.loss = learn.loss_grad.clone()
            callback("after_loss")
            if backward:
                learn.loss_grad.backward()

        return step

    lam, batches = torch.rand(shape[0], 1, 1, 1), [x]

    def least():
        logits.grad, mixed = None, torch.empty_like(x)
        torch.lerp(x[:-1], x[1:], lam[1:], out=mixed[1:])
        batches[0] = mixed  # a training step needs it until the next one: its memory can't be used again
        least_mixed_loss(logits, y, lam.view(-1)).backward()

    generator = torch.Generator().manual_seed(0)
    return {"ours": steps(MixUp(0.4)), "least": least, "idle": steps(Callback(), backward=False),
            "shares": lambda: sample_lambda(len(x), 0.4, generator), "fastai": steps(FastaiMixUp(0.4))}


def least_mixed_loss(logits: torch.Tensor, y: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
    log_p, labels = torch.log_softmax(logits, 1), torch.stack([y, y.roll(1)], 1)
    return (log_p.gather(1, labels) * torch.stack([lam, 1 - lam], 1)).sum().div(-len(y))


def losses(n: int, n_classes: int) -> dict[str, Callable]:
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(n, n_classes, generator=generator, requires_grad=True)
    y, lam = torch.randint(0, n_classes, (n,), generator=generator), torch.rand(n, generator=generator)
    soft = torch.randn(n, n_classes, generator=generator).softmax(1)
    smoothing, theirs = LabelSmoothingCrossEntropy(0.1), nn.CrossEntropyLoss(label_smoothing=0.1)

    def by_rows():
        one, other = F.one_hot(y, n_classes), F.one_hot(y.roll(1), n_classes)
        F.cross_entropy(pred, lam[:, None] * one + (1 - lam[:, None]) * other).backward()

    def look():  # at soft labels: does each item's sum to 1, is none negative?
        sums = soft.sum(1)
        return sums.min().item(), sums.max().item(), soft.min().item()

    return {
        "mixed": lambda: mixed_loss(F.cross_entropy, pred, y, lam).backward(),
        "by rows": by_rows,
        "least mixed": lambda: least_mixed_loss(pred, y, lam).backward(),
        "look": look,
        "smoothing": lambda: smoothing(pred, y).backward(),
        "torch's smoothing": lambda: theirs(pred, y).backward(),
        "soft": lambda: smoothing(pred, soft).backward(),
        "torch's soft": lambda: theirs(pred, soft).backward(),
    }


def ratios(rounds: int) -> list[Ratio]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        for number, (name, shape) in enumerate(SHAPES.items()):
            calls = 40 if shape[0] == 64 else 100
            of = in_turns(mixers(shape), rounds, calls)
            rows += [Ratio(f"MixUp, {name}: ours / {peer}", of["ours"], of[peer], "<=", limits[number])
                     for peer, limits in LIMITS.items()]
            rows += [Ratio(f"MixUp, {name}: {part} / {peer}", of[part], of[peer])
                     for part in ("least", "shares") for peer in ("torchvision", "timm in place")]
            for what, peer, contenders, goals in (
                ("in a collate", "torchvision", collates(shape), IN_COLLATE),
                ("callback with loss", "fastai", callbacks(shape), AS_CALLBACK),
            ):
                of = in_turns(contenders, rounds, calls)
                rows.append(Ratio(f"{what}, {name}: ours / {peer}", of["ours"], of[peer], "<=",
                                  goals[number]))
                rows += [Ratio(f"{what}, {name}: {part} / {peer}", of[part], of[peer])
                         for part in ("least", "idle", "shares") if part in of]
            print(f"mixing: {name}, ours {1e3 * min(of['ours']):.1f} ms a batch", flush=True)
        for n, n_classes in ((64, 10), (64, 1000), (256, 1000)):
            of = in_turns(losses(n, n_classes), rounds, calls=100)
            name = f"loss and gradient, {n} photos, {n_classes} classes"
            rows += [Ratio(f"{name}: mixed / PyTorch's of mixed rows", of["mixed"], of["by rows"], "<=",
                           1),
                     Ratio(f"{name}: smoothed / PyTorch's", of["smoothing"], of["torch's smoothing"],
                           "<=", 1.05),
                     Ratio(f"{name}: least mixed / PyTorch's of mixed rows", of["least mixed"],
                           of["by rows"]),
                     Ratio(f"{name}: soft labels / PyTorch's", of["soft"], of["torch's soft"], "<=",
                           1.1),
                     Ratio(f"{name}: looking at soft labels / PyTorch's loss of them", of["look"],
                           of["torch's soft"])]
    finally:
        torch.set_num_threads(threads)
    return rows
