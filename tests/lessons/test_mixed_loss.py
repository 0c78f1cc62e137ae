"""The loss of mixed photos: one rule for every loss; equal to PyTorch's where it can be."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.schedule import lr_find  # noqa: F401  gives Learner its lr_find and fit_one_cycle
from fastai.losses import (
    BaseLoss, BCEWithLogitsLossFlat, CrossEntropyLossFlat, FocalLossFlat, LabelSmoothingCrossEntropy,
    MSELossFlat,
)
from fastai.torch_core import TensorCategory, TensorImage
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from lessonkit.label_smoothing import LabelSmoothingCrossEntropy as OurLabelSmoothing
from lessonkit.mixup import (mix_targets, mixed_loss, mixup)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(n=5, height=6, width=8, seed=0):
    return torch.rand(n, 3, height, width, generator=seeded(seed))


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


@given(n=st.integers(1, 6), weighted=st.booleans(), ignore=st.sampled_from([-100, 0, 2]),
       eps=st.sampled_from([0.0, 0.1, 0.5]), reduction=st.sampled_from(["mean", "sum", "none"]),
       kind=st.sampled_from(["function", "module", "fastai", "ours"]), data=st.data())
@settings(deadline=None, max_examples=150)
def test_loss_follows_one_rule_for_weights_and_ignored_labels(
    n, weighted, ignore, eps, reduction, kind, data
):
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
    torch.testing.assert_close(mine.double(),
                               by_hand(pred, y, lam, partner, weight, ignore, eps, reduction), rtol=1e-4,
                               atol=1e-5)
    mine.sum().backward()
    assert pred.grad.isfinite().all()
    if hasattr(loss, "reduction"):
        assert loss.reduction == reduction  # the caller's loss is as it was


@pytest.mark.parametrize("loss",
                         [F.cross_entropy,
                          partial(F.cross_entropy, weight=torch.tensor([25.0, 25, 100, 1])),
                          nn.CrossEntropyLoss(ignore_index=1), CrossEntropyLossFlat(),
                          CrossEntropyLossFlat(weight=torch.tensor([1.0, 2, 3, 4])), FocalLossFlat(),
                          LabelSmoothingCrossEntropy(),
                          LabelSmoothingCrossEntropy(weight=torch.tensor([1.0, 2, 3, 4])), lambda pred,
                          y: F.cross_entropy(pred, y), nn.MultiMarginLoss(),
                          OurLabelSmoothing(0.1, [1.0, 2, 3, 4])], ids=lambda loss: type(loss).__name__)
def test_a_share_of_one_gives_the_plain_loss(loss):
    pred, y = torch.randn(6, 4, generator=seeded()), torch.tensor([0, 1, 2, 3, 1, 0])
    torch.testing.assert_close(mixed_loss(loss, pred, y, 1),
                               torch.as_tensor(loss(pred, y)).as_subclass(torch.Tensor))
    torch.testing.assert_close(mixed_loss(loss, pred, y, 0),
                               torch.as_tensor(loss(pred, y.roll(1))).as_subclass(torch.Tensor))


def test_class_weights_keep_the_scale_of_the_unmixed_loss():
    pred, y = torch.tensor([[2.3, 2.1, 4.5], [4.2, 3.2, 5.1]]), torch.tensor([1, 2])
    weight = torch.tensor([25.0, 25, 100])
    # pytorch 107680
    assert mixed_loss(nn.CrossEntropyLoss(weight), pred, y, 1).item() == pytest.approx(0.8705, abs=1e-4)
    for share in torch.linspace(0, 1, 5):
        assert mixed_loss(nn.CrossEntropyLoss(weight), pred, y, share).item() < 3  # 54.4 with rows
        small = mixed_loss(nn.CrossEntropyLoss(weight / 1000), pred, y, share)  # their sum is below 1
        torch.testing.assert_close(small, mixed_loss(nn.CrossEntropyLoss(weight), pred, y, share))


def test_each_term_is_ignored_on_its_own():
    pred, y, lam = (
        torch.randn(3, 4, generator=seeded()), torch.tensor([1, -100, 2]), torch.tensor([0.7, 0.6, 0.2])
    )
    each = -pred.log_softmax(1)
    # kept: item 0 with 1 (.7) and 2 (.3); item 1 with its partner's 1 (.4); item 2 with its own 2 (.2)
    above = 0.7 * each[0, 1] + 0.3 * each[0, 2] + 0.4 * each[1, 1] + 0.2 * each[2, 2]
    torch.testing.assert_close(mixed_loss(F.cross_entropy, pred, y, lam),
                               above / (0.7 + 0.3 + 0.4 + 0.2))
    assert mixed_loss(nn.CrossEntropyLoss(), pred, torch.full((3,), -100), lam).item() == 0


def test_segmentation_and_sequences_get_their_photo_s_share():
    lam = torch.tensor([0.3, 0.9])
    pred, y = torch.randn(2, 4, 3, 5, generator=seeded()), torch.randint(
        0, 4, (2, 3, 5), generator=seeded()
    )
    rows = F.one_hot(y, 4).movedim(-1, 1).float()
    exact = F.cross_entropy(pred, mixup(rows, lam))
    torch.testing.assert_close(mixed_loss(F.cross_entropy, pred, y, lam), exact)
    torch.testing.assert_close(mixed_loss(CrossEntropyLossFlat(axis=1), pred, y, lam), exact)
    last = pred.flatten(2).movedim(1, -1)
    torch.testing.assert_close(mixed_loss(CrossEntropyLossFlat(axis=-1), last, y.flatten(1), lam), exact)
    assert mixed_loss(nn.CrossEntropyLoss(reduction="none"), pred, y, lam).shape == y.shape


@pytest.mark.parametrize("kind", [torch.float32, torch.int64, torch.bool])
@pytest.mark.parametrize("loss",
                         [nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2, 3])),
                          BCEWithLogitsLossFlat()])
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
    # as of a mean and a spread
    pred = torch.stack([torch.tensor([7.5, 15.0, 20.0]), torch.zeros(3)], dim=1)
    assert mixed_loss(lambda pred, y: (pred[:, 0] - y).abs().max(), pred, y, lam) == 0


def test_mixing_the_loss_is_another_thing_for_a_curved_loss():
    pred, y, lam = (
        torch.randn(5, 4, generator=seeded()), torch.tensor([0, 1, 2, 3, 0]), torch.full((5,), 0.5)
    )
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
    for loss in (Hidden(), Liar(), lambda pred, y: F.cross_entropy(pred, y),
                 LabelSmoothingCrossEntropy(weight=torch.ones(3))):
        exact = 0.3 * loss(pred, y) + 0.7 * loss(pred, y.roll(1))
        torch.testing.assert_close(mixed_loss(loss, pred, y, 0.3), exact)
        torch.testing.assert_close(mixed_loss(loss, pred, y, torch.full((4,), 0.3)), exact)
        with pytest.raises(TypeError, match="per_item=False"):
            mixed_loss(loss, pred, y, torch.tensor([0.3, 0.4, 0.5, 0.6]))
        # a batch of one
        torch.testing.assert_close(mixed_loss(loss, pred[:1], y[:1], 0.3), loss(pred[:1], y[:1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_loss_in_other_precisions(dtype):
    pred, y, lam = torch.randn(9, 3000, generator=seeded()), torch.arange(2040, 2049), torch.rand(
        9, generator=seeded(1)
    )
    loss = mixed_loss(F.cross_entropy, pred.to(dtype), y, lam)
    assert loss.dtype == dtype
    exact = by_hand(pred, y, lam, None, None, -100, 0, "mean")
    assert loss.double().item() == pytest.approx(exact.item(), rel=8 * torch.finfo(dtype).eps)


def test_loss_takes_fastai_types():
    pred, y = TensorImage(torch.randn(4, 3, generator=seeded())), TensorCategory(
        torch.tensor([0, 1, 2, 1])
    )
    for loss in (F.cross_entropy, nn.CrossEntropyLoss(), CrossEntropyLossFlat()):
        torch.testing.assert_close(mixed_loss(loss, pred, y, 0.3), mixed_loss(
            F.cross_entropy, torch.Tensor(pred), torch.tensor([0, 1, 2, 1]), 0.3
        ))


def test_one_value_for_several_columns_of_labels():
    """Two class numbers an item, and a loss that adds the losses of both."""
    def both(pred, y, reduction="mean"):
        values = F.cross_entropy(pred[:, :4], y[:, 0], reduction="none") + F.cross_entropy(
            pred[:, 4:], y[:, 1], reduction="none"
        )
        return values.mean() if reduction == "mean" else values

    pred, y, lam = (torch.randn(5, 7, generator=seeded()),
                    torch.tensor([[0, 2], [1, 1], [3, 0], [2, 2], [0, 1]]),
                    torch.rand(5, generator=seeded(1)))
    first, second = (mixed_loss(F.cross_entropy, part, column, lam)
                     for part, column in zip((pred[:, :4], pred[:, 4:]), y.T))
    torch.testing.assert_close(mixed_loss(both, pred, y, lam), first + second)


@pytest.mark.parametrize("loss",
                         [nn.CrossEntropyLoss(torch.tensor([0.0, 1]), label_smoothing=0.5),
                          OurLabelSmoothing(0.5, [0, 1])])
def test_right_classes_of_weight_0_are_a_loss_of_0(loss):
    pred = torch.tensor([[2.0, -1], [3, 0], [1, 1]], requires_grad=True)
    mixed = mixed_loss(loss, pred, torch.zeros(3).long(), 0.3)
    mixed.backward()
    assert mixed == 0 and not pred.grad.any()


@pytest.mark.parametrize("loss",
                         [nn.CrossEntropyLoss(), F.cross_entropy, CrossEntropyLossFlat(),
                          OurLabelSmoothing()])
@pytest.mark.parametrize("y", [torch.tensor([[1.0], [0], [1]]), torch.tensor([[1], [0], [1]])])
def test_one_logit_and_yes_or_no_is_refused(loss, y):
    """Softmax of one logit is 1: cross-entropy gave 0, whatever the network said."""
    with pytest.raises(ValueError, match="BCEWithLogitsLoss"):
        mixed_loss(loss, torch.randn(3, 1), y, 0.3)
    right = mixed_loss(nn.BCEWithLogitsLoss(), torch.zeros(3, 1), y, 0.3)
    assert right.item() == pytest.approx(np.log(2))


def test_ignored_classes_with_rows_are_refused_as_by_pytorch():
    rows = torch.eye(3)
    for loss, error in ((nn.CrossEntropyLoss(ignore_index=1), RuntimeError),
                        (OurLabelSmoothing(ignore_index=1), ValueError)):
        with pytest.raises(error, match="ignore_index"):
            mixed_loss(loss, torch.randn(3, 3), rows, 0.3)


@pytest.mark.parametrize("loss",
                         [F.cross_entropy, partial(F.cross_entropy, weight=torch.tensor([1.0, 2, 3, 4])),
                          nn.CrossEntropyLoss(),
                          nn.CrossEntropyLoss(torch.tensor([1.0, 2, 3, 4]), ignore_index=1),
                          OurLabelSmoothing(), nn.NLLLoss()],
                         ids=["function", "partial", "module", "weighted", "ours", "nll"])
def test_compiled_mapped_and_traced(loss):
    pred, y, lam = torch.randn(5, 4, generator=seeded()), torch.tensor([0, 1, 2, 3, 1]), torch.rand(
        5, generator=seeded(1)
    )
    expected = mixed_loss(loss, pred, y, lam)
    torch.testing.assert_close(
        torch.compile(mixed_loss, backend="eager", fullgraph=True)(loss, pred, y, lam), expected
    )
    assert (make_fx(lambda pred, y, lam: mixed_loss(loss, pred, y, lam))(pred, y, lam)(pred, y, lam)
            == pytest.approx(expected.item()))
    gradient = torch.func.vmap(torch.func.grad(lambda pred, lam: mixed_loss(loss, pred, y, lam)),
                               in_dims=(None, 0))(pred, torch.stack([lam, 1 - lam]))
    torch.testing.assert_close(gradient[0],
                               torch.func.grad(lambda pred: mixed_loss(loss, pred, y, lam))(pred))
    if getattr(loss, "weight", getattr(loss, "keywords", {}).get("weight")) is None:
        assert mixed_loss(loss, pred.to("meta"), y.to("meta"), 0.3).device.type == "meta"
