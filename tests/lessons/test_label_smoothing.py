"""Label smoothing: equal to PyTorch in values and gradients; stated numbers; known faults by name."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback import progress  # noqa: F401  gives Learner its no_bar
from fastai.losses import LabelSmoothingCrossEntropy as FastaiLoss
from fastai.torch_core import TensorBase, TensorCategory, TensorImage
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothing import labels, logits, value_and_gradient

from lessonkit.label_smoothing import LabelSmoothingCrossEntropy, show_smoothed_labels, smooth_labels

ROOT = Path(__file__).resolve().parents[2]
REDUCTIONS = ("mean", "sum", "none")


# ---------------------------------------------------------------- smooth_labels


def test_worked_by_hand():
    torch.testing.assert_close(smooth_labels(torch.tensor(1), 5),
                               torch.tensor([0.02, 0.92, 0.02, 0.02, 0.02]))
    torch.testing.assert_close(smooth_labels(torch.tensor([1]), 4, 0.4),
                               torch.tensor([[0.1, 0.7, 0.1, 0.1]]))


@given(
    st.sampled_from([(), (0,), (1,), (7,), (2, 3), (2, 0, 3), (2, 2, 2, 2)]),
    st.integers(1, 40),
    st.floats(0, 1),
    st.integers(0, 2**16),
    st.sampled_from([torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16]),
)
@settings(max_examples=80, deadline=None)
def test_rows_are_the_definition(shape, n_classes, eps, seed, kind):
    y = labels(*shape, n_classes=n_classes, seed=seed) if shape else labels(1, n_classes=n_classes,
                                                                            seed=seed)[0]
    given_labels = y.to(kind)
    before = given_labels.clone()
    rows = smooth_labels(given_labels, n_classes, eps)
    assert (rows.shape == (*shape, n_classes) and rows.dtype == torch.float32
            and torch.equal(given_labels, before))
    expected = F.one_hot(y, n_classes).double() * (1 - eps) + eps / n_classes
    torch.testing.assert_close(rows.double(), expected, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(rows.double().sum(-1), torch.ones(shape, dtype=torch.float64), atol=1e-5,
                               rtol=0)


@pytest.mark.parametrize(
    "ignore_index, kind",
    [(-100, torch.int64), (-1, torch.int8), (255, torch.uint8), (2, torch.int32), (99, torch.int16)],
)
def test_ignored_rows_are_zeros_also_when_a_class_number_is_ignored(ignore_index, kind):
    y = torch.tensor([[0, 1, 2], [3, 4, 2]])
    marked = torch.where(y == 2, ignore_index, y).to(kind)
    rows = smooth_labels(marked, 5, 0.2, ignore_index)
    assert torch.equal(rows[y == 2], torch.zeros(2, 5))
    torch.testing.assert_close(rows[y != 2], smooth_labels(y[y != 2], 5, 0.2))


def test_ignored_labels_of_a_single_class():
    assert smooth_labels(torch.tensor([0, -100]), 1).tolist() == [[1], [0]]


def test_rows_are_float32_whatever_the_default_is():
    torch.set_default_dtype(torch.float64)
    try:
        assert smooth_labels(torch.tensor([0, 2]), 3).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_forms_of_labels():
    expected = smooth_labels(torch.tensor([0, 2]), 3)
    for y in TensorCategory(torch.tensor([0, 2])), np.array([0, 2]), [0,
                                                                      2], torch.tensor([0, 9, 2])[::2]:
        rows = smooth_labels(y, 3)
        assert torch.equal(rows, expected) and type(rows) is torch.Tensor
    torch.testing.assert_close(smooth_labels(torch.tensor([0, 2]), np.int64(3), np.float32(0.1)),
                               expected)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [0, 0.1, 1])
def test_rows_are_smoothed_as_by_composer_and_keras(kind, eps):
    """Both: q * (1 - eps) + eps / N, for one-hot and for soft rows."""
    one_hot, soft = F.one_hot(labels(), 5).to(kind), logits(2, 3, 5).softmax(-1).to(kind)
    for rows in one_hot, soft:
        smooth = smooth_labels(rows, eps=eps)
        assert smooth.dtype == kind and smooth.shape == rows.shape
        torch.testing.assert_close(smooth, (rows.double() * (1 - eps) + eps / 5).to(kind))
    torch.testing.assert_close(smooth_labels(one_hot.float(), 5, eps), smooth_labels(labels(), 5, eps))
    pred = logits()
    torch.testing.assert_close(F.cross_entropy(pred, smooth_labels(one_hot.float(), eps=eps)),
                               F.cross_entropy(pred, labels(), label_smoothing=eps))


def test_rows_of_ignored_items_stay_and_gradients_pass():
    rows = torch.tensor([[0.0, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(smooth_labels(rows, eps=0.3), torch.tensor([[0.1, 0.8, 0.1], [0, 0, 0]]))
    soft = logits(4, 5).softmax(1).requires_grad_()
    smooth_labels(soft, eps=0.25).sum().backward()
    torch.testing.assert_close(soft.grad, torch.full((4, 5), 0.75))


@pytest.mark.parametrize("rows, n_classes, words",
                         [(torch.tensor([[1.0, 0, 1]]), None, "BCEWithLogitsLoss"),
                          (torch.tensor([[0.0, 0.9, 0]]), None, "sum to 1"),
                          (torch.tensor([[-0.5, 1.5]]), None, "0 or more"),
                          (torch.eye(3), 4, "rows of 4 classes"),
                          (torch.ones(3, 1), None, "BCEWithLogitsLoss")])
def test_rows_that_are_no_probabilities_are_refused(rows, n_classes, words):
    with pytest.raises(ValueError, match=words):
        smooth_labels(rows, n_classes)


@pytest.mark.parametrize(
    "args, error, words",
    [
        ((torch.tensor([5]), 5), ValueError, "0 to 4 or be ignore_index=-100; found 5"),
        ((torch.tensor([-1, -2]), 5), ValueError, "found -2, -1"),
        ((torch.tensor([-100]), 5, 0.1, 255), ValueError, "found -100"),
        ((torch.tensor([1.0]), 5), TypeError, "y.long()"),
        ((torch.tensor([True]), 5), TypeError, "not bool"),
        ((torch.tensor([1j]), 5), TypeError, "complex64"),
        ((torch.tensor([1]), 0), ValueError, "n_classes=0"),
        ((torch.tensor([1]), -3), ValueError, "n_classes=-3"),
        ((torch.tensor([1]), 5.0), TypeError, "n_classes=5.0 must be a whole number"),
        ((torch.tensor([1]), True), TypeError, "n_classes=True must be a whole number"),
        ((torch.tensor([1]), 5, 0.1, None), TypeError, "ignore_index=None must be a whole number"),
    ],
)
def test_refused_labels(args, error, words):
    with pytest.raises(error) as caught:
        smooth_labels(*args)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "eps, error",
    [(eps, ValueError) for eps in (1.5, -0.1, 1.0000001, float("nan"), float("inf"))]
    + [(eps, TypeError) for eps in (True, False, "0.1", None, 0.1j, [0.1])],
)
def test_fault_eps_outside_0_to_1(eps, error):
    """Label smoothing: eps outside [0, 1]. PyTorch takes a negative one, or NaN, and smooths nothing."""
    loss_func = LabelSmoothingCrossEntropy()
    loss_func.eps = eps
    for use in (
        lambda: smooth_labels(torch.tensor([1]), 3, eps),
        lambda: LabelSmoothingCrossEntropy(eps),
        lambda: loss_func(logits(), labels()),  # set later
        lambda: show_smoothed_labels([0], ["a", "b"], eps),
    ):
        with pytest.raises(error, match="eps"):
            use()


@pytest.mark.parametrize("eps", [0, 1, 0.0, 1.0, np.float64(0.3), np.float32(0.25)])
def test_both_ends_of_eps_are_fine(eps):
    rows = smooth_labels(torch.tensor([1]), 4, eps)
    torch.testing.assert_close(rows.sum(-1), torch.ones(1))
    reference = F.cross_entropy(logits(), labels(), label_smoothing=float(eps))
    torch.testing.assert_close(LabelSmoothingCrossEntropy(eps)(logits(), labels()), reference)


# ---------------------------------------------------------------- the loss, equal to PyTorch's


@st.composite
def cases(draw):
    n, n_classes, seed = draw(st.integers(1, 6)), draw(st.integers(1, 7)), draw(st.integers(0, 2**16))
    more = draw(st.sampled_from([(), (3,), (2, 3), (2, 1, 2)]))
    pred = logits(n, n_classes, *more, seed=seed,
                  kind=draw(st.sampled_from([torch.float32, torch.float64])))
    ignore_index = draw(st.sampled_from([-100, 0, 255, n_classes - 1, -7]))
    y = labels(n, *more, n_classes=n_classes, seed=seed)
    random = torch.Generator().manual_seed(seed)
    y[torch.rand(y.shape, generator=random) < 0.3] = ignore_index
    weight = torch.rand(n_classes, generator=random,
                        dtype=torch.float64) * 4 + 0.01 if draw(st.booleans()) else None
    eps = draw(st.sampled_from([0, 0.1, 1]) | st.floats(0, 1))
    return pred, y, dict(eps=eps, weight=weight, ignore_index=ignore_index,
                         reduction=draw(st.sampled_from(REDUCTIONS)))


@given(cases())
@settings(max_examples=150, deadline=None)
def test_equal_to_torch_values_and_gradients(case):
    pred, y, options = case
    before = pred.clone(), y.clone()
    ours = value_and_gradient(LabelSmoothingCrossEntropy(**options), pred, y)
    assert torch.equal(pred, before[0]) and torch.equal(y, before[1])
    if options["reduction"] == "mean" and (y == options["ignore_index"]).all():
        assert ours[0] == 0 and not ours[1].any()  # PyTorch: NaN; see the fault below
        return
    eps, weight = options.pop("eps"), options.pop("weight")
    weight = None if weight is None else weight.to(pred.dtype)
    reference = value_and_gradient(F.cross_entropy, pred, y, weight=weight, label_smoothing=float(eps),
                                   **options)
    tolerance = dict(atol=1e-5, rtol=1e-4) if pred.dtype == torch.float32 else dict(
        atol=1e-11, rtol=1e-9
    )
    for mine, theirs in zip(ours, reference):
        torch.testing.assert_close(mine, theirs, **tolerance)


@given(cases())
@settings(max_examples=80, deadline=None)
def test_soft_targets_equal_to_torch(case):
    pred, _, options = case
    options.pop("ignore_index")
    if pred.shape[1] == 1:  # refused: see the fault of one logit
        return
    soft = logits(*pred.shape, seed=5, kind=pred.dtype).softmax(1)
    eps, weight = options.pop("eps"), options["weight"]
    ours = value_and_gradient(LabelSmoothingCrossEntropy(eps, **options), pred, soft)
    options["weight"] = None if weight is None else weight.to(pred.dtype)
    reference = value_and_gradient(F.cross_entropy, pred, soft, label_smoothing=float(eps), **options)
    for mine, theirs in zip(ours, reference):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("target, ignore_index", [("hard", -100), ("hard", 2), ("soft", -100)])
def test_fault_half_precision(kind, weighted, reduction, ignore_index, target):
    """Label smoothing: float16. Computed in float32 and rounded once, comes back in its own type."""
    pred, weight = logits(kind=kind), torch.tensor([1.0, 0.3, 7, 2, 0.1]) if weighted else None
    y = torch.tensor([0, 1, ignore_index, 3, 4, 1]) if target == "hard" else logits(seed=1).softmax(1)
    options = dict(weight=weight, ignore_index=ignore_index, reduction=reduction)
    loss, gradient = value_and_gradient(LabelSmoothingCrossEntropy(**options), pred, y)
    if target == "soft":
        options.pop("ignore_index")
    exact = value_and_gradient(F.cross_entropy, pred.float(), y, label_smoothing=0.1, **options)
    assert loss.dtype == gradient.dtype == kind
    torch.testing.assert_close(loss, exact[0].to(kind), atol=0, rtol=torch.finfo(kind).eps)
    torch.testing.assert_close(gradient, exact[1].to(kind), atol=1e-5, rtol=2 * torch.finfo(kind).eps)


def test_fault_float16_overflows_in_torch():
    """Label smoothing: float16. PyTorch's smoothing term leaves float16's range before it is divided."""
    pred, y = logits(64, 1000, kind=torch.float16), torch.arange(64)
    # else PyTorch has mended it: change the lesson
    assert F.cross_entropy(pred, y, label_smoothing=0.1).isinf()
    exact = F.cross_entropy(pred.float(), y, label_smoothing=0.1)
    torch.testing.assert_close(LabelSmoothingCrossEntropy()(pred, y), exact.half())


def test_under_autocast_the_loss_is_float32_like_torchs():
    pred, y = logits(), labels()
    with torch.autocast("cpu", torch.bfloat16):
        half = pred.bfloat16()
        ours, theirs = LabelSmoothingCrossEntropy()(half, y), F.cross_entropy(
            half, y, label_smoothing=0.1
        )
    assert ours.dtype == theirs.dtype == torch.float32
    torch.testing.assert_close(ours, theirs)


def test_equals_smooth_labels_and_the_definition():
    pred, y, weight = logits(4, 5, 3, kind=torch.float64), labels(4, 3), torch.tensor([1.0, 2, 3, 4, 5])
    y[0, 1] = -100
    terms = smooth_labels(y, 5, 0.3).double() * weight * pred.log_softmax(1).movedim(1, -1)
    mean = -terms.sum() / weight[y[y >= 0]].sum()
    torch.testing.assert_close(LabelSmoothingCrossEntropy(0.3, weight)(pred, y), mean, atol=1e-6,
                               rtol=1e-6)


@pytest.mark.parametrize("axis, shape",
                         [(1, (2, 5, 3, 4)), (-1, (2, 3, 4, 5)), (3, (2, 3, 4, 5)), (2, (2, 3, 5, 4)),
                          (0, (5, 7)), (-2, (5, 7)), (-2, (2, 5, 3))] + [(1, (5,)), (-1, (5,))])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_axis(axis, shape, reduction):
    pred, at = logits(*shape), 0 if len(shape) == 1 else axis
    target_shape = [n for i, n in enumerate(shape) if i != at % len(shape)]
    y = labels(*target_shape) if target_shape else torch.tensor(3)
    loss_func = LabelSmoothingCrossEntropy(weight=[1, 2, 3, 4, 5], axis=axis, reduction=reduction)
    ordered = pred.movedim(at, 1) if pred.ndim > 1 else pred
    options = dict(weight=torch.tensor([1.0, 2, 3, 4, 5]), label_smoothing=0.1, reduction=reduction)
    torch.testing.assert_close(loss_func(pred, y), F.cross_entropy(ordered, y, **options))
    soft = pred.flip(at).softmax(at)
    ordered_soft = soft.movedim(at, 1) if pred.ndim > 1 else soft
    torch.testing.assert_close(loss_func(pred, soft), F.cross_entropy(ordered, ordered_soft, **options))
    torch.testing.assert_close(loss_func.activation(pred), pred.softmax(at))
    assert torch.equal(loss_func.decodes(pred), pred.argmax(at))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_soft_labels_of_any_floating_type(kind):
    soft = torch.eye(5)[labels()]
    for pred in logits(), logits(kind=torch.float64):
        loss = LabelSmoothingCrossEntropy(0.1)(pred, soft.to(kind))
        torch.testing.assert_close(loss, F.cross_entropy(pred, labels(), label_smoothing=0.1))


def test_gradient_reaches_soft_targets():
    pred, soft = (
        logits(kind=torch.float64), logits(seed=3, kind=torch.float64).softmax(1).requires_grad_()
    )
    LabelSmoothingCrossEntropy()(pred, soft).backward()
    torch.testing.assert_close(soft.grad, -0.9 * pred.log_softmax(1) / 6)


# ---------------------------------------------------------------- known faults of others, each by name


def test_fault_off_target_mass():
    """Label smoothing: off-target mass (1-eps)/C or 1/C in place of eps/C. The stated number, seven
    digits."""
    pred, y = torch.tensor([[2.0, 1, 0, -1, 0.5]], dtype=torch.float64), torch.tensor([0])
    assert f"{LabelSmoothingCrossEntropy(0.1)(pred, y):.7f}" == "0.7244379"
    assert smooth_labels(y, 5, 0.1).sum().item() == pytest.approx(1, abs=1e-6)


def test_fault_eps_scaled_by_c_over_c_minus_1():
    """Label smoothing: eps scaled by C/(C-1), seen at two classes."""
    torch.testing.assert_close(smooth_labels(torch.tensor([1]), 2, 0.1), torch.tensor([[0.05, 0.95]]))
    pred = torch.tensor([[0.0, 2.0]])
    p = pred.softmax(1)[0]
    expected = -(0.95 * p[1].log() + 0.05 * p[0].log())
    torch.testing.assert_close(LabelSmoothingCrossEntropy(0.1)(pred, torch.tensor([1])), expected)


@pytest.mark.parametrize("weight", [None, [1.0, 2, 3, 4, 5]])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(6,), (6, 4)])
def test_fault_ignored_items_counted(weight, reduction, shape):
    """Label smoothing: ignored items counted in the smoothing term or in the mean; a crash with
    weights."""
    pred, y = logits(6, 5, *shape[1:]), labels(*shape)
    y[1], y[4] = -100, -100
    loss_func = LabelSmoothingCrossEntropy(0.3, weight, reduction=reduction)
    loss, gradient = value_and_gradient(loss_func, pred, y)
    kept = [0, 2, 3, 5]
    torch.testing.assert_close(loss, loss_func(pred[kept], y[kept]))
    assert not gradient[[1, 4]].any() and gradient[kept].any()
    if weight is None and reduction == "mean" and len(shape) == 1:
        assert abs(FastaiLoss(0.3)(pred, y) - loss) > 1e-3  # fastai's counts them


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_fault_class_weights_applied_to_one_term_only(reduction):
    """Label smoothing: class weights on one term only (fastai's)."""
    pred, y, weight = logits(), labels(), torch.tensor([1.0, 2, 3, 4, 5])
    reference = F.cross_entropy(pred, y, weight, label_smoothing=0.1, reduction=reduction)
    torch.testing.assert_close(LabelSmoothingCrossEntropy(0.1, weight, reduction=reduction)(pred, y),
                               reference)
    assert (FastaiLoss(0.1, weight, reduction)(pred, y) - reference).abs().max() > 1e-3


@pytest.mark.parametrize(
    "target, words",
    [
        (torch.eye(6, 5).long() + torch.eye(6, 5).long().flip(0), "BCEWithLogitsLoss"),
        (torch.eye(6, 5) + torch.eye(6, 5).flip(0), "BCEWithLogitsLoss"),
        (torch.eye(6, 5).bool(), "BCEWithLogitsLoss"),
        (0.9 * torch.eye(6, 5), "sum to 1"),  # the "smoothing" that smooths nothing
        (torch.full((6, 5), 0.25), "sum to 1"),
        (torch.tensor([2.0, -1, 0, 0, 0]).expand(6, 5), "0 or more"),
        (torch.full((6, 5), torch.nan), "0 or more"),
        (torch.full((6, 5), torch.inf), "sum to 1"),
    ],
)
def test_fault_multi_label_targets(target, words):
    """Label smoothing: multi-label targets are told, and not trained on as something else."""
    with pytest.raises(ValueError, match=words):
        LabelSmoothingCrossEntropy()(logits(), target)


def test_fault_soft_targets_of_ignored_items():
    """Label smoothing: soft targets. A row of zeros is ignored: no loss, no gradient, not in the
    mean."""
    pred, y = logits(6, 5, 2), labels(6, 2)
    y[1], y[4, 0] = -100, -100
    for reduction, eps in itertools.product(REDUCTIONS, [0, 0.1]):
        loss_func = LabelSmoothingCrossEntropy(eps, reduction=reduction)
        rows = smooth_labels(y, 5, 0).movedim(-1, 1)
        for mine, wanted in zip(value_and_gradient(loss_func, pred, rows),
                                value_and_gradient(loss_func, pred, y)):
            torch.testing.assert_close(mine, wanted)
    twice = LabelSmoothingCrossEntropy(0)(pred, smooth_labels(y, 5, 0.1).movedim(-1, 1))
    torch.testing.assert_close(twice, LabelSmoothingCrossEntropy(0.1)(pred, y))


@pytest.mark.parametrize("weight", [None, [1.0, 2, 3, 4, 5]])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_fault_nothing_counts_gives_nan(weight, reduction):
    loss_func = LabelSmoothingCrossEntropy(weight=weight, reduction=reduction)
    for target in torch.full((6,), -100), torch.zeros(6, 5):
        loss, gradient = value_and_gradient(loss_func, logits(), target)
        assert not loss.any() and not gradient.any() and loss.shape == (
            () if reduction != "none" else (6,)
        )
    empty = loss_func(logits()[:0], labels()[:0])
    assert not empty.any() and empty.shape == (() if reduction != "none" else (0,))
    soft = loss_func(logits()[:0], torch.zeros(0, 5))
    assert not soft.any() and soft.shape == empty.shape


def test_fault_no_weight_gives_nan():
    loss_func = LabelSmoothingCrossEntropy(weight=[0, 0, 0, 0, 1])
    loss, gradient = value_and_gradient(loss_func, logits(), torch.zeros(6).long())
    assert loss == 0 and not gradient.any()


@pytest.mark.parametrize("eps", [0, 0.5, 1])
@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64])
def test_fault_right_classes_of_weight_0_give_the_sum(eps, kind):
    """The other class's share of the smoothing has a weight, but there is nothing to divide by: 0, as
    the docstring says."""
    pred = torch.tensor([[2.0, -1], [3, 0], [1, 1]], dtype=kind)
    loss, gradient = value_and_gradient(LabelSmoothingCrossEntropy(eps, [0, 1]), pred,
                                        torch.zeros(3).long())
    assert loss == 0 and loss.dtype == kind and not gradient.any()
    one_counts = LabelSmoothingCrossEntropy(eps, [0, 1])(pred.double(), torch.tensor([0, 0, 1]))
    weight = torch.tensor([0.0, 1], dtype=torch.float64)
    torch.testing.assert_close(one_counts, F.cross_entropy(pred.double(), torch.tensor([0, 0, 1]),
                                                           weight, label_smoothing=eps))


