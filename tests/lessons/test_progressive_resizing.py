"""Progressive resizing: properties of every schedule, and the shapes a network really sees; each known
fault by name."""

import copy
import warnings

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.mixup import CutMix as FastaiCutMix
from fastai.callback.mixup import MixUp as FastaiMixUp
from fastai.callback.schedule import lr_find  # noqa: F401  gives Learner its lr_find, fine_tune and fit_one_cycle
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader as FastaiDataLoader
from fastai.learner import load_learner
from fastai.optimizer import Adam
from fastai.torch_core import TensorImage
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from resizing_helpers import any_loader, learner, sized, tensors

from lessonkit.ablation import Technique
from lessonkit.foundation.batch_transforms import resize_batch
from lessonkit.images import image_dataloaders
from lessonkit.mixup import CutMix, MixUp
from lessonkit.normalization import Normalize, channel_stats
from lessonkit.progressive_resizing import (ProgressiveResize, pixel_share, plot_schedule, size_schedule)
from lessonkit.study.settings import Settings
from lessonkit.study.trainer import train_trial

pytestmark = pytest.mark.usefixtures("own_cache")


KINDS = ["linear", "steps"]


# --- the schedule

@st.composite
def schedules(draw):
    start = draw(st.integers(1, 300))
    return dict(steps=draw(st.integers(1, 500)), start=start, end=draw(st.integers(start, 600)),
                kind=draw(st.sampled_from(KINDS)), finetune_fraction=draw(st.floats(0, 1)),
                multiple_of=draw(st.integers(1, 64)))


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
    # 36 px and 44 px are rounded up
    assert size_schedule(10, 32, 64) == [32, 40, 40, 48, 48, 56, 56, 64, 64, 64]
    assert size_schedule(10, 32, 64, multiple_of=1) == [32, 36, 40, 44, 48, 52, 56, 60, 64, 64]
    assert size_schedule(8, 32, 80, "steps", finetune_fraction=0.25, multiple_of=16) == [
        32, 32, 48, 48, 64, 64, 80, 80
    ]
    # end as it is
    assert size_schedule(5, 30, 61, finetune_fraction=0, multiple_of=16) == [32, 32, 48, 48, 61]
    assert size_schedule(1, 32, 64) == [64]
    assert size_schedule(4, 64, 64) == [64] * 4
    assert size_schedule(4, 1, 3, multiple_of=100) == [1, 1, 1, 3]  # never rounded to nothing


def test_the_ramp_is_that_of_the_formula():
    start, end, steps = 100, 220, 1000
    sizes = np.array(size_schedule(steps, start, end, multiple_of=1))
    growing = np.arange(800)
    assert np.abs(sizes[:800] - (start + (end - start) * growing / 800)).max() <= 0.5
    # the integral
    assert pixel_share(sizes) == pytest.approx(0.2 + 0.8 * (100**2 + 100 * 220 + 220**2) / 3 / 220**2,
                                               rel=2e-3)


def test_numpy_numbers_are_numbers():
    sizes = size_schedule(np.int64(6), np.int32(16), np.uint8(32), finetune_fraction=np.float32(0.5))
    assert sizes == size_schedule(6, 16, 32, finetune_fraction=0.5) and all(
        type(size) is int for size in sizes
    )


@pytest.mark.parametrize("change, error, names",
                         [(dict(steps=0), ValueError, "steps"), (dict(steps=-1), ValueError, "steps"),
                          (dict(steps=2.0), TypeError, "steps"), (dict(start=0), ValueError, "start"),
                          (dict(start=65), ValueError, "start=65"),
                          (dict(start=True), TypeError, "start"), (dict(end="64"), TypeError, "end"),
                          (dict(kind="cosine"), ValueError, "'linear', 'steps'"),
                          (dict(kind=None), ValueError, "kind"),
                          (dict(finetune_fraction=1.01), ValueError, "finetune_fraction"),
                          (dict(finetune_fraction=float("nan")), ValueError, "finetune"),
                          (dict(finetune_fraction="0.2"), TypeError, "finetune"),
                          (dict(multiple_of=0), ValueError, "multiple_of")])
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


# --- what the network sees

