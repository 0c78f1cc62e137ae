"""MixUp and CutMix beside torchvision, timm and fastai: any shape, type, memory format and number of
classes. Where a peer is wrong, a test says so and shows the right value by another way."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.mixup import CutMix as FastaiCutMix
from fastai.callback.mixup import MixUp as FastaiMixUp
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader as FastaiLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import SGD
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.transforms import v2

from lessonkit.mixup import cutmix, mix_targets, mixed_loss, mixup

timm_mixup = pytest.importorskip("timm.data.mixup")
QUICK = settings(deadline=None, derandomize=True, max_examples=40)


@st.composite
def batches(draw, even=False, types=(torch.float16, torch.bfloat16, torch.float32, torch.float64)):
    """Photos of any shape, type and memory format, class numbers, and how many classes there are."""
    n = 2 * draw(st.integers(1, 4)) if even else draw(st.integers(1, 9))
    n_classes = draw(st.sampled_from([1, 2, 3, 10, 1000]) | st.integers(1, 1000))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    shape = n, draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    x = torch.rand(shape, generator=generator, dtype=torch.float64).to(draw(st.sampled_from(types)))
    form = draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    return (
        x.contiguous(memory_format=form), torch.randint(n_classes, (n,), generator=generator), n_classes
    )


def close(mine, theirs, dtype):
    """Equal but for the last digits of the photos' type."""
    assert mine.shape == theirs.shape
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(mine.double(), theirs.double(), rtol=4 * eps, atol=4 * eps)


@pytest.mark.against(ours="mixup", theirs="torchvision v2.MixUp")
@pytest.mark.against(ours="mix_targets", theirs="torchvision v2.MixUp")
@QUICK
@given(batches(), st.floats(0, 1))
def test_mixup_is_torchvisions(batch, lam):
    x, y, n_classes = batch
    theirs = v2.MixUp(num_classes=n_classes)
    theirs.make_params = lambda inputs: {"lam": lam}
    their_x, their_y = theirs(x, y)
    exact = torch.tensor(lam, dtype=torch.float64)
    close(mixup(x, exact), their_x, x.dtype)
    close(mix_targets(y, exact, n_classes=n_classes), their_y, torch.float32)
    assert mixup(x, exact).stride() == x.stride()  # torchvision's roll may give another memory format


@pytest.mark.against(ours="cutmix", theirs="torchvision v2.CutMix")
@QUICK
@given(batches(), st.integers(0, 2**16))
def test_cutmix_pastes_and_mixes_labels_as_torchvisions(batch, seed):
    """The boxes are drawn otherwise, so theirs is pasted by hand, and labels are mixed with the share
    that stayed."""
    x, y, n_classes = batch
    theirs = v2.CutMix(num_classes=n_classes)
    torch.manual_seed(seed)
    params = theirs.make_params([x])
    theirs.make_params = lambda inputs: params
    their_x, their_y = theirs(x, y)
    left, top, right, bottom = params["box"]
    share = 1 - (right - left) * (bottom - top) / (x.shape[-1] * x.shape[-2])
    close(mix_targets(y, share, n_classes=n_classes), their_y, torch.float32)
    mine, stays = cutmix(x, params["lam_adjusted"], generator=torch.Generator().manual_seed(seed))
    neighbour = x.roll(1, 0)
    # each result is a photo with one box of the neighbour, of the area that is told
    for i in range(len(x)):
        pasted = (mine[i] != x[i]).any(0)
        rows, columns = pasted.any(1).nonzero().flatten(), pasted.any(0).nonzero().flatten()
        if len(rows):
            box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            assert torch.equal(mine[i][:, *box], neighbour[i][:, *box])
            area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
            assert area <= round(float(1 - stays[i]) * x.shape[-1] * x.shape[-2])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cutmix_keeps_as_much_as_torchvisions_on_the_average(share):
    """Another way of drawing boxes must not change how much is pasted: the mean area, cut off at the
    border."""
    generator, x = torch.Generator().manual_seed(0), torch.zeros(20_000, 1, 32, 32)
    mine = float(cutmix(x, share, generator=generator)[1].mean())
    # around a random point u the box covers [u - side/2, u + side/2], cut off at 0 and 1
    side = np.sqrt(1 - share)
    u = (np.arange(10_000) + 0.5) / 10_000
    length = (np.minimum(u + side / 2, 1) - np.maximum(u - side / 2, 0)).mean()
    assert mine == pytest.approx(1 - length**2, abs=0.01)


