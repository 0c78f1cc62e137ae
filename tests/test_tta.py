"""Test-time augmentation: equal to fastai, torchvision and SciPy; hostile data and networks; each known fault by name."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.progress import no_bar  # noqa: F401  gives Learner its no_bar
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader as FastaiLoader
from fastai.data.transforms import get_image_files, parent_label
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, FocalLossFlat, MSELossFlat
from fastai.vision.augment import RandomResizedCrop, RandTransform, Resize, aug_transforms
from fastai.vision.core import TensorImage
from fastai.vision.data import ImageBlock
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import gmean
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SubsetRandomSampler, TensorDataset, WeightedRandomSampler
from torchvision.transforms import v2

from lessonkit.foundation.batch_transforms import Augment, crops_of_photos, random_resized_crop
from lessonkit.foundation.models import small_resnet
from lessonkit.images import ImageSet, image_dataloaders
from lessonkit.label_smoothing import LabelSmoothingCrossEntropy
from lessonkit.mixup import MixUp
from lessonkit.normalization import Normalize
from lessonkit.tta import (
    MERGES,
    TTA,
    View,
    corner_crops,
    five_crop,
    flip,
    merge_views,
    product,
    random_views,
    scales,
    show_views,
    tta,
    view_spread,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(n=5, height=9, width=9, seed=0):
    return torch.rand(n, 3, height, width, generator=seeded(seed))


def network(n_classes=4, seed=0):
    """Linear in the pixels' places, so that each view makes a difference; with parts whose mode matters."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(27, n_classes))


def probabilities(views=3, n=4, classes=5, seed=0):
    return torch.randn(views, n, classes, generator=seeded(seed)).mul(3).softmax(-1)


def by_hand(model, x):
    """What a network says in eval mode."""
    modes = [part.training for part in model.modules()]
    model.eval()
    with torch.no_grad():
        probs = model(x).softmax(1)
    for part, mode in zip(model.modules(), modes):
        part.training = mode
    return probs


ALL_VIEWS = [*flip, *five_crop, *scales(5, 12), *random_views(3), *product(five_crop, flip), *product(flip, random_views(2))]


# --- views

@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: view.name)
@pytest.mark.parametrize("shape", [(5, 3, 9, 9), (1, 3, 7, 12), (3, 1, 10, 4), (2, 4, 1, 1)])
def test_views_of_any_batch_are_batches_and_the_photos_stay(view, shape):
    x = torch.rand(shape, generator=seeded())
    kept = x.clone()
    seen = view(x)
    assert seen.shape[:2] == x.shape[:2] and seen.dtype == x.dtype and torch.equal(x, kept)
    assert "px" in view.name or seen.shape == x.shape
    assert 0 <= seen.min() and seen.max() <= 1 + 1e-5
    assert seen.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: view.name)
def test_a_photo_of_one_colour_looks_the_same_in_every_view(view):
    x = torch.tensor([0.2, 0.5, 0.9])[None, :, None, None].expand(2, 3, 11, 8)
    torch.testing.assert_close(view(x).amin((2, 3)), x[..., 0, 0])
    torch.testing.assert_close(view(x).amax((2, 3)), x[..., 0, 0])


def test_flip_mirrors_left_and_right():
    assert [view.name for view in flip] == ["mirrored"]
    assert torch.equal(flip[0](torch.tensor([[[[1.0, 2, 3], [4, 5, 6]]]])), torch.tensor([[[[3.0, 2, 1], [6, 5, 4]]]]))


@pytest.mark.parametrize("height, width", [(16, 16), (17, 17), (9, 16), (31, 8)])
def test_five_crop_is_torchvision_s(height, width):
    x = photos(3, height, width)
    cut = [round(side * 7 / 8) for side in (height, width)]
    theirs = dict(zip(["top left", "top right", "bottom left", "bottom right", "centre"], v2.functional.five_crop(x, cut)))
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
    torch.testing.assert_close(view(photos()), F.interpolate(photos(), [size, size], mode="bilinear", antialias=True))
    assert view.name == f"{size} px" and min(view(photos(2, 8, 16)).shape[-2:]) == size


