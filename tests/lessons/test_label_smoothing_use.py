"""Label smoothing in use: hostile input, as a module, traced, in fastai, drawn; and its stored study."""

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback import progress  # noqa: F401  gives Learner its no_bar
from fastai.callback.mixup import MixUp as FastaiMixUp
from fastai.data.core import DataLoaders, TfmdDL
from fastai.learner import Learner
from fastai.torch_core import TensorCategory, TensorImage
from make_noise import SHARES, wrong_labels, wrong_places
from make_wrong_labels import noisy_set
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from smoothing import labels, logits, value_and_gradient

from lessonkit.label_smoothing import LabelSmoothingCrossEntropy, show_smoothed_labels

ROOT = Path(__file__).resolve().parents[2]
REDUCTIONS = ("mean", "sum", "none")


# ---------------------------------------------------------------- hostile input to the loss


@pytest.mark.parametrize(
    "options, error, words",
    [
        (dict(reduction="average"), ValueError, "'mean', 'sum', 'none'"),
        (dict(reduction=None), ValueError, "reduction"),
        (dict(weight=[1.0, -1]), ValueError, "0 or more"),
        (dict(weight=[1.0, float("nan")]), ValueError, "finite numbers"),
        (dict(weight=[[1.0, 2]]), ValueError, "one number for each class"),
        (dict(weight=[]), ValueError, "one number for each class"),
        (dict(weight=2.0), ValueError, "one number for each class"),
        (dict(weight="heavy"), TypeError, "must be numbers"),
        (dict(ignore_index=1.5), TypeError, "ignore_index"),
        (dict(ignore_index=None), TypeError, "ignore_index"),
        (dict(axis="last"), TypeError, "axis"),
    ],
)
def test_refused_settings(options, error, words):
    with pytest.raises(error) as caught:
        LabelSmoothingCrossEntropy(**options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "pred, target, error, words",
    [
        (logits(), labels() + 5, ValueError, "0 to 4"),
        (logits(), labels() - 5, ValueError, "0 to 4"),
        (logits(), labels().float(), TypeError, "y.long()"),
        (logits(6, 5, 2), labels(6, 2).float(), TypeError, "y.long()"),
        (logits(), labels() > 2, TypeError, "bool"),
        (logits(), labels(5), ValueError, "need labels of shape (6,)"),
        (logits(), labels(6, 1), ValueError, "need labels of shape (6,)"),
        (logits(6, 5, 2), labels(6), ValueError, "need labels of shape (6, 2)"),
        (logits(), torch.rand(6, 4), ValueError, "shape (6, 5), not (6, 4)"),
        (logits().long(), labels(), TypeError, "floating-point numbers, not int64"),
        (logits(), None, TypeError, "NoneType"),
        (logits().tolist(), labels(), TypeError, "list"),
        (logits(), labels().numpy(), TypeError, "ndarray"),
        (torch.tensor(1.0), torch.tensor(0), ValueError, "no axis=1"),
    ],
)
def test_refused_predictions_and_labels(pred, target, error, words):
    with pytest.raises(error) as caught:
        LabelSmoothingCrossEntropy()(pred, target)
    assert words in str(caught.value)


def test_refused_axis_and_weight():
    with pytest.raises(ValueError, match="no axis=2"):
        LabelSmoothingCrossEntropy(axis=2)(logits(), labels())
    with pytest.raises(ValueError, match="weight is for 3 classes.* have 5"):
        LabelSmoothingCrossEntropy(weight=[1, 2, 3])(logits(), labels())
    loss_func = LabelSmoothingCrossEntropy()
    loss_func.reduction = "median"
    with pytest.raises(ValueError, match="reduction='median'"):
        loss_func(logits(), labels())


# ---------------------------------------------------------------- as a module


