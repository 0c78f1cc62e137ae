"""MixUp and CutMix: equal to torchvision, timm and PyTorch's losses; hostile input; each known fault by name."""

import copy
import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback, CancelBatchException, CancelFitException
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixUp as FastaiMixUp
from fastai.callback.schedule import lr_find  # noqa: F401  gives Learner its lr_find and fit_one_cycle
from fastai.callback.training import GradientAccumulation
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader as FastaiDataLoader
from fastai.learner import Learner, load_learner
from fastai.losses import BaseLoss, BCEWithLogitsLossFlat, CrossEntropyLossFlat, FocalLossFlat, LabelSmoothingCrossEntropy, MSELossFlat
from fastai.optimizer import SGD
from fastai.torch_core import TensorCategory, TensorImage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from lessonkit.images import ImageSet, image_dataloaders
from lessonkit.label_smoothing import LabelSmoothingCrossEntropy as OurLabelSmoothing
from lessonkit.mixup import (
    CutMix,
    MixUp,
    MixUpCollate,
    cutmix,
    mix_targets,
    mixed_loss,
    mixup,
    sample_lambda,
    show_mixup,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(n=5, height=6, width=8, seed=0):
    return torch.rand(n, 3, height, width, generator=seeded(seed))


# --- how much of each

@given(alpha=st.one_of(st.floats(1e-300, 1e308), st.integers(1, 10**6)), n=st.integers(0, 50), per_item=st.booleans())
def test_shares_are_shares_for_any_alpha(alpha, n, per_item):
    lam = sample_lambda(n, alpha, seeded(), per_item)
    assert lam.shape == (n,) and lam.dtype == torch.float32
    assert ((0 <= lam) & (lam <= 1)).all()
    assert per_item or len(lam.unique()) <= 1


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1, 5])
def test_shares_have_the_moments_of_the_beta_distribution(alpha):
    lam = sample_lambda(200_000, alpha, seeded()).double()
    assert lam.mean() == pytest.approx(0.5, abs=0.005)
    assert lam.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)
    if alpha == 1:
        assert np.quantile(lam, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.01)


def test_shares_follow_the_generator_alone_or_the_global_seed():
    before = torch.get_rng_state()
    first, second = sample_lambda(9, 0.4, seeded(3)), sample_lambda(9, 0.4, seeded(3))
    assert torch.equal(first, second) and torch.equal(before, torch.get_rng_state())
    generator = seeded(3)
    assert not torch.equal(sample_lambda(9, 0.4, generator), sample_lambda(9, 0.4, generator))
    torch.manual_seed(1)
    one = sample_lambda(9)
    torch.manual_seed(1)
    assert torch.equal(one, sample_lambda(9))


def test_settings_that_are_left_out_are_those_of_the_documentation():
    assert torch.equal(sample_lambda(9, generator=seeded()), sample_lambda(9, 0.4, seeded(), per_item=True))
    assert torch.equal(mixup(photos(), 0.3), mixup(photos(), 0.3, torch.tensor([4, 0, 1, 2, 3])))


@pytest.mark.parametrize("alpha, error", [(-1, ValueError), (float("nan"), ValueError), (float("inf"), ValueError),
                                          ("1", TypeError), (None, TypeError), (True, TypeError)])
def test_alpha_that_is_none_is_refused_everywhere(alpha, error):
    for make in (lambda: sample_lambda(3, alpha), lambda: MixUp(alpha), lambda: CutMix(alpha), lambda: MixUpCollate(10, alpha)):
        with pytest.raises(error, match="alpha"):
            make()


# --- photos

@given(n=st.integers(1, 9), rest=st.lists(st.integers(1, 5), max_size=3), data=st.data(),
       dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
@settings(deadline=None)
def test_mixup_is_the_formula_for_any_shape_type_and_partner(n, rest, data, dtype):
    x = torch.randn(n, *rest, generator=seeded(), dtype=torch.float64).to(dtype)
    lam = torch.tensor(data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n)))
    partner = data.draw(st.one_of(st.none(), st.permutations(range(n)).map(torch.tensor)))
    kept, rows = x.clone(), torch.arange(n).roll(1) if partner is None else partner
    mixed = mixup(x, lam, partner)
    exact = torch.stack([lam[i].double() * x[i].double() + (1 - lam[i].double()) * x[rows[i]].double() for i in range(n)])
    assert mixed.dtype == dtype and mixed.shape == x.shape and mixed.data_ptr() != x.data_ptr()
    torch.testing.assert_close(mixed.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=2 * torch.finfo(dtype).eps + 1e-6)
    assert torch.equal(x, kept)


def test_half_precision_is_rounded_once():
    x = torch.randn(64, 50, generator=seeded()).half()
    lam = torch.rand(64, generator=seeded(1))
    assert torch.equal(mixup(x, lam), mixup(x.float(), lam).half())


@pytest.mark.parametrize("partner", [None, torch.tensor([2, 0, 1, 4, 3])])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_memory_format_stays(form, partner):
    x = photos().contiguous(memory_format=form)
    for mixed in (mixup(x, 0.3, partner), mixup(x.clone().requires_grad_(), 0.3, partner), cutmix(x, 0.3, partner)[0]):
        assert mixed.stride() == x.stride()
    torch.testing.assert_close(mixup(x, 0.3, partner), mixup(x.contiguous(), 0.3, partner))


