"""Normalizing is torchvision's and fastai's arithmetic, in every precision, for batches and as a layer;
known faults by name."""

import copy
import pickle
import warnings
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.data.core import TfmdDL
from fastai.data.transforms import Normalize as FastaiNormalize
from fastai.torch_core import TensorCategory, TensorImage, TensorImageBW, TensorMask, TensorMultiCategory
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms import v2

from lessonkit.foundation.models import small_resnet
from lessonkit.normalization import ChannelStats, Normalize, Stats, denormalize, normalize


MEAN, STD = [0.1, 0.5, 0.7], [0.2, 0.3, 0.4]


def pictures(*shape, seed=0):
    """Floats from 0 to 1."""
    return torch.rand(*(shape or (4, 3, 8, 8)), generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the arithmetic


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
            with pytest.raises(ValueError, match=r"channel\(s\), not 3"):
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
    # whichever of fastai's two ways somebody takes
    assert torch.equal(Normalize(MEAN, STD).encodes(x), y)
    torch.testing.assert_close(Normalize(MEAN, STD).decodes(y), x)
    torch.testing.assert_close(y.as_subclass(torch.Tensor),
                               normalize(x.as_subclass(torch.Tensor).contiguous(), MEAN, STD))
    assert type(Normalize(MEAN, STD)(x.as_subclass(torch.Tensor))) is torch.Tensor


@given(st.integers(1, 9), st.sampled_from([1, 3]), st.integers(1, 5), st.integers(1, 5),
       st.sampled_from([torch.float16, torch.float32, torch.float64]))
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


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 4, 4), (2, 3, 4, 4), (2, 5, 1, 1)])
def test_a_plain_number_holds_for_every_channel(shape):
    x = torch.rand(shape)
    expected = (x - 0.5) / 0.25
    for change in Normalize(0.5, 0.25), Normalize(torch.tensor(0.5),
                                                  np.float64(0.25)), lambda x: normalize(x, 0.5, 0.25):
        torch.testing.assert_close(change(x), expected)
    torch.testing.assert_close(denormalize(expected, 0.5, 0.25), x)
    last = x.movedim(-3, -1).contiguous().movedim(-1, -3)
    torch.testing.assert_close(normalize(last, 0.5, 0.25), expected)
    mixed = normalize(torch.rand(2, 3, 4, 4), 0.5, STD)  # one mean, a std for each channel
    assert mixed.shape == (2, 3, 4, 4)


# ---------------------------------------------------------------- in a batch


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
        torch.testing.assert_close(out[0].as_subclass(torch.Tensor), normalize(x, MEAN, STD), atol=0,
                                   rtol=0)
        back = Normalize(MEAN, STD).decode(out)
        assert back[1] is target
        torch.testing.assert_close(back[0].as_subclass(torch.Tensor), x, atol=1e-6, rtol=1e-6)


def test_two_pictures_in_a_batch():
    a, b = pictures(), pictures(seed=1)
    (x1, x2), y = Normalize(MEAN, STD)(((TensorImage(a), TensorImage(b)),
                                        TensorCategory(torch.arange(4))))
    assert torch.equal(torch.Tensor(x2), normalize(b, MEAN, STD))
    assert torch.equal(torch.Tensor(x1), normalize(a, MEAN, STD))


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
    with pytest.raises(TypeError, match="Found no images"):
        Normalize(MEAN, STD)(batch)


def test_plain_tensor_is_normalized_though_fastai_leaves_it():
    x = pictures()
    assert torch.equal(FastaiNormalize.from_stats(MEAN, STD, cuda=False)(x), x)
    assert torch.equal(Normalize(MEAN, STD)(x), normalize(x, MEAN, STD))
    plain = TfmdDL(list(zip(x, torch.arange(4))), bs=4, num_workers=0,
                   after_batch=[Normalize(MEAN, STD)])
    out, labels = plain.one_batch()
    assert torch.equal(out, normalize(x, MEAN, STD)) and labels.tolist() == [0, 1, 2, 3]


def test_fault_training_set_alone():
    for split_idx in (None, 0, 1):
        x = TensorImage(pictures())
        assert not torch.equal(Normalize(MEAN, STD)(x, split_idx=split_idx), x)


# ---------------------------------------------------------------- refused at construction and at the
# call


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
        (["0.1", "0.5", "0.7"], STD, TypeError, "must be numbers"),
        ([True] * 3, STD, TypeError, "must be numbers"),
        (torch.zeros(3, dtype=torch.complex64), STD, TypeError, "must be numbers"),
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
    # what the message suggests
    assert torch.isfinite(Normalize(x.mean((0, 2, 3)), [0.3, 0.3, 1.0])(x)).all()


def test_tiny_but_true_spread_is_fine():
    x = pictures().double() * 1e-9
    assert torch.isfinite(normalize(x, ChannelStats().update(x))).all()


def test_fault_one_channel_photos_with_three_channel_statistics():
    for x in pictures(4, 1, 8, 8), TensorImage(pictures(4, 1, 8, 8)), pictures(1, 8, 8):
        with pytest.raises(ValueError, match=r"1 channel\(s\), not 3"):
            Normalize(MEAN, STD)(x)
        with pytest.raises(ValueError, match=r"1 channel\(s\), not 3"):
            normalize(x, MEAN, STD)
    with pytest.raises(ValueError, match=r"3 channel\(s\), not 1"):
        Normalize([0.5], [0.2])(pictures())
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
    with pytest.raises(ValueError, match=r"\(\.\.\., C, H, W\)"):
        Normalize(MEAN, STD)(torch.rand(3, 8))


