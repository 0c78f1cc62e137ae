"""Views and merging: equal to torchvision, SciPy and fastai; hostile input; each known fault by name."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.progress import no_bar  # noqa: F401  gives Learner its no_bar
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gmean
from torchvision.transforms import v2
from tta_helpers import ALL_VIEWS, network, photos, probabilities, seeded

from lessonkit.foundation.batch_transforms import Augment, crops_of_photos, random_resized_crop
from lessonkit.tta import (
    MERGES, View, corner_crops, five_crop, flip, merge_views, product, quarter_turns, random_views,
    scales, tta, vertical_flip, view_spread,
)


# --- views

@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: view.name)
@pytest.mark.parametrize("shape", [(5, 3, 9, 9), (1, 3, 7, 12), (3, 1, 10, 4), (2, 4, 1, 1)])
def test_views_of_any_batch_are_batches_and_the_photos_stay(view, shape):
    x = torch.rand(shape, generator=seeded())
    kept = x.clone()
    seen = view(x)
    assert seen.shape[:2] == x.shape[:2] and seen.dtype == x.dtype and torch.equal(x, kept)
    assert "px" in view.name or seen.shape == x.shape or (
        "turned" in view.name and seen.shape == x.mT.shape
    )
    assert 0 <= seen.min() and seen.max() <= 1 + 1e-5
    assert seen.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: view.name)
def test_a_photo_of_one_colour_looks_the_same_in_every_view(view):
    x = torch.tensor([0.2, 0.5, 0.9])[None, :, None, None].expand(2, 3, 11, 8)
    torch.testing.assert_close(view(x).amin((2, 3)), x[..., 0, 0])
    torch.testing.assert_close(view(x).amax((2, 3)), x[..., 0, 0])


def test_flip_mirrors_left_and_right():
    assert [view.name for view in flip] == ["mirrored"]
    assert torch.equal(flip[0](torch.tensor([[[[1.0, 2, 3], [4, 5, 6]]]])),
                       torch.tensor([[[[3.0, 2, 1], [6, 5, 4]]]]))


def test_upside_down_and_quarter_turns_move_pixels_only():
    x = torch.tensor([[[[1.0, 2, 3], [4, 5, 6]]]])
    assert [view.name for view in (*vertical_flip, *quarter_turns)] == [
        "upside down", "turned 90°", "turned 180°", "turned 270°"
    ]
    upside_down, *turned = (view(x)[0, 0].tolist() for view in (*vertical_flip, *quarter_turns))
    assert upside_down == [[4, 5, 6], [1, 2, 3]]
    # against the clock
    assert turned == [[[3, 6], [2, 5], [1, 4]], [[6, 5, 4], [3, 2, 1]], [[4, 1], [5, 2], [6, 3]]]


@pytest.mark.parametrize("height, width", [(16, 16), (17, 17), (9, 16), (31, 8)])
def test_five_crop_is_torchvision_s(height, width):
    x = photos(3, height, width)
    cut = [round(side * 7 / 8) for side in (height, width)]
    theirs = dict(zip(["top left", "top right", "bottom left", "bottom right", "center"],
                      v2.functional.five_crop(x, cut)))
    for view in five_crop:
        exact = v2.functional.resize(theirs[view.name], [height, width], antialias=True)
        torch.testing.assert_close(view(x), exact)


def test_five_crop_of_all_is_the_photo_and_other_shares_are_refused():
    for view in corner_crops(1):
        torch.testing.assert_close(view(photos()), photos())
    for share in (0, -0.5, 1.01, float("nan")):
        with pytest.raises(ValueError, match="share"):
            corner_crops(share)


@pytest.mark.parametrize("size", [4, 9, 20])
def test_scales_are_antialiased_resizing(size):
    view, = scales(size)
    torch.testing.assert_close(view(photos()),
                               F.interpolate(photos(), [size, size], mode="bilinear", antialias=True))
    assert view.name == f"{size} px" and min(view(photos(2, 8, 16)).shape[-2:]) == size
    view, = scales((size, 7))
    torch.testing.assert_close(view(photos()),
                               F.interpolate(photos(), [size, 7], mode="bilinear", antialias=True))
    assert view.name == f"{size} × 7 px"


def test_scales_refuse_what_is_no_size():
    for size, error in ((0, ValueError), (-3, ValueError), (2.5, TypeError), (True, TypeError),
                        ("32", TypeError),
                        ((8, 0), ValueError), ((8, 2.5), TypeError), ((8, 8, 8), ValueError),
                        ((8,), ValueError)):
        with pytest.raises(error, match="whole number of pixels"):
            scales(32, size)
    assert scales() == ()


@given(first=st.integers(0, 600), n=st.integers(1, 300), seed=st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_a_photo_s_random_views_depend_on_its_place_alone(first, n, seed):
    x = photos(1, 6, 6).expand(900, 3, 6, 6)  # the same photo everywhere: only the crops differ
    view = random_views(2, seed)[1]
    torch.testing.assert_close(view(x[:n], first), view(x)[first : first + n])


def test_random_views_differ_between_photos_views_and_seeds_and_repeat():
    x = photos(1, 90, 90).expand(40, 3, 90, 90)
    views = random_views(3)
    seen = torch.stack([view(x) for view in views])
    assert len({tuple(picture.flatten().tolist()) for picture in seen.flatten(0, 1)}) == 120
    assert torch.equal(seen, torch.stack([view(x) for view in random_views(3)]))
    assert torch.equal(seen[:2], torch.stack([view(x) for view in random_views(2)]))  # the first of many
    assert not torch.equal(seen, torch.stack([view(x) for view in random_views(3, seed=1)]))


def test_random_views_leave_the_global_random_state_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    random_views(2)[1](photos())
    assert (torch.equal(before[0], torch.get_rng_state())
            and (before[1] == np.random.get_state()[1]).all())


@pytest.mark.parametrize("size", [1, 8, 31, 64])
def test_random_views_are_training_s_crops(size):
    for number, augment in enumerate((Augment(), Augment(0.1, 2, 0.5), Augment(1, 1, 1))):
        crops = crops_of_photos(range(300, 307), 1, 5, number, augment)
        seen = random_views(3, seed=5, augment=augment)[number](photos(7, size, size), 300)
        torch.testing.assert_close(seen, random_resized_crop(photos(7, size, size), crops, size),
                                   atol=2e-5, rtol=1e-4)


def test_random_views_of_a_longer_photo_are_crops_stretched_back():
    x, crops = photos(6, 20, 50), crops_of_photos(range(6), 2.5, 0, 0, Augment())
    for i, seen in enumerate(random_views(1)[0](x)):
        top, left, height, width = ((share[i] * side).round().int()
                                    for share, side in zip(crops[:4], (20, 50) * 2))
        part = x[i : i + 1, :, top : top + height, left : left + width]
        exact = F.interpolate(part.flip(-1) if crops.flipped[i] else part, (20, 50), mode="bilinear",
                              antialias=True)[0]
        torch.testing.assert_close(seen, exact, atol=2e-5, rtol=1e-4)


def test_random_views_are_as_strong_as_asked():
    steps = torch.arange(40.0)
    x = torch.stack([steps[:, None].expand(40, 40), steps[None].expand(40, 40)])[None].expand(300, 2, 40,
                                                                                              40)

    def sides(**augment):
        seen = random_views(1, augment=Augment(**augment))[0](x)
        high, wide = ((seen[:, i].amax((1, 2)) - seen[:, i].amin((1, 2))) / 39 for i in range(2))
        mirrored = seen[:, 1, 0, -1] < seen[:, 1, 0, 0]
        return high * wide, mirrored.float().mean()

    area, mirrored = sides(min_area=0.5, flip=0)
    # a pixel is missing at each border
    assert 0.43 < area.min() < 0.56 and area.max() > 0.9 and mirrored == 0
    assert sides(min_area=0.9, flip=1)[1] == 1 and 0.35 < sides()[1] < 0.65
    torch.testing.assert_close(random_views(1, augment=Augment(1, 1, 0))[0](x), x)


def test_random_views_refuse_what_is_no_number_of_views():
    for n, error in ((-1, ValueError), (1.5, TypeError), (True, TypeError), (None, TypeError)):
        with pytest.raises(error, match="whole number of views"):
            random_views(n)
    with pytest.raises(ValueError, match="seed"):
        random_views(2, seed=-1)
    assert random_views(0) == ()


def test_product_is_every_combination_but_none():
    both = product(five_crop, flip)
    assert len(both) == 6 * 2 - 1 and len({view.name for view in both}) == 11
    names = {view.name: view for view in both}
    assert {"mirrored", "center", "top left, mirrored"} <= names.keys()
    x = photos(3, 8, 8)
    top_left = next(view for view in five_crop if view.name == "top left")
    assert torch.equal(names["top left, mirrored"](x), flip[0](top_left(x)))
    lists = product([flip, five_crop], quarter_turns), product((*flip, *five_crop), quarter_turns)
    assert [view.name for view in lists[0]] == [view.name for view in lists[1]]
    assert (product() == () and product(flip) == flip
            and len(product(flip, scales(5), five_crop)) == 2 * 2 * 6 - 1)


def test_product_tells_random_views_which_photos_they_see():
    x = photos(1).expand(6, 3, 9, 9)
    mirrored = product(random_views(1), flip)[-1]
    assert torch.equal(mirrored(x[2:], 2), mirrored(x)[2:])


def test_a_view_that_gives_no_batch_is_named():
    for apply, got in ((lambda x: x[:2], "shape"), (lambda x: x[0], "shape"),
                       (lambda x: None, "NoneType")):
        with pytest.raises(ValueError, match="'half the batch' must give photos"):
            View("half the batch", apply)(photos())


@pytest.mark.parametrize("x, error, words",
                         [(photos()[0], ValueError, r"x\[None\]"),
                          (photos()[:0], ValueError, "nothing empty"),
                          ((photos() * 255).to(torch.uint8), TypeError, r"x.float\(\) / 255"),
                          (np.zeros((1, 3, 4, 4)), TypeError, "tensor")])
def test_what_is_no_batch_of_photos_is_refused(x, error, words):
    with pytest.raises(error, match=words):
        flip[0](x)
    with pytest.raises(error, match=words):
        tta(network(), [(x, torch.zeros(5))])


def test_views_can_be_pickled():
    x = photos()
    for view, twin in zip(ALL_VIEWS, pickle.loads(pickle.dumps(ALL_VIEWS))):
        assert torch.equal(view(x), twin(x))


# --- merging

def test_worked_numbers():
    probs = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]])
    torch.testing.assert_close(merge_views(probs), torch.tensor([[0.7, 0.3]]))
    # sqrt(.45) : sqrt(.05) = 3 : 1
    torch.testing.assert_close(merge_views(probs, "gmean"), torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(merge_views(probs, "max"), torch.tensor([[9 / 14, 5 / 14]]))
    torch.testing.assert_close(merge_views(probs, "min"), torch.tensor([[5 / 6, 1 / 6]]))
    roots = torch.tensor([[0.64, 0.36], [0.16, 0.84]])[:, None]  # .8 + .4 : .6 + .9165
    torch.testing.assert_close(merge_views(roots, "tsharpen"), torch.tensor([[0.44174, 0.55826]]),
                               atol=1e-5, rtol=0)
    # a quarter of .9, the rest of .5
    torch.testing.assert_close(merge_views(probs, beta=0.25), torch.tensor([[0.6, 0.4]]))


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [None, 0, 0.25, 1])
def test_rows_sum_to_1(merge, dtype, beta):
    """Fault: `max` merging gives rows that don't sum to 1; a geometric mean gives NaN."""
    # they agree on the second photo alone
    contradicting = torch.eye(4)[torch.tensor([[0, 1, 2], [1, 1, 3], [2, 1, 0]])]
    for probs in (probabilities(), contradicting, probabilities(1), probabilities(2, 0)):
        merged = merge_views(probs.to(dtype), merge, beta)
        assert merged.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert merged.isfinite().all() and (merged >= 0).all()
        sums = merged.sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums),
                                   atol=5e-3 if dtype.itemsize < 4 else 1e-5, rtol=0)