@pytest.mark.parametrize("ignore_index", [0, 2, 255])
def test_fault_ignore_index_has_no_effect_on_soft_labels(ignore_index):
    """PyTorch raises for the same ones; a negative one can't be meant for a class."""
    soft = logits(seed=1).softmax(1)
    with pytest.raises(RuntimeError, match="ignore_index"):
        F.cross_entropy(logits(), soft, ignore_index=ignore_index)
    with pytest.raises(ValueError, match="ignore_index is for class numbers"):
        LabelSmoothingCrossEntropy(ignore_index=ignore_index)(logits(), soft)
    torch.testing.assert_close(LabelSmoothingCrossEntropy(0, ignore_index=-1)(logits(), soft),
                               F.cross_entropy(logits(), soft))


@pytest.mark.parametrize("target",
                         [torch.tensor([[1.0], [0], [1]]), torch.ones(3, 1),
                          torch.zeros(3, 1, device="meta")])
def test_fault_one_logit_with_floating_point_targets(target):
    """Yes or no with a single logit: its softmax is 1, so the loss was 0 whatever the network said."""
    with pytest.raises(ValueError, match="BCEWithLogitsLoss"):
        LabelSmoothingCrossEntropy()(logits(3, 1).to(target.device), target)
    with pytest.raises(ValueError, match="BCEWithLogitsLoss"):
        LabelSmoothingCrossEntropy()(logits(1, 1)[0].to(target.device), target[0])  # one item by itself


