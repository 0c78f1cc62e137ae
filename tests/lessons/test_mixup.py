"""MixUp and CutMix as functions: equal to torchvision and timm; hostile input; each known fault by
name."""

import copy
from collections import namedtuple, UserDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.schedule import lr_find  # noqa: F401  gives Learner its lr_find and fit_one_cycle
from fastai.torch_core import TensorImage
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from lessonkit.mixup import (
    CutMix, CutMixCollate, MixUp, MixUpCollate, RandomMix, RandomMixCollate, cutmix, mix_targets,
    mixed_loss, mixup, sample_lambda, show_mixup,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(n=5, height=6, width=8, seed=0):
    return torch.rand(n, 3, height, width, generator=seeded(seed))


# --- how much of each

@given(alpha=st.one_of(st.floats(1e-300, 1e308), st.integers(1, 10**6)), n=st.integers(0, 50),
       per_item=st.booleans())
def test_shares_are_shares_for_any_alpha(alpha, n, per_item):
    lam = sample_lambda(n, alpha, seeded(), per_item)
    assert lam.shape == (n,) and lam.dtype == torch.float32
    assert ((0 <= lam) & (lam <= 1)).all()
    assert per_item or len(lam.unique()) <= 1


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1, 5])
def test_shares_have_the_moments_of_the_beta_distribution(alpha):
    lam = sample_lambda(200_000, alpha, seeded()).double()
    assert lam.mean() == pytest.approx(0.5, abs=0.005)
    assert lam.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)
    if alpha == 1:
        assert np.quantile(lam, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.01)


def test_shares_follow_the_generator_alone_or_the_global_seed():
    before = torch.get_rng_state()
    first, second = sample_lambda(9, 0.4, seeded(3)), sample_lambda(9, 0.4, seeded(3))
    assert torch.equal(first, second) and torch.equal(before, torch.get_rng_state())
    generator = seeded(3)
    assert not torch.equal(sample_lambda(9, 0.4, generator), sample_lambda(9, 0.4, generator))
    torch.manual_seed(1)
    one = sample_lambda(9)
    torch.manual_seed(1)
    assert torch.equal(one, sample_lambda(9))


def test_settings_that_are_left_out_are_those_of_the_documentation():
    assert torch.equal(sample_lambda(9, generator=seeded()),
                       sample_lambda(9, 0.4, seeded(), per_item=True))
    assert torch.equal(mixup(photos(), 0.3), mixup(photos(), 0.3, torch.tensor([4, 0, 1, 2, 3])))


@pytest.mark.parametrize("alpha, error",
                         [(-1, ValueError), (float("nan"), ValueError), (float("inf"), ValueError),
                          ("1", TypeError), (None, TypeError), (True, TypeError)])
def test_alpha_that_is_none_is_refused_everywhere(alpha, error):
    for make in (lambda: sample_lambda(3, alpha), lambda: MixUp(alpha), lambda: CutMix(alpha),
                 lambda: MixUpCollate(10, alpha), lambda: CutMixCollate(10, alpha)):
        with pytest.raises(error, match="alpha"):
            make()


# --- photos

@given(n=st.integers(1, 9), rest=st.lists(st.integers(1, 5), max_size=3), data=st.data(),
       dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
@settings(deadline=None)
def test_mixup_is_the_formula_for_any_shape_type_and_partner(n, rest, data, dtype):
    x = torch.randn(n, *rest, generator=seeded(), dtype=torch.float64).to(dtype)
    lam = torch.tensor(data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n)))
    partner = data.draw(st.one_of(st.none(), st.permutations(range(n)).map(torch.tensor)))
    kept, rows = x.clone(), torch.arange(n).roll(1) if partner is None else partner
    mixed = mixup(x, lam, partner)
    exact = torch.stack([lam[i].double() * x[i].double() + (1 - lam[i].double()) * x[rows[i]].double()
                         for i in range(n)])
    assert mixed.dtype == dtype and mixed.shape == x.shape and mixed.data_ptr() != x.data_ptr()
    torch.testing.assert_close(mixed.double(), exact, rtol=2 * torch.finfo(dtype).eps,
                               atol=2 * torch.finfo(dtype).eps + 1e-6)
    assert torch.equal(x, kept)


