"""Batches resized: proportions kept, equal to `F.interpolate`."""


import pytest
import torch
import torch.nn.functional as F
from fastai.callback.schedule import lr_find  # noqa: F401  gives Learner its lr_find, fine_tune and fit_one_cycle
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonkit.foundation.batch_transforms import (
    Augment, corner_crop, crop_photos, crops_of_photos, flip_batch, random_crops, random_resized_crop,
    resize_batch,
)


@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 50),
       dtype=st.sampled_from(["float32", "uint8", "float64"]))
@settings(deadline=None, max_examples=150)
def test_batches_keep_their_proportion_and_equal_interpolate(height, width, size, dtype):
    x = (torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255).to(
        getattr(torch, dtype)
    )
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
        exact = F.interpolate(x.double().mT.contiguous(), small.shape[:1:-1], mode="bilinear",
                              antialias=True).mT
    torch.testing.assert_close(small.double(), exact, rtol=0, atol=1.01 if dtype == "uint8" else 1e-3)
    if dtype != "uint8" and small.shape[-1] > 1:
        assert torch.equal(small, F.interpolate(x, small.shape[-2:], mode="bilinear", antialias=True))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("sides", [(5, 9), (9, 5), (30, 4), (1, 7), (7, 1)])
def test_height_and_width_may_be_given(dtype, sides):
    x = (torch.rand(3, 3, 12, 20, generator=torch.Generator().manual_seed(0)) * 255).to(dtype)
    exact = F.interpolate(x.double(), sides, mode="bilinear", antialias=True)
    if sides[1] == 1:  # PyTorch is right for a single row, and wrong for a single column
        exact = (
            F.interpolate(x.double().mT.contiguous(), sides[::-1], mode="bilinear", antialias=True).mT
        )
    atol = 1.01 if dtype == torch.uint8 else 1e-3
    for given_sides in (sides, list(sides)):
        small = resize_batch(x, given_sides)
        assert small.shape == (3, 3, *sides) and small.dtype == dtype
        torch.testing.assert_close(small.double(), exact, rtol=0, atol=atol)
    crops = random_crops(torch.full((3,), 20 / 12), Augment(), torch.Generator().manual_seed(1))
    out = random_resized_crop(x, crops, sides)
    assert out.shape == (3, 3, *sides) and out.dtype == dtype
    for photo, top, left, height, width, flipped, cut in zip(x, *(part.tolist() for part in crops), out):
        height, width = max(round(height * 12), 1), max(round(width * 20), 1)
        top, left = min(round(top * 12), 12 - height), min(round(left * 20), 20 - width)
        part = resize_batch(photo[None, :, top : top + height, left : left + width], sides)[0]
        torch.testing.assert_close(cut.double(), (part.flip(-1) if flipped else part).double(), rtol=0,
                                   atol=atol)


@pytest.mark.parametrize("size, error",
                         [((8, 0), ValueError), ((8,), ValueError), ((8, 8, 8), ValueError),
                          ((8, 2.5), TypeError), ("8", TypeError)])
def test_what_is_no_size_is_refused(size, error):
    x, crops = torch.rand(1, 3, 8, 8), random_crops(torch.ones(1), Augment(),
                                                    torch.Generator().manual_seed(0))
    for resize in (lambda: resize_batch(x, size), lambda: random_resized_crop(x, crops, size)):
        with pytest.raises(error, match="whole number of pixels"):
            resize()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_batches_are_resized(dtype):
    x = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    small = resize_batch(x.to(dtype), 8)
    assert small.dtype == dtype and small.shape == (2, 3, 8, 12)
    torch.testing.assert_close(small.float(), resize_batch(x, 8), atol=0.01, rtol=0.01)


def test_random_choices_are_made_on_the_cpu_whatever_the_default_device_is():
    """Fault: numbers from a CPU generator asked for on another device (`torch.set_default_device`)."""
    x, proportions = torch.rand(5, 3, 12, 12), torch.ones(5)

    def everything():
        crops = random_crops(proportions, Augment(), torch.Generator("cpu").manual_seed(0))
        cut = random_resized_crop(x, crops, 8), random_resized_crop((x * 255).byte(), crops, 8)
        return [*crops, *cut, crop_photos(x, 250, 0, 1, Augment()), corner_crop(x, 7 / 8, 0, 1),
                flip_batch(x, crops.flipped)]

    with torch.device("meta"):
        found = everything()
    expected = everything()
    assert all(torch.equal(one, other) for one, other in zip(found, expected))


def test_a_photo_s_crop_depends_on_its_place_alone():
    whole = crops_of_photos(range(600), 1.5, 3, 2, Augment())
    part = crops_of_photos(range(200, 530), 1.5, 3, 2, Augment())
    assert all(torch.equal(one[200:530], other) for one, other in zip(whole, part))
    others = crops_of_photos(range(600), 1.5, 3, 1, Augment()), crops_of_photos(
        range(600), 1.5, 4, 2, Augment()
    )
    assert not any(torch.equal(whole.top, other.top) for other in others)
