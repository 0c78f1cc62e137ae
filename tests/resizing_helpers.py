"""Networks and loaders for the tests of progressive resizing."""



import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import lr_find  # noqa: F401  gives Learner its lr_find, fine_tune and fit_one_cycle
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader as FastaiDataLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import SGD
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lessonkit.images import image_dataloaders


class Net(nn.Module):
    """Remembers the shapes that it is fed, and whether in training."""

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                  nn.Flatten()]
        self.features, self.head = nn.Sequential(*layers), nn.Linear(4, 2)
        self.fed, self.pixels = [], []

    def forward(self, x):
        self.fed.append((self.training, tuple(x.shape[-2:])))
        self.pixels.append(x.detach().clone())
        return self.head(self.features(x.as_subclass(torch.Tensor)))

    def seen(self, training=True):
        return [min(shape) for mode, shape in self.fed if mode == training]


def tensors(n=20, height=16, width=16, bs=4, kind=FastaiDataLoader):
    """Loaders that can't be asked for another size."""
    generator = torch.Generator().manual_seed(0)
    items = [(torch.rand(3, height, width, generator=generator), i % 2) for i in range(n)]
    if kind is DataLoader:
        x, y = torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items])
        return DataLoaders(DataLoader(TensorDataset(x, y), bs, shuffle=True),
                           DataLoader(TensorDataset(x[:8], y[:8]), bs))
    return DataLoaders(FastaiDataLoader(items, bs=bs, shuffle=True), FastaiDataLoader(items[:8], bs=bs))


def learner(loaders, *callbacks, groups=False, lr=0.01, opt=SGD, **kwargs):
    torch.manual_seed(0)
    if groups:
        kwargs["splitter"] = lambda net: [list(net.features.parameters()), list(net.head.parameters())]
    learn = Learner(loaders, Net(), loss_func=CrossEntropyLossFlat(), opt_func=opt, lr=lr,
                    cbs=list(callbacks), **kwargs)
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = lambda *args: None
    return learn


def sized(random_photos, size=32, **options):
    """Loaders that can be asked for another size: 24 photos for training, in 6 batches of 4, and 6 for
    validation."""
    return image_dataloaders(random_photos, size, 4, **options)


LOADERS = {"sized": lambda random_photos: sized(random_photos, 16), "fastai": lambda _: tensors(24),
           "pytorch": lambda _: tensors(24, kind=DataLoader)}
any_loader = pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)


class Stop(Callback):
    """Raise in training, at some event, from some batch on."""

    run_valid = False

    def __init__(self, error, event, at=0):
        self.error, self.at = error, at
        setattr(self, event, self.stop)

    def stop(self):
        if self.learn.train_iter >= self.at:
            raise self.error