def test_half_precision_is_rounded_once():
    x = torch.randn(64, 50, generator=seeded()).half()
    lam = torch.rand(64, generator=seeded(1))
    assert torch.equal(mixup(x, lam), mixup(x.float(), lam).half())


@pytest.mark.parametrize("partner", [None, torch.tensor([2, 0, 1, 4, 3])])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_memory_format_stays(form, partner):
    x = photos().contiguous(memory_format=form)
    for mixed in (mixup(x, 0.3, partner), mixup(x.clone().requires_grad_(), 0.3, partner),
                  cutmix(x, 0.3, partner)[0]):
        assert mixed.stride() == x.stride()
    torch.testing.assert_close(mixup(x, 0.3, partner), mixup(x.contiguous(), 0.3, partner))


def test_views_with_holes_and_expanded_batches_are_mixed():
    x = photos(10)[::2, :, 1:4]
    torch.testing.assert_close(mixup(x, 0.3), mixup(x.clone(), 0.3))
    one = photos(1).expand(4, 3, 6, 8)
    torch.testing.assert_close(mixup(one, 0.3), one.clone())


def test_gradients_flow_into_features_and_shares():
    x = torch.randn(4, 6, generator=seeded(), dtype=torch.float64, requires_grad=True)
    lam = torch.rand(4, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    for partner in (None, torch.tensor([3, 2, 1, 0])):
        assert torch.autograd.gradcheck(lambda x, lam: mixup(x, lam, partner), (x, lam))
        with torch.no_grad():
            without = mixup(x, lam, partner)
        assert not without.requires_grad and torch.allclose(mixup(x, lam, partner), without)


def test_fastai_types_stay():
    assert type(mixup(TensorImage(photos()), 0.3)) is TensorImage
    assert type(cutmix(TensorImage(photos()), 0.3)[0]) is TensorImage


def test_equal_to_torchvision_for_photos_and_labels():
    x, y = photos(7), torch.arange(7) % 4
    for transform in (v2.MixUp(alpha=1.0, num_classes=4), v2.MixUp(alpha=0.2, num_classes=4)):
        torch.manual_seed(0)
        their_x, their_y = transform(x, y)
        torch.manual_seed(0)
        lam = transform.make_params([])["lam"]
        torch.testing.assert_close(mixup(x, lam), their_x)
        torch.testing.assert_close(mix_targets(y, lam, n_classes=4), their_y)


def test_equal_to_timm_with_its_partner():
    mixup_module = pytest.importorskip("timm.data.mixup")
    x, y = photos(6), torch.arange(6) % 4
    theirs = mixup_module.Mixup(mixup_alpha=0.4, mode="elem", label_smoothing=0, num_classes=4)
    lams = np.linspace(0, 1, 6).astype("float32")
    theirs._params_per_elem = lambda n: (lams.copy(), np.zeros(n, dtype=bool))
    their_x, their_y = theirs(x.clone(), y)
    back = torch.arange(5, -1, -1)
    torch.testing.assert_close(mixup(x, torch.tensor(lams), back), their_x)
    torch.testing.assert_close(mix_targets(y, torch.tensor(lams), back, 4), their_y)


@pytest.mark.parametrize("x",
                         [photos().mul(255).byte(), torch.ones(3, 2, dtype=torch.int64),
                          torch.ones(3, dtype=torch.bool), torch.ones(3, 2, dtype=torch.complex64),
                          np.ones((3, 2)), None])
def test_what_cannot_be_mixed_is_refused(x):
    with pytest.raises(TypeError, match="mix after converting"):
        mixup(x, 0.5)


@pytest.mark.parametrize("lam",
                         [-0.01, 1.01, float("nan"), torch.tensor([0.1, 0.2, 0.3, 0.4, 1.5]),
                          torch.rand(4), torch.rand(5, 1)])
def test_shares_that_are_none_are_refused_everywhere(lam):
    x, y, pred = photos(), torch.arange(5), torch.randn(5, 5)
    for use in (lambda: mixup(x, lam), lambda: cutmix(x, lam), lambda: mix_targets(y, lam, n_classes=5),
                lambda: mixed_loss(F.cross_entropy, pred, y, lam)):
        with pytest.raises(ValueError, match="lam"):
            use()


@pytest.mark.parametrize("partner, error",
                         [(torch.tensor([0, 1]), ValueError),
                          (torch.tensor([0, 1, 2, 3, 5]), ValueError),
                          (torch.tensor([0, 1, 2, 3, -1]), ValueError), (torch.rand(5), TypeError),
                          (torch.tensor([True] * 5), TypeError)])
def test_partners_that_are_none_are_refused_everywhere(partner, error):
    x, y, pred = photos(), torch.arange(5), torch.randn(5, 5)
    for use in (lambda: mixup(x, 0.5, partner), lambda: cutmix(x, 0.5, partner),
                lambda: mix_targets(y, 0.5, partner, 5),
                lambda: mixed_loss(F.cross_entropy, pred, y, 0.5, partner)):
        with pytest.raises(error, match="partner"):
            use()


# --- labels

def test_picture_and_label_are_mixed_with_the_same_partner():
    y = torch.tensor([3, 1, 0, 2, 1])
    x = F.one_hot(y, 4).float()[:, None, None, :].expand(5, 3, 2, 4)  # each photo shows its own label
    lam = torch.rand(5, generator=seeded())
    for partner in (None, torch.tensor([1, 2, 3, 4, 0]), torch.tensor([0, 0, 0, 0, 0])):
        torch.testing.assert_close(mixup(x, lam, partner)[:, 0, 0], mix_targets(y, lam, partner, 4))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_class_numbers_of_any_whole_type(dtype):
    rows = mix_targets(torch.tensor([0, 2], dtype=dtype), 0.7, n_classes=3)
    torch.testing.assert_close(rows, torch.tensor([[0.7, 0, 0.3], [0.3, 0, 0.7]]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
@pytest.mark.parametrize("n_classes", [None, 3])
def test_rows_are_mixed_as_they_are(dtype, n_classes):
    rows = mix_targets(torch.tensor([[1, 0, 1], [0, 0, 1]], dtype=dtype), 0.75, n_classes=n_classes)
    assert rows.tolist() == [[0.75, 0, 1], [0.25, 0, 1]]
    assert rows.dtype == (dtype if dtype.is_floating_point else torch.float32)


@pytest.mark.parametrize("values", [torch.tensor([10.0, 20.0]), torch.tensor([[[10.0]], [[20.0]]])])
def test_measured_values_keep_their_shape(values):
    mixed = mix_targets(values, 0.75)
    assert mixed.shape == values.shape and mixed.flatten().tolist() == [12.5, 17.5]
    with pytest.raises(ValueError, match="leave out n_classes"):
        mix_targets(values, 0.75, n_classes=1)


@pytest.mark.parametrize("y, n_classes, message",
                         [(torch.tensor([0, 3]), 3, "lie in 0 to 2"),
                          (torch.tensor([0, -100]), 3, "lie in 0 to 2"),
                          (torch.tensor([0.0, 1.0]), 3, r"y\.long\(\)"),
                          (torch.tensor([[0, 2], [1, 1]]), None, "rows of 0 and 1"),
                          (torch.zeros(2, 3, 3, dtype=torch.long), 3, "mixed_loss"),
                          (torch.tensor([[1, 0], [0, 1]]), 3, "column")])
def test_labels_that_do_not_fit(y, n_classes, message):
    with pytest.raises(ValueError, match=message):
        mix_targets(y, 0.5, n_classes=n_classes)


# --- boxes

@given(n=st.integers(1, 6), height=st.integers(1, 12), width=st.integers(1, 12), data=st.data())
@settings(deadline=None)
def test_cutmix_returns_the_share_that_really_stayed(n, height, width, data):
    lam = torch.tensor(data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n)))
    x = torch.arange(1.0, n + 1)[:, None, None, None].expand(n, 2, height, width).clone()
    kept = x.clone()
    pasted, stays = cutmix(x, lam, generator=seeded())
    assert torch.equal(x, kept) and stays.shape == (n,)
    if n > 1:
        torch.testing.assert_close((pasted == x).float().mean((1, 2, 3)), stays)
    assert ((pasted == x) | (pasted == x.roll(1, 0))).all()
    assert (stays
            >= (1
                - ((1 - lam).sqrt() * height + 0.5) * ((1 - lam).sqrt() * width
                                                       + 0.5) / (height * width)) - 1e-6).all()


def test_cutmix_boxes_are_rectangles_of_their_own_with_the_photo_s_proportions():
    x = torch.arange(200.0)[:, None, None, None].expand(200, 1, 20, 60)
    pasted, _ = cutmix(x, 0.75, generator=seeded())
    changed = (pasted != x)[:, 0]
    tall, wide = changed.any(2).sum(1), changed.any(1).sum(1)
    assert torch.equal(changed.sum((1, 2)), tall * wide)  # filled
    assert tall.max() == 10 and wide.max() == 30  # half of each side, not swapped
    assert len({tuple(map(int, row))
                for row in changed.flatten(1).float().argmax(1, keepdim=True)}) > 100
    whole = (tall == 10) & (wide == 30)
    # uncut where its centre lies in the middle half of both sides
    assert 0.15 < whole.float().mean() < 0.35


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.int64])
def test_cutmix_pastes_any_number_type(dtype):
    x = (photos() * 255).to(dtype)
    assert cutmix(x, 0.5, generator=seeded())[0].dtype == dtype


