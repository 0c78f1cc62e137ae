"""On a GPU: what mixing, losses, views and loading cost beside other libraries, and a training.

python benchmarks/gpu.py FOLDER_OF_PHOTOS [--device cuda] [--size 128] [--epochs 5] [--out FILE.md]

The folder has the Imagenette layout (train/<class>, val/<class>). Made to fit into ten minutes. No
numbers of it are stored: no GPU was at hand when it was written. On the CPU (`--device cpu --size 32
--epochs 1`) it shows that it runs.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import fastai.callback.schedule  # noqa: F401  gives Learner its fit_one_cycle
import torch
import torch.nn.functional as F
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from loading import fastai_loaders
from mixing import CLASSES, in_turns
from ratios import Ratio
from timm.data.mixup import Mixup as TimmMixUp
from torch import nn
from torchvision.transforms import v2

from lessonkit.foundation.calibration import score
from lessonkit.foundation.models import small_resnet
from lessonkit.images import image_dataloaders, ImageSet
from lessonkit.label_smoothing import LabelSmoothingCrossEntropy
from lessonkit.mixup import mix_targets, mixed_loss, mixup, sample_lambda
from lessonkit.normalization import channel_stats, Normalize
from lessonkit.tta import flip, tta, TTAModel

ROUNDS, CALLS = 3, 30


def finished(act: Callable, device: torch.device) -> Callable:
    """The same call, which ends when the device has done its work."""

    def call():
        act()
        if device.type != "cpu":
            torch.accelerator.synchronize()

    return call


def compared(contenders: dict[str, Callable], device: torch.device) -> dict[str, list[float]]:
    waited = {name: finished(act, device) for name, act in contenders.items()}
    return in_turns(waited, ROUNDS, CALLS)


def techniques(device: torch.device, size: int) -> list[Ratio]:
    x, y = torch.rand(64, 3, size, size, device=device), torch.randint(0, CLASSES, (64,), device=device)
    pred = torch.randn(64, 1000, device=device, requires_grad=True)
    labels, soft = torch.randint(0, 1000, (64,), device=device), torch.rand(64, 1000, device=device)
    soft, lam = soft / soft.sum(1, keepdim=True), torch.rand(64, device=device)
    ours, theirs = LabelSmoothingCrossEntropy(0.1), nn.CrossEntropyLoss(label_smoothing=0.1)
    torchvisions = v2.MixUp(alpha=0.4, num_classes=CLASSES)
    timms = TimmMixUp(mixup_alpha=0.4, mode="batch", label_smoothing=0.0, num_classes=CLASSES)
    network = small_resnet(CLASSES).to(device).eval()
    views = TTAModel(network, [flip])

    def mix():
        shares = sample_lambda(64, 0.4).to(device)
        return mixup(x, shares), mix_targets(y, shares, n_classes=CLASSES)

    def by_rows():
        one, other = F.one_hot(labels, 1000), F.one_hot(labels.roll(1), 1000)
        F.cross_entropy(pred, lam[:, None] * one + (1 - lam[:, None]) * other).backward()

    copy, rows = x.clone(), []
    pairs = {
        "MixUp / torchvision": (mix, lambda: torchvisions(x, y)),
        "MixUp / timm in place": (mix, lambda: timms(copy, y)),
        "mixed loss / PyTorch's of mixed rows": (
            lambda: mixed_loss(F.cross_entropy, pred, labels, lam).backward(), by_rows),
        "smoothing / PyTorch's": (lambda: ours(pred, labels).backward(),
                                  lambda: theirs(pred, labels).backward()),
        "soft labels / PyTorch's": (lambda: ours(pred, soft).backward(),
                                    lambda: theirs(pred, soft).backward()),
    }
    for name, (one, other) in pairs.items():
        of = compared({"one": one, "other": other}, device)
        rows.append(Ratio(f"64 photos, {size} px: {name}", of["one"], of["other"]))
    with torch.inference_mode():
        of = compared({"views": lambda: views(x), "plain": lambda: network(x)}, device)
    return [*rows, Ratio(f"64 photos, {size} px: mirrored and plain / plain", of["views"], of["plain"])]


def trained(images: ImageSet, size: int, epochs: int,
            device: torch.device) -> tuple[float, float, float]:
    """Seconds of an epoch of training and validation, the last one, and accuracy plain and mirrored."""
    normalize = Normalize(channel_stats(images, size))
    loaders = image_dataloaders(images, size, 64, normalize=normalize, device=device)
    torch.manual_seed(0)
    network = small_resnet(len(images.classes)).to(device, memory_format=torch.channels_last)
    learn = Learner(loaders, network, CrossEntropyLossFlat())
    for loader in loaders.loaders:
        loader.prepare()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, 5e-3)
        start = time.perf_counter()
        learn.fit(1, 0)
        seconds = time.perf_counter() - start
        found = tta(learn, views=[flip])
    plain, mirrored = (score(probs, found.targets)["accuracy"] for probs in (found.plain, found.probs))
    return seconds, plain, mirrored


def loaded(folder: Path, size: int, device: torch.device) -> float:
    """Seconds of an epoch with fastai's loaders."""
    learn = Learner(fastai_loaders(folder, size).to(device), small_resnet(CLASSES).to(device),
                    CrossEntropyLossFlat())
    with learn.no_bar(), learn.no_logging():
        start = time.perf_counter()
        learn.fit(1, 1e-3)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    images = ImageSet.from_folder(args.folder)
    seconds, plain, mirrored = trained(images, args.size, args.epochs, args.device)
    rows = techniques(args.device, args.size)
    theirs = loaded(args.folder, args.size, args.device)
    rows.append(Ratio(f"{args.size} px: fastai's epoch / ours", [theirs], [seconds]))
    on = torch.cuda.get_device_name() if args.device.type == "cuda" else str(args.device)
    lines = [f"{on}, PyTorch {torch.__version__}, {images}", "",
             "| measured | median | over rounds | goal | met |", "|---|---|---|---|---|",
             *(row.row() for row in rows), "",
             f"{args.epochs} epochs at {args.size} px: {plain:.1%} right, {mirrored:.1%} with the "
             f"mirrored view; an epoch takes {seconds:.1f} s."]
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
