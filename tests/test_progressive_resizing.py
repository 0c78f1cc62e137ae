"""Progressive resizing: properties of every schedule, the shapes a network really sees, equality with PyTorch; hostile input;
each known fault by name."""

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback, CancelEpochException, CancelFitException, CancelTrainException
from fastai.callback.mixup import CutMix as FastaiCutMix
from fastai.callback.mixup import MixUp as FastaiMixUp
from fastai.callback.schedule import lr_find  # noqa: F401  gives Learner its lr_find, fine_tune and fit_one_cycle
from fastai.callback.tracker import SaveModelCallback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader as FastaiDataLoader
from fastai.learner import Learner, load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import SGD, Adam
from fastai.torch_core import TensorImage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

from lessonkit.ablation import Technique
from lessonkit.foundation.batch_transforms import resize_batch
from lessonkit.images import ImageSet, image_dataloaders
from lessonkit.mixup import CutMix, MixUp
from lessonkit.normalization import Normalize, channel_stats
from lessonkit.progressive_resizing import (
    ProgressiveResize,
    fit_stages,
    pixel_share,
    plot_schedule,
    refresh_batch_norm,
    size_schedule,
)
from lessonkit.study.settings import Settings
from lessonkit.study.trainer import train_trial

KINDS = ["linear", "steps"]


# --- the schedule

@st.composite
def schedules(draw):
    start = draw(st.integers(1, 300))
    return dict(
        steps=draw(st.integers(1, 500)), start=start, end=draw(st.integers(start, 600)), kind=draw(st.sampled_from(KINDS)),
        finetune_fraction=draw(st.floats(0, 1)), multiple_of=draw(st.integers(1, 64)),
    )


@given(schedules())
@settings(max_examples=500)
def test_every_schedule_grows_from_start_to_exactly_end(plan):
    sizes = size_schedule(**plan)
    assert len(sizes) == plan["steps"] and all(type(size) is int for size in sizes)
    assert sizes == sorted(sizes) and sizes[-1] == plan["end"]
    assert all(1 <= plan["start"] <= size <= plan["end"] for size in sizes)
    assert all(size % plan["multiple_of"] == 0 for size in sizes if plan["start"] < size < plan["end"])
    assert sizes[0] - plan["start"] <= plan["multiple_of"] / 2 or sizes[0] == plan["end"]
    at_end = max(1, round(plan["finetune_fraction"] * plan["steps"]))
    assert sizes[-at_end:] == [plan["end"]] * at_end


def test_by_hand():
    assert size_schedule(10, 32, 64) == [32, 40, 40, 48, 48, 56, 56, 64, 64, 64]  # 36 px and 44 px are rounded up
    assert size_schedule(10, 32, 64, multiple_of=1) == [32, 36, 40, 44, 48, 52, 56, 60, 64, 64]
    assert size_schedule(8, 32, 80, "steps", finetune_fraction=0.25, multiple_of=16) == [32, 32, 48, 48, 64, 64, 80, 80]
    assert size_schedule(5, 30, 61, finetune_fraction=0, multiple_of=16) == [32, 32, 48, 48, 61]  # end as it is
    assert size_schedule(1, 32, 64) == [64]
    assert size_schedule(4, 64, 64) == [64] * 4
    assert size_schedule(4, 1, 3, multiple_of=100) == [1, 1, 1, 3]  # never rounded to nothing


def test_the_ramp_is_that_of_the_formula():
    start, end, steps = 100, 220, 1000
    sizes = np.array(size_schedule(steps, start, end, multiple_of=1))
    growing = np.arange(800)
    assert np.abs(sizes[:800] - (start + (end - start) * growing / 800)).max() <= 0.5
    assert pixel_share(sizes) == pytest.approx(0.2 + 0.8 * (100**2 + 100 * 220 + 220**2) / 3 / 220**2, rel=2e-3)  # the integral


def test_numpy_numbers_are_numbers():
    sizes = size_schedule(np.int64(6), np.int32(16), np.uint8(32), finetune_fraction=np.float32(0.5))
    assert sizes == size_schedule(6, 16, 32, finetune_fraction=0.5) and all(type(size) is int for size in sizes)


@pytest.mark.parametrize("change, error, names", [
    (dict(steps=0), ValueError, "steps"), (dict(steps=-1), ValueError, "steps"), (dict(steps=2.0), TypeError, "steps"),
    (dict(start=0), ValueError, "start"), (dict(start=65), ValueError, "start=65"), (dict(start=True), TypeError, "start"),
    (dict(end="64"), TypeError, "end"), (dict(kind="cosine"), ValueError, "'linear' or 'steps'"),
    (dict(kind=None), ValueError, "kind"),
    (dict(finetune_fraction=1.01), ValueError, "finetune_fraction"),
    (dict(finetune_fraction=float("nan")), ValueError, "finetune"),
    (dict(finetune_fraction="0.2"), TypeError, "finetune"), (dict(multiple_of=0), ValueError, "multiple_of"),
])
def test_plans_that_make_no_sense(change, error, names):
    with pytest.raises(error, match=names):
        size_schedule(**(dict(steps=10, start=32, end=64) | change))