@pytest.mark.parametrize("shape", [(7, 6, 10), (7, 3, 6, 10), (7, 3, 5, 6, 10)])
def test_cutmix_cuts_the_last_two_sides_of_any_shape(shape):
    x = torch.arange(7.0).reshape(7, *[1] * (len(shape) - 1)).expand(shape)
    pasted, stays = cutmix(x, 0.5, generator=seeded())
    flat, _ = cutmix(x.reshape(7, -1, 6, 10)[:, :1], 0.5, generator=seeded())
    assert (torch.equal(pasted, flat.reshape(7, *[1] * (len(shape) - 3), 6, 10).expand(shape))
            and (stays < 1).all())


def test_cutmix_pastes_from_the_partner_that_is_given():
    x = torch.arange(4.0)[:, None, None, None].expand(4, 1, 8, 8)
    pasted, _ = cutmix(x, 0.5, torch.tensor([2, 0, 3, 3]), seeded())
    assert [sorted(photo.unique().tolist()) for photo in pasted] == [[0, 2], [0, 1], [2, 3], [3]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64])
def test_shares_of_any_number_type(dtype):
    x, lam = photos(), torch.tensor([0, 1, 1, 0, 1])
    for use in (mixup, lambda x, lam: cutmix(x, lam, generator=seeded())[0]):
        assert torch.equal(use(x, lam.to(dtype)), use(x, lam.float()))


