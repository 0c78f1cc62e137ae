"""One trial: the same seed is the same luck for all, and nothing costs more than the baseline."""

import json
import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import processes
import pytest
import torch
from fastai.callback.core import Callback
from tiny_photos import trained
from torch import nn

from lessonkit.ablation import Technique, TECHNIQUES
from lessonkit.foundation.models import make_model
from lessonkit.study import trainer
from lessonkit.study.settings import Settings
from lessonkit.study.trainer import (
    epochs_at_cost, measure_pace, make_learner, relative_epoch_seconds, train_trial,
)


# --- the same luck


class Gambler(Callback):
    """Draws from every random state that libraries share."""

    def before_batch(self):
        torch.rand(5), np.random.rand(5), random.random()


class Witness(Callback):
    """Remembers what goes into training."""

    seen: list = []

    def before_batch(self):
        if self.training:
            Witness.seen.append((self.dls.train.last_indices.copy(),
                                 self.x.clone().as_subclass(torch.Tensor)))


TRICKS = {
    "gambler": Technique("gambler", callbacks=lambda: [Gambler(), Witness()]),
    "loss": Technique(
        "loss", loss=lambda: nn.CrossEntropyLoss(label_smoothing=0.3), callbacks=lambda: [Witness()]
    ),
    "plain": Technique("plain", callbacks=lambda: [Witness()]),
}


def witnessed(images, technique, seed):
    Witness.seen = []
    train_trial(images, technique, seed, Settings(16, 2, 8, 4))
    return Witness.seen


@pytest.mark.parametrize("name", ["gambler", "loss"])
def test_same_seed_gives_every_technique_the_same_batches_and_crops(images, name):
    plain, other = witnessed(images, TRICKS["plain"], 3), witnessed(images, TRICKS[name], 3)
    assert len(plain) == len(other) == 8
    for (rows, x), (other_rows, other_x) in zip(plain, other):
        assert (rows == other_rows).all() and torch.equal(x, other_x)


@pytest.mark.parametrize(
    "name", [name for name, technique in TECHNIQUES.items() if not technique.in_baseline]
)
def test_every_technique_starts_from_the_same_batches_and_crops(images, name):
    technique = TECHNIQUES[name]
    own = technique.callbacks or list
    watched = replace(technique, callbacks=lambda: [*own(), Witness()])
    for (rows, x), (other_rows, other_x) in zip(witnessed(images, TRICKS["plain"], 3),
                                                witnessed(images, watched, 3), strict=True):
        assert (rows == other_rows).all()
        if x.shape == other_x.shape:  # progressive resizing ends, but doesn't begin, at the full size
            assert torch.equal(x, other_x)  # Witness looks before anything is mixed
    assert x.shape == other_x.shape or "size_share" in technique.data


def test_without_normalization_photos_and_crops_are_the_same_before_it(images):
    removed = Technique("normalization", data={"normalize": False}, in_baseline=True,
                        callbacks=lambda: [Witness()])
    plain, without = witnessed(images, TRICKS["plain"], 3), witnessed(images, removed, 3)
    for (rows, x), (other_rows, other_x) in zip(plain, without):
        assert (rows == other_rows).all()
        assert other_x.min() >= 0 and other_x.max() <= 1
        for channel in range(3):  # equal but for shift and scale
            correlation = np.corrcoef(x[:, channel].flatten(), other_x[:, channel].flatten())[0, 1]
            assert correlation > 1 - 1e-5


def test_another_seed_gives_other_weights_and_batches(images):
    first, second = witnessed(images, TRICKS["plain"], 3), witnessed(images, TRICKS["plain"], 4)
    assert any((a[0] != b[0]).any() for a, b in zip(first, second))


def test_same_seed_gives_every_technique_the_same_initial_weights(images):
    weights = []
    for technique in (TECHNIQUES["baseline"], TECHNIQUES["normalization"], *TRICKS.values()):
        torch.manual_seed(5)
        learn = make_learner(images, technique, 5, Settings(16, 1, 8, 4))
        weights.append(torch.cat([p.flatten() for p in learn.model.parameters()]))
    assert all(torch.equal(weights[0], other) for other in weights[1:])


