"""Any loss taken apart into a value and a weight for each item, and put together again."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fastai.losses import CrossEntropyLossFlat, FocalLossFlat, LabelSmoothingCrossEntropy
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lessonkit.foundation.losses import (
    label_weights, loss_of_shares, loss_parts, put_together, quick_mean,
)

WEIGHT = torch.tensor([1.0, 5, 0.5, 20])


def batch(n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.randint(4, (n,), generator=generator)


def made(kind, **options):
    return {"function": partial(F.cross_entropy, **options), "module": nn.CrossEntropyLoss(**options),
            "fastai": CrossEntropyLossFlat(**options)}[kind]


@given(st.sampled_from(["function", "module", "fastai"]), st.sampled_from(["mean", "sum", "none"]),
       st.sampled_from([-100, 0, 2]), st.booleans(), st.sampled_from([0.0, 0.1]), st.integers(0, 9),
       st.integers(0, 99))
@settings(deadline=None, max_examples=150, derandomize=True)
def test_apart_and_together_is_the_loss_itself(kind, reduction, ignore_index, weighted, smoothing, n,
                                               seed):
    pred, y = batch(n, seed)
    options = dict(reduction=reduction, ignore_index=ignore_index, weight=WEIGHT if weighted else None,
                   label_smoothing=smoothing)
    loss = made(kind, **options)
    parts = loss_parts(loss)
    again = put_together(parts.each(pred, y), label_weights(y, parts.weight, parts.ignore_index),
                         parts.reduction)
    whole = F.cross_entropy(pred, y, **options)
    if reduction == "mean" and (y == ignore_index).all():  # PyTorch: NaN
        assert again == 0
    else:
        torch.testing.assert_close(again, whole)


@pytest.mark.parametrize("loss",
                         [F.cross_entropy, nn.NLLLoss(ignore_index=3), CrossEntropyLossFlat(axis=1),
                          FocalLossFlat(), nn.MSELoss()])
def test_the_given_loss_stays_as_it_is(loss):
    before = copy.deepcopy(getattr(loss, "__dict__", {}))
    parts = loss_parts(loss)
    assert parts.reduction == "mean"
    assert (str(getattr(loss, "__dict__", {})) == str(before)
            and getattr(loss, "reduction", "mean") == "mean")


def test_a_plain_object_with_a_reduction():
    class Squared:
        reduction = "sum"

        def __call__(self, pred, y):
            values = (pred - y) ** 2
            return values.sum() if self.reduction == "sum" else values

    parts = loss_parts(Squared())
    assert (parts.reduction == "sum"
            and parts.each(torch.tensor([1.0, 2]), torch.zeros(2)).tolist() == [1, 4])


@pytest.mark.parametrize("loss",
                         [lambda pred, y: F.cross_entropy(pred, y), nn.MultiMarginLoss(weight=WEIGHT),
                          torch.dist, max, LabelSmoothingCrossEntropy(weight=WEIGHT),
                          partial(F.cross_entropy, reduction="median")])
def test_what_cannot_be_seen_through(loss):
    assert loss_parts(loss) is None


def test_weights_of_labels():
    y = torch.tensor([[0, 3], [2, -100]])
    assert label_weights(y[:1]) is None and label_weights(y[:1], ignore_index=-100) is None
    assert label_weights(y, ignore_index=-100).tolist() == [[True, True], [True, False]]
    assert label_weights(y, WEIGHT, -100).tolist() == [[1, 20], [0.5, 0]]
    assert label_weights(torch.tensor([0, 2]), WEIGHT, 2).tolist() == [1, 0]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("values", [torch.zeros(0), torch.tensor([3.0, 4.0])])
def test_nothing_counts(values, reduction):
    values = values.clone().requires_grad_()
    loss = put_together(values, torch.zeros(len(values)), reduction)
    loss.sum().backward()
    if reduction == "mean":
        assert loss == 0 and not values.grad.any()
    assert loss.isfinite().all() and values.grad.isfinite().all()


@pytest.mark.parametrize("loss",
                         [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.2),
                          CrossEntropyLossFlat(), F.cross_entropy])
def test_classes_switched_off_by_a_logit_of_minus_infinity(loss):
    """No label names them, so they must not make a mixed loss NaN; with smoothing, PyTorch's is
    infinite, and ours too."""
    pred, y, shares = batch()[0], torch.tensor([0, 1, 2, 0, 1, 2]), torch.linspace(0.1, 0.9, 6)
    pred[:, 3] = -torch.inf
    mixed = loss_of_shares(loss, pred, [y, y.roll(1)], [shares, 1 - shares])
    parts = loss_parts(loss)
    expected = (shares * parts.each(pred, y) + (1 - shares) * parts.each(pred, y.roll(1))).mean()
    torch.testing.assert_close(mixed, expected)
    assert not mixed.isnan()


@given(st.integers(1, 9), st.integers(2, 30), st.sampled_from([0.0, 0.1, 1.0]),
       st.sampled_from([torch.float32, torch.float64]), st.integers(0, 99))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_the_quick_way_gives_pytorchs_values_and_gradients(n, n_classes, eps, kind, seed):
    generator = torch.Generator().manual_seed(seed)
    pred = (4 * torch.randn(n, n_classes, generator=generator)).to(kind).requires_grad_()
    y = torch.randint(n_classes, (n,), generator=generator)
    for labels in (y, torch.randn(n, n_classes, generator=generator).softmax(1).to(kind)):
        results = [(quick_mean(pred, labels, eps)), F.cross_entropy(pred, labels, label_smoothing=eps)]
        torch.testing.assert_close(*results)
        torch.testing.assert_close(*(torch.autograd.grad(loss, pred)[0] for loss in results))


@pytest.mark.parametrize("y",
                         [torch.tensor([0, -100]), torch.tensor([0, 4]), torch.tensor([0, -1]),
                          torch.tensor([0, 1], dtype=torch.int32),
                               torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]),
                               torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0]]),
                               torch.tensor([[1.5, -0.5, 0, 0], [0, 1, 0, 0]]),
                               torch.full((2, 4), torch.nan), torch.eye(4)[:2].half(), torch.eye(4)])
def test_the_quick_way_leaves_to_the_careful_one_what_needs_care(y):
    assert quick_mean(torch.zeros(2, 4), y) is None
    for eps in (True, 1.5, -0.1, float("nan")):
        assert quick_mean(torch.zeros(2, 4), torch.tensor([0, 1]), eps) is None


def test_a_loss_that_is_nan_stays_nan():
    assert put_together(torch.tensor([float("nan"), 1]), torch.ones(2), "mean").isnan()