def test_pixel_share():
    assert pixel_share([32, 64]) == pytest.approx((0.25 + 1) / 2)
    assert pixel_share([32, 64], full=128) == pytest.approx((1 / 16 + 1 / 4) / 2)
    assert pixel_share([50000] * 10 ** 4) == 1  # no overflow
    for bad in ([], ()):
        with pytest.raises(ValueError, match="no sizes"):
            pixel_share(bad)


# --- resize_batch does what this lesson needs (FAULTS: height and width rounded apart; a size that rounds to 0)

@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 50),
       dtype=st.sampled_from(["float32", "uint8", "float64"]))
@settings(deadline=None, max_examples=150)
def test_batches_keep_their_proportion_and_equal_interpolate(height, width, size, dtype):
    x = (torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255).to(getattr(torch, dtype))
    kept, small = x.clone(), resize_batch(x, size)
    assert min(small.shape[-2:]) == size and small.dtype == x.dtype and torch.equal(x, kept)
    if height == width:
        assert small.shape[-2:] == (size, size)
    longer, ratio = max(small.shape[-2:]), max(height, width) / min(height, width)
    assert abs(longer - size * ratio) <= 0.5 + 1e-9
    assert (small.shape[-1] >= small.shape[-2]) == (width >= height or longer == size)
    if small.shape[-1] > 1:
        exact = F.interpolate(x.double(), small.shape[-2:], mode="bilinear", antialias=True)
    else:  # PyTorch is right for a single row, and wrong for a single column
        exact = F.interpolate(x.double().mT.contiguous(), small.shape[:1:-1], mode="bilinear", antialias=True).mT
    torch.testing.assert_close(small.double(), exact, rtol=0, atol=1.01 if dtype == "uint8" else 1e-3)
    if dtype != "uint8" and small.shape[-1] > 1:
        assert torch.equal(small, F.interpolate(x, small.shape[-2:], mode="bilinear", antialias=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_batches_are_resized(dtype):
    x = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    small = resize_batch(x.to(dtype), 8)
    assert small.dtype == dtype and small.shape == (2, 3, 8, 12)
    torch.testing.assert_close(small.float(), resize_batch(x, 8), atol=0.01, rtol=0.01)


# --- what the network sees

class Net(nn.Module):
    """Remembers the shapes that it is fed, and whether in training."""

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.features, self.head = nn.Sequential(*layers), nn.Linear(4, 2)
        self.fed, self.pixels = [], []

    def forward(self, x):
        self.fed.append((self.training, tuple(x.shape[-2:])))
        self.pixels.append(x.detach().clone())
        return self.head(self.features(x.as_subclass(torch.Tensor)))

    def seen(self, training=True):
        return [min(shape) for mode, shape in self.fed if mode == training]


def tensors(n=20, height=16, width=16, bs=4, kind=FastaiDataLoader):
    """Loaders that can't be asked for another size."""
    generator = torch.Generator().manual_seed(0)
    items = [(torch.rand(3, height, width, generator=generator), i % 2) for i in range(n)]
    if kind is DataLoader:
        x, y = torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items])
        return DataLoaders(DataLoader(TensorDataset(x, y), bs, shuffle=True), DataLoader(TensorDataset(x[:8], y[:8]), bs))
    return DataLoaders(FastaiDataLoader(items, bs=bs, shuffle=True), FastaiDataLoader(items[:8], bs=bs))


def learner(loaders, *callbacks, groups=False, lr=0.01, opt=SGD, **kwargs):
    torch.manual_seed(0)
    if groups:
        kwargs["splitter"] = lambda net: [list(net.features.parameters()), list(net.head.parameters())]
    learn = Learner(loaders, Net(), loss_func=CrossEntropyLossFlat(), opt_func=opt, lr=lr, cbs=list(callbacks), **kwargs)
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = lambda *args: None
    return learn


@pytest.fixture(scope="module")
def photo_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label in ("cat", "owl"):
        (folder / label).mkdir()
        for number in range(15):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / label / f"{number}.png")
    return ImageSet.from_folder(folder)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LESSONKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def sized(photo_set, size=32, **options):
    """Loaders that can be asked for another size: 24 photos for training, in 6 batches of 4, and 6 for validation."""
    return image_dataloaders(photo_set, size, 4, **options)


LOADERS = {
    "sized": lambda photo_set: sized(photo_set, 16),
    "fastai": lambda _: tensors(24),
    "pytorch": lambda _: tensors(24, kind=DataLoader),
}
any_loader = pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)


