"""MixUp and CutMix in fastai: what is mixed, when, with whose randomness, and what is left behind."""

import copy
import pickle
import warnings

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
from fastai.losses import CrossEntropyLossFlat, MSELossFlat
from fastai.optimizer import SGD
from fastai.vision.core import TensorBBox, TensorPoint
from PIL import Image
from torch import nn

from lessonkit.images import ImageSet, image_dataloaders
from lessonkit.mixup import (
    CutMix, CutMixCollate, MixUp, mixed_loss, mixup, MixUpCollate, RandomMix, RandomMixCollate,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(n=5, height=6, width=8, seed=0):
    return torch.rand(n, 3, height, width, generator=seeded(seed))


class Net(nn.Module):
    """Keeps what it is fed; with dropout, so that global randomness matters."""

    def __init__(self, out=4):
        super().__init__()
        self.layers, self.fed = (
            nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.Dropout(0.5), nn.Linear(8, out)), []
        )

    def forward(self, x):
        self.fed.append((self.training, x.detach().clone().as_subclass(torch.Tensor)))
        return self.layers(x)


def data(n=22, bs=8, shuffle=True, y=None):
    y = torch.arange(n) % 4 if y is None else y
    x = torch.arange(1.0, n + 1)[:, None, None, None].expand(n, 3, 4, 4).clone()
    pairs = list(zip(x, y))
    return DataLoaders(FastaiDataLoader(pairs, bs=bs, shuffle=shuffle, num_workers=0),
                       FastaiDataLoader(pairs[:6], bs=4, num_workers=0))


