"""Keras's label smoothing, MixUp, CutMix and normalization beside ours, on its PyTorch backend. `make
test-peers` installs it."""

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonkit.label_smoothing import LabelSmoothingCrossEntropy, smooth_labels
from lessonkit.mixup import cutmix, mix_targets, mixup, MixUpCollate
from lessonkit.normalization import Normalize, channel_stats

os.environ.setdefault("KERAS_BACKEND", "torch")
pytestmark = pytest.mark.filterwarnings("ignore")
keras = pytest.importorskip("keras")

QUICK = settings(deadline=None, derandomize=True, max_examples=30)


def tensor(values):
    return torch.from_numpy(np.array(keras.ops.convert_to_numpy(values)))


@st.composite
def batches(draw):
    n, n_classes = draw(st.integers(1, 8)), draw(st.integers(2, 30))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    x = torch.rand(n, 3, draw(st.integers(2, 9)), draw(st.integers(2, 9)), generator=generator)
    return x, torch.randint(n_classes, (n,), generator=generator), n_classes, torch.randperm(
        n, generator=generator
    )


@pytest.mark.against(ours="LabelSmoothingCrossEntropy", 
                     theirs="Keras CategoricalCrossentropy(label_smoothing)")
@QUICK
@given(batches(), st.floats(0, 1), st.sampled_from(["mean", "sum", "none"]),
       st.sampled_from([torch.float32, torch.float64]))
def test_the_loss_of_smoothed_labels_is_keras(batch, eps, reduction, kind):
    _, y, n_classes, _ = batch
    pred = 3 * torch.randn(len(y), n_classes, generator=torch.Generator().manual_seed(0), dtype=kind)
    reduce = {"mean": "sum_over_batch_size", "sum": "sum", "none": None}[reduction]
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=eps,
                                                  reduction=reduce)
    rows = F.one_hot(y, n_classes).to(kind)
    wanted = tensor(theirs(rows, pred)).to(kind)
    torch.testing.assert_close(LabelSmoothingCrossEntropy(eps, reduction=reduction)(pred, y), wanted,
                               rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(LabelSmoothingCrossEntropy(eps, reduction=reduction)(pred, rows), wanted,
                               rtol=1e-5, atol=1e-5)
    plain = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=reduce)
    torch.testing.assert_close(wanted, tensor(plain(smooth_labels(y, n_classes, eps), pred)).to(kind),
                               rtol=1e-5, atol=1e-5)


@pytest.mark.against(ours="mixup", theirs="Keras MixUp")
@QUICK
@given(batches(), st.integers(0, 2**16), st.sampled_from(["channels_first", "channels_last"]))
def test_mixup_is_keras(batch, seed, data_format):
    x, y, n_classes, partner = batch
    share = torch.rand(len(x), generator=torch.Generator().manual_seed(seed))
    layer = keras.layers.MixUp(0.4, data_format=data_format)
    drawn = {"mix_weight": share, "permutation_order": partner}
    given_x = x if data_format == "channels_first" else x.movedim(1, -1)
    theirs = tensor(layer.transform_images(given_x, drawn))
    mine = mixup(x, share, partner)
    torch.testing.assert_close(mine,
                               theirs if data_format == "channels_first" else theirs.movedim(-1, 1))
    their_rows = tensor(layer.transform_labels(F.one_hot(y, n_classes).float(), drawn))
    torch.testing.assert_close(mix_targets(y, share, partner, n_classes), their_rows)


@pytest.mark.differs(
    library="Keras", there="MixUp draws partners by a permutation, so a photo may be its own",
    here="nobody is its own partner",
    why="a photo mixed with itself isn't mixed; in a batch of two that happens half of the time",
)
def test_keras_photo_may_be_its_own_partner():
    layer, x = keras.layers.MixUp(1.0, data_format="channels_first", seed=0), torch.eye(2)[:, None, None]
    orders = [tensor(layer.get_random_transformation(x)["permutation_order"]).tolist()
              for _ in range(40)]
    assert [0, 1] in orders and [1, 0] in orders
    mine = [MixUpCollate(2, alpha=1.0)(list(zip(x, torch.arange(2))))[1] for _ in range(40)]
    assert all((rows > 0).all() for rows in mine)


@pytest.mark.against(ours="cutmix", theirs="Keras CutMix")
@QUICK
@given(batches(), st.integers(0, 2**16))
def test_cutmix_pastes_what_keras_pastes(batch, seed):
    """Boxes are drawn otherwise, so ours is given to Keras: its photos, and its labels with our
    share."""
    x, y, n_classes, partner = batch
    mine, stays = cutmix(x, 0.5, partner, torch.Generator().manual_seed(seed))
    others = torch.arange(len(x)).roll(1)
    box = torch.zeros_like(x, dtype=torch.bool)
    for i in range(len(x)):  # the boxes of this seed, seen on a batch in which only this photo is black
        probe = torch.ones_like(x)
        probe[i] = 0
        box[i] = cutmix(probe, 0.5, others, torch.Generator().manual_seed(seed))[0][i] == 1
    if len(x) == 1:
        return  # its own partner
    layer = keras.layers.CutMix(1.0, data_format="channels_first")
    drawn = {"permutation_order": partner, "batch_masks": box, "mix_weight": stays}
    torch.testing.assert_close(mine, tensor(layer.transform_images(x, drawn)))
    torch.testing.assert_close(stays, 1 - box[:, 0].float().mean((1, 2)))
    their_rows = tensor(layer.transform_labels(F.one_hot(y, n_classes).float(), drawn))
    torch.testing.assert_close(mix_targets(y, stays, partner, n_classes), their_rows)


@pytest.mark.differs(
    library="Keras", there="CutMix mixes labels by the box as drawn, in parts of a pixel",
    here="by the pixels that were really pasted",
    why="on small pictures the two differ by several percent",
)
def test_keras_labels_are_mixed_by_a_box_that_was_not_pasted():
    layer, x = keras.layers.CutMix(1.0, data_format="channels_first", seed=0), torch.rand(64, 1, 8, 8)
    drawn = layer.get_random_transformation(x)
    pasted = 1 - tensor(drawn["batch_masks"]).float().mean((1, 2, 3))
    assert (tensor(drawn["mix_weight"]).flatten() - pasted).abs().max() > 0.03
    white = torch.ones(64, 1, 8, 8)
    white[::2] = 0
    # each photo's partner has the other colour
    mine, stays = cutmix(white, 0.5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close((mine == white).float().mean((1, 2, 3)), stays)


@pytest.mark.against(ours="Normalize", theirs="Keras Normalization")
@pytest.mark.against(ours="channel_stats", theirs="Keras Normalization")
@pytest.mark.parametrize("shape", [(5, 3, 4, 6), (1, 3, 2, 2), (7, 1, 8, 3), (3, 12, 5, 5)])
def test_statistics_and_normalization_are_keras(shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 3 + 1
    layer = keras.layers.Normalization(axis=1)
    layer.adapt(x.numpy())
    stats = channel_stats(x)
    torch.testing.assert_close(stats.mean.float().flatten(), tensor(layer.mean).flatten(), rtol=1e-5,
                               atol=1e-5)
    torch.testing.assert_close(stats.std.float().flatten() ** 2, tensor(layer.variance).flatten(),
                               rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(Normalize(stats.mean, stats.std)(x), tensor(layer(x)), rtol=1e-4,
                               atol=1e-4)