def test_views_with_holes_and_expanded_batches_are_mixed():
    x = photos(10)[::2, :, 1:4]
    torch.testing.assert_close(mixup(x, 0.3), mixup(x.clone(), 0.3))
    one = photos(1).expand(4, 3, 6, 8)
    torch.testing.assert_close(mixup(one, 0.3), one.clone())


def test_gradients_flow_into_features_and_shares():
    x = torch.randn(4, 6, generator=seeded(), dtype=torch.float64, requires_grad=True)
    lam = torch.rand(4, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    for partner in (None, torch.tensor([3, 2, 1, 0])):
        assert torch.autograd.gradcheck(lambda x, lam: mixup(x, lam, partner), (x, lam))
        with torch.no_grad():
            without = mixup(x, lam, partner)
        assert not without.requires_grad and torch.allclose(mixup(x, lam, partner), without)


def test_fastai_types_stay():
    assert type(mixup(TensorImage(photos()), 0.3)) is TensorImage
    assert type(cutmix(TensorImage(photos()), 0.3)[0]) is TensorImage


def test_equal_to_torchvision_for_photos_and_labels():
    x, y = photos(7), torch.arange(7) % 4
    for transform in (v2.MixUp(alpha=1.0, num_classes=4), v2.MixUp(alpha=0.2, num_classes=4)):
        torch.manual_seed(0)
        their_x, their_y = transform(x, y)
        torch.manual_seed(0)
        lam = transform.make_params([])["lam"]
        torch.testing.assert_close(mixup(x, lam), their_x)
        torch.testing.assert_close(mix_targets(y, lam, n_classes=4), their_y)


def test_equal_to_timm_with_its_partner():
    mixup_module = pytest.importorskip("timm.data.mixup")
    x, y = photos(6), torch.arange(6) % 4
    theirs = mixup_module.Mixup(mixup_alpha=0.4, mode="elem", label_smoothing=0, num_classes=4)
    lams = np.linspace(0, 1, 6).astype("float32")
    theirs._params_per_elem = lambda n: (lams.copy(), np.zeros(n, dtype=bool))
    their_x, their_y = theirs(x.clone(), y)
    back = torch.arange(5, -1, -1)
    torch.testing.assert_close(mixup(x, torch.tensor(lams), back), their_x)
    torch.testing.assert_close(mix_targets(y, torch.tensor(lams), back, 4), their_y)


@pytest.mark.parametrize("x", [photos().mul(255).byte(), torch.ones(3, 2, dtype=torch.int64), torch.ones(3, dtype=torch.bool),
                               torch.ones(3, 2, dtype=torch.complex64), np.ones((3, 2)), None])
def test_what_cannot_be_mixed_is_refused(x):
    with pytest.raises(TypeError, match="mix after converting"):
        mixup(x, 0.5)


@pytest.mark.parametrize("lam", [-0.01, 1.01, float("nan"), torch.tensor([0.1, 0.2, 0.3, 0.4, 1.5]), torch.rand(4), torch.rand(5, 1)])
def test_shares_that_are_none_are_refused_everywhere(lam):
    x, y, pred = photos(), torch.arange(5), torch.randn(5, 5)
    for use in (lambda: mixup(x, lam), lambda: cutmix(x, lam), lambda: mix_targets(y, lam, n_classes=5),
                lambda: mixed_loss(F.cross_entropy, pred, y, lam)):
        with pytest.raises(ValueError, match="lam"):
            use()


@pytest.mark.parametrize("partner, error", [(torch.tensor([0, 1]), ValueError), (torch.tensor([0, 1, 2, 3, 5]), ValueError),
                                            (torch.tensor([0, 1, 2, 3, -1]), ValueError), (torch.rand(5), TypeError),
                                            (torch.tensor([True] * 5), TypeError)])
def test_partners_that_are_none_are_refused_everywhere(partner, error):
    x, y, pred = photos(), torch.arange(5), torch.randn(5, 5)
    for use in (lambda: mixup(x, 0.5, partner), lambda: cutmix(x, 0.5, partner),
                lambda: mix_targets(y, 0.5, partner, 5), lambda: mixed_loss(F.cross_entropy, pred, y, 0.5, partner)):
        with pytest.raises(error, match="partner"):
            use()


# --- labels

def test_picture_and_label_are_mixed_with_the_same_partner():
    y = torch.tensor([3, 1, 0, 2, 1])
    x = F.one_hot(y, 4).float()[:, None, None, :].expand(5, 3, 2, 4)  # each photo shows its own label
    lam = torch.rand(5, generator=seeded())
    for partner in (None, torch.tensor([1, 2, 3, 4, 0]), torch.tensor([0, 0, 0, 0, 0])):
        torch.testing.assert_close(mixup(x, lam, partner)[:, 0, 0], mix_targets(y, lam, partner, 4))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_class_numbers_of_any_whole_type(dtype):
    rows = mix_targets(torch.tensor([0, 2], dtype=dtype), 0.7, n_classes=3)
    torch.testing.assert_close(rows, torch.tensor([[0.7, 0, 0.3], [0.3, 0, 0.7]]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
@pytest.mark.parametrize("n_classes", [None, 3])
def test_rows_are_mixed_as_they_are(dtype, n_classes):
    rows = mix_targets(torch.tensor([[1, 0, 1], [0, 0, 1]], dtype=dtype), 0.75, n_classes=n_classes)
    assert rows.tolist() == [[0.75, 0, 1], [0.25, 0, 1]]
    assert rows.dtype == (dtype if dtype.is_floating_point else torch.float32)


@pytest.mark.parametrize("values", [torch.tensor([10.0, 20.0]), torch.tensor([[[10.0]], [[20.0]]])])
def test_measured_values_keep_their_shape(values):
    mixed = mix_targets(values, 0.75)
    assert mixed.shape == values.shape and mixed.flatten().tolist() == [12.5, 17.5]
    with pytest.raises(ValueError, match="leave out n_classes"):
        mix_targets(values, 0.75, n_classes=1)


@pytest.mark.parametrize("y, n_classes, message", [
    (torch.tensor([0, 3]), 3, "between 0 and 2"), (torch.tensor([0, -100]), 3, "between 0 and 2"),
    (torch.tensor([0.0, 1.0]), 3, r"y\.long\(\)"), (torch.tensor([[0, 2], [1, 1]]), None, "rows of 0 and 1"),
    (torch.zeros(2, 3, 3, dtype=torch.long), 3, "mixed_loss"), (torch.tensor([[1, 0], [0, 1]]), 3, "column"),
])
def test_labels_that_do_not_fit(y, n_classes, message):
    with pytest.raises(ValueError, match=message):
        mix_targets(y, 0.5, n_classes=n_classes)


# --- the loss

def by_hand(pred, y, lam, partner, weight, ignore, eps, reduction):
    """The rule of the lesson, item by item, in float64."""
    log_p = pred.double().log_softmax(1)
    n_classes = pred.shape[1]
    weight = torch.ones(n_classes, dtype=torch.float64) if weight is None else weight.double()
    partner = torch.arange(len(y)).roll(1) if partner is None else partner
    above, below = [], 0.0
    for i in range(len(y)):
        item = 0.0
        for share, label in ((float(lam[i]), int(y[i])), (1 - float(lam[i]), int(y[partner[i]]))):
            if label == ignore:
                continue
            target = torch.full((n_classes,), eps / n_classes, dtype=torch.float64)
            target[label] += 1 - eps
            item -= share * float((weight * target * log_p[i]).sum().detach())
            below += share * float(weight[label])
        above.append(item)
    if reduction == "none":
        return torch.tensor(above, dtype=torch.float64)
    return torch.tensor(sum(above) / (below if reduction == "mean" else 1), dtype=torch.float64)


@given(n=st.integers(1, 6), weighted=st.booleans(), ignore=st.sampled_from([-100, 0, 2]), eps=st.sampled_from([0.0, 0.1, 0.5]),
       reduction=st.sampled_from(["mean", "sum", "none"]), kind=st.sampled_from(["function", "module", "fastai", "ours"]),
       data=st.data())
@settings(deadline=None, max_examples=150)
def test_loss_follows_one_rule_for_weights_and_ignored_labels(n, weighted, ignore, eps, reduction, kind, data):
    pred = torch.randn(n, 4, generator=seeded(n), requires_grad=True)
    choices = [label for label in (0, 1, 2, 3, ignore)]
    y = torch.tensor(data.draw(st.lists(st.sampled_from(choices), min_size=n, max_size=n)))
    if (y == ignore).all():
        y[0] = 1
    lam = torch.tensor(data.draw(st.lists(st.floats(0.1, 0.9), min_size=n, max_size=n)))
    partner = data.draw(st.one_of(st.none(), st.permutations(range(n)).map(torch.tensor)))
    weight = torch.tensor([1.0, 5, 0.5, 20]) if weighted else None
    options = dict(weight=weight, ignore_index=ignore, label_smoothing=eps, reduction=reduction)
    loss = {
        "function": lambda: partial(F.cross_entropy, **options),
        "module": lambda: nn.CrossEntropyLoss(**options),
        "fastai": lambda: CrossEntropyLossFlat(**options),
        "ours": lambda: OurLabelSmoothing(eps, weight, ignore, reduction),
    }[kind]()
    mine = mixed_loss(loss, pred, y, lam, partner)
    torch.testing.assert_close(mine.double(), by_hand(pred, y, lam, partner, weight, ignore, eps, reduction), rtol=1e-4, atol=1e-5)
    mine.sum().backward()
    assert pred.grad.isfinite().all()
    if hasattr(loss, "reduction"):
        assert loss.reduction == reduction  # the caller's loss is as it was


@pytest.mark.parametrize("loss", [
    F.cross_entropy, partial(F.cross_entropy, weight=torch.tensor([25.0, 25, 100, 1])), nn.CrossEntropyLoss(ignore_index=1),
    CrossEntropyLossFlat(), CrossEntropyLossFlat(weight=torch.tensor([1.0, 2, 3, 4])), FocalLossFlat(), LabelSmoothingCrossEntropy(),
    LabelSmoothingCrossEntropy(weight=torch.tensor([1.0, 2, 3, 4])), lambda pred, y: F.cross_entropy(pred, y),
    nn.MultiMarginLoss(), OurLabelSmoothing(0.1, [1.0, 2, 3, 4]),
], ids=lambda loss: type(loss).__name__)
def test_a_share_of_one_gives_the_plain_loss(loss):
    pred, y = torch.randn(6, 4, generator=seeded()), torch.tensor([0, 1, 2, 3, 1, 0])
    torch.testing.assert_close(mixed_loss(loss, pred, y, 1), torch.as_tensor(loss(pred, y)).as_subclass(torch.Tensor))
    torch.testing.assert_close(mixed_loss(loss, pred, y, 0), torch.as_tensor(loss(pred, y.roll(1))).as_subclass(torch.Tensor))


def test_class_weights_keep_the_scale_of_the_unmixed_loss():
    pred, y = torch.tensor([[2.3, 2.1, 4.5], [4.2, 3.2, 5.1]]), torch.tensor([1, 2])
    weight = torch.tensor([25.0, 25, 100])
    assert mixed_loss(nn.CrossEntropyLoss(weight), pred, y, 1).item() == pytest.approx(0.8705, abs=1e-4)  # pytorch 107680
    for share in torch.linspace(0, 1, 5):
        assert mixed_loss(nn.CrossEntropyLoss(weight), pred, y, share).item() < 3  # 54.4 with rows
        small = mixed_loss(nn.CrossEntropyLoss(weight / 1000), pred, y, share)  # their sum is below 1
        torch.testing.assert_close(small, mixed_loss(nn.CrossEntropyLoss(weight), pred, y, share))


def test_each_term_is_ignored_on_its_own():
    pred, y, lam = torch.randn(3, 4, generator=seeded()), torch.tensor([1, -100, 2]), torch.tensor([0.7, 0.6, 0.2])
    each = -pred.log_softmax(1)
    # kept: item 0 with 1 (.7) and 2 (.3); item 1 with its partner's 1 (.4); item 2 with its own 2 (.2)
    above = 0.7 * each[0, 1] + 0.3 * each[0, 2] + 0.4 * each[1, 1] + 0.2 * each[2, 2]
    torch.testing.assert_close(mixed_loss(F.cross_entropy, pred, y, lam), above / (0.7 + 0.3 + 0.4 + 0.2))
    assert mixed_loss(nn.CrossEntropyLoss(), pred, torch.full((3,), -100), lam).item() == 0


def test_segmentation_and_sequences_get_their_photo_s_share():
    lam = torch.tensor([0.3, 0.9])
    pred, y = torch.randn(2, 4, 3, 5, generator=seeded()), torch.randint(0, 4, (2, 3, 5), generator=seeded())
    rows = F.one_hot(y, 4).movedim(-1, 1).float()
    exact = F.cross_entropy(pred, mixup(rows, lam))
    torch.testing.assert_close(mixed_loss(F.cross_entropy, pred, y, lam), exact)
    torch.testing.assert_close(mixed_loss(CrossEntropyLossFlat(axis=1), pred, y, lam), exact)
    last = pred.flatten(2).movedim(1, -1)
    torch.testing.assert_close(mixed_loss(CrossEntropyLossFlat(axis=-1), last, y.flatten(1), lam), exact)
    assert mixed_loss(nn.CrossEntropyLoss(reduction="none"), pred, y, lam).shape == y.shape


@pytest.mark.parametrize("kind", [torch.float32, torch.int64, torch.bool])
@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2, 3])), BCEWithLogitsLossFlat()])
def test_several_classes_a_photo(loss, kind):
    pred, lam = torch.randn(4, 3, generator=seeded()), torch.rand(4, generator=seeded(1))
    y = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    exact = loss(pred, mixup(y.float(), lam))
    torch.testing.assert_close(mixed_loss(loss, pred, y.to(kind), lam), exact)
    # and it is the mix of the losses, as for cross-entropy, because it is linear in the label
    each = nn.BCEWithLogitsLoss(reduction="none", pos_weight=getattr(loss, "pos_weight", None))
    two = lam[:, None] * each(pred, y.float()) + (1 - lam[:, None]) * each(pred, y.roll(1, 0).float())
    torch.testing.assert_close(two.mean(), exact.as_subclass(torch.Tensor))