@pytest.mark.parametrize("x, error", [(torch.rand(4, 6), ValueError), (torch.rand(4), ValueError),
                                      (np.ones((4, 3, 6, 6)), TypeError), (None, TypeError)])
def test_cutmix_refuses_what_has_no_sides(x, error):
    with pytest.raises(error, match="N, C, H, W"):
        cutmix(x, 0.5)


def test_masks_are_pasted_alike_by_a_generator_in_the_same_state():
    masks = torch.arange(5)[:, None, None].expand(5, 6, 8)
    pasted, _ = cutmix(photos(), 0.4, generator=seeded(2))
    moved, _ = cutmix(masks, 0.4, generator=seeded(2))
    assert torch.equal((pasted != photos()).any(1), moved != masks)


def test_cutmix_draws_from_its_generator_alone():
    before = torch.get_rng_state()
    first, second = (cutmix(photos(), 0.5, generator=seeded(4))[0] for _ in range(2))
    assert torch.equal(first, second) and torch.equal(before, torch.get_rng_state())


# --- plain PyTorch

@pytest.mark.parametrize("workers", [0, 2])
def test_collate_mixes_with_and_without_workers(workers):
    x = torch.arange(1.0, 41)[:, None].expand(40, 5)
    loader = DataLoader(TensorDataset(x, torch.arange(40) % 4), batch_size=10,
                        collate_fn=MixUpCollate(4), num_workers=workers)

    def epoch():
        return [(photo, label) for photo, label in loader]

    torch.manual_seed(0)
    first, later = epoch(), epoch()
    torch.manual_seed(0)
    again = epoch()
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again))
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(first, later))  # another epoch, other shares
    assert len({float(photo[0, 0] % 1) for photo, _ in first}) == 4  # workers draw other numbers
    for photo, label in first:
        torch.testing.assert_close(label.sum(1), torch.ones(10))
        assert not torch.equal(photo, photo.round())


