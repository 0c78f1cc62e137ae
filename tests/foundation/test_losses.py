"""Any loss taken apart into a value and a weight for each item, and put together again."""

import copy
import subprocess
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fastai.losses import CrossEntropyLossFlat, FocalLossFlat, LabelSmoothingCrossEntropy
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lessonkit.foundation.losses import label_weights, loss_parts, put_together

WEIGHT = torch.tensor([1.0, 5, 0.5, 20])


def batch(n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.randint(4, (n,), generator=generator)


def made(kind, **options):
    return {"function": partial(F.cross_entropy, **options), "module": nn.CrossEntropyLoss(**options),
            "fastai": CrossEntropyLossFlat(**options)}[kind]


@given(st.sampled_from(["function", "module", "fastai"]), st.sampled_from(["mean", "sum", "none"]), st.sampled_from([-100, 0, 2]),
       st.booleans(), st.sampled_from([0.0, 0.1]), st.integers(0, 9), st.integers(0, 99))
@settings(deadline=None, max_examples=150, derandomize=True)
def test_apart_and_together_is_the_loss_itself(kind, reduction, ignore_index, weighted, smoothing, n, seed):
    pred, y = batch(n, seed)
    options = dict(reduction=reduction, ignore_index=ignore_index, weight=WEIGHT if weighted else None, label_smoothing=smoothing)
    loss = made(kind, **options)
    parts = loss_parts(loss)
    again = put_together(parts.each(pred, y), label_weights(y, parts.weight, parts.ignore_index), parts.reduction)
    whole = F.cross_entropy(pred, y, **options)
    if reduction == "mean" and (y == ignore_index).all():  # PyTorch: NaN
        assert again == 0
    else:
        torch.testing.assert_close(again, whole)


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.NLLLoss(ignore_index=3), CrossEntropyLossFlat(axis=1), FocalLossFlat(), nn.MSELoss()])
def test_the_given_loss_stays_as_it_is(loss):
    before = copy.deepcopy(getattr(loss, "__dict__", {}))
    parts = loss_parts(loss)
    assert parts.reduction == "mean"
    assert str(getattr(loss, "__dict__", {})) == str(before) and getattr(loss, "reduction", "mean") == "mean"


def test_a_plain_object_with_a_reduction():
    class Squared:
        reduction = "sum"

        def __call__(self, pred, y):
            values = (pred - y) ** 2
            return values.sum() if self.reduction == "sum" else values

    parts = loss_parts(Squared())
    assert parts.reduction == "sum" and parts.each(torch.tensor([1.0, 2]), torch.zeros(2)).tolist() == [1, 4]


@pytest.mark.parametrize("loss", [lambda pred, y: F.cross_entropy(pred, y), nn.MultiMarginLoss(weight=WEIGHT), torch.dist, max,
                                  LabelSmoothingCrossEntropy(weight=WEIGHT), partial(F.cross_entropy, reduction="median")])
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


def test_a_loss_that_is_nan_stays_nan():
    assert put_together(torch.tensor([float("nan"), 1]), torch.ones(2), "mean").isnan()


def test_import_needs_no_fastai():
    code = "import sys, lessonkit.foundation.losses; assert not {'fastai', 'matplotlib', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
