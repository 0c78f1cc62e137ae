"""Resizing beside Pillow and torchvision; normalization beside torchvision and NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from lessonkit.foundation.batch_transforms import Crops, random_resized_crop, resize_batch
from lessonkit.normalization import channel_stats, denormalize, normalize
from lessonkit.photos.photo_cache import fit_photo

QUICK = settings(deadline=None, derandomize=True, max_examples=50)
BILINEAR = InterpolationMode.BILINEAR


@st.composite
def bytes_(draw, least=1):
    """Photos of any shape, uint8, (N, 3, H, W), in either memory format."""
    shape = draw(st.integers(1, 5)), 3, draw(st.integers(least, 40)), draw(st.integers(least, 40))
    x = torch.randint(256, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**16))),
                      dtype=torch.uint8)
    return x.contiguous(
        memory_format=draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    )


def pillow(photo, size):
    """Pillow's bilinear filter, (3, H, W) uint8 to (3, *size)."""
    picture = Image.fromarray(photo.permute(1, 2, 0).contiguous().numpy())
    return torch.from_numpy(np.array(picture.resize(size[::-1],
                                                    Image.Resampling.BILINEAR))).permute(2, 0, 1)


@QUICK
@given(bytes_(), st.integers(1, 48))
def test_resized_batches_are_pillows_to_a_step_and_torchvisions(x, size):
    mine = resize_batch(x, size)
    for photo, whole in zip(mine, x):
        assert (photo.int() - pillow(whole, tuple(mine.shape[-2:])).int()).abs().max() <= 1
    floats = x.float() / 255
    assert mine.dtype == torch.uint8 and (resize_batch(floats, size) * 255 - mine).abs().max() <= 1.01
    if mine.shape[-1] > 1:  # else torchvision is wrong: see below
        torch.testing.assert_close(resize_batch(floats, size),
                                   tv.resize(floats, list(mine.shape[-2:]), BILINEAR, antialias=True))


@QUICK
@given(bytes_(), st.integers(1, 48), st.sampled_from(["crop", "squish"]))
def test_fitted_photos_are_torchvisions(x, size, fit):
    photo = x[0]
    mine = fit_photo(Image.fromarray(photo.permute(1, 2, 0).contiguous().numpy()), size, fit).astype(int)
    if fit == "crop":
        side = min(photo.shape[-2:])
        top, left = ((length - side) // 2 for length in photo.shape[-2:])
        photo = photo[:, top : top + side, left : left + side]
    theirs = tv.resize(photo[None].float() / 255, [size, size], BILINEAR,
                       antialias=True)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(mine - theirs).max() <= 1.01


@pytest.mark.parametrize("shape, place",
                         [((40, 20), (slice(None), slice(4, 12))),
                          ((20, 40), (slice(4, 12), slice(None)))])
def test_padded_photos_lie_in_the_middle_of_black(shape, place):
    photo = torch.randint(1, 256, (3, *shape), generator=torch.Generator().manual_seed(0),
                          dtype=torch.uint8)
    mine = fit_photo(Image.fromarray(photo.permute(1, 2, 0).contiguous().numpy()), 16, "pad")
    inside = pillow(photo, tuple(16 * side // 40 for side in shape)).permute(1, 2, 0).numpy()
    assert (mine[place] == inside).all() and mine.sum() == inside.sum()


@QUICK
@given(bytes_(4), st.integers(1, 30), st.data())
def test_crops_are_torchvisions_resized_crop(x, size, data):
    n, (height, width) = len(x), x.shape[-2:]
    boxes = []
    for _ in range(n):
        tall, wide = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
        boxes.append((data.draw(st.integers(0, height - tall)), data.draw(st.integers(0, width - wide)),
                      tall, wide))
    top, left, tall, wide = torch.tensor(boxes, dtype=torch.float64).T
    mirrored = torch.arange(n) % 2 == 1
    crops = Crops(top / height, left / width, tall / height, wide / width, mirrored)
    floats = x.float() / 255
    for mine, steps in ((random_resized_crop(floats, crops, size), 1e-4),
                        (random_resized_crop(x, crops, size).float() / 255, 1.01 / 255)):
        for i, box in enumerate(boxes):
            theirs = tv.resized_crop(floats[i : i + 1], *box, [size, size], BILINEAR, antialias=True)[0]
            assert (mine[i] - (theirs.flip(-1) if mirrored[i] else theirs)).abs().max() <= steps


@pytest.mark.against(ours="normalize", theirs="torchvision v2.functional.normalize")
@QUICK
@given(bytes_(), st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
def test_normalization_is_torchvisions_and_numpys(x, dtype):
    pictures = (x.double() / 255).to(dtype)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    mine = normalize(pictures, mean, std)
    exact = (pictures.double().numpy() - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(mine.double().numpy(), exact, rtol=2 * eps, atol=4 * eps)
    torch.testing.assert_close(mine, tv.normalize(pictures, mean, std), rtol=8 * eps, atol=8 * eps)
    assert mine.stride() == pictures.stride() and mine.dtype == dtype
    np.testing.assert_allclose(denormalize(mine, mean, std).double().numpy(), pictures.double().numpy(),
                               rtol=4 * eps, atol=4 * eps)


@pytest.mark.against(ours="channel_stats", theirs="NumPy mean and std")
@QUICK
@given(bytes_(2), st.integers(1, 5))
def test_statistics_are_numpys(x, parts):
    stats = channel_stats([part for part in x.tensor_split(parts) if len(part)])
    exact = x.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(stats.mean, exact.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(stats.std, exact.std((0, 2, 3)), rtol=1e-9, atol=1e-12)


@pytest.mark.differs(
    library="PyTorch", there="interpolate reduces photos without antialiasing unless asked",
    here="always antialiased, as Pillow does",
    why="fine lines turn into patterns that weren't there (torchvision 2950)",
)
def test_pytorchs_resize_without_antialiasing_is_another_picture():
    """Reducing on a tensor without antialiasing (torchvision 2950): lines of one pixel; Pillow says
    their mean is grey."""
    lines = (torch.arange(64) % 2 * 255).byte().expand(1, 3, 64, 64).contiguous()
    exact = pillow(lines[0], (24, 24)).int()
    assert (resize_batch(lines, 24)[0].int() - exact).abs().max() <= 1
    plain = torch.nn.functional.interpolate(lines.float(), (24, 24), mode="bilinear")[0]
    assert (plain - exact).abs().max() > 60


@pytest.mark.differs(
    library="PyTorch", there="antialiased, a photo that shrinks to one column loses its rows",
    here="Pillow's result",
    why="a long photo at a small size is still a photo",
)
@pytest.mark.parametrize("kind", [torch.uint8, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_photos_that_shrink_to_a_column_keep_their_rows(size, kind):
    """PyTorch makes all rows equal where a single column comes out of floats, and fails on bytes; Pillow
    is right."""
    x = torch.randint(256, (2, 3, 30, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mine = resize_batch(x.to(kind), size)
    exact = torch.stack([pillow(photo, tuple(mine.shape[-2:])) for photo in x])
    assert (mine.double() - exact.double()).abs().max() <= 1.01
    if size == 1 and kind == torch.float32:
        theirs = torch.nn.functional.interpolate(x.float(), (3, 1), mode="bilinear", antialias=True)
        assert (theirs - exact).abs().max() > 5  # else PyTorch has mended it: simplify _interpolate