@pytest.mark.parametrize("loss", [nn.MSELoss(), MSELossFlat(), nn.L1Loss(), F.smooth_l1_loss])
def test_measured_values_are_mixed_and_the_loss_is_called_once(loss):
    y, lam = torch.tensor([10.0, 20.0, 0.0]), torch.tensor([0.7, 0.5, 0.1])
    mixed = torch.tensor([0.7 * 10 + 0.3 * 0, 0.5 * 20 + 0.5 * 10, 0.1 * 0 + 0.9 * 20])
    assert mixed_loss(loss, mixed, y, lam).item() == pytest.approx(0, abs=1e-5)
    exact = torch.tensor([0.7 * 10 + 0.3 * 20, 0.5 * 20 + 0.5 * 0, 0.1 * 0 + 0.9 * 10])
    assert mixed_loss(loss, exact, y, lam, torch.tensor([1, 2, 0])).item() == pytest.approx(0, abs=1e-5)
    fine = torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64)  # the same number in float32
    assert mixed_loss(nn.L1Loss(reduction="sum"), fine, fine, 1) == 0
    if isinstance(loss, BaseLoss):  # predictions with a column, values without, whole numbers too
        assert mixed_loss(loss, mixed[:, None], y.long(), lam).item() == pytest.approx(0, abs=1e-5)