def test_a_repeated_trial_is_equal_and_leaves_random_states_alone(images):
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    (row, correct), (again, correct_again) = (
        train_trial(images, TECHNIQUES["baseline"], 0, Settings(16, 1, 8, 4)) for _ in range(2)
    )
    assert {k: v for k, v in row.items() if "seconds" not in k} == {
        k: v for k, v in again.items() if "seconds" not in k
    }
    assert (correct == correct_again).all() and correct.mean() == pytest.approx(row["accuracy"])
    after = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    assert after == (torch.rand(1), np.random.rand(), random.random())


# --- equal cost


@pytest.fixture(scope="module")
def pixels(images):
    """How many pixels a technique trains on in so many epochs, of which the recipe says how many are the
    baseline's."""
    return cache(lambda name, recipe,
                 epochs: train_trial(images, TECHNIQUES[name], 0, recipe, epochs=epochs)[0]["pixels"])


@pytest.mark.parametrize("name", sorted(TECHNIQUES))
@pytest.mark.parametrize("epochs", [1, 4, 10])
def test_no_technique_trains_on_more_pixels_than_the_baseline(pixels, name, epochs):
    technique, recipe = TECHNIQUES[name], Settings(size=64, epochs=epochs, batch_size=8, width=1)
    own_epochs = epochs_at_cost(technique, recipe)
    counts = [pixels("baseline", recipe, epochs), pixels(name, recipe, own_epochs)]
    assert (
        own_epochs >= epochs and counts[1] <= counts[0] * 1.02
    )  # sizes that grow are rounded to whole pixels
    if epochs in (4, 10):
        assert counts[1] > 0.85 * counts[0]  # and what it saves is given to it


def test_epochs_in_each_currency():
    half = Technique("half", train_cost=0.5)
    assert epochs_at_cost(half, Settings(epochs=5)) == 10
    assert epochs_at_cost(half, Settings(epochs=5, cost="epochs")) == 5
    assert epochs_at_cost(half, Settings(epochs=5, cost="seconds"), seconds=0.7) == 7
    assert epochs_at_cost(Technique("dear", train_cost=9), Settings(epochs=5)) == 1


@pytest.mark.parametrize("share, epochs, own", [(2 / 3 + 1e-3, 4, 6), (2 / 3 + 1e-3, 20, 30),
                                                (0.67, 20, 29), (0.995, 200, 201), (1, 1000, 1000)])
def test_an_epoch_is_not_lost_for_half_a_percent(share, epochs, own):
    assert epochs_at_cost(Technique("cheap", train_cost=share), Settings(epochs=epochs)) == own
    assert own * share <= 1.005 * epochs


def test_the_pilot_finds_a_dearer_training(images, monkeypatch):
    clock = SimpleNamespace(now=0.0)

    class Slow(Callback):
        def __init__(self, seconds):
            self.seconds = seconds

        def after_batch(self):
            clock.now += self.seconds if self.training else 0

    read = SimpleNamespace(perf_counter=lambda: clock.now, process_time=lambda: clock.now)
    monkeypatch.setattr(trainer, "time", read)
    monkeypatch.setitem(trainer.TECHNIQUES, "baseline",
                        Technique("baseline", callbacks=lambda: [Slow(1)]))
    slow = Technique("slow", callbacks=lambda: [Slow(2.5)])
    seconds = relative_epoch_seconds(images, [slow, TECHNIQUES["tta"]], Settings(16, 2, 8, 4), None)
    assert seconds == {"slow": 2.5, "tta": 1.0}


def test_the_pace_counts_steps_and_looks_and_draws_no_random_numbers(images, monkeypatch):
    clock = SimpleNamespace(now=0.0)

    def tick():
        clock.now += (
            0.5  # each look at the clock takes so long: a step is timed from one look to the next
        )
        return clock.now

    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=tick))
    before, settings = torch.get_rng_state(), Settings(16, 3, 8, 4)
    pace = measure_pace(images, settings)
    one = pace.valid  # 8 validation photos are one batch of 8, 32 training photos are four
    assert one > 0 and pace.epoch == pytest.approx(4 * one) and pace.start > 0
    assert pace.trial(3, passes=2) == pytest.approx(pace.start + 3 * 4 * one + 2 * one)
    assert pace.trial(0) == pytest.approx(pace.start + one)
    assert torch.equal(torch.get_rng_state(), before)


# --- networks


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "regnet_y_400mf", "resnet10t", "efficientnet_lite0"]
)
def test_networks_of_torchvision_and_timm(images, name):
    torch.manual_seed(0)
    first = make_model(name, 7)
    assert first.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 7)
    torch.manual_seed(0)
    assert torch.equal(next(make_model(name, 7).parameters()), next(first.parameters()))