def test_scales_refuse_what_is_no_size():
    for size, error in ((0, ValueError), (-3, ValueError), (2.5, TypeError), (True, TypeError), ("32", TypeError)):
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
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize("size", [1, 8, 31, 64])
def test_random_views_are_training_s_crops(size):
    for number, augment in enumerate((Augment(), Augment(0.1, 2, 0.5), Augment(1, 1, 1))):
        crops = crops_of_photos(range(300, 307), 1, 5, number, augment)
        seen = random_views(3, seed=5, augment=augment)[number](photos(7, size, size), 300)
        torch.testing.assert_close(seen, random_resized_crop(photos(7, size, size), crops, size), atol=2e-5, rtol=1e-4)


def test_random_views_of_a_longer_photo_are_crops_stretched_back():
    x, crops = photos(6, 20, 50), crops_of_photos(range(6), 2.5, 0, 0, Augment())
    for i, seen in enumerate(random_views(1)[0](x)):
        top, left, height, width = ((share[i] * side).round().int() for share, side in zip(crops[:4], (20, 50) * 2))
        part = x[i : i + 1, :, top : top + height, left : left + width]
        exact = F.interpolate(part.flip(-1) if crops.flipped[i] else part, (20, 50), mode="bilinear", antialias=True)[0]
        torch.testing.assert_close(seen, exact, atol=2e-5, rtol=1e-4)


def test_random_views_are_as_strong_as_asked():
    steps = torch.arange(40.0)
    x = torch.stack([steps[:, None].expand(40, 40), steps[None].expand(40, 40)])[None].expand(300, 2, 40, 40)

    def sides(**augment):
        seen = random_views(1, augment=Augment(**augment))[0](x)
        high, wide = ((seen[:, i].amax((1, 2)) - seen[:, i].amin((1, 2))) / 39 for i in range(2))
        mirrored = seen[:, 1, 0, -1] < seen[:, 1, 0, 0]
        return high * wide, mirrored.float().mean()

    area, mirrored = sides(min_area=0.5, flip=0)
    assert 0.43 < area.min() < 0.56 and area.max() > 0.9 and mirrored == 0  # a pixel is missing at each border
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
    assert {"mirrored", "centre", "top left, mirrored"} <= names.keys()
    x = photos(3, 8, 8)
    top_left = next(view for view in five_crop if view.name == "top left")
    assert torch.equal(names["top left, mirrored"](x), flip[0](top_left(x)))
    assert product() == () and product(flip) == flip and len(product(flip, scales(5), five_crop)) == 2 * 2 * 6 - 1


def test_product_tells_random_views_which_photos_they_see():
    x = photos(1).expand(6, 3, 9, 9)
    mirrored = product(random_views(1), flip)[-1]
    assert torch.equal(mirrored(x[2:], 2), mirrored(x)[2:])


def test_a_view_that_gives_no_batch_is_named():
    for apply, got in ((lambda x: x[:2], "shape"), (lambda x: x[0], "shape"), (lambda x: None, "NoneType")):
        with pytest.raises(ValueError, match="'half the batch' must give photos"):
            View("half the batch", apply)(photos())


@pytest.mark.parametrize("x, error, words", [
    (photos()[0], ValueError, r"x\[None\]"), (photos()[:0], ValueError, "nothing empty"),
    ((photos() * 255).to(torch.uint8), TypeError, r"x.float\(\) / 255"), (np.zeros((1, 3, 4, 4)), TypeError, "tensor")])
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
    torch.testing.assert_close(merge_views(probs, "gmean"), torch.tensor([[0.75, 0.25]]))  # sqrt(.45) : sqrt(.05) = 3 : 1
    torch.testing.assert_close(merge_views(probs, "max"), torch.tensor([[9 / 14, 5 / 14]]))
    torch.testing.assert_close(merge_views(probs, beta=0.25), torch.tensor([[0.6, 0.4]]))  # a quarter of .9, the rest of .5


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [None, 0, 0.25, 1])
def test_rows_sum_to_1(merge, dtype, beta):
    """Fault: `max` merging gives rows that don't sum to 1; a geometric mean gives NaN."""
    contradicting = torch.eye(4)[torch.tensor([[0, 1, 2], [1, 1, 3], [2, 1, 0]])]  # they agree on the second photo alone
    for probs in (probabilities(), contradicting, probabilities(1), probabilities(2, 0)):
        merged = merge_views(probs.to(dtype), merge, beta)
        assert merged.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert merged.isfinite().all() and (merged >= 0).all()
        sums = merged.sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), atol=5e-3 if dtype.itemsize < 4 else 1e-5, rtol=0)