def test_measured_values_are_mixed_too_where_a_prediction_has_several_numbers():
    y, lam = torch.tensor([10.0, 20.0, 0.0]), torch.tensor([0.75, 0.5, 0.0])
    pred = torch.stack([torch.tensor([7.5, 15.0, 20.0]), torch.zeros(3)], dim=1)  # as of a mean and a spread
    assert mixed_loss(lambda pred, y: (pred[:, 0] - y).abs().max(), pred, y, lam) == 0


def test_mixing_the_loss_is_another_thing_for_a_curved_loss():
    pred, y, lam = torch.randn(5, 4, generator=seeded()), torch.tensor([0, 1, 2, 3, 0]), torch.full((5,), 0.5)
    rows = mix_targets(y, lam, n_classes=4)
    brier = lambda rows: ((pred.softmax(1) - rows) ** 2).sum(1).mean()  # noqa: E731
    one_hot = F.one_hot(y, 4).float()
    assert (brier(rows) - (brier(one_hot) + brier(one_hot.roll(1, 0))) / 2).abs() > 0.1


def test_a_loss_that_cannot_be_seen_through_takes_one_share_or_says_so():
    class Hidden(nn.Module):
        def forward(self, pred, y):
            return F.cross_entropy(pred, y)

    class Liar(Hidden):
        reduction = "mean"  # which forward doesn't look at

    pred, y = torch.randn(4, 3, generator=seeded()), torch.tensor([0, 1, 2, 1])
    for loss in (Hidden(), Liar(), lambda pred, y: F.cross_entropy(pred, y), LabelSmoothingCrossEntropy(weight=torch.ones(3))):
        exact = 0.3 * loss(pred, y) + 0.7 * loss(pred, y.roll(1))
        torch.testing.assert_close(mixed_loss(loss, pred, y, 0.3), exact)
        torch.testing.assert_close(mixed_loss(loss, pred, y, torch.full((4,), 0.3)), exact)
        with pytest.raises(TypeError, match="per_item=False"):
            mixed_loss(loss, pred, y, torch.tensor([0.3, 0.4, 0.5, 0.6]))
        torch.testing.assert_close(mixed_loss(loss, pred[:1], y[:1], 0.3), loss(pred[:1], y[:1]))  # a batch of one


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_loss_in_other_precisions(dtype):
    pred, y, lam = torch.randn(9, 3000, generator=seeded()), torch.arange(2040, 2049), torch.rand(9, generator=seeded(1))
    loss = mixed_loss(F.cross_entropy, pred.to(dtype), y, lam)
    assert loss.dtype == dtype
    exact = by_hand(pred, y, lam, None, None, -100, 0, "mean")
    assert loss.double().item() == pytest.approx(exact.item(), rel=8 * torch.finfo(dtype).eps)