@pytest.mark.parametrize(
    "name, told",
    [
        ("resnet_18", "Neither torchvision nor timm has a network 'resnet_18'"),
        ("nowhere.py:f", "no file nowhere.py"),
        ("small_resnet", "no pretrained weights"),
    ],
)
def test_a_network_that_cannot_be_had_is_told(name, told):
    with pytest.raises(ValueError, match=told):
        make_model(name, 3, pretrained=True)


def test_weights_that_cannot_be_downloaded_are_told(monkeypatch):
    import torchvision

    def offline(*args, **kwargs):
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(ValueError, match="pretrained weights of resnet18 can't be had .*from scratch"):
        make_model("resnet18", 3, pretrained=True)


def test_a_pretrained_network_without_a_last_layer_is_told(monkeypatch):
    import torchvision

    monkeypatch.setattr(torchvision.models, "get_model", lambda *args, **kwargs: torch.nn.Flatten())
    with pytest.raises(ValueError, match="Flatten has no Linear or Conv2d .*FILE.py:FUNCTION"):
        make_model("resnet18", 3, pretrained=True)


def test_a_pretrained_network_gets_the_statistics_it_was_trained_with(images, monkeypatch):
    """The weights aren't downloaded here: torchvision's untrained network stands in for them."""
    import torchvision

    real = torchvision.models.get_model
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights=None,
                        **kw: real(name, **kw))
    learn = make_learner(images, TECHNIQUES["baseline"], 0,
                         Settings(32, 1, 8, model="resnet18", pretrained=True))
    assert learn.model.fc.out_features == 2
    normalize = [t for t in learn.dls.train.after_batch.fs if hasattr(t, "mean")] or [
        learn.dls.train.normalize
    ]
    assert torch.allclose(torch.as_tensor(normalize[0].mean).flatten().float(),
                          torch.tensor([0.485, 0.456, 0.406]), atol=1e-6)


def test_a_pretrained_network_learns_its_head_first_and_its_body_slowly(images, mine):
    settings = Settings(16, 3, 8, model=f"{mine}:tiny", pretrained=True, lr=0.01)
    stats = trainer.channel_stats(images, 16)
    learn = make_learner(images, TECHNIQUES["baseline"], 0, settings, stats)
    head, body, seen = learn.model[-1].weight, learn.model[0].weight, []

    class Watch(Callback):
        def before_epoch(self):
            seen.append((head.detach().clone(), body.detach().clone()))

        def after_step(self):
            self.rates = [group["lr"] for group in self.learn.opt.opt.param_groups]

    learn.add_cb(watch := Watch())
    trainer.train_learner(learn, 3, slice(0.001, 0.01))
    (first_head, first_body), (second_head, second_body), (_, third_body) = seen
    assert torch.equal(first_body, second_body) and not torch.equal(first_head, second_head)
    assert not torch.equal(second_body, third_body) and all(
        w.requires_grad for w in learn.model.parameters()
    )
    assert watch.rates[1] == pytest.approx(10 * watch.rates[0])


def test_crops_keep_at_least_the_share_that_was_asked_for(images):
    whole = make_learner(images, TECHNIQUES["baseline"], 0, Settings(16, 1, 8, 4, crops=1.0))
    assert whole.dls.train.augment.min_area == 1
    own = replace(TECHNIQUES["baseline"], own={"crops": 0.6, "lr": 0.02})
    row, _ = train_trial(images, own, 0, Settings(16, 1, 8, 4))
    plain, _ = train_trial(images, TECHNIQUES["baseline"], 0, Settings(16, 1, 8, 4, crops=0.6, lr=0.02))
    assert row["nll"] == plain["nll"]


def train_and_write(photos):
    Path("trained.json").write_text(json.dumps([trained(photos, threads) for threads in (1, 2)]))


def test_the_same_machine_gives_the_same_numbers_twice(images, tmp_path):
    """To the last digit, with one thread and with two, in this process and in another one."""
    folder = images.paths[0].parent.parent
    here, again = ({threads: trained(folder, threads) for threads in (1, 2)} for _ in range(2))
    assert here == again and len(here[1]["losses"]) == len(here[2]["losses"]) == 8
    there = processes.start(train_and_write, str(folder), folder=tmp_path)
    there.join()
    # JSON keeps all digits
    assert json.loads((tmp_path / "trained.json").read_text()) == [here[1], here[2]]