def test_collate_leaves_a_batch_of_one_and_mixes_measured_values():
    x, y = MixUpCollate(4)([(torch.ones(3), 2)])
    assert torch.equal(x, torch.ones(1, 3)) and torch.equal(y, torch.tensor([[0.0, 0, 1, 0]]))
    x, y = MixUpCollate()([(torch.tensor([float(i)]), float(i)) for i in range(8)])
    torch.testing.assert_close(x[:, 0].double(), y, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_collate_mixes_nobody_with_itself_and_everybody_once(n):
    """Random permutations made half of the photos in batches of two their own partners."""
    torch.manual_seed(0)
    pairs = set()
    for _ in range(40):
        _, rows = MixUpCollate(n, alpha=1)([(torch.zeros(1), i) for i in range(n)])
        assert ((rows > 0).sum(1) == 2).all() and ((rows > 0).sum(0) == 2).all()
        pairs |= {tuple(row.nonzero().flatten().tolist()) for row in rows}
    assert len(pairs) == n * (n - 1) / 2  # and each with any other


def test_collate_says_what_is_wrong():
    with pytest.raises(TypeError, match="mix after converting"):
        MixUpCollate(4)([(torch.ones(3, dtype=torch.uint8), 2)] * 2)
    with pytest.raises(ValueError, match="n_classes"):
        MixUpCollate()([(torch.ones(3), 2)] * 2)


def pairs(n=8, size=6):
    """Photos that hold their own number, and class numbers."""
    return [(torch.full((1, size, size), float(i)), i % 4) for i in range(n)]


def test_collate_of_cutmix_pastes_boxes_and_counts_what_stayed():
    torch.manual_seed(0)
    x, rows = CutMixCollate(8, alpha=1)([(photo, i) for i, (photo, _) in enumerate(pairs())])
    for i, (photo, row) in enumerate(zip(x, rows)):
        assert float((photo == i).float().mean()) == pytest.approx(float(row[i]), abs=1e-6)
        assert set(photo.unique().int().tolist()) == {
            number for number, share in enumerate(row.tolist()) if share > 1e-6
        }
    with pytest.raises(ValueError, match="about the whole photo"):
        CutMixCollate()([(torch.rand(1, 6, 6), torch.rand(1, 6, 6))] * 2)


@pytest.mark.parametrize("collate", [MixUpCollate(4), CutMixCollate(4)])
def test_collates_mix_two_parts_of_any_batch_and_leave_the_others(collate):
    Sample = namedtuple("Sample", "index photo label")
    torch.manual_seed(3)
    expected = collate(pairs())
    triples = [(i, *pair) for i, pair in enumerate(pairs())]
    forms = [([dict(zip(Sample._fields, triple)) for triple in triples], ("photo", "label"),
              lambda batch: batch),
             ([UserDict(zip(Sample._fields, triple)) for triple in triples], ("photo", "label"),
              lambda batch: batch), ([Sample(*triple) for triple in triples], (1, 2), Sample._asdict),
             (triples, (1, 2), lambda batch: dict(zip(Sample._fields, batch)))]
    for samples, where, as_dict in forms:
        other = copy.copy(collate)
        other.where = where
        torch.manual_seed(3)
        batch = other(samples)
        found = as_dict(batch)
        assert torch.equal(found["photo"], expected[0]) and torch.equal(found["label"], expected[1])
        assert found["index"].tolist() == list(range(8))
        assert isinstance(batch, type(samples[0]))


@pytest.mark.parametrize("where, samples, words",
                         [(None, [{"photo": torch.rand(2), "label": 1}] * 2, "photo, label"),
                          (None, [(torch.rand(2), 1, 2)] * 2, "pairs.*0, 1, 2"),
                          (("image", "label"), [{"photo": torch.rand(2), "label": 1}] * 2,
                           "no 'image', but photo, label"),
                          ((0, 3), [(torch.rand(2), 1, 2)] * 2, "no 3, but 0, 1, 2"),
                          (None, [torch.rand(2)] * 2, "pairs")])
def test_collates_say_which_parts_a_batch_has(where, samples, words):
    with pytest.raises(ValueError, match=words):
        MixUpCollate(4, where=where)(samples)


def test_a_switch_gives_each_batch_to_one_collate_by_chance():
    kinds = []
    torch.manual_seed(0)
    switch = RandomMixCollate([MixUpCollate(4), CutMixCollate(4)], chances=[0.8, 0.2])
    for _ in range(300):
        x, rows = switch(pairs())
        kinds.append(bool((x == x.round()).all()))  # pasted, not mixed
        torch.testing.assert_close(rows.sum(1), torch.ones(8))
    assert 0.14 < np.mean(kinds) < 0.27
    assert not any(bool((RandomMixCollate([MixUpCollate(4), CutMixCollate(4)], [1, 0])(pairs())[0] % 1
                         == 0).all()) for _ in range(20))
    x, rows = switch(pairs(1))
    assert torch.equal(x[0], pairs(1)[0][0]) and rows.tolist() == [[1, 0, 0, 0]]


@pytest.mark.parametrize("chances, error",
                         [([0.5, 0.6], ValueError), ([1.0], ValueError), ([-0.5, 1.5], ValueError),
                          ("ab", TypeError), ([float("nan"), 1], ValueError), (0.5, TypeError),
                          (["a", "b"], TypeError)])
def test_chances_that_are_none_are_refused(chances, error):
    for make in (lambda: RandomMix([MixUp(), CutMix()], chances),
                 lambda: RandomMixCollate([MixUpCollate(4), CutMixCollate(4)], chances)):
        with pytest.raises(error, match="chances"):
            make()


@pytest.mark.parametrize("mixers", [[], [MixUp(), MixUpCollate(4)], [0.4, 1.0]])
def test_what_cannot_be_chosen_from_is_refused(mixers):
    with pytest.raises(TypeError, match="RandomMix takes"):
        RandomMix(mixers)
    with pytest.raises((TypeError, ValueError), match="ollate"):
        RandomMixCollate([] if not mixers else [0.4])


# --- pictures

@pytest.mark.parametrize("lam", [0.3, 1, (0, 0.5, 1)])
@pytest.mark.parametrize("cut", [False, True])
def test_pictures_are_drawn(lam, cut):
    figure = show_mixup(photos(), torch.arange(5), list("abcde"), lam, item=2, cut=cut,
                        generator=seeded())
    assert len(figure.axes) == 6
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:2] == ["c", "b"] or titles[0].startswith("λ = ")