def test_loss_takes_fastai_types():
    pred, y = TensorImage(torch.randn(4, 3, generator=seeded())), TensorCategory(torch.tensor([0, 1, 2, 1]))
    for loss in (F.cross_entropy, nn.CrossEntropyLoss(), CrossEntropyLossFlat()):
        torch.testing.assert_close(mixed_loss(loss, pred, y, 0.3), mixed_loss(F.cross_entropy, torch.Tensor(pred), torch.tensor([0, 1, 2, 1]), 0.3))


# --- boxes

@given(n=st.integers(1, 6), height=st.integers(1, 12), width=st.integers(1, 12), data=st.data())
@settings(deadline=None)
def test_cutmix_returns_the_share_that_really_stayed(n, height, width, data):
    lam = torch.tensor(data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n)))
    x = torch.arange(1.0, n + 1)[:, None, None, None].expand(n, 2, height, width).clone()
    kept = x.clone()
    pasted, stays = cutmix(x, lam, generator=seeded())
    assert torch.equal(x, kept) and stays.shape == (n,)
    if n > 1:
        torch.testing.assert_close((pasted == x).float().mean((1, 2, 3)), stays)
    assert ((pasted == x) | (pasted == x.roll(1, 0))).all()
    assert (stays >= (1 - ((1 - lam).sqrt() * height + 0.5) * ((1 - lam).sqrt() * width + 0.5) / (height * width)) - 1e-6).all()