@any_loader
@pytest.mark.parametrize("kind", KINDS)
def test_each_batch_has_the_size_of_its_step_from_the_first_to_the_last(random_photos, make, kind):
    loaders = make(random_photos)
    learn = learner(loaders)
    learn.fit_one_cycle(3, cbs=ProgressiveResize(6, kind=kind, multiple_of=1))
    assert learn.model.seen() == size_schedule(18, 6, 16, kind, multiple_of=1)
    assert set(learn.model.seen(training=False)) == {16}


def test_with_no_arguments_from_half_the_loader_s_size_up_to_it(random_photos):
    for loaders, full in ((sized(random_photos, 32), 32), (tensors(24, 32, 40), 32),
                          (sized(random_photos, 1), 1)):
        learn = learner(loaders)
        learn.fit(2, cbs=ProgressiveResize())
        assert learn.model.seen() == size_schedule(12, max(1, full // 2), full)


def test_non_square_batches_keep_their_proportion():
    learn = learner(tensors(8, height=30, width=20))
    learn.fit(1, cbs=ProgressiveResize(10))
    assert [shape for training, shape in learn.model.fed if training] == [(15, 10), (30, 20)]


def test_pixels_are_those_of_resize_batch_of_what_the_loader_gave():
    given = []
    keep = {"order": -9, "run_valid": False,
            "before_batch": lambda self: given.append(self.xb[0].clone())}
    learn = learner(tensors(12), type("Keep", (Callback,), keep)())
    learn.fit(1, cbs=ProgressiveResize(8))
    seen = [x for x, (training, _) in zip(learn.model.pixels, learn.model.fed) if training]
    for x, small, size in zip(given, seen, size_schedule(3, 8, 16)):
        torch.testing.assert_close(small, resize_batch(x, size), rtol=0, atol=0)


def test_a_loader_that_can_is_asked_for_small_batches_and_makes_no_large_ones(
    random_photos, monkeypatch
):
    loaders, made = sized(random_photos, 32), []
    make = type(loaders.train).make_batch
    watched = lambda self, *args: made.append((self.shuffle, self.size)) or make(self, *args)  # noqa: E731
    monkeypatch.setattr(type(loaders.train), "make_batch", watched)
    learner(loaders).fit(2, cbs=ProgressiveResize(16))
    assert [size for train, size in made if train] == size_schedule(12, 16, 32)
    assert {size for train, size in made if not train} == {32}


def test_small_batches_are_the_loader_s_own_of_that_size(random_photos):
    """The same photos and the same crops as from a loader of that size, decoded once, at the full
    size."""
    learn = learner(sized(random_photos, 32, seed=3))
    learn.fit(1, cbs=ProgressiveResize(16, finetune_fraction=0, multiple_of=1))
    plain = sized(random_photos, 32, seed=3)
    small = sized(random_photos, 32, seed=3)
    for loader, step in ((plain.train, -1), (small.train, 0)):
        loader.size = 16 if step == 0 else 32
        batch = list(loader)[step][0]
        torch.testing.assert_close(learn.model.pixels[step if step == 0 else 5],
                                   batch.as_subclass(torch.Tensor), rtol=0, atol=0)


def test_decodes_once(random_photos, monkeypatch):
    loaders = sized(random_photos, 32)
    asked = []
    monkeypatch.setattr("lessonkit.photos.loaders.cached_photos", lambda *args: asked.append(args))
    learner(loaders).fit(1, cbs=ProgressiveResize(8))
    assert not asked


def test_batches_rows_and_learning_rates_are_the_same_with_and_without(random_photos):
    seen = []
    for callbacks in ([], [ProgressiveResize(8)]):
        learn = learner(sized(random_photos, 16), *callbacks)
        rows = []
        learn.add_cb(type("Rows", (Callback,),
                          {"after_batch": lambda self: rows.append(self.dl.last_indices.tolist())})())
        for _ in range(2):
            learn.fit_one_cycle(2, 0.01)
        seen.append((rows, learn.recorder.hps["lr"], len(learn.recorder.losses)))
    assert seen[0] == seen[1]


def test_the_optimizer_is_one_and_keeps_its_state():
    states = []

    class Look(Callback):
        run_valid = False

        def after_batch(self):
            states.append((id(self.opt),
                           max(int(s["step"]) for s in self.opt.state.values() if "step" in s)))

    learn = learner(tensors(24), ProgressiveResize(8), Look(), opt=Adam)
    learn.fit(2)
    assert len({opt for opt, _ in states}) == 1 and [step for _, step in states] == list(range(1, 13))


def test_normalization_is_kept_at_every_size(random_photos):
    stats = channel_stats(random_photos, 32)
    learn = learner(sized(random_photos, 32, normalize=Normalize(stats)))
    learn.fit(2, cbs=ProgressiveResize(8))
    means = [float(x.mean()) for x in learn.model.pixels]
    assert max(map(abs, means)) < 0.25  # about 0; without normalization about 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("make", [lambda photos: sized(photos, 16), lambda _: tensors(24)],
                         ids=["sized", "fastai"])
@pytest.mark.parametrize("wrapped", ["before", "in before_fit", "in before_train"])
def test_each_of_two_ranks_reaches_full_size(random_photos, shard, make, wrapped, kind, epochs):
    """Fault: a plan for all batches, of which a sharded loader gives each process a half."""
    for rank in range(2):
        learn = learner(make(random_photos))
        train = learn.dls.train

        class Distribute(Callback):
            order = 11  # as fastai's DistributedTrainer

            def before_fit(self):
                if wrapped == "in before_fit":
                    self.learn.dls.loaders[0] = shard(train, rank)  # noqa: B023

            def before_train(self):
                if wrapped == "in before_train":
                    self.learn.dl = shard(self.learn.dl, rank)  # noqa: B023

            def after_fit(self):
                self.learn.dls.loaders[0] = train  # noqa: B023

        if wrapped == "before":
            learn.dls.loaders[0] = shard(train, rank)
        learn.fit(epochs, cbs=[ProgressiveResize(8, kind=kind), Distribute()])
        assert learn.model.seen() == size_schedule(3 * epochs, 8, 16, kind)
        assert getattr(train, "size", 16) == 16


@pytest.mark.parametrize("world, bs", [(2, 11), (5, 4), (7, 3)])
def test_a_share_with_a_single_photo_left_over_reaches_full_size(random_photos, shard, world, bs):
    """Fault: the left-over joined the batch before it, so that there was one batch less than fastai and
    the plan had counted."""
    for rank in range(world):
        loaders = image_dataloaders(random_photos, 16, bs)
        loaders.loaders[0] = shard(loaders.train, rank, world)
        learn = learner(loaders)
        n_batches = len(loaders.loaders[0])
        learn.fit(2, cbs=ProgressiveResize(8))
        assert learn.model.seen() == size_schedule(2 * n_batches, 8, 16)
    sizes = [len(y) for x, y in loaders.loaders[0]]
    assert len(sizes) == n_batches and min(sizes) > 1


def test_a_rank_s_small_batches_are_made_small(random_photos, shard, monkeypatch):
    loaders, made = sized(random_photos, 32), []
    make = type(loaders.train).make_batch
    watched = lambda self, *args: made.append((self.shuffle, self.size)) or make(self, *args)  # noqa: E731
    monkeypatch.setattr(type(loaders.train), "make_batch", watched)
    loaders.loaders[0] = shard(loaders.train, 0)
    learner(loaders).fit(2, cbs=ProgressiveResize(16, refresh_bn=1))
    assert [size for train, size in made if train] == [*size_schedule(6, 16, 32), 32]
    assert loaders.loaders[0].dl.epoch == 2  # refreshing has not used one up


# --- with others

@any_loader
@pytest.mark.parametrize("mixer",
                         [lambda: MixUp(seed=0), lambda: CutMix(seed=0), FastaiMixUp, FastaiCutMix],
                         ids=["MixUp", "CutMix", "fastai MixUp", "fastai CutMix"])
@pytest.mark.parametrize("first", [True, False])
def test_small_batches_are_mixed_not_mixed_batches_made_small(
    random_photos, make, mixer, first, monkeypatch
):
    reached = []
    mixing, resize = mixer(), ProgressiveResize(8)
    before = type(mixing).before_batch
    watched = lambda self: (reached.append(min(self.xb[0].shape[-2:])), before(self))  # noqa: E731
    monkeypatch.setattr(type(mixing), "before_batch", watched)
    learn = learner(make(random_photos))
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


def test_a_learner_with_it_can_be_copied_and_exported(random_photos, tmp_path):
    learn = learner(sized(random_photos, 16), ProgressiveResize(8))
    learn.fit(1)
    learn.loss_func = nn.CrossEntropyLoss()
    learn.model.pixels.clear()
    copy.deepcopy(learn.model)
    learn.export(tmp_path / "learner.pkl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fastai warns that pickles can hold anything
        again = load_learner(tmp_path / "learner.pkl")
    assert [type(cb) for cb in again.cbs if isinstance(cb, ProgressiveResize)] == [ProgressiveResize]


def test_two_of_them_are_refused(random_photos):
    with pytest.raises(ValueError, match="remove one"):
        learner(sized(random_photos, 16), ProgressiveResize(8)).fit(1, cbs=ProgressiveResize(4))


@pytest.mark.parametrize("settings, error, names",
                         [(dict(start=0), ValueError, "start"), (dict(end=0), ValueError, "end"),
                          (dict(start=64, end=32), ValueError, "start=64"),
                          (dict(start=1.5), TypeError, "start"),
                          (dict(kind="cubic"), ValueError, "kind"),
                          (dict(finetune_fraction=2), ValueError, "finetune"),
                          (dict(multiple_of=0), ValueError, "multiple_of"),
                          (dict(refresh_bn=-1), ValueError, "refresh_bn"),
                          (dict(refresh_bn="yes"), TypeError, "refresh_bn")])
def test_settings_that_make_no_sense_are_refused_at_once(settings, error, names):
    with pytest.raises(error, match=names):
        ProgressiveResize(**settings)


def test_a_start_above_the_loader_s_size_is_refused_before_training(random_photos):
    for loaders in (sized(random_photos, 16), tensors(8)):
        learn = learner(loaders)
        with pytest.raises(ValueError, match="start=20 is above end=16"):
            learn.fit(1, cbs=ProgressiveResize(20))
        assert not learn.model.fed


def test_larger_than_the_loader_can_give_is_refused():
    with pytest.raises(ValueError, match="more than the 16 pixels"):
        learner(tensors(8)).fit(1, cbs=ProgressiveResize(8, 32))


def test_batches_that_are_no_pictures_and_masks_are_refused():
    rows = [(torch.rand(5), i % 2) for i in range(8)]
    with pytest.raises(ValueError, match="batches of images"):
        learner(DataLoaders(FastaiDataLoader(rows, bs=4), FastaiDataLoader(rows, bs=4))).fit(
            1, cbs=ProgressiveResize(8)
        )
    masks = [(torch.rand(3, 8, 8), torch.zeros(8, 8)) for _ in range(8)]
    with pytest.raises(ValueError, match="masks"):
        learner(DataLoaders(FastaiDataLoader(masks, bs=4), FastaiDataLoader(masks, bs=4))).fit(
            1, cbs=ProgressiveResize(4)
        )


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

    loaders = DataLoaders(Loader(array, bs=4, create_batch=batches),
                          Loader(array, bs=4, create_batch=batches))
    learn = learner(loaders)
    learn.fit(1, cbs=ProgressiveResize(8))
    assert learn.model.seen() == size_schedule(6, 8, 16)


def test_a_trial_counts_the_pixels_that_were_really_seen(random_photos):
    technique = Technique("progressive_resizing", callbacks=lambda: [ProgressiveResize()])
    row, _ = train_trial(random_photos, technique, 0, Settings(size=16, epochs=2, batch_size=4, width=4))
    assert row["pixels"] == 4 * sum(size**2 for size in size_schedule(12, 8, 16)) and row["size"] == 16
    plain, _ = train_trial(random_photos, Technique("plain"), 0,
                           Settings(size=16, epochs=2, batch_size=4, width=4))
    assert plain["pixels"] == 4 * 12 * 16**2


# --- pictures

def test_the_picture_shows_sizes_and_cost():
    import matplotlib.pyplot as plt

    sizes = size_schedule(10, 32, 64)
    figure = plot_schedule({"growing": sizes, "full": [64] * 10})
    figure.canvas.draw()
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts == [f"{100 * pixel_share(sizes):.0f}%", "100%"]
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["growing", "full"]
    assert len(plot_schedule(sizes).axes) == 2
    for bad in ([], {}, {"none": []}):
        with pytest.raises(ValueError, match="no sizes"):
            plot_schedule(bad)
    plt.close("all")
