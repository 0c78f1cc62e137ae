"""Composer's label smoothing, MixUp, CutMix and progressive resizing beside ours. `make test-peers`
installs it."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lessonkit.label_smoothing import LabelSmoothingCrossEntropy, smooth_labels
from lessonkit.mixup import cutmix, mix_targets, mixed_loss, mixup, MixUpCollate
from lessonkit.progressive_resizing import size_schedule

pytestmark = pytest.mark.filterwarnings("ignore")
composer = pytest.importorskip("composer.functional")
from composer.algorithms import ProgressiveResizing  # noqa: E402
from composer.loss import soft_cross_entropy  # noqa: E402

QUICK = settings(deadline=None, derandomize=True, max_examples=40)


@st.composite
def labelled(draw):
    """Logits and class numbers, for one label a photo or one a pixel."""
    n, n_classes, more = draw(st.integers(1, 8)), draw(st.integers(2, 30)), draw(
        st.sampled_from([(), (3,), (2, 3)])
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    return torch.randn(n, n_classes, *more, generator=generator), torch.randint(
        n_classes, (n, *more), generator=generator
    )


@pytest.mark.against(ours="smooth_labels", theirs="Composer smooth_labels")
@QUICK
@given(labelled(), st.floats(0, 1))
def test_smoothed_labels_are_composers(case, eps):
    pred, y = case
    theirs = composer.smooth_labels(pred, y, eps)
    torch.testing.assert_close(smooth_labels(y, pred.shape[1], eps).movedim(-1, 1), theirs)
    rows = F.one_hot(y, pred.shape[1]).float()
    soft = 0.7 * rows + 0.3 * rows.roll(1, 0)
    theirs = composer.smooth_labels(pred, soft.movedim(-1, 1), eps)
    torch.testing.assert_close(smooth_labels(soft, eps=eps).movedim(-1, 1), theirs)


@pytest.mark.against(ours="LabelSmoothingCrossEntropy", theirs="Composer LabelSmoothing")
@QUICK
@given(labelled(), st.floats(0, 1), st.booleans(), st.sampled_from(["mean", "sum", "none"]))
def test_the_loss_of_smoothed_labels_is_composers(case, eps, weighted, reduction):
    pred, y = case
    weight = (
        torch.rand(pred.shape[1], generator=torch.Generator().manual_seed(0)) + 0.1 if weighted else None
    )
    theirs = soft_cross_entropy(pred, composer.smooth_labels(pred, y, eps), weight, reduction=reduction)
    rows = F.one_hot(y, pred.shape[1]).float().movedim(-1, 1)
    mine = LabelSmoothingCrossEntropy(eps, weight, reduction=reduction)(pred, rows)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.differs(
    library="Composer", there="an ignored label becomes a row of eps/C, and is trained on",
    here="a row of zeros, which isn't",
    why="who marks a pixel as unknown doesn't want every class there",
)
def test_ignored_labels_are_smoothed_by_composer():
    pred, y = torch.zeros(2, 3, 1), torch.tensor([[1], [-100]])
    assert composer.smooth_labels(pred, y, 0.3)[1].flatten().tolist() == pytest.approx([0.1] * 3)
    assert not smooth_labels(y, 3, 0.3)[1].any()


@st.composite
def batches(draw):
    n, n_classes = draw(st.integers(1, 8)), draw(st.integers(2, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    x = torch.rand(n, draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 9)),
                   generator=generator)
    return x, torch.randint(n_classes, (n,), generator=generator), n_classes, torch.randperm(
        n, generator=generator
    )


@pytest.mark.against(ours="mixup", theirs="Composer mixup_batch")
@pytest.mark.against(ours="mixed_loss", theirs="Composer mixup_batch")
@QUICK
@given(batches(), st.floats(0, 1))
def test_mixup_and_its_loss_are_composers(batch, share):
    """`mixing` is the partner's share. Composer mixes losses of class numbers, or labels as rows."""
    x, y, n_classes, partner = batch
    their_x, their_y, mixing = composer.mixup_batch(x, y, mixing=1 - share, indices=partner)
    torch.testing.assert_close(mixup(x, share, partner), their_x, rtol=1e-5, atol=1e-6)
    pred = torch.randn(len(y), n_classes, generator=torch.Generator().manual_seed(1))
    interpolated = (1 - mixing) * F.cross_entropy(pred, y) + mixing * F.cross_entropy(pred, their_y)
    torch.testing.assert_close(mixed_loss(nn.CrossEntropyLoss(), pred, y, share, partner), interpolated,
                               rtol=1e-5, atol=1e-5)
    rows, their_rows = F.one_hot(y, n_classes).float(), F.one_hot(their_y, n_classes).float()
    torch.testing.assert_close(mix_targets(y, share, partner, n_classes),
                               (1 - mixing) * rows + mixing * their_rows)


