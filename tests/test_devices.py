"""On an accelerator everything gives what it gives on the CPU, and no training step waits for it.

`device` is the CPU and each accelerator that there is; `make test-gpu` asks for one. Where there is
none, PyTorch's fake tensors stand for one: they have a device and no values, so that whatever reads a
value on the way, and would make an accelerator wait, is an error.
"""

import copy
import os

import pytest
import torch
import torch.nn.functional as F
from fastai.learner import Learner
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lessonkit.foundation.batch_transforms import (
    Augment, enlarge, random_crops, random_resized_crop, resize_batch,
)
from lessonkit.foundation.calibration import score
from lessonkit.foundation.models import refresh_batch_norm, small_resnet
from lessonkit.images import image_dataloaders
from lessonkit.label_smoothing import LabelSmoothingCrossEntropy, smooth_labels
from lessonkit.mixup import CutMix, cutmix, mix_targets, mixed_loss, MixUp, mixup
from lessonkit.normalization import channel_stats, denormalize, Normalize
from lessonkit.progressive_resizing import ProgressiveResize
from lessonkit.tta import five_crop, flip, merge_views, scales, tta, TTAModel
from tiny_photos import draw

ACCELERATORS = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
HALF = [0.5] * 3
pytestmark = pytest.mark.device


def of_seed(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


CROPS = random_crops(torch.ones(6), Augment(), of_seed(4))
X, Y = torch.rand(6, 3, 16, 16, generator=of_seed()), torch.arange(6) % 3
PRED, LAM = torch.randn(6, 3, generator=of_seed(1)), torch.rand(6, generator=of_seed(2))
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    NETWORK = small_resnet(3, 4).eval()


@pytest.fixture(params=["cpu", *ACCELERATORS])
def device(request):
    return torch.device(request.param)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("photos"))


def test_an_accelerator_is_there_where_one_is_asked_for():
    assert ACCELERATORS or not os.environ.get("LESSONKIT_TEST_GPU"), "PyTorch finds no accelerator here."


CALLS = {
    "mixup": lambda to: mixup(to(X), to(LAM)),
    "mixup, partners": lambda to: mixup(to(X), to(LAM), to(torch.tensor([5, 3, 1, 0, 2, 4]))),
    "cutmix": lambda to: cutmix(to(X), LAM, generator=of_seed(3)),
    "labels": lambda to: mix_targets(to(Y), to(LAM), n_classes=3),
    "mixed loss": lambda to: mixed_loss(F.cross_entropy, to(PRED), to(Y), to(LAM)),
    "smoothing": lambda to: LabelSmoothingCrossEntropy(0.1)(to(PRED), to(Y)),
    "smoothing, ignored": lambda to: LabelSmoothingCrossEntropy(ignore_index=2)(to(PRED), to(Y)),
    "smoothing, weighted": lambda to: to(LabelSmoothingCrossEntropy(0.1, [1, 2, 3]))(to(PRED), to(Y)),
    "smoothing, soft": lambda to: LabelSmoothingCrossEntropy()(to(PRED), to(PRED.softmax(1))),
    "smooth labels": lambda to: smooth_labels(to(Y), 3),
    "normalize": lambda to: to(Normalize(HALF, [0.1, 0.2, 0.3]))(to(X)),
    "denormalize": lambda to: denormalize(to(X), HALF, HALF),
    "statistics": lambda to: channel_stats(to(X)).mean,
    "smaller": lambda to: resize_batch(to(X), 8),
    "bytes": lambda to: resize_batch(to((255 * X).byte()), 8).float(),
    "crops": lambda to: random_resized_crop(to(X), CROPS, 12),
    "flipped": lambda to: TTAModel(to(NETWORK), [flip])(to(X)),
    "five crops": lambda to: TTAModel(to(NETWORK), five_crop)(to(X)),
    "merged": lambda to: merge_views(to(torch.stack([PRED, PRED.flip(0)]).softmax(2)), "gmean"),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_same_as_on_the_cpu(name, device):
    def there(what):
        return copy.deepcopy(what).to(device) if isinstance(what, nn.Module) else what.to(device)

    found, expected = CALLS[name](there), CALLS[name](lambda what: copy.deepcopy(what))
    both = [every if isinstance(every, tuple) else (every,) for every in (found, expected)]
    for one, other in zip(*both):
        assert one.device.type == device.type
        close = {"atol": 1.01, "rtol": 0} if name == "bytes" else {"atol": 1e-4, "rtol": 1e-4}
        torch.testing.assert_close(one.cpu(), other, **close)


@pytest.mark.parametrize("technique", [None, MixUp, CutMix, ProgressiveResize])
def test_a_training_learns_there(technique, device, images):
    loaders = image_dataloaders(images, 16, 8, normalize=Normalize(HALF, HALF), device=device)
    learn = Learner(loaders, small_resnet(2, 4), loss_func=LabelSmoothingCrossEntropy(),
                    cbs=[technique()] if technique else [])
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-3)
    found = tta(learn, views=[flip, *scales(12)])
    assert next(learn.model.parameters()).device.type == device.type
    assert set(score(found.probs, found.targets)) >= {"accuracy", "nll", "ece"}
    refresh_batch_norm(learn.model, [loaders.one_batch()[0]])