def test_shares_are_float32_whatever_pytorchs_default_type_is():
    torch.set_default_dtype(torch.float64)
    try:
        assert {sample_lambda(3, alpha).dtype for alpha in (0, 0.4)} == {torch.float32}
    finally:
        torch.set_default_dtype(torch.float32)


# --- traced

@pytest.mark.parametrize("partner", [None, torch.tensor([4, 3, 2, 1, 0])])
def test_compiled_in_one_graph(partner):
    x, lam = photos(), torch.rand(5, generator=seeded())
    compiled = torch.compile(mixup, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, lam, partner), mixup(x, lam, partner))
    torch.testing.assert_close(compiled(x, 0.3, partner), mixup(x, 0.3, partner))
    torch.manual_seed(0)
    mine = cutmix(x, lam, partner)
    torch.manual_seed(0)
    theirs = torch.compile(cutmix, backend="eager", fullgraph=True)(x, lam, partner)
    assert all(map(torch.equal, mine, theirs))
    compiled = torch.compile(mix_targets, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(torch.arange(5), lam, partner, 5),
                               mix_targets(torch.arange(5), lam, partner, 5))


def test_mapped_traced_and_without_values():
    x, lams = photos(), torch.rand(4, 5, generator=seeded())
    mapped = torch.func.vmap(lambda lam: mixup(x, lam))(lams)
    torch.testing.assert_close(mapped, torch.stack([mixup(x, lam) for lam in lams]))
    gradient = torch.func.grad(lambda x: mixup(x, 0.3).square().sum())(x)
    torch.testing.assert_close(gradient, 0.6 * mixup(x, 0.3) + 1.4 * mixup(x, 0.3).roll(-1, 0))
    torch.testing.assert_close(make_fx(lambda x, lam: mixup(x, lam))(x, lams[0])(x, lams[1]),
                               mixup(x, lams[1]))
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(x)
        assert mixup(fake, 0.3).shape == cutmix(fake, 0.3)[0].shape == x.shape
        assert mix_targets(mode.from_tensor(torch.arange(5)), 0.3, n_classes=5).shape == (5, 5)
    for mixed in (mixup(x.to("meta"), 0.3), cutmix(x.to("meta"), 0.3)[0],
                  mixup(x.to("meta"), lams[0].to("meta"))):
        assert mixed.device.type == "meta" and mixed.shape == x.shape