@pytest.mark.differs(
    library="Composer",
    there="MixUp draws one share for the whole batch, and a photo may be its own partner",
    here="one for each photo, and nobody is",
    why="a photo mixed with itself isn't mixed; in a batch of two that happens half of the time",
)
def test_composers_photo_may_be_its_own_partner():
    x, y = torch.eye(2)[:, None, None], torch.arange(2)
    torch.manual_seed(0)
    theirs = [composer.mixup_batch(x, y, mixing=0.5)[1].tolist() for _ in range(40)]
    assert [0, 1] in theirs and [1, 0] in theirs
    mine = [MixUpCollate(2, alpha=1.0)(list(zip(x, y)))[1] for _ in range(40)]
    assert all((row > 0).all() for row in mine)


@pytest.mark.against(ours="cutmix", theirs="Composer cutmix_batch")
@QUICK
@given(batches(), st.floats(0.01, 1), st.integers(0, 2**16))
def test_cutmix_pastes_and_counts_as_composers(batch, share, seed):
    """Boxes are drawn otherwise: one of Composer's, for all photos. Each of ours, given to Composer,
    gives the same photo and share."""
    x, y, n_classes, partner = batch
    mine, stays = cutmix(x, share, partner, torch.Generator().manual_seed(seed))
    for i in range(len(x) if len(x) > 1 else 0):
        probe = torch.zeros(len(x), 1, *x.shape[-2:])
        probe[i] = 1  # and its partner is black, so that the box of this seed can be seen
        box = cutmix(probe, share, torch.arange(len(x)).roll(1),
                     torch.Generator().manual_seed(seed))[0][i, 0] == 0
        rows, columns = box.any(1).nonzero().flatten().tolist(), box.any(0).nonzero().flatten().tolist()
        corners = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) if rows else (0, 0, 0, 0)
        their_x, their_y, kept_share, _ = composer.cutmix_batch(x, y, bbox=corners, indices=partner)
        assert torch.equal(their_x[i], mine[i]) and float(stays[i]) == pytest.approx(float(kept_share))
        assert int(their_y[i]) == int(y[partner[i]])


class State(SimpleNamespace):
    """As much of Composer's state as its progressive resizing looks at."""

    def get_elapsed_duration(self):
        return SimpleNamespace(value=self.elapsed)

    def batch_get_item(self, key):
        return self.batch[key]

    def batch_set_item(self, key, value):
        self.batch[key] = value


def composers_batch(x, elapsed, **settings):
    state = State(elapsed=elapsed, batch=[x, torch.zeros(len(x))])
    ProgressiveResizing(mode="resize", **settings).apply(None, state)
    return state.batch[0]


@pytest.mark.against(ours="size_schedule", theirs="Composer ProgressiveResizing")
@pytest.mark.parametrize("steps, start, end, multiple, finetune", [
    (10, 0.5, 64, 4, 0.2), (20, 0.25, 96, 8, 0.5), (40, 0.5, 128, 16, 0.1), (8, 0.5, 50, 2, 0.25),
    (5, 0.75, 32, 1, 0.2),
])
def test_the_sizes_are_composers(steps, start, end, multiple, finetune):
    mine = size_schedule(steps, int(start * end), end, "linear", finetune, multiple)
    for step, size in enumerate(mine):
        options = dict(initial_scale=start, finetune_fraction=finetune, delay_fraction=0.0,
                       size_increment=multiple)
        theirs = composers_batch(torch.zeros(1, 1, end, end), step / steps, **options).shape[-1]
        assert (theirs == size
                or abs(start * end + (end - start * end) * step / (steps * (1 - finetune)) - size) * 2
                == multiple)


@pytest.mark.differs(
    library="Composer", there="progressive resizing takes the nearest pixel",
    here="pictures are antialiased as they shrink",
    why="stripes of one pixel become all black or all white otherwise (torchvision 2950)",
)
def test_composer_drops_pixels():
    from lessonkit.foundation.batch_transforms import resize_batch

    stripes = (torch.arange(16) % 2).float().expand(1, 1, 16, 16)
    theirs = composers_batch(stripes, 0.0, initial_scale=0.5, finetune_fraction=0.2, delay_fraction=0.0,
                             size_increment=4)
    assert theirs.shape == (1, 1, 8, 8) and len(theirs.unique()) == 1
    assert resize_batch(stripes, 8)[..., 2:-2].flatten().tolist() == pytest.approx([0.5] * 32, abs=0.05)