@pytest.mark.skipif("cuda" not in ACCELERATORS, reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("technique", [None, MixUp, CutMix, ProgressiveResize])
def test_no_step_waits_for_the_gpu(technique, images):
    """PyTorch's own guard: an error where a step copies a value back."""
    loaders = image_dataloaders(images, 16, 8, normalize=Normalize(HALF, HALF), device="cuda")
    learn = Learner(loaders, small_resnet(2, 4), loss_func=LabelSmoothingCrossEntropy(),
                    cbs=[technique()] if technique else [])
    watched = {"before_batch": "error", "after_batch": "default"}
    for event, mode in watched.items():
        learn.add_cb(_guard(event, mode))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)


def _guard(event, mode):
    from fastai.callback.core import Callback

    order = -100 if event == "before_batch" else 100
    act = {event: lambda self: torch.cuda.set_sync_debug_mode(mode)}
    return type(f"Guard{event}", (Callback,), {"order": order, "run_valid": False} | act)()


STEPS = {
    "mixup": lambda x, y, lam, pred: mixed_loss(F.cross_entropy, pred, y, lam) + mixup(x, lam).sum(),
    "mixed labels": lambda x, y, lam, pred: mix_targets(y, lam, n_classes=3),
    "cutmix": lambda x, y, lam, pred: cutmix(x, torch.empty(6), generator=of_seed())[0],
    "drawn on the CPU": lambda x, y, lam, pred: mixup(x, torch.empty(6), torch.empty(6).long()),
    "loss of those": lambda x, y, lam, pred: mixed_loss(F.cross_entropy, pred, y, torch.empty(6)),
    "smoothing": lambda x, y, lam, pred: LabelSmoothingCrossEntropy()(pred, y),
    "smoothing, ignored": lambda x, y, lam, pred: LabelSmoothingCrossEntropy(ignore_index=2)(pred, y),
    "smoothing, soft": lambda x, y, lam, pred: LabelSmoothingCrossEntropy()(pred, pred.detach()),
    "mixed smoothing": lambda x, y, lam, pred: mixed_loss(LabelSmoothingCrossEntropy(), pred, y, lam),
    "crops": lambda x, y, lam, pred: random_resized_crop(x, CROPS, 12),
    "enlarged": lambda x, y, lam, pred: enlarge(x, *torch.full((4, 6), 8), torch.ones(6) > 0),
    "normalize": lambda x, y, lam, pred: Normalize(HALF, [0.1, 0.2, 0.3])(x),
    "weighted": lambda x, y, lam, pred: LabelSmoothingCrossEntropy(0.1, [1, 2, 3])(pred, y),
}


class NoWaiting(TorchDispatchMode):
    """An error where `to` copies something to the GPU, and the CPU waits until it is there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        goes_there = func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu"
        if goes_there and getattr(kwargs.get("device"), "type", "cpu") == "cuda":
            assert kwargs.get("non_blocking"), "the CPU waits for this copy"
        return func(*args, **kwargs)


@pytest.mark.parametrize("name", STEPS)
def test_no_step_reads_a_value_or_waits_for_a_copy(name):
    """With fake tensors on a fake GPU a value that is read is an error, and so is a copy that waits, as
    the last lines show."""
    with FakeTensorMode(allow_non_fake_inputs=True), NoWaiting():
        x = torch.empty(6, 3, 16, 16, device="cuda")
        y, pred = torch.empty(6, device="cuda", dtype=torch.int64), torch.empty(6, 3, device="cuda")
        found = STEPS[name](x, y, torch.empty(6, device="cuda"), pred)
        assert found.device.type == "cuda"
        with pytest.raises(DataDependentOutputException):
            found.sum().item()
        with pytest.raises(AssertionError, match="waits"):
            torch.empty(6).to("cuda")


def test_photos_stay_on_the_device_and_are_cropped_there(images):
    """The device `meta` holds no values: only what is copied there as a whole can be cut there."""
    loaders = image_dataloaders(images, 16, 8, device="meta")
    for loader in loaders.loaders:
        batches = list(loader)
        assert {x.device.type for x, _ in batches} == {"meta"}
        assert {tuple(x.shape[1:]) for x, _ in batches} == {(3, 16, 16)}