def test_cutmix_boxes_are_rectangles_of_their_own_with_the_photo_s_proportions():
    x = torch.arange(200.0)[:, None, None, None].expand(200, 1, 20, 60)
    pasted, _ = cutmix(x, 0.75, generator=seeded())
    changed = (pasted != x)[:, 0]
    tall, wide = changed.any(2).sum(1), changed.any(1).sum(1)
    assert torch.equal(changed.sum((1, 2)), tall * wide)  # filled
    assert tall.max() == 10 and wide.max() == 30  # half of each side, not swapped
    assert len({tuple(map(int, row)) for row in changed.flatten(1).float().argmax(1, keepdim=True)}) > 100
    whole = (tall == 10) & (wide == 30)
    assert 0.15 < whole.float().mean() < 0.35  # uncut where its centre lies in the middle half of both sides


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.int64])
def test_cutmix_pastes_any_number_type(dtype):
    x = (photos() * 255).to(dtype)
    assert cutmix(x, 0.5, generator=seeded())[0].dtype == dtype


@pytest.mark.parametrize("shape", [(7, 6, 10), (7, 3, 6, 10), (7, 3, 5, 6, 10)])
def test_cutmix_cuts_the_last_two_sides_of_any_shape(shape):
    x = torch.arange(7.0).reshape(7, *[1] * (len(shape) - 1)).expand(shape)
    pasted, stays = cutmix(x, 0.5, generator=seeded())
    flat, _ = cutmix(x.reshape(7, -1, 6, 10)[:, :1], 0.5, generator=seeded())
    assert torch.equal(pasted, flat.reshape(7, *[1] * (len(shape) - 3), 6, 10).expand(shape)) and (stays < 1).all()


def test_cutmix_pastes_from_the_partner_that_is_given():
    x = torch.arange(4.0)[:, None, None, None].expand(4, 1, 8, 8)
    pasted, _ = cutmix(x, 0.5, torch.tensor([2, 0, 3, 3]), seeded())
    assert [sorted(photo.unique().tolist()) for photo in pasted] == [[0, 2], [0, 1], [2, 3], [3]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64])
def test_shares_of_any_number_type(dtype):
    x, lam = photos(), torch.tensor([0, 1, 1, 0, 1])
    for use in (mixup, lambda x, lam: cutmix(x, lam, generator=seeded())[0]):
        assert torch.equal(use(x, lam.to(dtype)), use(x, lam.float()))


@pytest.mark.parametrize("x", [torch.rand(4, 6), torch.rand(4), np.ones((4, 3, 6, 6)), None])
def test_cutmix_refuses_what_has_no_sides(x):
    with pytest.raises(ValueError, match="N, C, H, W"):
        cutmix(x, 0.5)


def test_cutmix_draws_from_its_generator_alone():
    before = torch.get_rng_state()
    first, second = (cutmix(photos(), 0.5, generator=seeded(4))[0] for _ in range(2))
    assert torch.equal(first, second) and torch.equal(before, torch.get_rng_state())


# --- fastai

class Net(nn.Module):
    """Keeps what it is fed; with dropout, so that global randomness matters."""

    def __init__(self, out=4):
        super().__init__()
        self.layers, self.fed = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.Dropout(0.5), nn.Linear(8, out)), []

    def forward(self, x):
        self.fed.append((self.training, x.detach().clone().as_subclass(torch.Tensor)))
        return self.layers(x)


def data(n=22, bs=8, shuffle=True, y=None):
    y = torch.arange(n) % 4 if y is None else y
    x = torch.arange(1.0, n + 1)[:, None, None, None].expand(n, 3, 4, 4).clone()
    pairs = list(zip(x, y))
    return DataLoaders(FastaiDataLoader(pairs, bs=bs, shuffle=shuffle, num_workers=0), FastaiDataLoader(pairs[:6], bs=4, num_workers=0))


def learner(*callbacks, loss=None, loaders=None, out=4):
    torch.manual_seed(0)
    net = Net(out)
    loaders = loaders or data()
    net(loaders.one_batch()[0])
    net.fed.clear()
    learn = Learner(loaders, net, loss_func=loss or CrossEntropyLossFlat(), opt_func=SGD, lr=0.0, cbs=list(callbacks))
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = lambda *args: None
    return learn


def whole(fed):
    """Whether photos hold one number each that is a whole one: not mixed."""
    return bool((fed == fed.round()).all())


def test_training_is_mixed_and_validation_is_not():
    learn = learner(MixUp())
    learn.fit(1)
    training = [fed for train, fed in learn.model.fed if train]
    assert training and not any(whole(fed) for fed in training)
    assert all(whole(fed) for train, fed in learn.model.fed if not train)
    assert [len(fed) for fed in training] == [8, 8, 6]


def test_callback_uses_the_mixed_loss_and_its_gradient():
    class Keep(Callback):
        order = 50

        def after_loss(self):
            if self.training:
                self.seen = (self.pred.detach(), self.yb[0], float(self.loss), self.loss_grad)

    mix, keep = MixUp(seed=1), Keep()
    learn = learner(mix, keep, loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3, 4])))
    learn.fit(1)
    pred, y, loss, grad = keep.seen
    assert loss == pytest.approx(mixed_loss(learn.loss_func, pred, y, *mix.mixed).item(), rel=1e-5)
    assert grad.item() == pytest.approx(loss) and grad.requires_grad
    assert loss != pytest.approx(float(learn.loss_func(pred, y)), rel=1e-3)