@given(seed=st.integers(0, 99), views=st.integers(1, 6))
@settings(deadline=None)
def test_gmean_is_scipy_s_geometric_mean(seed, views):
    probs = probabilities(views, seed=seed).double()
    probs /= probs.sum(-1, keepdim=True)  # a single view stays as it is
    exact = gmean(probs.numpy(), axis=0)
    np.testing.assert_allclose(merge_views(probs, "gmean"), exact / exact.sum(-1, keepdims=True),
                               rtol=1e-9)


def test_gmean_averages_logits():
    logits = torch.randn(3, 4, 5, generator=seeded())
    torch.testing.assert_close(merge_views(logits.softmax(-1), "gmean"), logits.mean(0).softmax(-1))


@pytest.mark.parametrize("merge", MERGES)
def test_views_that_agree_change_nothing_and_their_order_does_not_count(merge):
    probs = probabilities()
    alike = probs[0].sqrt() / probs[0].sqrt().sum(-1, keepdim=True) if merge == "tsharpen" else probs[0]
    # tsharpen flattens, by its definition
    torch.testing.assert_close(merge_views(probs[:1].expand(4, -1, -1), merge), alike)
    torch.testing.assert_close(merge_views(probs, merge), merge_views(probs.flip(0), merge))
    torch.testing.assert_close(merge_views(probs, merge, beta=0), merge_views(probs[1:], merge))
    torch.testing.assert_close(merge_views(probs, merge, beta=1), probs[0])
    # no views but the plain one
    assert torch.equal(merge_views(probs[:1], merge, beta=0.25), merge_views(probs[:1], merge))


