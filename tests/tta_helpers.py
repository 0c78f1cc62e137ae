"""Photos and networks for the tests of test-time augmentation."""

import torch
from torch import nn
from torch.utils.data import Dataset

from lessonkit.tta import five_crop, flip, product, quarter_turns, random_views, scales, vertical_flip


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(n=5, height=9, width=9, seed=0):
    return torch.rand(n, 3, height, width, generator=seeded(seed))


def network(n_classes=4, seed=0):
    """Linear in the pixels' places, so that each view makes a difference; with parts whose mode
    matters."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5),
                         nn.Linear(27, n_classes))


def probabilities(views=3, n=4, classes=5, seed=0):
    return torch.randn(views, n, classes, generator=seeded(seed)).mul(3).softmax(-1)


def by_hand(model, x):
    """What a network says in eval mode."""
    modes = [part.training for part in model.modules()]
    model.eval()
    with torch.no_grad():
        probs = model(x).softmax(1)
    for part, mode in zip(model.modules(), modes):
        part.training = mode
    return probs


ALL_VIEWS = [*flip, *vertical_flip, *quarter_turns, *five_crop, *scales(5, 12, (4, 7)), *random_views(3),
             *product(five_crop, flip), *product(flip, random_views(2))]


def labelled(n=23):
    return photos(n), torch.arange(n) % 4


class Rows(Dataset):
    """Photos with labels; counts how often each is loaded."""

    def __init__(self, n=23):
        self.x, self.y = labelled(n)
        self.loaded = []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        self.loaded.append(int(i))
        return self.x[i], self.y[i]