@pytest.mark.parametrize("mix", [MixUp, CutMix])
@pytest.mark.parametrize("stop", [CancelFitException, CancelBatchException, KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("event", ["before_batch", "after_pred", "after_loss", "after_step"])
def test_nothing_is_left_behind_however_a_fit_ends(mix, stop, event):
    class Stop(Callback):
        order = 60

    setattr(Stop, event, lambda self: (_ for _ in ()).throw(stop("on purpose")) if self.training else None)
    loss = CrossEntropyLossFlat()
    learn = learner(mix(), Stop(), loss=loss)
    try:
        learn.fit(1)
    except (KeyboardInterrupt, ValueError):
        pass
    assert learn.loss_func is loss and loss.func.reduction == "mean"
    learn.remove_cbs([cb for cb in learn.cbs if isinstance(cb, Stop)])
    plain = float(learn.validate()[0])
    x, y = next(iter(learn.dls.valid))
    assert plain > 0 and learn.loss_func(learn.model.eval()(x), y).item() > 0
    learn.fit(1)  # and it trains again


def test_lr_find_leaves_nothing_behind(tmp_path):
    learn = learner(MixUp(), loaders=data(80))
    learn.path = tmp_path
    loss = learn.loss_func
    with learn.no_bar() if hasattr(learn, "no_bar") else warnings.catch_warnings():
        learn.lr_find(num_it=12, show_plot=False)
    assert learn.loss_func is loss


@pytest.mark.parametrize("loader_shuffles", [True, False])
def test_partner_is_the_neighbour_only_where_the_loader_shuffles(loader_shuffles):
    learn = learner(MixUp(), loaders=data(shuffle=loader_shuffles))
    learn.fit(1)
    partner = learn.mix_up.mixed[1]
    assert (partner is None) == loader_shuffles
    if not loader_shuffles:
        assert sorted(partner.tolist()) == list(range(6))


def drawn(callback, epochs=2, loaders=None):
    learn = learner(callback, loaders=loaders)
    torch.manual_seed(11)
    learn.fit(epochs)
    return [fed for train, fed in learn.model.fed if train]


def test_reproducible_by_seed_and_different_each_epoch():
    first, second, other = (drawn(MixUp(seed=seed), loaders=data(shuffle=False)) for seed in (1, 1, 2))
    assert all(map(torch.equal, first, second)) and not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[3])  # the same photos, an epoch later
    torch.manual_seed(5)
    one = drawn(MixUp(), loaders=data(shuffle=False))
    torch.manual_seed(5)
    assert all(map(torch.equal, one, drawn(MixUp(), loaders=data(shuffle=False))))


def test_switching_it_on_leaves_other_randomness_as_it_was():
    class State(Callback):
        def after_fit(self):
            self.state = torch.get_rng_state()

    states = []
    for callbacks in ([], [MixUp()], [CutMix()], [MixUp(), CutMix()]):
        learn = learner(*callbacks, State(), loaders=data(shuffle=False))
        torch.manual_seed(3)
        learn.fit(1)
        states.append(learn.state.state)
    assert all(torch.equal(states[0], state) for state in states[1:])


@pytest.fixture
def photo_set(tmp_path):
    for i in range(24):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), (i * 10, 0, 0)).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    return ImageSet.from_folder(tmp_path)


def test_draws_from_the_loader_s_generator_for_techniques(photo_set):
    seen = []
    for seed, callbacks in ((0, [MixUp()]), (0, [MixUp()]), (1, [MixUp()]), (0, [])):
        loaders = image_dataloaders(photo_set, 8, 8, seed=seed)
        learn = learner(*callbacks, loaders=loaders, out=2)
        rows = []
        learn.add_cb(type("Rows", (Callback,), {"after_batch": lambda self: rows.append(self.dl.last_indices.tolist())})())
        learn.fit(2)
        seen.append(([fed for train, fed in learn.model.fed if train], rows))
    assert all(map(torch.equal, seen[0][0], seen[1][0])) and not torch.equal(seen[0][0][0], seen[2][0][0])
    assert seen[0][1] == seen[3][1]  # the same batches with and without


def test_both_together_give_each_batch_to_one():
    class Count(Callback):
        order = 50
        counts = []

        def after_loss(self):
            if self.training:
                self.counts.append((self.mix_up.mixed is not None, self.cut_mix.mixed is not None))

    learn = learner(MixUp(), CutMix(), Count(), loaders=data(400))
    learn.fit(2)
    assert all(one != other for one, other in Count.counts)
    assert 0.3 < np.mean([one for one, _ in Count.counts]) < 0.7


def test_last_batch_of_one_is_left_alone():
    learn = learner(MixUp(), loaders=data(9))
    learn.fit(1)
    alone = [fed for train, fed in learn.model.fed if train and len(fed) == 1]
    assert len(alone) == 1 and whole(alone[0])


def test_regression_mixes_the_values():
    y = torch.arange(22.0)
    learn = learner(MixUp(), loss=MSELossFlat(), loaders=data(y=y), out=1)
    learn.fit(1)
    assert np.isfinite(learn.recorder.losses).all()