@pytest.mark.parametrize("beta", [0.25, 0.6])
def test_beta_is_fastai_s_arithmetic(beta):
    probs = probabilities(5)
    theirs = torch.lerp(probs[1:].mean(0), probs[0], beta)  # the last lines of fastai's Learner.tta
    assert torch.equal(merge_views(probs, beta=beta), theirs)


def test_several_labels_and_measured_values_can_be_averaged_only():
    probs = torch.rand(3, 4, 5, generator=seeded())
    assert torch.equal(merge_views(probs), probs.mean(0))
    for merge in set(MERGES) - {"mean"}:
        with pytest.raises(ValueError, match="sum to 1.*merge='mean'"):
            merge_views(probs, merge)


def test_merging_says_what_is_wrong():
    with pytest.raises(ValueError, match="'mean', 'gmean', 'max', 'min', 'tsharpen'"):
        merge_views(probabilities(), "average")
    for beta in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="beta"):
            merge_views(probabilities(), beta=beta)
    for probs, error in ((probabilities()[0], ValueError), (probabilities()[:0], ValueError),
                         ([probabilities()[0]], TypeError)):
        with pytest.raises(error, match=r"\(V, N, C\)"):
            merge_views(probs)


def test_spread_is_the_distance_from_the_mean():
    one, other = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 1.0, 0]])
    assert view_spread(torch.stack([one, other])).tolist() == [0.5]
    assert view_spread(torch.stack([one, one, one])).tolist() == [0]
    assert (view_spread(torch.stack([torch.tensor([[0.8, 0.2]]), torch.tensor([[0.6, 0.4]])])).item()
            == pytest.approx(0.1))
    # nine sure answers, all different
    assert view_spread(torch.eye(9)[:, None]).item() == pytest.approx(8 / 9)
    spread = view_spread(probabilities(6, 50))
    assert spread.shape == (50,) and ((0 <= spread) & (spread <= 1)).all()