@pytest.mark.parametrize("kind", [torch.int8, torch.int16, torch.int32, torch.uint8, torch.uint16])
def test_fault_integer_types_refused(kind):
    expected = F.cross_entropy(logits(), labels(), label_smoothing=0.1)
    torch.testing.assert_close(LabelSmoothingCrossEntropy()(logits(), labels().to(kind)), expected)


@pytest.mark.parametrize("wrap_x", [torch.Tensor, TensorImage, TensorBase])
@pytest.mark.parametrize("wrap_y", [torch.Tensor, TensorCategory])
def test_fault_fastais_types_refused_together(wrap_x, wrap_y):
    pred, y = logits().as_subclass(wrap_x).requires_grad_(), labels().as_subclass(wrap_y)
    loss = LabelSmoothingCrossEntropy(weight=[1, 2, 3, 4, 5])(pred, y)
    loss.backward()
    expected = F.cross_entropy(logits(), labels(), torch.tensor([1.0, 2, 3, 4, 5]), label_smoothing=0.1)
    torch.testing.assert_close(loss.detach(), expected)
    assert type(loss) is torch.Tensor and pred.grad is not None


def test_fault_activation_over_the_wrong_axis():
    pred = logits(2, 5, 3, 4)
    # fastai: the last axis
    assert not torch.allclose(FastaiLoss().activation(pred).sum(1), torch.ones(2, 3, 4))
    torch.testing.assert_close(LabelSmoothingCrossEntropy().activation(pred).sum(1), torch.ones(2, 3, 4))
