"""Label smoothing beside PyTorch's loss, PyTorch's own reference for it, and fastai's loss, up to a
thousand classes."""

import ast
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fastai.losses import LabelSmoothingCrossEntropy as FastaiLoss
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonkit.label_smoothing import LabelSmoothingCrossEntropy, smooth_labels


def pytorchs_reference():
    """The functions with which PyTorch tests its own loss. Their module needs a package of PyTorch's
    developers, and reads the command line when it is imported, so they are taken out of its text."""
    import torch.testing

    text = (Path(torch.testing.__file__).parent / "_internal/common_nn.py").read_text(encoding="utf-8")
    wanted = [part for part in ast.parse(text).body if isinstance(part, ast.FunctionDef)
              and "loss" in part.name and part.name.endswith("reference")]
    names = {"torch": torch, "F": F}
    exec(compile(ast.Module(wanted, []), "common_nn.py", "exec"), names)
    return names["cross_entropy_loss_reference"]


cross_entropy_loss_reference = pytorchs_reference()

QUICK = settings(deadline=None, derandomize=True, max_examples=60)


@st.composite
def cases(draw):
    n, n_classes = draw(st.integers(1, 9)), draw(
        st.sampled_from([2, 3, 10, 1000]) | st.integers(2, 1000)
    )
    more = draw(st.sampled_from([(), (), (2,), (2, 3)])) if n_classes < 50 else ()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    pred = 3 * torch.randn(n, n_classes, *more, generator=generator, dtype=torch.float64)
    if len(more) == 2 and draw(st.booleans()):
        pred = pred.contiguous(memory_format=torch.channels_last)
    y = torch.randint(n_classes, (n, *more), generator=generator)
    weight = torch.rand(n_classes, generator=generator,
                        dtype=torch.float64) + 0.1 if draw(st.booleans()) else None
    return pred, y, weight, draw(st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0, 1)), draw(
        st.sampled_from(["mean", "sum", "none"])
    )


@pytest.mark.against(ours="LabelSmoothingCrossEntropy", 
                     theirs="PyTorch CrossEntropyLoss(label_smoothing)")
@QUICK
@given(cases(), st.sampled_from([-100, 0, 1]))
def test_class_numbers_give_pytorchs_loss_and_its_references(case, ignore):
    pred, y, weight, eps, reduction = case
    mine = LabelSmoothingCrossEntropy(eps, weight, ignore, reduction)(pred, y)
    if reduction == "mean" and (y == ignore).all():
        assert mine == 0  # PyTorch: NaN
        return
    options = dict(weight=weight, ignore_index=ignore, reduction=reduction, label_smoothing=eps)
    torch.testing.assert_close(mine, F.cross_entropy(pred, y, **options))
    torch.testing.assert_close(mine, cross_entropy_loss_reference(pred, y, **options))


@QUICK
@given(cases())
def test_rows_give_pytorchs_reference(case):
    pred, y, weight, eps, reduction = case
    rows = F.one_hot(y, pred.shape[1]).movedim(-1, 1).double()
    soft = 0.6 * rows + 0.4 * rows.roll(1, 0)
    mine = LabelSmoothingCrossEntropy(eps, weight, reduction=reduction)(pred, soft)
    theirs = cross_entropy_loss_reference(pred, soft, weight=weight, reduction=reduction,
                                          label_smoothing=eps)
    torch.testing.assert_close(mine, theirs)


@QUICK
@given(cases())
def test_smoothed_labels_by_hand_give_the_same_loss(case):
    pred, y, _, eps, reduction = case
    rows = smooth_labels(y, pred.shape[1], eps).double().movedim(-1, 1)
    by_hand = -(rows * pred.log_softmax(1)).sum(1)
    by_hand = {"mean": by_hand.mean(), "sum": by_hand.sum(), "none": by_hand}[reduction]
    torch.testing.assert_close(LabelSmoothingCrossEntropy(eps, reduction=reduction)(pred, y), by_hand,
                               rtol=1e-5, atol=1e-5)


@pytest.mark.against(ours="LabelSmoothingCrossEntropy", theirs="fastai LabelSmoothingCrossEntropy")
@QUICK
@given(cases())
def test_fastais_loss_is_the_same_without_weights(case):
    pred, y, _, eps, reduction = case
    mine = LabelSmoothingCrossEntropy(eps, reduction=reduction)(pred, y)
    torch.testing.assert_close(mine, FastaiLoss(eps, reduction=reduction)(pred, y))


@pytest.mark.differs(
    library="fastai", there="LabelSmoothingCrossEntropy weights the right class's term alone",
    here="every class's term has its weight, as in PyTorch",
    why="a loss with class weights is the weighted sum over the smoothed labels (fastai 3140)",
)
def test_fastais_loss_is_another_one_with_weights():
    """fastai weights the right class's term alone (fastai 3140); the right value is PyTorch's and the
    sum by hand."""
    pred, y = torch.tensor([[2.0, 1, 0], [0, 1, 3]], dtype=torch.float64), torch.tensor([0, 1])
    weight, eps = torch.tensor([1.0, 5, 0.5], dtype=torch.float64), 0.3
    rows = smooth_labels(y, 3, eps).double()
    by_hand = -(rows * weight * pred.log_softmax(1)).sum() / weight[y].sum()
    torch.testing.assert_close(LabelSmoothingCrossEntropy(eps, weight)(pred, y), by_hand, rtol=1e-6,
                               atol=1e-6)
    assert float(FastaiLoss(eps, weight=weight)(pred, y)) != pytest.approx(float(by_hand), rel=0.01)
