"""Numbers that are none, batches with nothing in them, settings out of range: the right value, or one
line that names the thing."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from lessonkit.comparison import crossed_interval
from lessonkit.foundation.batch_transforms import (
    Augment, Crops, flip_batch, random_crops, random_resized_crop, resize_batch,
)
from lessonkit.foundation.calibration import expected_calibration_error, score
from lessonkit.foundation.models import refresh_batch_norm, small_resnet
from lessonkit.foundation.plots import as_pictures, label_bars, show_images
from lessonkit.label_smoothing import LabelSmoothingCrossEntropy, smooth_labels
from lessonkit.mixup import (
    CutMix, MixUp, MixUpCollate, cutmix, mix_targets, mixed_loss, mixup, sample_lambda,
)
from lessonkit.normalization import (
    ChannelStats, Normalize, channel_stats, normalize, pretrained_stats, show_normalized,
)
from lessonkit.progressive_resizing import (ProgressiveResize, fit_stages, pixel_share, size_schedule)
from lessonkit.subset_selection import select_subset
from lessonkit.tta import corner_crops, merge_views, random_views, scales, tta, view_spread

NAN, INF = float("nan"), float("inf")
X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 1])
NETWORK = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
CROPS = random_crops(torch.ones(4), Augment(), torch.Generator().manual_seed(0))
PROBS = torch.full((2, 4, 3), 1 / 3)
LOSS = LabelSmoothingCrossEntropy()

REFUSED = {
    "resize size 0": (lambda: resize_batch(X, 0), "size=0"),
    "resize size 2.5": (lambda: resize_batch(X, 2.5), "size=2.5"),
    "resize size text": (lambda: resize_batch(X, "8"), "size='8'"),
    "resize size none": (lambda: resize_batch(X, None), "size=None"),
    "resize size true": (lambda: resize_batch(X, True), "size=True"),
    "resize array": (lambda: resize_batch(X.numpy(), 4), "must be a tensor"),
    "resize complex": (lambda: resize_batch(X + 0j, 4), "complex64"),
    "resize nothing": (lambda: resize_batch(X[:0], 4), "nothing empty"),
    "crop size 0": (lambda: random_resized_crop(X, CROPS, 0), "size=0"),
    "crops of fewer photos": (lambda: random_resized_crop(X[:3], CROPS, 4), "4 crops for 3"),
    "crops of fewer bytes": (lambda: random_resized_crop((X[:3] * 255).byte(), CROPS, 4),
                             "4 crops for 3"),
    "crops of more photos": (lambda: random_resized_crop((X * 255).byte(),
                                                         Crops(*(part[:3] for part in CROPS)), 4),
                                                         "3 crops for 4"),
    "crops of no shape": (lambda: random_crops(torch.tensor([1.0, NAN]), Augment(), torch.Generator()),
                          "above 0"),
    "crops of height 0": (lambda: random_crops(torch.tensor([INF]), Augment(), torch.Generator()),
                          "above 0"),
    "augment area": (lambda: random_crops(torch.ones(1), Augment(min_area=5), torch.Generator()),
                     "min_area"),
    "augment nan": (lambda: random_crops(torch.ones(1), Augment(flip=NAN), torch.Generator()), "flip"),
    "augment inf": (lambda: random_crops(torch.ones(1), Augment(max_ratio=INF), torch.Generator()),
                    "max_ratio"),
    "augment text": (lambda: random_views(2, augment=Augment("a")), "augment"),
    "augment number": (lambda: random_views(2, augment=3), "augment"),
    "flip one for all": (lambda: flip_batch(X, torch.tensor([True])), "4 bools"),
    "flip numbers": (lambda: flip_batch(X, torch.tensor([1, 0, 1, 0])), "4 bools"),
    "network classes": (lambda: small_resnet(0), "n_classes=0"),
    "network width": (lambda: small_resnet(2, 2.5), "width=2.5"),
    "network true": (lambda: small_resnet(True), "n_classes=True"),
    "bins 0": (lambda: expected_calibration_error([[0.5, 0.5]], [0], 0), "n_bins"),
    "bins 2.5": (lambda: expected_calibration_error([[0.5, 0.5]], [0], 2.5), "n_bins"),
    "bins none": (lambda: expected_calibration_error([[0.5, 0.5]], [0], None), "n_bins"),
    "score nothing": (lambda: score(np.zeros((0, 2)), np.zeros(0, int)), "nothing to score"),
    "score nan": (lambda: score([[NAN, 0.5]], [0]), "NaN"),
    "score infinity": (lambda: score([[INF, 0.5]], [0]), "infinite"),
    "score overflow": (lambda: score([[1e308, 1e308]], [0]), "sum to 1"),
    "score one class": (lambda: score([[1.0]], [0]), "two classes"),
    "score negative class": (lambda: score([[0.5, 0.5]], [-1]), "-1"),
    "score logits": (lambda: score([[3.0, -1.0]], [0]), "softmax"),
    "tta n": (lambda: tta(NETWORK, X, n=-1), "n=-1"),
    "tta n text": (lambda: tta(NETWORK, X, n="4"), "n='4'"),
    "tta beta": (lambda: tta(NETWORK, X, beta=2), "beta=2"),
    "tta beta text": (lambda: tta(NETWORK, X, beta="a"), "beta='a'"),
    "tta beta nan": (lambda: tta(NETWORK, X, beta=NAN), "beta=nan"),
    "tta seed": (lambda: tta(NETWORK, X, seed=1.5), "seed=1.5"),
    "tta batch size": (lambda: tta(NETWORK, X, batch_size=0), "batch_size=0"),
    "tta views": (lambda: tta(NETWORK, X, views=[3]), "views must be Views"),
    "tta nothing": (lambda: tta(NETWORK, X[:0]), "nothing empty"),
    "tta no batches": (lambda: tta(NETWORK, []), "no photos"),
    "tta array": (lambda: tta(NETWORK, X.numpy()), "tensor"),
    "tta labels of others": (lambda: tta(NETWORK, [(X, Y[:1])]), "one for each"),
    "merge whole numbers": (lambda: merge_views(torch.ones(2, 2, 2, dtype=torch.long)),
                            "floating-point"),
    "merge negative": (lambda: merge_views(torch.tensor([[[2.0, -1.0]]]), "gmean"), "gmean"),
    "merge infinity": (lambda: merge_views(PROBS * INF, "max"), "max"),
    "spread of rows": (lambda: view_spread(torch.ones(2)), r"\(V, N, C\)"),
    "spread of nothing": (lambda: view_spread(PROBS[:0]), r"\(V, N, C\)"),
    "crop share": (lambda: corner_crops("a"), "share='a'"),
    "crop share nan": (lambda: corner_crops(NAN), "share=nan"),
    "scale": (lambda: scales(32, 0), "a scale=0"),
    "schedule start": (lambda: size_schedule(10, 8, 4), "start=8"),
    "schedule steps": (lambda: size_schedule(2.5, 4, 8), "steps=2.5"),
    "schedule fraction": (lambda: size_schedule(10, 4, 8, finetune_fraction=NAN),
                          "finetune_fraction=nan"),
    "share of no size": (lambda: pixel_share([-3, 4]), "at least 1"),
    "resize nothing set": (lambda: ProgressiveResize("a"), "start='a'"),
    "stages of nothing": (lambda: fit_stages(None, [(8, 1)]), "Learner"),
    "batch norm of nothing": (lambda: refresh_batch_norm(None, []), "torch.nn.Module"),
    "labels none": (lambda: smooth_labels(None, 3), "class numbers"),
    "labels ragged": (lambda: smooth_labels([[0], [1, 2]], 3), "class numbers"),
    "labels below 0": (lambda: smooth_labels(torch.tensor([-1]), 3), "-1"),
    "eps": (lambda: LabelSmoothingCrossEntropy(NAN), "eps=nan"),
    "class below 0": (lambda: LOSS(torch.zeros(2, 3), torch.tensor([-1, 0])), "-1"),
    "no classes": (lambda: LOSS(torch.zeros(2, 0), torch.tensor([0, 0])), "0 classes"),
    "soft nan": (lambda: LOSS(torch.zeros(1, 2), torch.tensor([[NAN, 1.0]])), "nan"),
    "weights nan": (lambda: LabelSmoothingCrossEntropy(weight=[1, NAN]), "weight"),
    "shares n": (lambda: sample_lambda(2.5), "n=2.5"),
    "shares n text": (lambda: sample_lambda("3"), "n='3'"),
    "shares n below 0": (lambda: sample_lambda(-1), "n=-1"),
    "lam none": (lambda: mixup(X, None), "lam must be"),
    "lam text": (lambda: mixup(X, "half"), "lam must be"),
    "lam complex": (lambda: mixup(X, 1j), "lam must be"),
    "lam nan": (lambda: cutmix(X, NAN), "lam must lie"),
    "partner text": (lambda: mixup(X, 0.5, "next"), "partner must be"),
    "targets none": (lambda: mix_targets(None, 0.5), "y must be"),
    "targets complex": (lambda: mix_targets(torch.tensor([1j]), 0.5, n_classes=2), "complex"),
    "targets classes": (lambda: mix_targets(Y, 0.5, n_classes=2.5), "n_classes=2.5"),
    "targets below 0": (lambda: mix_targets(torch.tensor([-1, 0]), 0.5, n_classes=3), "-1"),
    "loss of a text": (lambda: mixed_loss(F.cross_entropy, torch.zeros(2, 3), "ab", 0.5), "'ab'"),
    "mixup seed": (lambda: MixUp(seed="a"), "seed='a'"),
    "cutmix seed": (lambda: CutMix(seed=1.5), "seed=1.5"),
    "collate triples": (lambda: MixUpCollate(3)([(X[0], 1, 2)] * 2), "pairs"),
    "collate photos alone": (lambda: MixUpCollate(3)([X[0]] * 4), "pairs"),
    "statistics of nothing": (lambda: channel_stats([]), "nothing to count"),
    "statistics before any": (lambda: ChannelStats().mean, "update"),
    "statistics batch size": (lambda: channel_stats([X], batch_size=0), "batch_size=0"),
    "statistics nan": (lambda: channel_stats(X * NAN), "NaN"),
    "statistics of one colour": (lambda: Normalize(channel_stats(torch.zeros(2, 3, 4, 4))), "no spread"),
    "normalize nothing": (lambda: Normalize([0.5] * 3, [0.2] * 3)(()), "no images"),
    "normalize std": (lambda: normalize(X, [0.5] * 3, [0.2, INF, 0.2]), "infinity"),
    "pretrained none": (lambda: pretrained_stats(None), "doesn't say"),
    "draw nothing": (lambda: show_normalized(X[:0], Normalize([0.5] * 3, [0.2] * 3)), "no images"),
    "show nothing": (lambda: show_images([]), "no images"),
    "pictures nan": (lambda: as_pictures(X * NAN), "between 0 and 1"),
    "bars nan": (lambda: label_bars(plt.figure().gca(), [NAN, 0.5], ["a", "b"]), "between 0 and 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(name):
    call, words = REFUSED[name]
    with warnings.catch_warnings(), pytest.raises((ValueError, TypeError), match=words) as caught:
        warnings.simplefilter("error")  # and no warning from deep inside before it
        call()
    assert "\n" not in str(caught.value)
    plt.close("all")


def test_nan_in_photos_comes_out_as_nan_and_stays_in_its_photo():
    x = X.clone()
    x[1] = NAN
    for out in (resize_batch(x, 4), normalize(x, [0.5] * 3, [0.2] * 3),
                random_resized_crop(x, CROPS, 4)):
        assert out[1].isnan().all() and out[[0, 2, 3]].isfinite().all()
    result = tta(NETWORK, x, n=2)
    assert result.probs[1].isnan().all() and result.probs[[0, 2, 3]].isfinite().all()
    mixed = mixup(x, 0.5)  # in its own photo, and in that of which it is the partner
    assert mixed[[1, 2]].isnan().all() and mixed[[0, 3]].isfinite().all()
    assert cutmix(x, torch.ones(4))[0][[0, 2, 3]].isfinite().all()


def test_empty_batches_stay_empty():
    none = torch.zeros(0, dtype=torch.long)
    assert (mixup(X[:0], 0.5).shape == cutmix(X[:0], 0.5)[0].shape == (0, 3, 8, 8)
            and sample_lambda(0).shape == (0,))
    assert mix_targets(none, 0.5, n_classes=3).shape == smooth_labels(none, 3).shape == (0, 3)
    assert Normalize([0.5] * 3, [0.2] * 3)(X[:0]).shape == (0, 3, 8, 8)
    for loss in (F.cross_entropy, nn.CrossEntropyLoss(), LOSS, lambda pred,
                 y: F.cross_entropy(pred, y, reduction="sum")):
        assert float(mixed_loss(loss, torch.zeros(0, 3), none, 0.5)) == 0
    assert float(LOSS(torch.zeros(0, 3), none)) == 0


def test_all_items_ignored_and_one_class_lose_nothing():
    ignored = torch.full((3,), -100)
    pred = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for loss in (LOSS, nn.CrossEntropyLoss()):
        mixed = mixed_loss(loss, pred, ignored, 0.3)
        mixed.backward()
        assert float(mixed.detach()) == 0 and not pred.grad.any()
    assert float(LOSS(torch.ones(3, 1), torch.zeros(3, dtype=torch.long))) == 0
    assert smooth_labels(torch.tensor([0, 0]), 1).tolist() == [[1], [1]]


def test_photos_of_one_colour_stay_so():
    grey = torch.full((2, 3, 9, 7), 0.25)
    for out in (resize_batch(grey, 4), mixup(grey, 0.3), cutmix(grey, 0.3)[0],
                *(view(grey) for view in random_views(3))):
        torch.testing.assert_close(out, torch.full_like(out, 0.25))


@pytest.mark.parametrize("picture, value",
                         [(Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16)), 156),
                          (Image.new("I", (4, 4), 40000), 156), (Image.new("L", (4, 4), 40), 40),
                          (Image.new("1", (4, 4), 1), 255), (Image.new("LA", (4, 4), (0, 0)), 255),
                          (Image.new("CMYK", (4, 4), (0, 0, 0, 0)), 255)])
def test_pictures_of_every_mode_are_drawn_at_their_brightness(picture, value):
    assert as_pictures(picture)[0].flatten().tolist() == [value] * as_pictures(picture)[0].size


NAMES = ["$a_{$", "costs $5 and $6", "<script>alert(1)</script>", "%s {x} \\frac", "", "n" * 255]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_are_drawn_as_they_are():
    """Between two $ matplotlib sees a formula, and stops at one that isn't well-formed."""
    figure = show_images(torch.rand(6, 3, 4, 4), NAMES)
    figure.canvas.draw()
    assert (not any(axis.title.get_parse_math() for axis in figure.axes)
            and figure.axes[0].get_title() == "$a_{$")
    figure, axis = plt.subplots()
    label_bars(axis, [1 / 6] * 6, NAMES, top=6)
    figure.canvas.draw()
    assert "$a_{$" in [label.get_text() for label in axis.get_yticklabels()]
    plt.close("all")