@pytest.mark.parametrize("mode", ["fp16", "bf16"])
def test_half_precision_training(mode):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no CUDA to autocast for; the order of things is what counts here
        learn = learner(MixUp(), MixedPrecision(amp_mode=mode))
        learn.fit(1)
    assert np.isfinite(learn.recorder.losses).all()
    for dtype in (torch.bfloat16, torch.float16):  # and a network that is all in half precision
        x = photos().to(dtype)
        loss = mixed_loss(F.cross_entropy, nn.Linear(144, 4).to(dtype)(mixup(x, 0.3).flatten(1)), torch.tensor([0, 1, 2, 3, 0]), torch.rand(5))
        loss.backward()


def test_accumulated_gradients_are_scaled_as_without_mixing():
    class Keep(Callback):
        order = 50
        seen = []

        def before_backward(self):
            self.seen.append((float(self.loss_grad.detach()), float(self.loss)))

    learn = learner(MixUp(), GradientAccumulation(n_acc=16), Keep(), loaders=data(16))
    learn.fit(1)
    assert Keep.seen and all(grad == pytest.approx(loss / 2, rel=1e-5) for grad, loss in Keep.seen)


def test_fastai_s_own_mixup_beside_it_is_refused():
    with pytest.raises(ValueError, match="mixed twice"):
        learner(MixUp(), FastaiMixUp()).fit(1)


def test_training_metrics_come_with_a_warning():
    learn = learner(MixUp())
    learn.recorder.train_metrics = True
    with pytest.warns(UserWarning, match="compare mixed photos"):
        learn.fit(1)


def test_whole_number_pictures_in_the_loader_are_refused():
    pairs = [(torch.ones(3, 4, 4, dtype=torch.uint8), i % 4) for i in range(8)]
    loader = FastaiDataLoader(pairs, bs=4, num_workers=0)
    learn = learner(MixUp())
    learn.dls = DataLoaders(loader, loader)
    with pytest.raises(TypeError, match="mix after converting"):
        learn.fit(1)


def test_callbacks_can_be_copied_and_pickled():
    for callback in (MixUp(0.2, seed=3), CutMix(per_item=False)):
        for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
            assert (twin.alpha, twin.per_item, twin.seed) == (callback.alpha, callback.per_item, callback.seed)


def test_learner_with_it_can_be_exported(photo_set, tmp_path):
    learn = learner(MixUp(), CutMix(seed=1), loaders=image_dataloaders(photo_set, 8, 8), out=2)
    learn.fit(1)
    learn.export(tmp_path / "learner.pkl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fastai warns that pickles can hold anything
        again = load_learner(tmp_path / "learner.pkl")
    assert [type(cb) for cb in again.cbs if isinstance(cb, MixUp | CutMix)] == [MixUp, CutMix]


# --- plain PyTorch

@pytest.mark.parametrize("workers", [0, 2])
def test_collate_mixes_with_and_without_workers(workers):
    x = torch.arange(1.0, 41)[:, None].expand(40, 5)
    loader = DataLoader(TensorDataset(x, torch.arange(40) % 4), batch_size=10, collate_fn=MixUpCollate(4), num_workers=workers)

    def epoch():
        return [(photo, label) for photo, label in loader]

    torch.manual_seed(0)
    first, later = epoch(), epoch()
    torch.manual_seed(0)
    again = epoch()
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again))
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(first, later))  # another epoch, other shares
    assert len({float(photo[0, 0] % 1) for photo, _ in first}) == 4  # workers draw other numbers
    for photo, label in first:
        torch.testing.assert_close(label.sum(1), torch.ones(10))
        assert not torch.equal(photo, photo.round())


def test_collate_leaves_a_batch_of_one_and_mixes_measured_values():
    x, y = MixUpCollate(4)([(torch.ones(3), 2)])
    assert torch.equal(x, torch.ones(1, 3)) and torch.equal(y, torch.tensor([[0.0, 0, 1, 0]]))
    x, y = MixUpCollate()([(torch.tensor([float(i)]), float(i)) for i in range(8)])
    torch.testing.assert_close(x[:, 0].double(), y, atol=1e-5, rtol=0)


def test_collate_says_what_is_wrong():
    with pytest.raises(TypeError, match="mix after converting"):
        MixUpCollate(4)([(torch.ones(3, dtype=torch.uint8), 2)] * 2)
    with pytest.raises(ValueError, match="n_classes"):
        MixUpCollate()([(torch.ones(3), 2)] * 2)


# --- pictures

@pytest.mark.parametrize("lam", [0.3, 1, (0, 0.5, 1)])
@pytest.mark.parametrize("cut", [False, True])
def test_pictures_are_drawn(lam, cut):
    figure = show_mixup(photos(), torch.arange(5), list("abcde"), lam, item=2, cut=cut, generator=seeded())
    assert len(figure.axes) == (4 if not isinstance(lam, tuple) else 6)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:2] == ["c", "b"] or titles[0].startswith("λ = ")


def test_shares_are_float32_whatever_pytorchs_default_type_is():
    torch.set_default_dtype(torch.float64)
    try:
        assert {sample_lambda(3, alpha).dtype for alpha in (0, 0.4)} == {torch.float32}
    finally:
        torch.set_default_dtype(torch.float32)