@pytest.mark.parametrize("shape, channels",
                         [((2, 3, 1, 1), 1), ((3, 1, 1), 1), ((2, 1, 1, 3), 3), ((2, 1, 8, 3), 3),
                          ((2, 3, 8, 1), 1)])
def test_fault_channels_are_called_last_because_of_a_width(shape, channels):
    """One pixel is 1 wide: that says nothing about where the channels are, and moving dimensions would
    help nobody."""
    for call in (lambda x: normalize(x, [0.5] * channels, [0.2] * channels)), Normalize(
        [0.5] * channels, [0.2] * channels
    ):
        with pytest.raises(ValueError, match=rf"not {channels}: convert the images") as caught:
            call(torch.rand(shape))
        assert "movedim" not in str(caught.value)


def test_decode_undoes_anything():
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(Normalize(MEAN, STD).decode(Normalize(MEAN, STD)(x)), x)


def test_copy_and_pickle():
    tfm = Normalize(MEAN, STD)
    for again in copy.deepcopy(tfm), pickle.loads(pickle.dumps(tfm)):
        assert torch.equal(again(pictures()), tfm(pictures())) and repr(again) == repr(tfm)


# ---------------------------------------------------------------- a layer of PyTorch


def test_a_model_carries_its_statistics():
    x, net = pictures(), nn.Sequential(Normalize(MEAN, STD), nn.Conv2d(3, 2, 3), nn.Flatten())
    torch.testing.assert_close(net(x), net[1:](normalize(x, MEAN, STD)))
    state = net.state_dict()
    assert state["0.mean"].flatten().tolist() == MEAN and state["0.std"].flatten().tolist() == STD
    other = nn.Sequential(Normalize([0.5] * 3, [0.5] * 3), nn.Conv2d(3, 2, 3), nn.Flatten())
    other.load_state_dict(state)
    assert torch.equal(other(x), net(x))
    assert [name for name, _ in net.named_parameters()] == ["1.weight", "1.bias"]  # they aren't trained
    assert list(Normalize(MEAN, STD).parameters()) == []
    seen = []
    net[0].register_forward_hook(lambda module, given, out: seen.append(out))
    net(x)
    assert len(seen) == 1


def test_statistics_move_with_the_model_and_keep_their_digits():
    net = nn.Sequential(Normalize(MEAN, STD), nn.Conv2d(3, 2, 3)).half()
    assert net[1].weight.dtype == torch.float16 and net[0].mean.flatten().tolist() == MEAN
    assert torch.equal(net[0](pictures()), normalize(pictures(), MEAN, STD))
    assert net.to("meta")[0].std.device.type == "meta"


def devices():
    found = [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available()
    return found + [torch.device("mps")] * torch.backends.mps.is_available()


@pytest.mark.parametrize("device", devices(), ids=str)
@pytest.mark.parametrize("mean, std", [(MEAN, STD), (0.5, 0.25), (0.5, STD)],
                         ids=["a number a channel", "plain numbers", "mixed"])
def test_one_photo_or_a_batch_through_a_model_on_any_device(mean, std, device):
    x, layer = pictures(), Normalize(mean, std)
    expected = (x - torch.tensor(mean).reshape(-1, 1, 1)) / torch.tensor(std).reshape(-1, 1, 1)
    model = nn.Sequential(layer, nn.Identity()).to(device)
    assert layer.mean.device.type == layer.std.device.type == device.type
    torch.testing.assert_close(model(x.to(device)).cpu(), expected)
    torch.testing.assert_close(model(x[0].to(device)).cpu(), expected[0])
    again = nn.Sequential(Normalize(mean, np.multiply(std, 2)), nn.Identity())
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(x), expected)


def test_torch_export_and_compile():
    x, tfm = pictures(), Normalize(MEAN, STD)
    expected = normalize(x, MEAN, STD)
    for module in tfm, nn.Sequential(tfm, small_resnet(10, width=4)).eval():
        for strict in True, False:
            exported = torch.export.export(module, (x,), strict=strict).module()
            torch.testing.assert_close(exported(x), module(x))
    whole = {"fullgraph": True, "backend": "eager"}
    stats = Stats(tuple(MEAN), tuple(STD))
    for call in (
        lambda x: normalize(x, MEAN, STD),
        lambda x: normalize(x, torch.tensor(MEAN), torch.tensor(STD)),
        lambda x: normalize(x, stats),
        tfm,
        lambda x: tfm((x, 0))[0],
    ):
        torch.testing.assert_close(torch.compile(call, **whole)(x), expected)
    back = torch.compile(lambda x: denormalize(x, 0.5, 0.25), **whole)
    torch.testing.assert_close(back(x), x * 0.25 + 0.5)
    with pytest.raises(Exception, match="not 3"):
        torch.compile(lambda x: normalize(x, MEAN, STD), **whole)(pictures(2, 1, 4, 4))


def test_values_that_arent_known_are_not_looked_at():
    x, tfm = pictures(), Normalize(MEAN, STD)
    each = torch.func.vmap(tfm)(x * 255)  # and no warning about the scale
    torch.testing.assert_close(each, normalize(x * 255, MEAN, STD))
    grad = torch.func.grad(lambda x: tfm(x).sum())(x)
    torch.testing.assert_close(grad[0, :, 0, 0], 1 / torch.tensor(STD))
    with FakeTensorMode() as mode:
        assert Normalize(MEAN, STD)(mode.from_tensor(x)).shape == x.shape