def test_compiled_once_for_batches_of_any_size():
    """The last batch is often a smaller one, and the compiler then takes the size for unknown."""
    compiled = torch.compile(lambda x, lam: cutmix(x, lam)[0], backend="eager", fullgraph=True,
                             dynamic=True)
    for n in (5, 3):
        x, lam = torch.rand(n, 3, 6, 6), torch.rand(n)
        torch.manual_seed(0)
        expected = cutmix(x, lam)[0]
        torch.manual_seed(0)
        torch.testing.assert_close(compiled(x, lam), expected)


def test_a_default_device_moves_nothing():
    """Random numbers from generators of the CPU failed where PyTorch's default device was another
    one."""
    x, lam = photos(), sample_lambda(5, generator=seeded())
    expected = mixup(x, lam), *cutmix(x, lam, generator=seeded())
    with torch.device("meta"):
        assert (torch.equal(sample_lambda(5, generator=seeded()), lam)
                and sample_lambda(5, 0).device.type == "cpu")
        assert sample_lambda(5).device.type == "cpu"
        found = mixup(x, lam), *cutmix(x, lam, generator=seeded())
        assert all(map(torch.equal, expected, found)) and mixup(x, 0.3).device.type == "cpu"
        mixed, rows = MixUpCollate(3)([(photo, torch.tensor(1, device="cpu")) for photo in x])
    assert mixed.device.type == rows.device.type == "cpu"