def test_weight_is_a_buffer_and_a_copy():
    given_weight = torch.tensor([1.0, 2, 3, 4, 5])
    loss_func = LabelSmoothingCrossEntropy(weight=given_weight)
    given_weight.zero_()
    assert loss_func.weight.tolist() == [1, 2, 3, 4, 5] and "weight" in dict(loss_func.named_buffers())
    assert not list(loss_func.parameters())
    assert loss_func.to(torch.float64).weight.dtype == torch.float64
    assert loss_func.to("meta").weight.device.type == "meta"
    for form in (1, 2, 3, 4, 5), np.arange(1, 6), torch.arange(1, 6), np.arange(1.0, 6):
        other = LabelSmoothingCrossEntropy(weight=form)
        reference = F.cross_entropy(logits(), labels(), torch.arange(1.0, 6), label_smoothing=0.1)
        torch.testing.assert_close(other(logits(), labels()), reference)


def test_runs_where_values_cant_be_looked_at():
    loss = LabelSmoothingCrossEntropy(weight=[1, 2, 3, 4, 5])(logits().to("meta"), labels().to("meta"))
    assert loss.device.type == "meta" and loss.shape == ()
    soft = LabelSmoothingCrossEntropy()(logits().to("meta"), logits().softmax(1).to("meta"))
    assert soft.device.type == "meta" and soft.shape == ()


# the weights sum to less than 1
@pytest.mark.parametrize("weight", [None, [0.01, 0.02, 0.03, 0.04, 0.05]])
def test_what_other_devices_do_without_looking_is_the_same(weight, monkeypatch):
    y = labels()
    y[2] = -100
    loss_func = LabelSmoothingCrossEntropy(0.2, weight)
    expected = F.cross_entropy(logits(), y, loss_func.weight, label_smoothing=0.2)
    monkeypatch.setattr("lessonkit.foundation.checks.may_look", lambda *values: False)
    torch.testing.assert_close(loss_func(logits(), y), expected)
    assert loss_func(logits(), torch.full((6,), -100)) == 0
    # a single class
    assert LabelSmoothingCrossEntropy(0.2, [2.0])(torch.ones(2, 1), torch.tensor([0, -100])) == 0


def test_copies():
    loss_func = LabelSmoothingCrossEntropy(0.3, [1, 2, 3, 4, 5], 2, "sum", 1)
    expected = loss_func(logits(), labels())
    for again in copy.deepcopy(loss_func), copy.copy(loss_func), pickle.loads(pickle.dumps(loss_func)):
        assert torch.equal(again(logits(), labels()), expected) and repr(again) == repr(loss_func)
    each = copy.copy(loss_func)  # as a mixed loss does
    each.reduction = "none"
    assert loss_func.reduction == "sum" and torch.equal(loss_func(logits(), labels()), expected)
    torch.testing.assert_close(each(logits(), labels()).sum(), expected)
    for part in ("eps=0.3", "weight=[1.0, 2.0, 3.0, 4.0, 5.0]", "ignore_index=2", "reduction='sum'",
                 "axis=1"):
        assert part in repr(loss_func)


TRACED = [
    (LabelSmoothingCrossEntropy(0.2), labels()),
    (LabelSmoothingCrossEntropy(0.2, [1, 2, 3, 4, 5], reduction="sum"), labels()),
    (LabelSmoothingCrossEntropy(0.2, [1, 2, 3, 4, 5], ignore_index=0), labels()),
    (LabelSmoothingCrossEntropy(0.2, reduction="none"), logits(seed=1).softmax(1)),
]


@pytest.mark.parametrize("loss_func, target", TRACED, ids=["numbers", "sum", "weights", "soft"])
def test_compiled_and_exported_in_one_graph(loss_func, target):
    expected = loss_func(logits(), target)
    torch.testing.assert_close(
        torch.compile(loss_func, backend="eager", fullgraph=True)(logits(), target), expected
    )
    for strict in (True, False):
        exported = torch.export.export(loss_func, (logits(), target), strict=strict).module()
        torch.testing.assert_close(exported(logits(), target), expected)
        other = target.flip(0)
        torch.testing.assert_close(exported(logits(), other), loss_func(logits(), other))
    torch.testing.assert_close(make_fx(loss_func)(logits(), target)(logits(), target), expected)