@given(seed=st.integers(0, 99), views=st.integers(1, 6))
@settings(deadline=None)
def test_gmean_is_scipy_s_geometric_mean(seed, views):
    probs = probabilities(views, seed=seed).double()
    exact = gmean(probs.numpy(), axis=0)
    np.testing.assert_allclose(merge_views(probs, "gmean"), exact / exact.sum(-1, keepdims=True), rtol=1e-9)


def test_gmean_averages_logits():
    logits = torch.randn(3, 4, 5, generator=seeded())
    torch.testing.assert_close(merge_views(logits.softmax(-1), "gmean"), logits.mean(0).softmax(-1))


@pytest.mark.parametrize("merge", MERGES)
def test_views_that_agree_change_nothing_and_their_order_does_not_count(merge):
    probs = probabilities()
    torch.testing.assert_close(merge_views(probs[:1].expand(4, -1, -1), merge), probs[0])
    torch.testing.assert_close(merge_views(probs, merge), merge_views(probs.flip(0), merge))
    torch.testing.assert_close(merge_views(probs, merge, beta=0), merge_views(probs[1:], merge))
    torch.testing.assert_close(merge_views(probs, merge, beta=1), probs[0])
    assert torch.equal(merge_views(probs[:1], merge, beta=0.25), merge_views(probs[:1], merge))  # no views but the plain one


@pytest.mark.parametrize("beta", [0.25, 0.6])
def test_beta_is_fastai_s_arithmetic(beta):
    probs = probabilities(5)
    theirs = torch.lerp(probs[1:].mean(0), probs[0], beta)  # the last lines of fastai's Learner.tta
    assert torch.equal(merge_views(probs, beta=beta), theirs)


def test_several_labels_and_measured_values_can_be_averaged_only():
    probs = torch.rand(3, 4, 5, generator=seeded())
    assert torch.equal(merge_views(probs), probs.mean(0))
    for merge in ("gmean", "max"):
        with pytest.raises(ValueError, match="sum to 1.*merge='mean'"):
            merge_views(probs, merge)


def test_merging_says_what_is_wrong():
    with pytest.raises(ValueError, match="'mean', 'gmean', 'max'"):
        merge_views(probabilities(), "average")
    for beta in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="beta"):
            merge_views(probabilities(), beta=beta)
    for probs, error in ((probabilities()[0], ValueError), (probabilities()[:0], ValueError), ([probabilities()[0]], TypeError)):
        with pytest.raises(error, match=r"\(V, N, C\)"):
            merge_views(probs)


def test_spread_is_the_distance_from_the_mean():
    one, other = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 1.0, 0]])
    assert view_spread(torch.stack([one, other])).tolist() == [0.5]
    assert view_spread(torch.stack([one, one, one])).tolist() == [0]
    assert view_spread(torch.stack([torch.tensor([[0.8, 0.2]]), torch.tensor([[0.6, 0.4]])])).item() == pytest.approx(0.1)
    assert view_spread(torch.eye(9)[:, None]).item() == pytest.approx(8 / 9)  # nine sure answers, all different
    spread = view_spread(probabilities(6, 50))
    assert spread.shape == (50,) and ((0 <= spread) & (spread <= 1)).all()


# --- tta of a plain module

@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("beta", [None, 0.25])
def test_tta_is_predicting_each_view_and_merging(merge, beta):
    model, x = network(), photos(11)
    result = tta(model, x, five_crop, merge=merge, beta=beta, keep_views=True, batch_size=4)
    each = torch.stack([by_hand(model, x), *(by_hand(model, view(x)) for view in five_crop)])
    torch.testing.assert_close(result.views, each)
    torch.testing.assert_close(result.probs, merge_views(each, merge, beta))
    torch.testing.assert_close(result.spread, view_spread(each))
    torch.testing.assert_close(result.probs.sum(1), torch.ones(11))
    assert result.targets is None and isinstance(result, TTA)


def test_the_plain_result_stands_beside_it():
    """Fault: TTA makes it worse, and nobody notices."""
    result = tta(network(), photos())
    torch.testing.assert_close(result.plain, by_hand(network(), photos()))
    assert not torch.allclose(result.plain, result.probs) and result.views is None and result.spread is None