@any_loader
@pytest.mark.parametrize("kind", KINDS)
def test_each_batch_has_the_size_of_its_step_from_the_first_to_the_last(photo_set, make, kind):
    loaders = make(photo_set)
    learn = learner(loaders)
    learn.fit_one_cycle(3, cbs=ProgressiveResize(6, kind=kind, multiple_of=1))
    assert learn.model.seen() == size_schedule(18, 6, 16, kind, multiple_of=1)
    assert set(learn.model.seen(training=False)) == {16}


def test_with_no_arguments_from_half_the_loader_s_size_up_to_it(photo_set):
    for loaders, full in ((sized(photo_set, 32), 32), (tensors(24, 32, 40), 32), (sized(photo_set, 1), 1)):
        learn = learner(loaders)
        learn.fit(2, cbs=ProgressiveResize())
        assert learn.model.seen() == size_schedule(12, max(1, full // 2), full)


def test_non_square_batches_keep_their_proportion():
    learn = learner(tensors(8, height=30, width=20))
    learn.fit(1, cbs=ProgressiveResize(10))
    assert [shape for training, shape in learn.model.fed if training] == [(15, 10), (30, 20)]


def test_pixels_are_those_of_resize_batch_of_what_the_loader_gave():
    given = []
    keep = {"order": -9, "run_valid": False, "before_batch": lambda self: given.append(self.xb[0].clone())}
    learn = learner(tensors(12), type("Keep", (Callback,), keep)())
    learn.fit(1, cbs=ProgressiveResize(8))
    seen = [x for x, (training, _) in zip(learn.model.pixels, learn.model.fed) if training]
    for x, small, size in zip(given, seen, size_schedule(3, 8, 16)):
        torch.testing.assert_close(small, resize_batch(x, size), rtol=0, atol=0)


def test_a_loader_that_can_is_asked_for_small_batches_and_makes_no_large_ones(photo_set, monkeypatch):
    loaders, made = sized(photo_set, 32), []
    make = type(loaders.train)._make_batch
    watched = lambda self, *args: made.append((self.shuffle, self.size)) or make(self, *args)  # noqa: E731
    monkeypatch.setattr(type(loaders.train), "_make_batch", watched)
    learner(loaders).fit(2, cbs=ProgressiveResize(16))
    assert [size for train, size in made if train] == size_schedule(12, 16, 32)
    assert {size for train, size in made if not train} == {32}


def test_small_batches_are_the_loader_s_own_of_that_size(photo_set):
    """The same photos and the same crops as from a loader of that size, decoded once, at the full size."""
    learn = learner(sized(photo_set, 32, seed=3))
    learn.fit(1, cbs=ProgressiveResize(16, finetune_fraction=0, multiple_of=1))
    plain = sized(photo_set, 32, seed=3)
    small = sized(photo_set, 32, seed=3)
    for loader, step in ((plain.train, -1), (small.train, 0)):
        loader.size = 16 if step == 0 else 32
        batch = list(loader)[step][0]
        torch.testing.assert_close(learn.model.pixels[step if step == 0 else 5], batch.as_subclass(torch.Tensor), rtol=0, atol=0)


def test_decodes_once(photo_set, monkeypatch):
    loaders = sized(photo_set, 32)
    asked = []
    monkeypatch.setattr("lessonkit.images.cached_photos", lambda *args: asked.append(args))
    learner(loaders).fit(1, cbs=ProgressiveResize(8))
    assert not asked


def test_batches_rows_and_learning_rates_are_the_same_with_and_without(photo_set):
    seen = []
    for callbacks in ([], [ProgressiveResize(8)]):
        learn = learner(sized(photo_set, 16), *callbacks)
        rows = []
        learn.add_cb(type("Rows", (Callback,), {"after_batch": lambda self: rows.append(self.dl.last_indices.tolist())})())
        for _ in range(2):
            learn.fit_one_cycle(2, 0.01)
        seen.append((rows, learn.recorder.hps["lr"], len(learn.recorder.losses)))
    assert seen[0] == seen[1]


def test_the_optimizer_is_one_and_keeps_its_state():
    states = []

    class Look(Callback):
        run_valid = False

        def after_batch(self):
            states.append((id(self.opt), max(int(s["step"]) for s in self.opt.state.values() if "step" in s)))

    learn = learner(tensors(24), ProgressiveResize(8), Look(), opt=Adam)
    learn.fit(2)
    assert len({opt for opt, _ in states}) == 1 and [step for _, step in states] == list(range(1, 13))


def test_normalization_is_kept_at_every_size(photo_set):
    stats = channel_stats(photo_set, 32)
    learn = learner(sized(photo_set, 32, normalize=Normalize(stats)))
    learn.fit(2, cbs=ProgressiveResize(8))
    means = [float(x.mean()) for x in learn.model.pixels]
    assert max(map(abs, means)) < 0.25  # about 0; without normalization about 0.5


# --- evaluated at another size than stated; loaders as they were, after any exit

class Stop(Callback):
    """Raise in training, at some event, from some batch on."""

    run_valid = False

    def __init__(self, error, event, at=0):
        self.error, self.at = error, at
        setattr(self, event, self.stop)

    def stop(self):
        if self.learn.train_iter >= self.at:
            raise self.error


EXITS = [RuntimeError("boom"), KeyboardInterrupt(), CancelFitException(), CancelEpochException(), CancelTrainException()]


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("event", ["before_batch", "after_pred", "after_batch", "before_train"])
def test_loaders_have_their_own_size_after_any_exit(photo_set, error, event):
    loaders = sized(photo_set, 32)
    learn = learner(loaders)
    cancel = isinstance(error, CancelFitException | CancelEpochException | CancelTrainException)
    if cancel:
        learn.fit(1, cbs=[ProgressiveResize(8), Stop(error, event, 0 if event == "before_train" else 2)])
    else:
        with pytest.raises(type(error)):
            learn.fit(1, cbs=[ProgressiveResize(8), Stop(error, event, 0 if event == "before_train" else 2)])
    assert [loader.size for loader in loaders] == [32, 32]
    learn.model.fed.clear()
    learn.validate()
    learn.get_preds(dl=loaders.train.new(shuffle=False))
    assert {shape for _, shape in learn.model.fed} == {(32, 32)}
    learn.model.fed.clear()
    learn.fit(1)
    assert {shape for _, shape in learn.model.fed} == {(32, 32)}


def test_an_error_in_the_loader_leaves_its_size(photo_set, monkeypatch):
    loaders = sized(photo_set, 32)

    def fail(*args):
        raise KeyboardInterrupt

    loaders.train._make_batch = fail
    with pytest.raises(KeyboardInterrupt):
        learner(loaders).fit(1, cbs=ProgressiveResize(8))
    assert loaders.train.size == 32


def test_the_loader_has_its_own_size_whenever_somebody_looks(photo_set):
    loaders, looked = sized(photo_set, 32), []
    events = "before_fit before_train before_batch after_pred after_step after_batch before_validate after_fit".split()
    see = lambda self: looked.append((loaders.train.size, loaders.valid.size))  # noqa: E731
    learner(loaders).fit(2, cbs=[ProgressiveResize(8), type("Look", (Callback,), dict.fromkeys(events, see))()])
    assert set(looked) == {(32, 32)} and len(looked) > 30


def test_validation_keeps_its_size_whatever_end_says(photo_set):
    learn = learner(sized(photo_set, 24))
    learn.fit(1, cbs=ProgressiveResize(8, 16))
    assert learn.model.seen()[-1] == 16 and set(learn.model.seen(training=False)) == {24}
    learn = learner(tensors(24, 24, 24))
    learn.fit(1, cbs=ProgressiveResize(8, 16))
    assert learn.model.seen()[-1] == 16 and set(learn.model.seen(training=False)) == {24}


# --- the schedule runs once

def test_lr_find_is_at_full_size_and_leaves_the_schedule_to_the_fit(photo_set, tmp_path):
    for loaders in (sized(photo_set, 16), tensors(24)):
        learn = learner(loaders, ProgressiveResize(8), path=tmp_path)
        learn.lr_find(num_it=10, show_plot=False)
        assert set(learn.model.seen()) == {16}
        learn.model.fed.clear()
        learn.fit(2)
        assert learn.model.seen() == size_schedule(12, 8, 16)


def test_fine_tune_grows_in_the_unfrozen_fit_alone(photo_set):
    for loaders in (sized(photo_set, 16), tensors(24)):
        learn = learner(loaders, groups=True)
        learn.fine_tune(2, freeze_epochs=1, cbs=ProgressiveResize(8))
        assert learn.model.seen() == [16] * 6 + size_schedule(12, 8, 16)


def test_fine_tune_of_a_network_in_one_piece_runs_the_schedule_once(photo_set):
    """fastxtend 11: nothing can be frozen, so the first fit gets it, and the second is at full size."""
    learn = learner(sized(photo_set, 16))
    learn.fine_tune(2, freeze_epochs=1, cbs=ProgressiveResize(8))
    assert learn.model.seen() == size_schedule(6, 8, 16) + [16] * 12


def test_a_second_fit_does_not_shrink_again_and_another_object_does(photo_set):
    learn = learner(sized(photo_set, 16), ProgressiveResize(8))
    learn.fit(1)
    learn.fit(1)
    assert learn.model.seen() == size_schedule(6, 8, 16) + [16] * 6
    learn.remove_cb(ProgressiveResize)
    learn.fit(1, cbs=ProgressiveResize(8))
    assert learn.model.seen()[-6:] == size_schedule(6, 8, 16)


def test_a_cancelled_fit_does_not_count_and_another_learner_starts_anew(photo_set):
    resize = ProgressiveResize(8)
    learn = learner(sized(photo_set, 16), resize)
    learn.fit(2, cbs=Stop(CancelFitException(), "after_batch", 3))
    learn.model.fed.clear()
    learn.fit(2)
    assert learn.model.seen() == size_schedule(12, 8, 16)
    other = learner(sized(photo_set, 16), resize)
    other.fit(1)
    assert other.model.seen() == size_schedule(6, 8, 16)


def test_a_cancelled_epoch_keeps_the_later_ones_in_place(photo_set):
    for loaders in (sized(photo_set, 16), tensors(24)):
        learn = learner(loaders)
        stop = type("Stop", (Callback,), {"run_valid": False, "after_batch": lambda self: self.cancel()})()
        stop.cancel = lambda: (_ for _ in ()).throw(CancelTrainException()) if learn.epoch == 0 and learn.iter == 1 else None
        learn.fit(2, cbs=[ProgressiveResize(8, multiple_of=1), stop])
        plan = size_schedule(12, 8, 16, multiple_of=1)
        assert learn.model.seen() == plan[:2] + plan[6:]


def test_start_epoch_takes_the_sizes_of_the_epochs_that_are_left(photo_set):
    learn = learner(sized(photo_set, 16))
    learn.fit(3, cbs=ProgressiveResize(8), start_epoch=2)
    assert learn.model.seen() == size_schedule(18, 8, 16)[12:]


def test_get_preds_on_training_data_and_validate_do_not_resize(photo_set):
    learn = learner(sized(photo_set, 16), ProgressiveResize(8))
    learn.get_preds(ds_idx=0)
    learn.validate(ds_idx=0)
    assert {shape for _, shape in learn.model.fed} == {(16, 16)}


def test_a_fit_of_no_epochs_does_nothing(photo_set):
    learn = learner(sized(photo_set, 16), ProgressiveResize(8))
    learn.fit(0)
    learn.fit(1)
    assert learn.model.seen() == size_schedule(6, 8, 16)


# --- with others

@any_loader
@pytest.mark.parametrize("mixer", [lambda: MixUp(seed=0), lambda: CutMix(seed=0), FastaiMixUp, FastaiCutMix],
                         ids=["MixUp", "CutMix", "fastai MixUp", "fastai CutMix"])
@pytest.mark.parametrize("first", [True, False])
def test_small_batches_are_mixed_not_mixed_batches_made_small(photo_set, make, mixer, first, monkeypatch):
    reached = []
    mixing, resize = mixer(), ProgressiveResize(8)
    before = type(mixing).before_batch
    watched = lambda self: (reached.append(min(self.xb[0].shape[-2:])), before(self))  # noqa: E731
    monkeypatch.setattr(type(mixing), "before_batch", watched)
    learn = learner(make(photo_set))
    learn.fit(2, cbs=[resize, mixing] if first else [mixing, resize])
    assert reached == learn.model.seen() == size_schedule(12, 8, 16)


@pytest.mark.parametrize("kind", [TensorImage, torch.Tensor])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_types_and_half_precision_stay(kind, dtype):
    seen = []

    class Give(Callback):
        order, run_valid = -2, False

        def before_batch(self):
            self.learn.xb = (self.xb[0].to(dtype).as_subclass(kind),)

    class Look(Callback):
        run_valid = False

        def before_batch(self):
            seen.append((type(self.xb[0]), self.xb[0].dtype, self.xb[0].shape[-1]))
            self.learn.xb = (self.xb[0].float(),)

    learner(tensors(8), Give(), Look()).fit(1, cbs=ProgressiveResize(8))
    assert seen == [(kind, dtype, 8), (kind, dtype, 16)]


def test_a_learner_with_it_can_be_copied_and_exported(photo_set, tmp_path):
    learn = learner(sized(photo_set, 16), ProgressiveResize(8))
    learn.fit(1)
    learn.loss_func = nn.CrossEntropyLoss()
    learn.model.pixels.clear()
    copy.deepcopy(learn.model)
    learn.export(tmp_path / "learner.pkl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fastai warns that pickles can hold anything
        again = load_learner(tmp_path / "learner.pkl")
    assert [type(cb) for cb in again.cbs if isinstance(cb, ProgressiveResize)] == [ProgressiveResize]


def test_two_of_them_are_refused(photo_set):
    with pytest.raises(ValueError, match="remove one"):
        learner(sized(photo_set, 16), ProgressiveResize(8)).fit(1, cbs=ProgressiveResize(4))


@pytest.mark.parametrize("settings, error, names", [
    (dict(start=0), ValueError, "start"), (dict(end=0), ValueError, "end"), (dict(start=64, end=32), ValueError, "start=64"),
    (dict(start=1.5), TypeError, "start"), (dict(kind="cubic"), ValueError, "kind"),
    (dict(finetune_fraction=2), ValueError, "finetune"),
    (dict(multiple_of=0), ValueError, "multiple_of"), (dict(refresh_bn=-1), ValueError, "refresh_bn"),
    (dict(refresh_bn="yes"), ValueError, "refresh_bn"),
])
def test_settings_that_make_no_sense_are_refused_at_once(settings, error, names):
    with pytest.raises(error, match=names):
        ProgressiveResize(**settings)


def test_a_start_above_the_loader_s_size_is_refused_before_training(photo_set):
    for loaders in (sized(photo_set, 16), tensors(8)):
        learn = learner(loaders)
        with pytest.raises(ValueError, match="start=20 is above end=16"):
            learn.fit(1, cbs=ProgressiveResize(20))
        assert not learn.model.fed


def test_larger_than_the_loader_can_give_is_refused():
    with pytest.raises(ValueError, match="more than the 16 pixels"):
        learner(tensors(8)).fit(1, cbs=ProgressiveResize(8, 32))


def test_batches_that_are_no_pictures_and_masks_are_refused():
    rows = [(torch.rand(5), i % 2) for i in range(8)]
    with pytest.raises(ValueError, match="batches of pictures"):
        learner(DataLoaders(FastaiDataLoader(rows, bs=4), FastaiDataLoader(rows, bs=4))).fit(1, cbs=ProgressiveResize(8))
    masks = [(torch.rand(3, 8, 8), torch.zeros(8, 8)) for _ in range(8)]
    with pytest.raises(ValueError, match="masks"):
        learner(DataLoaders(FastaiDataLoader(masks, bs=4), FastaiDataLoader(masks, bs=4))).fit(1, cbs=ProgressiveResize(4))


def test_data_that_has_a_size_of_its_own_is_no_loader_with_a_size():
    """fastai's loaders pass unknown names on to their data, and an array has a `size`."""
    array = np.random.default_rng(0).random((24, 3, 16, 16), dtype=np.float32)

    class Loader(FastaiDataLoader):
        size_of_data = property(lambda self: self.dataset.size)

        def __getattr__(self, name):
            if name == "size":
                return self.dataset.size
            return super().__getattr__(name)

    def batches(rows):
        return torch.from_numpy(np.stack(rows)), torch.arange(len(rows)) % 2

    loaders = DataLoaders(Loader(array, bs=4, create_batch=batches), Loader(array, bs=4, create_batch=batches))
    learn = learner(loaders)
    learn.fit(1, cbs=ProgressiveResize(8))
    assert learn.model.seen() == size_schedule(6, 8, 16)


def test_a_trial_counts_the_pixels_that_were_really_seen(photo_set):
    technique = Technique("progressive_resizing", callbacks=lambda: [ProgressiveResize()])
    row, _ = train_trial(photo_set, technique, 0, Settings(size=16, epochs=2, batch_size=4, width=4))
    assert row["pixels"] == 4 * sum(size**2 for size in size_schedule(12, 8, 16)) and row["size"] == 16
    plain, _ = train_trial(photo_set, Technique("plain"), 0, Settings(size=16, epochs=2, batch_size=4, width=4))
    assert plain["pixels"] == 4 * 12 * 16**2


# --- batch norm's statistics

def noisy_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.BatchNorm1d(4, momentum=0.3), nn.Linear(4, 2))
    net[6].eval()
    return net


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_refreshed_statistics_equal_pytorch_s_update_bn():
    batches = list(torch.rand(5, 6, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    ours, theirs = noisy_net(), noisy_net()
    ours[3], theirs[3] = nn.Identity(), nn.Identity()  # update_bn leaves dropout on
    refresh_batch_norm(ours, batches)
    update_bn(batches, theirs)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    assert ours[1].num_batches_tracked == 5


def test_a_first_layer_s_statistics_are_those_of_all_pixels():
    net = nn.Sequential(nn.BatchNorm2d(3))
    x = torch.rand(6, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    refresh_batch_norm(net, x)
    torch.testing.assert_close(net[0].running_mean, x.mean((0, 1, 3, 4)))
    torch.testing.assert_close(net[0].running_var, x.transpose(1, 2).flatten(2).var(2).mean(0))


def test_refreshing_changes_statistics_alone_and_is_not_random():
    net, batches = noisy_net(), list(torch.rand(3, 6, 3, 8, 8))
    before, modes = state(net), [layer.training for layer in net.modules()]
    refresh_batch_norm(net, ((x,) for x in batches))
    after = state(net)
    refresh_batch_norm(net, batches)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{layer}.{name}" for layer in (1, 6) for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert all(torch.equal(after[name], value) for name, value in state(net).items())
    assert modes == [layer.training for layer in net.modules()] and net[1].momentum == 0.1 and net[6].momentum == 0.3
    assert all(weight.grad is None for weight in net.parameters())


def test_an_error_while_refreshing_brings_the_old_statistics_back():
    def broken():
        yield torch.rand(4, 3, 8, 8)
        raise KeyboardInterrupt

    for batches, error in ((broken(), KeyboardInterrupt), ([], ValueError)):
        net = noisy_net()
        before, modes = state(net), [layer.training for layer in net.modules()]
        with pytest.raises(error):
            refresh_batch_norm(net, batches)
        assert all(torch.equal(before[name], value) for name, value in state(net).items())
        assert modes == [layer.training for layer in net.modules()] and net[6].momentum == 0.3


def test_without_batch_norm_there_is_nothing_to_do():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    refresh_batch_norm(net, iter(lambda: pytest.fail("no batch is needed"), None))


@any_loader
def test_batch_norm_belongs_to_the_final_size_before_the_last_validation(photo_set, make):
    """Weights as without it; statistics of that many batches at the final size; the schedule's steps as they were."""
    learns = []
    for refresh in (False, 3):
        learn = learner(make(photo_set), lr=0.0)
        if not hasattr(learn.dls.train, "epoch"):
            torch.manual_seed(1)
        learn.fit(2, cbs=ProgressiveResize(8, 12, refresh_bn=refresh))
        learns.append(learn)
    plain, fresh = (learn.model for learn in learns)
    for one, other in zip(plain.parameters(), fresh.parameters()):
        assert torch.equal(one, other)
    assert fresh.features[1].num_batches_tracked == 3 and plain.features[1].num_batches_tracked == 12
    assert not torch.equal(plain.features[1].running_mean, fresh.features[1].running_mean)
    assert not fresh.training
    kinds = [(training, size) for training, (size, _) in fresh.fed]
    valid = len(learns[1].dls.valid)
    assert kinds[-valid - 3 :] == [(False, 12)] * 3 + [(False, 16)] * valid
    assert fresh.seen() == plain.seen()


def test_refreshing_does_not_use_up_an_epoch(photo_set):
    rows = []
    for refresh in (False, True):
        loaders = sized(photo_set, 16)
        learner(loaders).fit(1, cbs=ProgressiveResize(8, refresh_bn=refresh))
        rows.append([loaders.train.last_indices.tolist() for _ in loaders.train])
        assert loaders.train.size == 16
    assert rows[0] == rows[1]


def test_the_best_model_that_is_saved_has_the_refreshed_statistics(photo_set, tmp_path):
    learn = learner(sized(photo_set, 16), path=tmp_path)
    learn.fit(1, cbs=[ProgressiveResize(8, refresh_bn=2), SaveModelCallback(monitor="valid_loss")])
    assert learn.model.features[1].num_batches_tracked == 2


# --- stages

@any_loader
def test_stages_have_their_size_in_training_and_validation(photo_set, make):
    loaders = make(photo_set)
    rows = [getattr(loader, "dataset", None) for loader in loaders]
    learn = learner(loaders)
    fit_stages(learn, [(8, 1), (12, 2), (16, 1)], lr=0.01)
    assert learn.model.seen() == [8] * 6 + [12] * 12 + [16] * 6
    valid = len(loaders.valid)
    assert learn.model.seen(training=False)[-valid * 4 :] == [8] * valid + [12] * 2 * valid + [16] * valid
    assert learn.dls is loaders and rows == [getattr(loader, "dataset", None) for loader in loaders]  # the same split
    learn.model.fed.clear()
    learn.validate()
    assert set(learn.model.fed) == {(False, (16, 16))}
    assert not [cb for cb in learn.cbs if type(cb).__name__ == "_ResizeTo"]


def test_no_validation_photo_is_trained_on_in_any_stage(photo_set):
    """Each new set of loaders draws a new split: here there is no new set of loaders."""
    seen = {"train": set(), "valid": set()}

    class Rows(Callback):
        def after_batch(self):
            seen["train" if self.training else "valid"].update(self.dl.last_indices.tolist())

    fit_stages(learner(sized(photo_set, 16), Rows()), [(8, 1), (16, 1)])
    assert not seen["train"] & seen["valid"]
    assert seen["valid"] == set(photo_set.indices("valid").tolist()) and seen["train"] == set(photo_set.indices("train").tolist())


def test_normalization_and_transforms_are_carried_over(photo_set):
    stats = channel_stats(photo_set, 32)
    loaders = sized(photo_set, 32, normalize=Normalize(stats))
    transforms = [loader.after_batch for loader in loaders]
    learn = learner(loaders)
    fit_stages(learn, [(16, 1), (32, 1)])
    assert [loader.after_batch for loader in loaders] == transforms
    assert max(abs(float(x.mean())) for x in learn.model.pixels) < 0.25
    assert loaders.train.augment is not None and loaders.valid.augment is None


def test_each_stage_has_a_fresh_optimizer_and_its_own_cycle():
    kept, rates = [], []

    class Look(Callback):
        def before_fit(self):
            kept.append(self.opt)

        def after_fit(self):
            rates.append(list(self.learn.recorder.lrs))

    learn = learner(tensors(24), Look(), opt=Adam)
    fit_stages(learn, [(8, 2), (16, 2)], lr=[0.02, 0.005])
    assert kept[0] is not kept[1]
    first, second = rates
    assert max(first) == pytest.approx(0.02, rel=0.05) and max(second) == pytest.approx(0.005, rel=0.05)
    assert first[0] < 0.002 and first[-1] < 0.002 and second[0] < 0.0005


def test_a_stage_starts_without_momentum_from_another_size():
    steps = []

    class Look(Callback):
        run_valid = False

        def after_step(self):
            steps.append(max(int(s["step"]) for s in self.opt.state.values() if "step" in s))

    fit_stages(learner(tensors(24), Look(), opt=Adam), [(8, 1), (16, 1)])
    assert steps == [1, 2, 3, 4, 5, 6] * 2


def test_frozen_layers_stay_frozen():
    learn = learner(tensors(24), groups=True, opt=Adam, train_bn=False)
    learn.freeze()
    before = learn.model.features[0].weight.clone()
    head = learn.model.head.weight.clone()
    fit_stages(learn, [(8, 1), (16, 1)], lr=0.1)
    assert torch.equal(before, learn.model.features[0].weight) and learn.opt.frozen_idx == 1
    assert not torch.equal(head, learn.model.head.weight)


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_stage_that_fails_gives_the_sizes_back(photo_set, error):
    loaders = sized(photo_set, 32)
    loaders.valid.size = 24  # whatever they were
    with pytest.raises(type(error)):
        fit_stages(learner(loaders), [(8, 1), (16, 1)], cbs=Stop(error, "after_pred", 1))
    assert [loader.size for loader in loaders] == [32, 24]


def test_stages_at_the_last_size_stay_there(photo_set):
    loaders = sized(photo_set, 16)
    fit_stages(learner(loaders), [(8, 1), (24, 1)])
    assert [loader.size for loader in loaders] == [24, 24]


@pytest.mark.parametrize("stages, error", [([], ValueError), ([(8,)], ValueError), ((8, 1), ValueError), ([(0, 1)], ValueError),
                                           ([(8, 0)], ValueError), ([(8.5, 1)], TypeError), ([("8", 1)], TypeError),
                                           (None, ValueError)])
def test_stages_that_make_no_sense_are_refused_before_training(photo_set, stages, error):
    learn = learner(sized(photo_set, 16))
    with pytest.raises(error):
        fit_stages(learn, stages)
    assert not learn.model.fed and learn.dls.train.size == 16


def test_learning_rates_stages_and_callbacks_that_do_not_fit(photo_set):
    learn = learner(sized(photo_set, 16))
    with pytest.raises(ValueError, match="3 learning rates for 2 stages"):
        fit_stages(learn, [(8, 1), (16, 1)], lr=[1, 2, 3])
    with pytest.raises(ValueError, match="use one of the two"):
        fit_stages(learn, [(8, 1), (16, 1)], cbs=ProgressiveResize())
    with pytest.raises(ValueError, match="use one of the two"):
        fit_stages(learner(sized(photo_set, 16), ProgressiveResize()), [(8, 1), (16, 1)])
    assert not learn.model.fed


@pytest.mark.parametrize("kind", [FastaiDataLoader, DataLoader])
def test_loaders_that_cannot_change_must_end_at_their_own_size(kind):
    learn = learner(tensors(24, kind=kind))
    for last in (8, 32):
        with pytest.raises(ValueError, match=f"last stage has {last} pixels, but the loaders give 16"):
            fit_stages(learn, [(8, 1), (last, 1)])
    with pytest.raises(ValueError, match="needs loaders that give as many"):
        fit_stages(learn, [(20, 1), (16, 1)])
    assert not learn.model.fed


# --- pictures

def test_the_picture_shows_sizes_and_cost():
    import matplotlib.pyplot as plt

    sizes = size_schedule(10, 32, 64)
    figure = plot_schedule({"growing": sizes, "full": [64] * 10})
    figure.canvas.draw()
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts == [f"{100 * pixel_share(sizes):.0f} %", "100 %"]
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["growing", "full"]
    assert len(plot_schedule(sizes).axes) == 2
    for bad in ([], {}, {"none": []}):
        with pytest.raises(ValueError, match="no sizes"):
            plot_schedule(bad)
    plt.close("all")