@pytest.mark.parametrize("loss_func, target", [case for case in TRACED if case[0].reduction != "none"],
                         ids=["numbers", "sum", "weights"])
def test_gradients_item_by_item(loss_func, target):
    """`torch.func.vmap(torch.func.grad(loss))`, as for differential privacy or influence of single
    items."""
    each = torch.func.vmap(torch.func.grad(loss_func))(logits()[:, None], target[:, None])
    for gradient, pred, label in zip(each, logits(), target):
        torch.testing.assert_close(gradient, value_and_gradient(loss_func, pred[None], label[None])[1])


@pytest.mark.parametrize("loss_func, target", TRACED, ids=["numbers", "sum", "weights", "soft"])
def test_tensors_without_values(loss_func, target):
    """Fake and meta tensors have a shape and no values: nothing is looked at."""
    with FakeTensorMode() as mode:
        fake = loss_func.to("cpu")(mode.from_tensor(logits()),
                                   mode.from_tensor(target)) if loss_func.weight is None else None
    assert fake is None or fake.shape == loss_func(logits(), target).shape
    assert loss_func(logits().to("meta"), target.to("meta")).device.type == "meta"


# ---------------------------------------------------------------- in fastai


def loaders(segmentation=False):
    x = torch.randn(12, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    y = labels(12, 4, 4) if segmentation else labels(12)
    pairs = [(TensorImage(picture), TensorCategory(label)) for picture, label in zip(x, y)]
    return DataLoaders(*(TfmdDL(pairs, bs=4, num_workers=0, shuffle=shuffle)
                         for shuffle in (True, False)))


@pytest.mark.parametrize("segmentation", [False, True])
def test_in_a_learner(segmentation):
    torch.manual_seed(0)
    head = nn.Conv2d(3, 5, 1) if segmentation else nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    loss_func = LabelSmoothingCrossEntropy(0.1, weight=[1, 2, 3, 4, 5])
    learn = Learner(loaders(segmentation), head, loss_func=loss_func, path="unused")
    before = head(torch.zeros(1, 3, 4, 4)).detach()
    with learn.no_bar(), learn.no_logging(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learn.fit(1)
        probs, targets, decoded, losses = learn.get_preds(with_decoded=True, with_loss=True)
    assert not torch.equal(head(torch.zeros(1, 3, 4, 4)), before)
    torch.testing.assert_close(probs.sum(1), torch.ones(targets.shape), check_dtype=False)
    assert torch.equal(torch.as_tensor(decoded).as_subclass(torch.Tensor), probs.argmax(1))
    assert loss_func.reduction == "mean"  # fastai took "none" for a while
    options = dict(weight=torch.arange(1.0, 6), label_smoothing=0.1, reduction="none")
    reference = F.cross_entropy(probs.log(), targets.as_subclass(torch.Tensor), **options)
    reference = reference.flatten(1).mean(1) if segmentation else reference  # fastai: one number a photo
    torch.testing.assert_close(losses.as_subclass(torch.Tensor), reference, atol=1e-4, rtol=1e-4)


def test_with_fastais_own_mixup():
    head, loss_func = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), LabelSmoothingCrossEntropy()
    learn = Learner(loaders(), head, loss_func=loss_func, cbs=FastaiMixUp(), path="unused")
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert np.isfinite(float(learn.recorder.losses[-1]))


# ---------------------------------------------------------------- pictures, and the stored study's
# script


def texts(figure):
    """The numbers and the names in each part of a figure."""
    return [[[text.get_text() for text in some] for some in (ax.texts, ax.get_yticklabels())]
            for ax in figure.axes]


def test_show_smoothed_labels():
    already_open = plt.get_fignums()  # by other tests
    figure = show_smoothed_labels(torch.tensor([1, 0]), ["ant", "bee", "cat", "dog"], 0.4)
    assert len(figure.axes) == 4 and "0.4" in figure.axes[2].get_title()
    before, after = texts(figure)[::2]
    # each class keeps its place
    assert before == [["0%", "100%", "0%", "0%"], ["ant", "bee", "cat", "dog"]]
    assert after == [["10%", "70%", "10%", "10%"], ["ant", "bee", "cat", "dog"]]
    # 0.1 / 10 in float32 is a bit less than 1%
    ten = show_smoothed_labels([3], [f"class {i}" for i in range(10)])
    assert texts(ten)[1][0] == ["1%"] * 3 + ["91%"] + ["1%"] * 6
    many = texts(show_smoothed_labels([30], [f"class {i}" for i in range(40)]))[1][1]
    assert "class 30" in many and many[-1] == "30 others"
    pictured = show_smoothed_labels(torch.tensor([1, -100]), ["ant", "bee"],
                                    images=torch.rand(2, 3, 8, 8))
    assert (len(pictured.axes) == 6 and pictured.axes[0].images
            and "ignored" in pictured.axes[1].get_title())
    assert plt.get_fignums() == already_open


@pytest.mark.parametrize("y, images",
                         [([], None), (torch.zeros(2, 2).long(), None),
                          ([0, 1], torch.rand(3, 3, 4, 4))])
def test_what_cant_be_drawn(y, images):
    with pytest.raises(ValueError, match="labels"):
        show_smoothed_labels(torch.as_tensor(y, dtype=torch.long), ["a", "b"], images=images)


def test_the_studys_wrong_labels():
    """As many as said, in the training part alone, never the true class, and each seed draws its own."""
    from lessonkit.images import ImageSet

    n = 1000
    split = np.where(np.arange(n) % 5 == 0, "valid", "train")
    images = ImageSet([f"{i}.jpg" for i in range(n)], np.arange(n) % 7, list("abcdefg"), split)
    for share in SHARES:
        noisy = wrong_labels(images, share, seed=3)
        wrong = noisy.labels != images.labels
        assert wrong.sum() == round(share * 800) and not wrong[split == "valid"].any()
        assert np.array_equal(noisy.labels, wrong_labels(images, share, seed=3).labels)
        if share:
            assert not np.array_equal(noisy.labels, wrong_labels(images, share, seed=4).labels)
            places = wrong_places(800, share, seed=3)  # those of which `memorized` tells
            assert set(images.indices("train")[places]) == set(np.flatnonzero(wrong))
            steps = np.bincount((noisy.labels - images.labels)[wrong] % 7, minlength=7)
            # each other class about equally often
            assert steps[0] == 0 and steps[1:].min() > 0.5 * steps.sum() / 6
        # the labels of wrong_labels.csv: places and classes from one generator
        random, labels = np.random.default_rng(3), images.labels.copy()
        rows = random.permutation(images.indices("train"))[: round(share * 800)]
        labels[rows] = (labels[rows] + random.integers(1, 7, len(rows))) % 7
        assert np.array_equal(noisy_set(images, share, seed=3).labels, labels)


def test_import_needs_no_fastai():
    code = """
import sys, lessonkit.label_smoothing
assert "lessonkit.foundation.losses" in sys.modules
assert not {"fastai", "matplotlib", "pandas"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_compiled_where_sizes_and_settings_are_unknown():
    loss = LabelSmoothingCrossEntropy(0.3)
    compiled = torch.compile(loss, backend="eager", fullgraph=True, dynamic=True)
    for n in (5, 3):
        pred, y = torch.randn(n, 4), torch.arange(n) % 4
        torch.testing.assert_close(compiled(pred, y), loss(pred, y))