@pytest.mark.against(ours="mixup", theirs="timm Mixup")
@pytest.mark.against(ours="mix_targets", theirs="timm Mixup")
@QUICK
@given(batches(even=True), st.sampled_from(["batch", "pair", "elem"]), st.data())
def test_mixup_is_timms_in_each_mode(batch, mode, data):
    x, y, n_classes = batch
    n, back = len(x), torch.arange(len(x) - 1, -1, -1)
    theirs = timm_mixup.Mixup(mode=mode, label_smoothing=0, num_classes=n_classes)
    drawn = {"batch": 1, "pair": n // 2, "elem": n}[mode]
    shares = np.array(data.draw(st.lists(st.floats(0, 1, width=32), min_size=drawn, max_size=drawn)),
                      dtype=np.float32)
    theirs._params_per_batch = lambda: (float(shares[0]), False)
    theirs._params_per_elem = lambda n: (shares.copy(), np.zeros(n, dtype=bool))
    kept = x.clone()
    their_x, their_y = theirs(x.clone(), y)
    lam = torch.tensor(
        {"batch": shares.repeat(n), "pair": [*shares, *shares[::-1]], "elem": shares}[mode]
    )
    # timm rounds half precision at every step
    tolerance = torch.bfloat16 if x.dtype.itemsize == 2 else torch.float32
    close(mixup(x, lam, back), their_x, tolerance)
    close(mix_targets(y, lam, back, n_classes), their_y, tolerance)
    assert torch.equal(x, kept)


@pytest.mark.against(ours="cutmix", theirs="timm Mixup(cutmix_alpha)")
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_cutmix_is_timms_in_each_mode(mode):
    """timm's box is ours when it is drawn around the same point; the share that stays is recomputed by
    both."""
    np.random.seed(0)
    x = torch.rand(6, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    y, back = torch.arange(6), torch.arange(5, -1, -1)
    theirs = timm_mixup.Mixup(0, cutmix_alpha=1.0, mode=mode, label_smoothing=0, num_classes=6)
    their_x, their_y = theirs(x.clone(), y)
    stays = (their_x == x).float().mean((1, 2, 3))  # by counting the pixels
    torch.testing.assert_close(mix_targets(y, stays, back, 6), their_y)
    assert ((their_x == x) | (their_x == x[back])).all()
    mine, mine_stays = cutmix(x, stays, back, torch.Generator().manual_seed(2))
    torch.testing.assert_close((mine == x).float().mean((1, 2, 3)), mine_stays)


@pytest.mark.differs(
    library="timm", there="Mixup refuses a batch of odd size",
    here="any size; a photo alone stays as it is",
    why="the last batch of an epoch is often odd (timm 1304)",
)
def test_timm_refuses_odd_batches_and_we_dont():
    """timm 1304. The right value is the formula, photo by photo."""
    x, y = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2])
    with pytest.raises(AssertionError, match="even"):
        timm_mixup.Mixup()(x, y)
    lam = torch.tensor([0.1, 0.5, 0.7])
    by_hand = [lam[i] * x[i] + (1 - lam[i]) * x[2 - i] for i in range(3)]
    torch.testing.assert_close(mixup(x, lam, torch.tensor([2, 1, 0])), torch.stack(by_hand))


class Watch(Callback):
    """Keeps what the network is fed and how the loss comes out, after all mixing."""

    order = 50

    def __init__(self):
        self.seen = []

    def after_loss(self):
        if self.training:
            self.seen.append((self.xb[0].detach().clone(), self.pred.detach(),
                              float(self.loss_grad.detach())))


def fit_with(callback, x, y, loss, n_classes):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), n_classes))
    loader = FastaiLoader(list(zip(x, y)), bs=len(x), num_workers=0)
    watch = Watch()
    learn = Learner(DataLoaders(loader, loader), net, loss_func=loss, opt_func=SGD, lr=0.0,
                    cbs=[callback, watch])
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = lambda *_: None
    torch.manual_seed(1)
    learn.fit(1)
    return watch.seen[0]


