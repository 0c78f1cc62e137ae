"""Made wrong_labels.csv and wrong_labels_correct.npz: python make_wrong_labels.py FOLDER [SEEDS]

Do MixUp and label smoothing help against wrong labels? A share of the training photos gets another class
at random (0, 20 and 40 %). A linear layer is trained on frozen features of efficientnet-lite0 at 128
pixels, as in make_rival.py: plainly, with MixUp of the *features* (alpha 0.4 and 1), with label
smoothing (0.1). Each seed has its own draw of wrong labels, its own first weights and its own order of
batches, the same for all arms, so that the intervals cover the draw as well. Learning rate and weight
decay are chosen for each arm and share from the same grid of twelve on a fifth of the training photos
that is set aside with its wrong labels, as somebody would who doesn't know of them, with a seed that
isn't in the table; with `tuned` false all have PyTorch's own for AdamW, which regularizes little. The
validation photos keep their classes and choose nothing. The photos of the stored table: the clothing
dataset (small) by Alexey Grigorev and contributors, its ten most frequent classes, 160 pixels on the
shortest side.
"""

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from make_noise import wrong_labels
from resume import Table
from sklearn.preprocessing import StandardScaler
from torch import nn, Tensor

from lessonkit.ablation import inner_split
from lessonkit.foundation.calibration import score
from lessonkit.foundation.models import pretrained_at_hand
from lessonkit.images import ImageSet, load_images
from lessonkit.label_smoothing import LabelSmoothingCrossEntropy
from lessonkit.mixup import mixed_loss, mixup, sample_lambda
from lessonkit.study.rival import frozen_features
from lessonkit.study.trials import photos_identity

SIZE, EPOCHS, BATCH = 128, 30, 64
SHARES, RATES, DECAYS = (0.0, 0.2, 0.4), (1e-4, 3e-4, 1e-3), (1.0, 3.0, 10.0, 30.0)
USUAL = 1e-3, 0.01  # AdamW's own, in PyTorch
Loss = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]


def mixed(alpha: float, net: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
    """The loss of a batch of which each row is mixed with the row before it."""
    lam = sample_lambda(len(x), alpha, rng)
    return mixed_loss(F.cross_entropy, net(mixup(x, lam)), y, lam)


def plain(loss: Callable, net: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
    return loss(net(x), y)


ARMS: dict[str, Loss] = {
    "baseline": partial(plain, F.cross_entropy),
    "mixup, alpha 0.4": partial(mixed, 0.4),
    "mixup, alpha 1": partial(mixed, 1.0),
    "label_smoothing": partial(plain, LabelSmoothingCrossEntropy(0.1)),
}


def train(x: Tensor, y: Tensor, loss: Loss, lr: float, decay: float, seed: int) -> nn.Module:
    """Train a linear layer; the learning rate rises and falls in one cycle."""
    torch.manual_seed(seed)
    net, order, rng = nn.Linear(x.shape[1], int(y.max()) + 1), *map(torch.Generator, ["cpu"] * 2)
    order.manual_seed(seed), rng.manual_seed(seed + 1000)
    opt = torch.optim.AdamW(net.parameters(), lr, weight_decay=decay)
    steps = EPOCHS * (len(x) // BATCH)
    cycle = torch.optim.lr_scheduler.OneCycleLR(opt, lr, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=order)[: len(x) // BATCH * BATCH].split(BATCH):
            loss(net, x[rows], y[rows], rng).backward()
            opt.step(), opt.zero_grad(), cycle.step()
    return net


def trial(images: ImageSet, features: np.ndarray, arm: str, lr: float, decay: float, seed: int) -> tuple:
    """Train once; the scores on the validation photos, and which were right."""
    rows, valid = images.indices("train"), images.indices("valid")
    scale = StandardScaler().fit(features[rows])
    x, judged = (torch.from_numpy(scale.transform(features[part])).float() for part in (rows, valid))
    net = train(x, torch.from_numpy(images.labels[rows]), ARMS[arm], lr, decay, seed)
    with torch.no_grad():
        probs = net(judged).softmax(1)
    return score(probs, images.labels[valid]), probs.argmax(1).numpy() == images.labels[valid]


def noisy_set(images: ImageSet, share: float, seed: int) -> ImageSet:
    """Wrong labels whose places and classes come from one generator, one after the other."""
    random = np.random.default_rng(seed)
    random.permutation(len(images.indices("train")))  # the places, which `wrong_labels` draws itself
    return wrong_labels(images, share, seed, random)


def main(folder: str, seeds: int = 10) -> None:
    torch.set_num_threads(1)
    images = load_images(folder)
    about = folder.rstrip("/").split("/")[-1]
    features, _, _ = frozen_features(images, pretrained_at_hand()[1], SIZE, progress=False)
    tuning, table = (Table(name, photos_identity(images))
                     for name in ("wrong_labels_tuning", "wrong_labels"))

    def run(to: Table, share: float, arm: str, lr: float, decay: float, seed: int) -> float:
        """Train unless it is stored; the loss on what it was judged on."""
        about_it = {"technique": arm, "noise": share, "seed": seed, "lr": lr, "decay": decay}
        name = " ".join(f"{key}={value}" for key, value in about_it.items())
        if name not in to.done:
            noisy = noisy_set(images, share, seed)
            part, seen = noisy, features
            if to is tuning:
                part, seen = inner_split(noisy), features[images.indices("train")]
            found, right = trial(part, seen, arm, lr, decay, seed)
            row = {"id": name, "images": about, "tuned": (lr, decay) != USUAL} | about_it
            row |= {"size": SIZE, "epochs": EPOCHS} | found
            to.add([(row | {"photos": len(right)}, right)])
        return next(row["nll"] for row in to.rows if row["id"] == name)

    chosen = {}
    for share in SHARES:
        for arm in ARMS:
            tried = {(lr, decay): run(tuning, share, arm, lr, decay, 100)
                     for lr in RATES for decay in DECAYS}
            chosen[share, arm] = min(tried, key=tried.__getitem__)
            print(f"{share:.0%} wrong, {arm}: learning rate and weight decay {chosen[share, arm]}",
                  flush=True)
    for seed in range(seeds):
        for share in SHARES:
            for arm in ARMS:
                for lr, decay in (chosen[share, arm], USUAL):
                    run(table, share, arm, lr, decay, seed)
        print(f"seed {seed}", flush=True)
    tuning.finish()
    table.finish()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
