"""Test-time augmentation beside ttach and fastai, facility location beside apricot and every possible
choice, calibration beside scikit-learn."""

from itertools import combinations

import numpy as np
import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader as FastaiLoader
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, balanced_accuracy_score, brier_score_loss, log_loss
from torch import nn

from lessonkit.foundation.calibration import calibration_bins, expected_calibration_error, score
from lessonkit.subset_selection import select_subset
from lessonkit.tta import flip, merge_views, product, quarter_turns, tta, vertical_flip

QUICK = settings(deadline=None, derandomize=True, max_examples=30)


def network(n_classes, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Linear(24, n_classes)).eval()


@pytest.mark.against(ours="tta", theirs="ttach ClassificationTTAWrapper")
@pytest.mark.against(ours="flip", theirs="ttach HorizontalFlip")
@pytest.mark.against(ours="product", theirs="ttach Compose")
@QUICK
@given(n=st.integers(1, 9), n_classes=st.integers(2, 40), height=st.integers(1, 12),
       width=st.integers(1, 12), batch=st.integers(1, 4),
       form=st.sampled_from([torch.contiguous_format, torch.channels_last]))
def test_averaging_views_is_ttachs(n, n_classes, height, width, batch, form):
    ttach = pytest.importorskip("ttach")
    model = network(n_classes)
    x = torch.rand(n, 3, height, width,
                   generator=torch.Generator().manual_seed(n)).contiguous(memory_format=form)
    # none, one, the other, both
    transforms = ttach.Compose([ttach.HorizontalFlip(), ttach.VerticalFlip()])
    views = product(flip, vertical_flip)
    with torch.no_grad():
        wrapped = ttach.ClassificationTTAWrapper(nn.Sequential(model, nn.Softmax(1)), transforms,
                                                 merge_mode="mean")
        torch.testing.assert_close(tta(model, x, views, batch_size=batch).probs, wrapped(x))


@pytest.mark.against(ours="quarter_turns", theirs="ttach Rotate90")
@pytest.mark.against(ours="vertical_flip", theirs="ttach VerticalFlip")
def test_quarter_turns_and_upside_down_are_ttachs():
    ttach = pytest.importorskip("ttach")
    model, x = network(4), torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    for transform, views in ((ttach.Rotate90([0, 90, 180, 270]), quarter_turns),
                             (ttach.VerticalFlip(), vertical_flip)):
        with torch.no_grad():
            wrapped = ttach.ClassificationTTAWrapper(nn.Sequential(model, nn.Softmax(1)),
                                                     ttach.Compose([transform]))
            torch.testing.assert_close(tta(model, x, views).probs, wrapped(x))


@pytest.mark.differs(
    library="ttach", there="geometric mean, maximum, minimum and sharpened means don't sum to 1",
    here="divided by their sum",
    why="what is compared with other probabilities must be one",
)
@pytest.mark.parametrize("merge", ["gmean", "max", "min", "tsharpen"])
def test_ttachs_other_merges_dont_sum_to_1_and_ours_do(merge):
    ttach = pytest.importorskip("ttach")
    model, x = network(5), torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    model[0].weight.data *= 20  # answers that differ
    with torch.no_grad():
        wrapped = ttach.ClassificationTTAWrapper(nn.Sequential(model, nn.Softmax(1)),
                                                 ttach.aliases.hflip_transform(), merge_mode=merge)
        raw = wrapped(x)
    assert (raw.sum(1) - 1).abs().max() > 1e-4
    result = tta(model, x, flip, merge=merge).probs
    torch.testing.assert_close(result, raw / raw.sum(1, keepdim=True))
    torch.testing.assert_close(result.sum(1), torch.ones(4))


DEFINITIONS = {  # what ttach's names mean, for the probabilities that V views give to one class
    "mean": lambda p: sum(p) / len(p),
    "gmean": lambda p: np.prod(p) ** (1 / len(p)),
    "max": max,
    "min": min,
    "tsharpen": lambda p: sum(np.sqrt(q) for q in p) / len(p),
}


@QUICK
@given(v=st.integers(2, 6), n=st.integers(1, 5), n_classes=st.sampled_from([2, 3, 20]),
       merge=st.sampled_from(list(DEFINITIONS)))
def test_merges_are_what_their_names_mean(v, n, n_classes, merge):
    probs = torch.randn(v, n, n_classes, generator=torch.Generator().manual_seed(v + n),
                        dtype=torch.float64).mul(2).softmax(-1)
    raw = np.array([[DEFINITIONS[merge](probs[:, i, c].tolist()) for c in range(n_classes)]
                    for i in range(n)])
    np.testing.assert_allclose(merge_views(probs, merge), raw / raw.sum(1, keepdims=True), rtol=1e-9)


@pytest.mark.against(ours="merge_views", theirs="fastai Learner.tta(beta)")
@QUICK
@given(v=st.integers(2, 6), n=st.integers(1, 9), n_classes=st.sampled_from([2, 3, 1000]),
       beta=st.floats(0, 1))