@pytest.mark.against(ours="mixed_loss", theirs="fastai MixUp")
@settings(deadline=None, derandomize=True, max_examples=15)
@given(n=st.integers(2, 9), n_classes=st.sampled_from([2, 5, 1000]))
def test_mixup_and_its_loss_are_fastais(n, n_classes):
    generator = torch.Generator().manual_seed(n)
    x, y = torch.rand(n, 3, 4, 5, generator=generator), torch.randint(
        n_classes, (n,), generator=generator
    )
    theirs = FastaiMixUp()
    fed, pred, loss = fit_with(theirs, x, y, CrossEntropyLossFlat(), n_classes)
    torch.manual_seed(1)
    partner = theirs.yb1[0]  # class numbers, in the partners' order; photos tell which they are
    lam = theirs.lam
    # what is left is the partner's part
    rows = torch.stack([(fed[i] - lam[i] * x[i]) for i in range(n)])
    partner = torch.tensor([int((rows[i] - (1 - lam[i]) * x).flatten(1).abs().sum(1).argmin())
                            for i in range(n)])
    torch.testing.assert_close(mixup(x, lam, partner), fed, rtol=1e-5, atol=1e-6)
    mine = mixed_loss(CrossEntropyLossFlat(), pred, y, lam, partner)
    assert float(mine) == pytest.approx(loss, rel=1e-5, abs=1e-6)


@pytest.mark.differs(
    library="fastai", there="MixUp crashes on a batch of one photo", here="it stays as it is",
    why="the last batch of an epoch may be one photo (fastai 970)",
)
def test_fastais_mixup_crashes_on_one_photo_and_ours_leaves_it_alone():
    """Batch size 1 (fastai 970): fastai squeezes the share's only dimension away."""
    from lessonkit.mixup import MixUp

    x, y = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([1])
    with pytest.raises(IndexError):
        fit_with(FastaiMixUp(), x, y, CrossEntropyLossFlat(), 3)
    fed, pred, loss = fit_with(MixUp(), x, y, CrossEntropyLossFlat(), 3)
    assert torch.equal(fed, x) and loss == pytest.approx(float(F.cross_entropy(pred, y)), rel=1e-5)


@pytest.mark.differs(
    library="fastai", there="CutMix pastes into the batch that it was given", here="a new batch",
    why="other callbacks and the loader may still hold the batch",
)
def test_fastais_cutmix_changes_the_callers_photos_and_ours_doesnt():
    """In-place arithmetic (timm 50 is of the same kind): fastai pastes into the batch that it was
    given."""
    from lessonkit.mixup import CutMix

    for callback, stays in ((FastaiCutMix(), False), (CutMix(), True)):
        given_batch = torch.arange(8.0)[:, None, None, None].expand(8, 3, 6, 6).clone()
        kept = given_batch.clone()

        class Same(FastaiLoader):
            def __iter__(self):
                yield given_batch, torch.arange(8)  # noqa: B023  used at once

        loader = Same(list(zip(given_batch, torch.arange(8))), bs=8, num_workers=0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(108, 8))
        learn = Learner(DataLoaders(loader, loader), net, loss_func=CrossEntropyLossFlat(), opt_func=SGD,
                        lr=0.0, cbs=callback)
        learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
        learn.logger = lambda *_: None
        torch.manual_seed(0)
        learn.fit(3)
        assert torch.equal(given_batch, kept) == stays


@pytest.mark.differs(
    library="fastai", there="MixUp averages a weighted loss over photos",
    here="divided by the weights, as without mixing",
    why="else class weights change the learning rate in disguise (pytorch 107680)",
)
def test_class_weights_stay_in_scale_with_fastais_loss():
    """fastai averages a weighted loss over photos, though it was to be divided by the weights (pytorch
    107680's kind)."""
    weight = torch.tensor([1.0, 50, 1])
    x, y = torch.rand(6, 1, 2, 2,
                      generator=torch.Generator().manual_seed(0)), torch.tensor([1, 1, 1, 1, 1, 1])
    loss = CrossEntropyLossFlat(weight=weight)
    _, pred, theirs = fit_with(FastaiMixUp(), x, y, loss, 3)
    # all labels are the same, so mixing must not change anything
    plain = float(F.cross_entropy(pred, y, weight))
    assert float(mixed_loss(loss, pred, y, 0.3)) == pytest.approx(plain, rel=1e-5)
    assert theirs == pytest.approx(50 * plain, rel=1e-4)


@pytest.mark.parametrize("loss",
                         [nn.CrossEntropyLoss(), CrossEntropyLossFlat(), F.cross_entropy, nn.NLLLoss()])
def test_one_class_and_an_empty_batch_are_no_measured_values(loss):
    pred = torch.zeros(3, 1, requires_grad=True)
    mixed = mixed_loss(loss, pred.log_softmax(1), torch.zeros(3, dtype=torch.long), 0.3)
    mixed.backward()
    assert float(mixed.detach()) == 0 and not pred.grad.any()
    # PyTorch: NaN
    assert float(mixed_loss(loss, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), 0.3)) == 0
