"""Statistics of channels are NumPy's over everything at once, whatever the batches; known faults by
name."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from fastai.data.transforms import Normalize as FastaiNormalize
from fastai.torch_core import TensorImage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from normalizing import MEAN, STD, loader, pictures

from lessonkit.images import image_dataloaders
from lessonkit.normalization import ChannelStats, Normalize, channel_stats


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 7), st.data())
@settings(max_examples=60, deadline=None)
def test_any_split_into_batches_is_numpys_result(channels, n, side, data):
    seed, scale = data.draw(st.integers(0, 2**16)), data.draw(st.sampled_from([1e-3, 1.0, 255.0, 1e6]))
    shift = data.draw(st.sampled_from([0.0, -3.0, 1e4]))
    x = np.random.default_rng(seed).normal(size=(n, channels, side, side + 1)) * scale + shift
    cuts = (sorted(data.draw(st.lists(st.integers(1, max(1, n - 1)), unique=True, max_size=n))) if n > 1
            else [])
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
    # more than one piece
    x = np.random.default_rng(0).integers(0, 256, (3, 3, 1500, 1400), dtype=np.uint8)
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
    np.testing.assert_allclose(ChannelStats().update(x).std, x.double().numpy().std((0, 2, 3)),
                               rtol=1e-12)


def test_forms_of_a_batch():
    x = pictures(5, 2, 6, 7)
    whole = ChannelStats().update(x)
    for form in (x.clone().requires_grad_(), TensorImage(x), x.numpy(), x.flip(0), x.numpy()[::-1],
                 x[..., ::1], x.movedim(1, -1).contiguous().movedim(-1, 1)):
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
        (torch.rand(4, 4), ValueError, "(..., C, H, W)"),
        (torch.rand(1, 2, 3, 4, 4), ValueError, "(N, C, H, W)"),
        (torch.rand(0, 3, 4, 4), ValueError, "empty"),
        (torch.rand(2, 0, 4, 4), ValueError, "empty"),
        (torch.rand(2, 3, 0, 4), ValueError, "empty"),
        (torch.rand(2, 4, 4, 4), ValueError, "Images of 3 and of 4 channels"),
        (torch.tensor(torch.nan).expand(2, 3, 4, 4), ValueError, "2 image(s) hold NaN"),
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
    with pytest.raises(ValueError, match="1 image"):
        stats.update(x)
    assert stats.count == 0


def test_other_refusals():
    with pytest.raises(ValueError, match="call update"):
        ChannelStats().std
    with pytest.raises(ValueError, match="of 3 and of 1 channels"):
        ChannelStats().update(pictures()) + ChannelStats().update(pictures(1, 1, 4, 4))
    with pytest.raises(TypeError):
        ChannelStats() + 1
    with pytest.raises(TypeError):
        1 + ChannelStats()


def test_stats_can_be_pickled():
    a = ChannelStats().update(pictures())
    assert torch.equal(pickle.loads(pickle.dumps(a)).std, a.std)


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
    for batches in (x, x.numpy(), [x], [(x, y)], iter([[x, y]]), (part for part in [x]), torch_loader,
                    loader()):
        assert repr(channel_stats(batches)) == expected


def test_fault_validation_photos_through_dataloaders(photo_set):
    dls = image_dataloaders(photo_set, size=40, batch_size=5, augment=False)
    np.testing.assert_allclose(channel_stats(dls).mean, channel_stats(photo_set, size=40).mean,
                               atol=1e-6)


def test_channel_stats_refusals(photo_set):
    for nothing in photo_set.take([5, 6]), [], iter([]):
        with pytest.raises(ValueError, match="nothing to count.*needs training photos.*no batch left"):
            channel_stats(nothing)
    for wrong in "folder", 3, None:
        with pytest.raises(TypeError, match="load_images"):
            channel_stats(wrong)
    for size, error in ((True, TypeError), (2.5, TypeError), ("2", TypeError), (0, ValueError),
                        (-1, ValueError)):
        with pytest.raises(error, match="batch_size=.* must be a whole number"):
            channel_stats(photo_set, batch_size=size)
    with pytest.raises(ValueError, match="loader normalizes"):
        channel_stats(loader(Normalize(MEAN, STD)))
    with pytest.raises(ValueError, match="loader normalizes"):
        channel_stats(loader(FastaiNormalize.from_stats(MEAN, STD, cuda=False)))


@pytest.mark.parametrize("shape",
                         [(4, 8, 9, 3), (8, 8, 3), (2, 32, 32, 1), (2, 16, 12, 4), (2, 20, 20, 2)])
@pytest.mark.parametrize("kind", [torch.float32, torch.uint8])
def test_fault_channels_last_are_counted_as_rows(shape, kind):
    """With the channels last, each row of pixels would get a mean of its own."""
    x = torch.zeros(shape, dtype=kind)
    for form in x, x.numpy(), [x], [(x, torch.zeros(len(x)))], iter([x.numpy()]):
        with pytest.raises(ValueError, match="channels seem to come last.*movedim"):
            channel_stats(form)
    stats = channel_stats(x.movedim(-1, -3))
    assert stats.n_channels == shape[-1] and stats.count == x[..., 0].numel()


@pytest.mark.parametrize("shape",
                         [(2, 3, 8, 3), (2, 1, 8, 1), (2, 13, 4, 4), (2, 5, 3, 4), (2, 12, 1, 1),
                          (4, 3, 4)])
def test_channels_first_are_counted_whatever_the_width(shape):
    assert channel_stats(torch.zeros(shape)).n_channels == shape[-3]