def test_beta_is_fastais_lerp(v, n, n_classes, beta):
    probs = torch.randn(v, n, n_classes, generator=torch.Generator().manual_seed(v + n)).softmax(-1)
    torch.testing.assert_close(merge_views(probs, beta=beta),
                               torch.lerp(probs[1:].mean(0), probs[0], beta))


@pytest.mark.differs(
    library="fastai", there="learn.tta on training photos shuffles them and drops the last batch",
    here="all photos, in their order",
    why="a prediction belongs to its photo (fastai 975)",
)
def test_fastais_tta_loses_a_training_batch_and_ours_doesnt():
    """The training set's last batch dropped, and its order shuffled (fastai 975): fastai says
    `shuffled=` where `shuffle=` is meant."""
    from fastai.learner import Learner

    x = torch.rand(7, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    loader = FastaiLoader(list(zip(x, torch.arange(7))), bs=3, shuffle=True, drop_last=True,
                          num_workers=0)
    learn = Learner(DataLoaders(loader, loader), network(7), loss_func=nn.CrossEntropyLoss())
    assert torch.equal(tta(learn, learn.dls.train, flip).targets, torch.arange(7))
    torch.testing.assert_close(tta(learn, learn.dls.train, flip).probs, tta(learn.model, x, flip).probs)


# --- facility location


def similarities(x):
    """As `select_subset` says: the largest squared distance, bounded by 4 times that from the mean,
    minus the squared distance."""
    return 4 * ((x - x.mean(0)) ** 2).sum(1).max() - ((x[:, None] - x) ** 2).sum(2)


@pytest.mark.against(ours="select_subset", theirs="apricot FacilityLocationSelection")
@pytest.mark.parametrize("seed", range(2))
def test_facility_location_is_apricots(seed):
    apricot = pytest.importorskip("apricot")
    x = np.random.default_rng(seed).standard_normal((80, 5))
    similar = similarities(x)
    theirs = apricot.FacilityLocationSelection(12, metric="precomputed", optimizer="naive",
                                               verbose=False).fit(similar)
    mine, clear = select_subset(x, 12), 0
    # two rows next to each other may gain exactly as much: there rounding, and so the processor, decides
    while clear < 12:
        best = similar[:, theirs.ranking[:clear]].max(1, initial=0)
        first, second = np.sort(np.maximum(similar - best[:, None], 0).sum(0))[:-3:-1]
        if first - second < 1e-9 * first:
            break
        clear += 1
    assert clear >= 8 and mine.indices[:clear].tolist() == theirs.ranking[:clear].tolist()
    np.testing.assert_allclose(mine.gains[:clear], theirs.gains[:clear], rtol=1e-6)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 2**16))
def test_greedy_picks_are_nearly_as_good_as_the_best_of_all_choices(n, k, seed):
    """At least 1 - 1/e of the best (Nemhauser, Wolsey and Fisher 1978), by trying them all; and the best
    single row."""
    k = min(k, n)
    similar = similarities(x := np.random.default_rng(seed).standard_normal((n, 2)))
    worth = {picks: similar[:, list(picks)].max(1).sum() for picks in combinations(range(n), k)}
    mine = similar[:, select_subset(x, k).indices].max(1).sum()
    assert mine >= (1 - 1 / np.e) * max(worth.values()) - 1e-9
    if k == 1:
        assert mine == pytest.approx(max(worth.values()))


# --- calibration


@QUICK
@given(n=st.integers(1, 200), n_classes=st.sampled_from([2, 3, 10, 1000]),
       kind=st.sampled_from([np.float16, np.float32, np.float64]), bins=st.integers(1, 30))
def test_scores_and_bins_are_scikit_learns(n, n_classes, kind, bins):
    rng = np.random.default_rng(n)
    logits = 3 * rng.standard_normal((n, n_classes))
    probs = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(kind)
    y, answer = rng.integers(0, n_classes, n), probs.argmax(1)
    exact = probs.astype(np.float64)
    result = score(torch.from_numpy(probs), torch.from_numpy(y))
    assert result["accuracy"] == pytest.approx(accuracy_score(y, answer))
    if set(answer) <= set(y):  # else scikit-learn warns of classes that never occur
        assert result["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, answer))
    if kind == np.float64:  # else its rows don't sum to 1 as exactly as scikit-learn wants them
        every = range(n_classes)
        assert result["nll"] == pytest.approx(log_loss(y, exact, labels=every))
        assert (result["brier"]
                == pytest.approx(brier_score_loss(y, exact, labels=every, scale_by_half=False)))
    table, full = calibration_bins(probs, y, bins), slice(None)
    share, mean = calibration_curve((answer == y).astype(int), exact.max(1).clip(0, 1), n_bins=bins)
    full = table.count > 0
    np.testing.assert_allclose(table.accuracy[full], share)
    np.testing.assert_allclose(table.confidence[full], mean)
    gap = np.average(np.abs(share - mean), weights=table.count[full])
    assert expected_calibration_error(probs, y, bins) == pytest.approx(gap, abs=1e-12)