@pytest.mark.parametrize("views", [None, ()])
def test_no_views_is_the_plain_prediction(views):
    """Fault: fails with n = 0."""
    for merge in MERGES:
        for beta in (None, 0, 0.25):
            result = tta(network(), photos(), views, n=0, merge=merge, beta=beta, keep_views=True)
            torch.testing.assert_close(result.probs, by_hand(network(), photos()))
            assert result.views.shape == (1, 5, 4) and not result.spread.any()


def test_the_default_is_four_random_views():
    result = tta(network(), photos(), keep_views=True)
    assert len(result.views) == 5
    assert torch.equal(result.probs, tta(network(), photos(), random_views(4)).probs)
    assert not torch.equal(result.probs, tta(network(), photos(), seed=1).probs)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_size_of_batches_does_not_count(batch_size):
    torch.testing.assert_close(tta(network(), photos(7), batch_size=batch_size), tta(network(), photos(7)))


def test_photos_of_any_shape():
    model = small_resnet(3, width=4)
    for shape in ((13, 9), (8, 8), (1, 1), (32, 17)):
        result = tta(model, photos(3, *shape), [*product(five_crop, flip), *scales(7, 16), *random_views(2)])
        torch.testing.assert_close(result.probs.sum(1), torch.ones(3))


def labelled(n=23):
    return photos(n), torch.arange(n) % 4


class Rows(Dataset):
    """Photos with labels; counts how often each is loaded."""

    def __init__(self, n=23):
        self.x, self.y = labelled(n)
        self.loaded = []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        self.loaded.append(int(i))
        return self.x[i], self.y[i]