# --- tensors that are no plain block of numbers

PHOTOS, CLASSES, LOGITS = torch.rand(4, 3, 6, 6), torch.arange(4) % 3, torch.eye(4, 3)
LAYOUTS = {"coo": lambda x: x.to_sparse(), "csr": lambda x: x.to_sparse_csr(),
           "mkldnn": lambda x: x.to_mkldnn()}
GIVEN = {
    "mixup": lambda odd: mixup(odd(PHOTOS), 0.3),
    "cutmix": lambda odd: cutmix(odd(PHOTOS), 0.3),
    "shares": lambda odd: mixup(PHOTOS, odd(torch.rand(4))),
    "rows": lambda odd: mix_targets(odd(LOGITS), 0.3),
    "soft labels": lambda odd: LabelSmoothingCrossEntropy()(LOGITS, odd(LOGITS.softmax(1))),
    "predictions": lambda odd: LabelSmoothingCrossEntropy()(odd(LOGITS), CLASSES),
    "mixed loss": lambda odd: mixed_loss(nn.CrossEntropyLoss(), odd(LOGITS), CLASSES, 0.3),
    "class weights": lambda odd: LabelSmoothingCrossEntropy(weight=odd(torch.ones(3))),
    "smoothing": lambda odd: smooth_labels(odd(LOGITS)),
    "normalization": lambda odd: Normalize([0.5] * 3, [0.5] * 3)(odd(PHOTOS)),
    "mean": lambda odd: Normalize(odd(torch.ones(3)), [0.5] * 3),
    "statistics": lambda odd: channel_stats(odd(PHOTOS)),
    "tta": lambda odd: tta(nn.Flatten(), odd(PHOTOS)),
    "views": lambda odd: merge_views(odd(torch.rand(2, 4, 3))),
    "resizing": lambda odd: resize_batch(odd(PHOTOS), 3),
    "scores": lambda odd: score(odd(LOGITS), CLASSES),
    "differences": lambda odd: crossed_interval(odd(LOGITS)),
    "features": lambda odd: select_subset(odd(LOGITS), 2),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("what, layout", [
    (what, layout) for what in GIVEN for layout in LAYOUTS if layout == "coo"
    or what not in ("shares", "class weights", "mean")
])
def test_sparse_tensors_are_told_in_one_line(what, layout):
    """They ended in pages from inside PyTorch, "Could not run 'aten::roll' with arguments from the
    'SparseCPU' backend"."""
    with pytest.raises(TypeError, match="dense") as caught:
        GIVEN[what](LAYOUTS[layout])
    assert "\n" not in str(caught.value)
