"""Whole trainings: with our callback, with fastai's, and in a loop of plain PyTorch, the same weights
come out."""

import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp as FastaiMixUp
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader as FastaiLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.losses import LabelSmoothingCrossEntropy as FastaiSmoothing
from fastai.optimizer import SGD
from torch import nn

from lessonkit.foundation import batch_mixing
from lessonkit.label_smoothing import LabelSmoothingCrossEntropy, smooth_labels
from lessonkit.mixup import MixUp, mix_targets, mixed_loss, mixup
from lessonkit.normalization import Normalize, normalize

STEPS, BATCH = 10, 7  # 70 photos: ten steps are an epoch


def photos():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(STEPS * BATCH, 3, 6, 6, generator=generator), torch.randint(
        5, (STEPS * BATCH,), generator=generator
    )


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(8, 5))


def fit(loss, *callbacks, after_batch=None):
    """Ten steps of fastai's Learner."""
    pairs = list(zip(*photos()))
    loader = FastaiLoader(pairs, bs=BATCH, num_workers=0, after_batch=after_batch)
    learn = Learner(DataLoaders(loader, loader), network(), loss_func=loss, opt_func=SGD, lr=0.1, wd=0.0,
                    cbs=list(callbacks))
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = lambda *_: None
    torch.manual_seed(1)
    learn.fit(1)
    return learn.model


def loop(step):
    """Ten steps of plain PyTorch; `step` gives the loss of a network and a batch."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    for x, y in zip(*(part.split(BATCH) for part in photos())):
        optimizer.zero_grad()
        step(model, x, y).backward()
        optimizer.step()
    return model


def same(one, other):
    first = network().state_dict()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)
    assert not torch.equal(first["0.weight"], one.state_dict()["0.weight"])  # something was learnt


class Told(FastaiMixUp):
    """fastai's MixUp, which tells what it drew; its photos say which partner each has."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def before_batch(self):
        before, state = self.learn.xb[0].clone(), torch.get_rng_state()
        super().before_batch()
        torch.set_rng_state(state)  # the same calls again, to hear what they gave
        self.distrib.sample((len(before),))
        self.drawn.append((self.lam, torch.randperm(len(before))))


@pytest.fixture
def drawn():
    """Shares and partners that fastai draws in a fit of ten steps, and the network that comes out."""
    callback = Told()
    model = fit(CrossEntropyLossFlat(), callback)
    assert len(callback.drawn) == STEPS
    return callback.drawn, model


def with_shares(shares):
    """Our callback, which takes the shares that fastai's drew."""
    callback = MixUp()
    callback.draw = lambda n, generator: next(shares)
    return callback


@pytest.mark.against(ours="MixUp", theirs="fastai MixUp")
def test_mixup_trains_as_fastais_with_the_same_randomness(drawn, monkeypatch):
    choices, theirs = drawn
    shares, partners = iter([lam for lam, _ in choices]), iter([partner for _, partner in choices])
    monkeypatch.setattr(batch_mixing, "shuffled_partner", lambda n, generator=None: next(partners))
    same(fit(CrossEntropyLossFlat(), with_shares(shares)), theirs)


def test_mixup_in_a_plain_loop_trains_as_the_callback(drawn):
    choices, theirs = drawn
    both_losses, rows = iter(choices), iter(choices)

    def with_mixed_loss(model, x, y):
        lam, partner = next(both_losses)
        return mixed_loss(nn.functional.cross_entropy, model(mixup(x, lam, partner)), y, lam, partner)

    def with_mixed_targets(model, x, y):  # what a loader with MixUpCollate gives
        lam, partner = next(rows)
        return nn.functional.cross_entropy(model(mixup(x, lam, partner)),
                                           mix_targets(y, lam, partner, 5))

    same(loop(with_mixed_loss), theirs)
    same(loop(with_mixed_targets), theirs)


def test_our_callback_and_the_plain_loop_agree_with_our_own_randomness():
    class Watch(Callback):
        def __init__(self):
            self.drawn = []

        def after_loss(self):
            if self.training:
                self.drawn.append(self.mix_up.mixed)

    watch = Watch()
    learned = fit(nn.CrossEntropyLoss(), MixUp(seed=4), watch)
    drawn = iter(watch.drawn)

    def step(model, x, y):
        lam, partner = next(drawn)
        return nn.functional.cross_entropy(model(mixup(x, lam, partner)),
                                           mix_targets(y, lam, partner, 5))

    same(learned, loop(step))


@pytest.mark.against(ours="smooth_labels", theirs="PyTorch CrossEntropyLoss(label_smoothing)")
def test_smoothing_trains_as_fastais_and_pytorchs():
    learned = fit(LabelSmoothingCrossEntropy(0.2))
    same(learned, fit(FastaiSmoothing(0.2)))
    same(learned,
         loop(lambda model, x, y: nn.functional.cross_entropy(model(x), y, label_smoothing=0.2)))
    same(learned,
         loop(lambda model, x, y: nn.functional.cross_entropy(model(x), smooth_labels(y, 5, 0.2))))


def test_normalization_trains_as_a_plain_loop():
    mean, std = [0.5, 0.4, 0.6], [0.3, 0.2, 0.25]
    learned = fit(nn.CrossEntropyLoss(), after_batch=Normalize(mean, std))
    same(learned,
         loop(lambda model, x, y: nn.functional.cross_entropy(model(normalize(x, mean, std)), y)))


def test_mixup_and_smoothing_together_train_as_fastais(drawn, monkeypatch):
    callback = Told()
    theirs = fit(FastaiSmoothing(0.2), callback)
    shares, partners = iter([lam for lam, _ in callback.drawn]), iter(
        [partner for _, partner in callback.drawn]
    )
    monkeypatch.setattr(batch_mixing, "shuffled_partner", lambda n, generator=None: next(partners))
    same(fit(LabelSmoothingCrossEntropy(0.2), with_shares(shares)), theirs)