LOADERS = {
    "in order": dict(batch_size=4),
    "shuffled": dict(batch_size=4, shuffle=True),
    "last batch dropped": dict(batch_size=4, drop_last=True),
    "shuffled and dropped": dict(batch_size=4, shuffle=True, drop_last=True),
    "worker processes": dict(batch_size=4, shuffle=True, num_workers=2, prefetch_factor=3, persistent_workers=True),
    "weighted": dict(batch_size=4, sampler=WeightedRandomSampler(torch.ones(23), 40)),
    "batches drawn": dict(batch_sampler=BatchSampler(RandomSampler(range(23)), 4, drop_last=True)),
    "one by one": dict(batch_size=1, shuffle=True),
    "one batch": dict(batch_size=100, shuffle=True),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_torch_loader_is_never_shuffled_or_cut(name):
    """Faults: another order than the data's; the training set shuffled or its last batch dropped."""
    data = Rows()
    result = tta(network(), DataLoader(data, **LOADERS[name]), flip)
    torch.testing.assert_close(result.probs, tta(network(), data.x, flip).probs)
    assert torch.equal(result.targets, data.y)


def test_each_photo_is_loaded_once():
    for views in ((), flip, product(five_crop, flip), random_views(9)):
        data = Rows()
        tta(network(), DataLoader(data, 4, shuffle=True), views)
        assert data.loaded == list(range(23))


def test_the_loader_keeps_what_puts_photos_together():
    def collate(items):
        return torch.stack([x for x, _ in items]) * 2, torch.stack([y for _, y in items]) + 10

    loader = DataLoader(Rows(), 4, shuffle=True, collate_fn=collate)
    result = tta(network(), loader, n=0)
    torch.testing.assert_close(result.probs, by_hand(network(), labelled()[0] * 2))
    assert torch.equal(result.targets, labelled()[1] + 10)


def test_a_given_order_is_the_data_s_order():
    loader = DataLoader(Rows(), batch_size=4, sampler=[5, 3, 22])
    assert torch.equal(tta(network(), loader).targets, labelled()[1][[5, 3, 22]])
    loader = DataLoader(Rows(), batch_size=2, sampler=[5, 3, 22], drop_last=True)
    assert torch.equal(tta(network(), loader).targets, labelled()[1][[5, 3, 22]])


def test_some_photos_in_random_order_are_refused():
    with pytest.raises(ValueError, match="Subset"):
        tta(network(), DataLoader(Rows(), 4, sampler=SubsetRandomSampler([1, 2, 3])))


def test_batches_without_labels_lists_and_generators():
    """Fault: fails with no labels."""
    x, y = labelled()
    exact = tta(network(), x, flip)
    for data in (DataLoader(x, 4), DataLoader(TensorDataset(x), 4), [x[:20], x[20:]], [(x,)], ((part,) for part in x.split(5))):
        result = tta(network(), data, flip)
        torch.testing.assert_close(result.probs, exact.probs)
        assert result.targets is None
    assert torch.equal(tta(network(), [[x[:7], y[:7]], [x[7:], y[7:]]]).targets, y)
    assert torch.equal(tta(network(), [(x, y.tolist())]).targets, y)


@pytest.mark.parametrize("data, error, words", [
    (None, ValueError, "plain module"), ([], ValueError, "no photos"), (3, TypeError, "tensor of photos or a loader"),
    ([(photos(), 1, 2)], ValueError, "3 parts"), ([{"x": photos()}], TypeError, "not a dict"),
    ([((photos(), photos()), torch.zeros(5))], TypeError, "not a tuple")])
def test_data_that_can_not_be_predicted_is_refused(data, error, words):
    with pytest.raises(error, match=words):
        tta(network(), data)


def test_what_is_no_model_and_what_are_no_views():
    with pytest.raises(TypeError, match="torch.nn.Module or a fastai Learner"):
        tta(lambda x: x, photos())
    for views in ([flip], ["flip"], [lambda x: x]):
        with pytest.raises(TypeError, match="must be Views"):
            tta(network(), photos(), views)
    for size, error in ((0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="batch_size"):
            tta(network(), photos(), batch_size=size)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_and_photos_of_other_precision(dtype):
    model = network().to(dtype)
    views = [*five_crop, *random_views(2)]
    exact = tta(network(), photos(), views).probs
    for x in (photos(), photos().to(dtype)):
        result = tta(model, x, views, keep_views=True)
        assert result.probs.dtype == result.views.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(result.probs.float(), exact, atol=0.02, rtol=0)
        torch.testing.assert_close(result.probs.sum(1), torch.ones(5, dtype=result.probs.dtype))
    assert next(model.parameters()).dtype == dtype
    torch.testing.assert_close(tta(network(), photos().to(dtype)).probs, tta(network(), photos()).probs, atol=0.02, rtol=0)


def test_half_precision_is_merged_in_float32():
    class Certain(nn.Module):
        def forward(self, x):
            return torch.tensor([[0.0, 12.0]]).half().expand(len(x), 2)  # 6e-6 is no number in float16 to count on

    probs = tta(Certain(), photos()).probs
    torch.testing.assert_close(probs[:, 0], torch.full((5,), 1 / (1 + np.exp(12.0))), rtol=1e-5, atol=0)


def test_a_network_with_no_weights():
    class Colours(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    torch.testing.assert_close(tta(Colours(), photos(), flip).probs, photos().mean((2, 3)).softmax(1))


@pytest.mark.parametrize("out, words", [(lambda x: x.mean((1, 2, 3)), "row of classes"), (lambda x: x, "row of classes"),
                                        (lambda x: (x, x), "tuple"), (lambda x: x.mean((1, 2, 3))[:, None], "torch.sigmoid")])
def test_outputs_that_are_no_classes_are_refused(out, words):
    class Other(nn.Module):
        def forward(self, x):
            return out(x)

    with pytest.raises(ValueError, match=words):
        tta(Other(), photos())


def test_one_output_with_sigmoid():
    model = nn.Sequential(network(1))
    with torch.no_grad():
        exact = model.eval()(photos()).sigmoid()
    torch.testing.assert_close(tta(model.train(), photos(), n=0, activation=torch.sigmoid).probs, exact)


def test_activation_is_softmax_unless_said_otherwise():
    model, x = network(), photos()
    with torch.no_grad():
        out = model.eval()(x)
    torch.testing.assert_close(tta(model, x, n=0).probs, out.softmax(1))
    torch.testing.assert_close(tta(model, x, n=0, activation=torch.sigmoid).probs, out.sigmoid())
    torch.testing.assert_close(tta(model, x, n=0, activation=lambda out: out).probs, out)


# --- the state of the model

def modes(model):
    return [part.training for part in model.modules()]


class Breaks(nn.Module):
    """Raises at the n-th call."""

    def __init__(self, error, calls):
        super().__init__()
        self.inner, self.error, self.left = network(), error, calls
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        self.left -= 1
        if not self.left:
            raise self.error
        return self.inner(x)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, None])
@pytest.mark.parametrize("calls", [1, 3, 6])
def test_every_part_is_in_its_own_mode_again_after_any_exit(error, calls):
    model = Breaks(error, calls if error else -1)
    model.train()
    model.inner[1].eval()  # a frozen batch norm in a network that trains
    before, gradients = modes(model), torch.is_grad_enabled()
    if error:
        with pytest.raises(error):
            tta(model, photos(), batch_size=2)
    else:
        tta(model, photos(), batch_size=2)
    assert modes(model) == before and len(set(before)) == 2 and torch.is_grad_enabled() == gradients


def test_nothing_of_the_model_changes_and_nothing_is_random():
    model = network().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = tta(model, photos()), tta(model, photos())  # dropout and batch norm would show
    assert torch.equal(first.probs, second.probs)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_loader_s_error_comes_through_and_modes_are_restored():
    def batches():
        yield photos()
        raise OSError("unreadable photo")

    model = network().train()
    with pytest.raises(OSError, match="unreadable"):
        tta(model, batches())
    assert all(modes(model))


def test_probabilities_can_teach_another_network_and_inference_mode_is_fine():
    model = network()
    probs = tta(model, photos()).probs
    assert not probs.requires_grad
    F.cross_entropy(model(photos()), probs).backward()  # an inference tensor would refuse
    with torch.inference_mode():
        assert torch.equal(tta(model.eval(), photos()).plain, by_hand(model, photos()))


# --- a fastai Learner

class Deterministic(RandTransform):
    """Mirrors every training photo: an augmentation of which we know what it does."""

    split_idx, order = 0, 10

    def __init__(self):
        super().__init__(p=1.0)

    def encodes(self, x: TensorImage):
        return x.flip(-1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for part, n in (("train", 27), ("val", 14)):
        for i in range(n):
            (place / part / "abc"[i % 3]).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 255, (5, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((40 + 3 * (i % 4), 40)).save(place / part / "abc"[i % 3] / f"{i:02}.png")
    return place


@pytest.fixture(scope="module")
def photo_set(folder):
    return ImageSet.from_folder(folder)


def learner(photo_set, loss=None, cbs=None, **options):
    options = {"size": 16, "batch_size": 5, "normalize": Normalize([0.5, 0.4, 0.3], [0.3, 0.2, 0.25])} | options
    learn = Learner(image_dataloaders(photo_set, **options), network(3), loss_func=loss or nn.CrossEntropyLoss(), cbs=cbs)
    learn.logger = lambda *args: None
    return learn


def fastai_learner(folder, item_tfms, batch_tfms, **loaders):
    from fastai.data.transforms import GrandparentSplitter

    block = DataBlock((ImageBlock, CategoryBlock), get_items=lambda path: sorted(get_image_files(path)),
                      splitter=GrandparentSplitter(valid_name="val"),
                      get_y=parent_label, item_tfms=item_tfms, batch_tfms=batch_tfms)
    dls = block.dataloaders(folder, bs=5, num_workers=0, device=torch.device("cpu"), **loaders)
    learn = Learner(dls, network(3), loss_func=CrossEntropyLossFlat())
    learn.logger = lambda *args: None
    return learn


def test_works_before_the_first_fit_and_predicts_the_validation_photos(photo_set):
    """Fault: fails before the first fit."""
    learn = learner(photo_set)
    result = tta(learn)
    x, y = (torch.cat(parts) for parts in zip(*learn.dls.valid))
    x = x.as_subclass(torch.Tensor)
    torch.testing.assert_close(result.plain, by_hand(learn.model, x))
    torch.testing.assert_close(result.probs, tta(learn.model, x).probs)  # random views by a photo's place
    assert torch.equal(result.targets, torch.as_tensor(photo_set.labels[photo_set.indices("valid")]))


def test_training_photos_come_in_order_whole_and_not_augmented(photo_set):
    """Faults: the training set shuffled, or its last batch dropped."""
    learn = learner(photo_set)
    result = tta(learn, learn.dls.train, flip)
    rows = photo_set.indices("train")
    as_validation = learn.dls.valid.new(photo_set.take(rows))
    x = torch.cat([x for x, _ in as_validation]).as_subclass(torch.Tensor)
    torch.testing.assert_close(result.plain, by_hand(learn.model, x))
    assert torch.equal(result.targets, torch.as_tensor(photo_set.labels[rows]))
    assert learn.dls.train.augment is not None and learn.dls.train.shuffle and learn.dls.train.epoch == learn.dls.valid.epoch == 0


def test_random_views_are_in_the_style_of_training(photo_set):
    augment = Augment(min_area=0.8, flip=0)
    learn = learner(photo_set, augment=augment)
    assert torch.equal(tta(learn).probs, tta(learn, views=random_views(4, augment=augment)).probs)
    assert torch.equal(tta(learner(photo_set, augment=False)).probs, tta(learn, views=random_views(4)).probs)


def test_files_without_labels(photo_set):
    learn = learner(photo_set)
    files = [photo_set.paths[row] for row in photo_set.indices("valid")]
    order = [3, 0, 7, 1]
    result = tta(learn, learn.dls.test_dl([files[i] for i in order]), flip)
    torch.testing.assert_close(result.probs, tta(learn, views=flip).probs[order])
    assert result.targets is None


def test_views_come_after_everything_else_the_loader_does(photo_set):
    """Fault: a passed transform replaces the whole pipeline, so sizes no longer match."""
    learn, seen = learner(photo_set), []
    tta(learn, views=[View("spy", lambda x: seen.append(x) or x.flip(-1))])
    assert {tuple(x.shape[1:]) for x in seen} == {(3, 16, 16)}
    assert torch.cat(seen).min() < -0.2  # normalized


def test_geometric_views_and_normalization_change_places(photo_set):
    raw, learn = learner(photo_set, normalize=None), learner(photo_set)
    normalize = Normalize([0.5, 0.4, 0.3], [0.3, 0.2, 0.25])
    x = torch.cat([x for x, _ in raw.dls.valid]).as_subclass(torch.Tensor)
    for view in ALL_VIEWS:
        first = normalize((TensorImage(view(x)),))[0].as_subclass(torch.Tensor)
        torch.testing.assert_close(first, view(normalize((TensorImage(x),))[0].as_subclass(torch.Tensor)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("loss, activation", [
    (CrossEntropyLossFlat(), "softmax"), (FocalLossFlat(), "softmax"), (LabelSmoothingCrossEntropy(), "softmax"),
    (F.cross_entropy, "softmax"), (nn.NLLLoss(), "softmax"), (BCEWithLogitsLossFlat(), "sigmoid"), (MSELossFlat(), "none")],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__))
def test_the_loss_says_what_the_outputs_mean(photo_set, loss, activation):
    learn = learner(photo_set, loss)
    x = torch.cat([x for x, _ in learn.dls.valid]).as_subclass(torch.Tensor)
    with torch.no_grad():
        out = learn.model.eval()(x)
    exact = {"softmax": out.softmax(1), "sigmoid": out.sigmoid(), "none": out}[activation]
    torch.testing.assert_close(tta(learn).plain, exact)
    assert type(tta(learn).probs) is torch.Tensor


class Events(Callback):
    def __init__(self):
        self.seen = []

    def __call__(self, event_name):
        self.seen.append(event_name)


def test_the_learner_stays_as_it_was(photo_set):
    events = Events()
    learn = learner(photo_set, cbs=[MixUp(), events])
    learn.fit(1)

    def state():
        return list(learn.cbs), learn.loss_func, learn.dls, len(learn.recorder.values), learn.epoch, modes(learn.model)

    before = state()
    handles = [len(part._forward_hooks) for part in learn.model.modules()]
    events.seen.clear()
    for data in (None, learn.dls.train):
        tta(learn, data)
    assert not events.seen and [len(part._forward_hooks) for part in learn.model.modules()] == handles
    assert state() == before


@pytest.mark.parametrize("between", [tta, lambda learn: tta(learn, learn.dls.train)], ids=["valid", "train"])
def test_training_goes_on_as_if_nothing_had_been(photo_set, between):
    def trained(between):
        learn = learner(photo_set, cbs=[MixUp()])
        torch.manual_seed(0)
        learn.fit(1)
        state = torch.get_rng_state()
        between(learn)
        torch.set_rng_state(state)
        learn.fit(1)
        return torch.cat([value.flatten().double() for value in learn.model.state_dict().values()])

    assert torch.equal(trained(between), trained(lambda learn: None))


@pytest.mark.parametrize("beta", [0.25, 0.5])
def test_equal_to_fastai_s_tta(folder, beta):
    learn = fastai_learner(folder, Resize(16, method="squish"), [Deterministic()])
    with learn.no_bar():
        theirs, labels = learn.tta(n=3, beta=beta)
    ours = tta(learn, views=flip, beta=beta)
    torch.testing.assert_close(ours.probs, theirs.as_subclass(torch.Tensor))
    assert torch.equal(ours.targets, labels.as_subclass(torch.Tensor)) and not torch.allclose(ours.plain, ours.probs)


@pytest.mark.parametrize("part", [0, 1])
def test_fastai_s_loaders_give_their_photos_in_order_and_not_augmented(folder, part):
    learn = fastai_learner(folder, RandomResizedCrop(16, min_scale=0.3), aug_transforms(), shuffle=True)
    data = learn.dls.loaders[part]
    result = tta(learn, data, keep_views=True)
    with learn.no_bar():
        exact, labels = learn.get_preds(dl=learn.dls.test_dl(data.dataset.items, with_labels=True))
    torch.testing.assert_close(result.plain, exact.as_subclass(torch.Tensor))
    assert torch.equal(result.targets, labels.as_subclass(torch.Tensor)) and len(result.targets) == (27, 14)[part]
    twice = [learn.dls.train.one_batch()[0] for _ in range(2)]
    assert not torch.equal(*twice)  # training photos are augmented again


def test_fastai_s_test_loader_has_no_labels(folder, photo_set):
    learn = fastai_learner(folder, RandomResizedCrop(16), aug_transforms())
    files = [photo_set.paths[row] for row in photo_set.indices("valid")][:6]
    result = tta(learn, learn.dls.test_dl(files))
    assert result.targets is None and result.probs.shape == (6, 3)


def test_loaders_of_pytorch_in_a_learner():
    x, y = labelled()
    train, valid = (DataLoader(TensorDataset(x, y), 4, shuffle=True) for _ in range(2))
    learn = Learner(DataLoaders(train, valid), network(4), loss_func=F.cross_entropy)
    for data in (None, learn.dls.train):
        assert torch.equal(tta(learn, data).targets, y)
    with pytest.raises(ValueError, match="no validation loader"):
        tta(Learner(DataLoaders(train), network(4), loss_func=F.cross_entropy))


def test_a_plain_fastai_loader():
    x, y = labelled()
    loader = FastaiLoader(list(zip(x, y)), bs=4, shuffle=True, drop_last=True, num_workers=0)
    result = tta(network(), loader, flip)
    assert torch.equal(result.targets, y)
    torch.testing.assert_close(result.probs, tta(network(), x, flip).probs)


# --- pictures

@pytest.mark.parametrize("views, axes", [(flip, 3), (five_crop, 7), (product(five_crop, flip), 14), ((), 2)])
def test_pictures_are_drawn(views, axes):
    figure = show_views(network(3), photos()[0], views, list("abc"), normalize=lambda x: x * 2 - 1)
    assert len(figure.axes) == 2 * axes
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert sorted(titles) == sorted(["as it is", *(view.name for view in views)])
    assert [text.get_text() for axis in figure.axes for text in axis.texts].count("merged") == 1


def test_pictures_show_what_the_network_says(photo_set):
    learn = learner(photo_set)
    x = learn.dls.valid.dataset[0][0]
    image = torch.from_numpy(np.array(x.convert("RGB").crop((0, 0, 40, 40)))).permute(2, 0, 1).float() / 255
    normalized = Normalize([0.5, 0.4, 0.3], [0.3, 0.2, 0.25])((TensorImage(image[None]),))[0].as_subclass(torch.Tensor)
    expected = tta(learn, normalized, flip).probs[0]
    figure = show_views(learn, image, flip, photo_set.classes, top=3)
    bars = sorted(bar.get_width() for bar in figure.axes[-1].patches)
    assert bars == pytest.approx(sorted(expected.tolist()), abs=1e-5)

