"""Normalize in fastai's loaders: never twice, never lost, undone for drawing, left alone by fastai's
learner."""

import copy
import pickle
import warnings

import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.data.transforms import Normalize as FastaiNormalize
from fastai.torch_core import TensorImage
from torchvision.transforms import v2

from normalizing import MEAN, STD, loader, pictures

from lessonkit.images import image_dataloaders
from lessonkit.normalization import Normalize, channel_stats, normalize, show_normalized


def peer():
    return FastaiNormalize.from_stats(MEAN, STD, cuda=False)


def mine():
    return Normalize(MEAN, STD)


def test_fault_normalized_twice_given_to_the_loader():
    for first, second in (mine(), mine()), (peer(), mine()):
        with pytest.raises(ValueError, match="normalizes 2 times"):
            loader(first, second)
    same = mine()
    with pytest.raises(ValueError, match="normalizes 2 times"):
        loader(same, same)
    with pytest.raises(ValueError, match="normalizes 2 times"):
        loader(mine(), peer()).one_batch()  # fastai's doesn't look; ours does at the first batch


@pytest.mark.parametrize("first, added", [(mine, mine), (mine, peer)])
def test_fault_normalized_twice_added_later(first, added):
    dls = DataLoaders(loader(first()), loader())
    dls.add_tfms([added()], "after_batch")
    with pytest.raises(ValueError, match="normalizes 2 times"):
        dls.train.one_batch()
    assert dls.valid.one_batch()[0].min() < 0  # one there, as it should be


@pytest.mark.parametrize("given, added",
                         [((), (mine, mine)), ((), (mine, peer)), ((), (peer, mine)),
                          ((peer,), (mine,))])
def test_fault_normalized_twice_both_added_later(given, added):
    """fastai tells a transform that is added later nothing about its loader, but the values tell that it
    is the second."""
    dls = DataLoaders(loader(*[make() for make in given]), loader())
    for make in added:
        dls.add_tfms([make()], "after_batch")
    with pytest.warns(UserWarning, match="by a second transform"):
        dls.train.one_batch()


def test_fault_torchvisions_beside_ours():
    with pytest.raises(ValueError, match="normalizes 2 times"):
        loader(v2.Normalize(MEAN, STD), mine())


def test_twice_by_hand_warns():
    x = pictures()
    with pytest.warns(UserWarning, match="normalized before"):
        mine()(normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with pytest.warns(UserWarning, match="divide them by 255"):
        mine()(x * 255)
    with pytest.warns(UserWarning, match="another scale"):
        Normalize([120.0] * 3, [60.0] * 3)(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine()(x)
        mine()(x * 1.2 - 0.1)  # a little over- and undershoot, as from bicubic resizing
        Normalize([120.0] * 3, [60.0] * 3)(x * 255)
        Normalize([-40.0] * 3, [10.0] * 3)(x * 80 - 80)  # decibels
        Normalize([0.0] * 3, [1 / 255] * 3)(x)


def test_fault_not_normalized_after_the_loaders_were_replaced(photo_set):
    """Progressive resizing: another size, a new loader, new photos; one Normalize each, the same
    numbers."""
    stats = channel_stats(photo_set, size=16)
    dls = image_dataloaders(photo_set, size=16, batch_size=5, augment=False, normalize=Normalize(stats))
    plain = image_dataloaders(photo_set, size=16, batch_size=5, augment=False)
    for size in 16, 24:
        dls.train.size = plain.train.size = size
        torch.testing.assert_close(dls.train.one_batch()[0],
                                   Normalize(stats)(plain.train.one_batch()[0]))
    for dl in (dls.valid.new(bs=2), dls.train.new(shuffle=False), dls.valid.new(dls.valid.dataset),
               dls.test_dl(photo_set.paths)):
        assert len([t for t in dl.after_batch.fs if isinstance(t, Normalize)]) == 1
        assert dl.one_batch()[0].min() < -0.5


def test_moves_with_the_loader():
    tfm = mine()
    dl = loader(tfm)
    dl.to("meta")
    assert tfm.mean.device.type == tfm.std.device.type == "meta"
    dl = loader(tfm := mine())
    dl.to("cpu")
    dl.to(None)
    assert tfm.mean.device.type == "cpu" and dl.one_batch()[0].device.type == "cpu"
    for call in mine(), lambda x: normalize(x, MEAN, STD):  # batches from elsewhere work, too
        assert call(pictures().to("meta")).device.type == "meta"


def test_fault_drawn_without_undoing():
    x = pictures()
    x[0], x[1] = 0, 1  # black and white
    for kind in torch.float32, torch.float16, torch.bfloat16:
        dl = loader(mine(), x=x.to(kind))
        batch = dl.one_batch()
        back = dl.decode(batch)[0]
        torch.testing.assert_close(back.as_subclass(torch.Tensor), x.to(kind),
                                   atol=2 * torch.finfo(kind).eps, rtol=0)
        assert back.min() >= 0 and back.max() <= 1  # no "clipping" warnings


def test_show_batch(photo_set):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    dls = image_dataloaders(photo_set, size=16, batch_size=5,
                            normalize=Normalize(channel_stats(photo_set, size=16)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        dls.show_batch()
    drawn = plt.gcf().axes[0].images[0].get_array()
    assert 0 <= drawn.min() and drawn.max() <= 1
    plt.close("all")


def test_order_after_augmentation_and_repr():
    from fastai.vision.augment import Flip

    dl = loader(mine(), Flip())
    assert isinstance(dl.after_batch.fs[-1], Normalize) and Normalize.order > FastaiNormalize.order
    assert (repr(mine()) == "Normalize(mean=[0.1, 0.5, 0.7], std=[0.2, 0.3, 0.4])"
            and repr(mine()) in repr(dl.after_batch))


def test_vision_learner_adds_no_second_one():
    from fastai.vision.learner import _add_norm

    dls = DataLoaders(loader(mine()), loader(mine()))
    _add_norm(dls, {"stats": (MEAN, STD)}, pretrained=True)
    dls.train.one_batch()
    assert len([t for t in dls.train.after_batch.fs if isinstance(t, FastaiNormalize)]) == 1


def test_one_that_knows_its_loader_is_copied_and_pickled_without_it():
    tfm = mine()
    dl = loader(tfm)
    for again in copy.deepcopy(tfm), pickle.loads(pickle.dumps(tfm)):
        assert torch.equal(again(pictures()), tfm(pictures()))
    assert pickle.loads(pickle.dumps(dl)).one_batch()[0].min() < 0


def test_nothing_reads_its_callers_frames():
    import inspect

    from lessonkit import normalization
    from lessonkit.foundation import pipelines

    assert "_getframe" not in inspect.getsource(normalization) + inspect.getsource(pipelines)


def test_show_normalized():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    before = pictures(2, 3, 16, 16)
    for x, how in ((before, mine()), (TensorImage(before), mine()), (before[0], mine()),
                   (pictures(2, 1, 16, 16), Normalize(0.5, 0.2))):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure = show_normalized(x, how)
        assert len(figure.axes) == 4 * (1 if x.ndim == 3 else len(x))
        plt.close(figure)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        show_normalized(pictures(1, 2, 8, 8), Normalize([0.5] * 2, [0.2] * 2))