def learner(*callbacks, loss=None, loaders=None, out=4):
    torch.manual_seed(0)
    net = Net(out)
    loaders = loaders or data()
    net(loaders.one_batch()[0])
    net.fed.clear()
    learn = Learner(loaders, net, loss_func=loss or CrossEntropyLossFlat(), opt_func=SGD, lr=0.0,
                    cbs=list(callbacks))
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
@pytest.mark.parametrize("stop",
                         [CancelFitException, CancelBatchException, KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("event", ["before_batch", "after_pred", "after_loss", "after_step"])
def test_nothing_is_left_behind_however_a_fit_ends(mix, stop, event):
    class Stop(Callback):
        order = 60

    setattr(Stop, event, lambda self: (_ for _ in ()).throw(stop("on "
                                                                 "purpose")) if self.training else None)
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
        assert sorted(partner.tolist()) == list(range(6)) and (partner != torch.arange(6)).all()


@pytest.mark.parametrize("y",
                         [torch.zeros(8, 4, 4).long(), torch.zeros(8, 1, 4, 4), torch.zeros(8, 3, 4, 4),
                          torch.zeros(8, 2, 2)])
def test_labels_that_lie_on_the_photo_are_refused_by_cutmix(y):
    """Masks stayed where they were while boxes of the photos moved; MixUp, which moves nothing, takes
    class numbers for each pixel."""
    pairs = [(torch.rand(3, 4, 4), label) for label in y]
    loaders = DataLoaders(*(FastaiDataLoader(pairs, bs=4, num_workers=0) for _ in range(2)))
    head = nn.Conv2d(3, 2, 1)
    learn = Learner(loaders, head, loss_func=CrossEntropyLossFlat(axis=1), opt_func=SGD, lr=0.0,
                    cbs=CutMix())
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    with pytest.raises(ValueError, match="Paste masks with"):
        learn.fit(1)
    if not y.is_floating_point():
        learn.remove_cb(CutMix)
        learn.add_cb(MixUp())
        learn.logger = lambda *args: None
        learn.fit(1)
        assert np.isfinite(learn.recorder.losses).all()


@pytest.mark.parametrize("kind", [TensorPoint, TensorBBox])
def test_points_and_boxes_are_refused_by_cutmix(kind):
    pairs = [(torch.rand(3, 4, 4), torch.rand(4).as_subclass(kind)) for _ in range(8)]
    def batch(items):
        return torch.stack([x for x, _ in items]), torch.stack([y for _, y in items]).as_subclass(kind)

    loaders = DataLoaders(*(FastaiDataLoader(pairs, bs=4, num_workers=0, create_batch=batch)
                            for _ in range(2)))
    learn = Learner(loaders, nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), loss_func=MSELossFlat(),
                    opt_func=SGD, lr=0.0, cbs=CutMix())
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    with pytest.raises(ValueError, match="about the whole photo"):
        learn.fit(1)


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
        learn.add_cb(type("Rows", (Callback,),
                          {"after_batch": lambda self: rows.append(self.dl.last_indices.tolist())})())
        learn.fit(2)
        seen.append(([fed for train, fed in learn.model.fed if train], rows))
    assert all(map(torch.equal, seen[0][0], seen[1][0])) and not torch.equal(
        seen[0][0][0], seen[2][0][0]
    )
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


def test_a_switch_gives_each_batch_to_one_by_chance_and_draws_like_both_beside_each_other():
    learn = learner(RandomMix([MixUp(), CutMix()], chances=[0.2, 0.8], seed=1), loaders=data(1200))
    learn.fit(1)
    pasted = [whole(fed) for train, fed in learn.model.fed if train]
    assert 0.7 < np.mean(pasted) < 0.9
    beside = learner(MixUp(seed=5), CutMix(), loaders=data(shuffle=False))
    switch = learner(RandomMix([MixUp(), CutMix()], seed=5), loaders=data(shuffle=False))
    for learn in (beside, switch):
        learn.fit(2)
    assert all(torch.equal(one[1], other[1])
               for one, other in zip(beside.model.fed, switch.model.fed, strict=True))


@pytest.mark.parametrize("callback, collate",
                         [(MixUp(seed=3), MixUpCollate(4)), (CutMix(seed=3), CutMixCollate(4)),
                          (MixUp(per_item=False, seed=3), MixUpCollate(4, per_item=False)),
                          (RandomMix([MixUp(), CutMix()], seed=3),
                           RandomMixCollate([MixUpCollate(4), CutMixCollate(4)])),
                          (RandomMix([MixUp(), CutMix()], [0.1, 0.9], seed=3),
                           RandomMixCollate([MixUpCollate(4), CutMixCollate(4)], [0.1, 0.9]))])
def test_callback_and_collate_draw_alike(callback, collate):
    """From the same seed the same batches, where the loader doesn't shuffle."""
    loaders = data(shuffle=False)
    learn = learner(callback, loaders=loaders)
    learn.fit(1)
    fed = [fed for train, fed in learn.model.fed if train]
    samples, loss = list(loaders.train.dataset), learn.recorder.losses
    torch.manual_seed(3)
    for number, batch in enumerate(fed):
        x, rows = collate(samples[8 * number : 8 * number + 8])
        assert torch.equal(x, batch) and rows.shape == (len(batch), 4)
    assert len(loss) == len(fed)


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
        # there is no CUDA to autocast for; the order of things is what counts here
        warnings.simplefilter("ignore")
        learn = learner(MixUp(), MixedPrecision(amp_mode=mode))
        learn.fit(1)
    assert np.isfinite(learn.recorder.losses).all()
    for dtype in (torch.bfloat16, torch.float16):  # and a network that is all in half precision
        x = photos().to(dtype)
        loss = mixed_loss(F.cross_entropy, nn.Linear(144, 4).to(dtype)(mixup(x, 0.3).flatten(1)),
                          torch.tensor([0, 1, 2, 3, 0]), torch.rand(5))
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
    switch = RandomMix([MixUp(0.2), CutMix()], [0.25, 0.75], seed=3)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(switch)))
    assert ([mixer.alpha for mixer in twin.mixers] == [0.2, 1.0]
            and (twin.chances, twin.seed) == ((0.25, 0.75), 3))
    for callback in (MixUp(0.2, seed=3), CutMix(per_item=False)):
        for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
            assert (twin.alpha, twin.per_item, twin.seed) == (
                callback.alpha, callback.per_item, callback.seed
            )


def test_learner_with_it_can_be_exported(photo_set, tmp_path):
    learn = learner(MixUp(), CutMix(seed=1), loaders=image_dataloaders(photo_set, 8, 8), out=2)
    learn.fit(1)
    learn.export(tmp_path / "learner.pkl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fastai warns that pickles can hold anything
        again = load_learner(tmp_path / "learner.pkl")
    assert [type(cb) for cb in again.cbs if isinstance(cb, MixUp | CutMix)] == [MixUp, CutMix]
