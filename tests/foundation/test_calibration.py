"""How sure a model is: equal to scikit-learn where it has the value, and right in the corners."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, balanced_accuracy_score, brier_score_loss, f1_score, log_loss

from lessonkit.foundation.calibration import (
    calibration_bins, expected_calibration_error, reliability_diagram, score,
)


def predictions(n, classes, seed=0, sharp=2.0):
    rng = np.random.default_rng(seed)
    logits = sharp * rng.normal(size=(n, classes))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probs, rng.integers(0, classes, n)


@given(n=st.integers(2, 60), classes=st.integers(2, 6), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_scores_are_scikit_learn_s(n, classes, seed):
    probs, y = predictions(n, classes, seed)  # with few photos, classes are missing among the targets
    result, every = score(probs, y), list(range(classes))
    assert result["accuracy"] == pytest.approx(accuracy_score(y, probs.argmax(1)))
    assert result["macro_f1"] == pytest.approx(f1_score(y, probs.argmax(1), average="macro"))
    assert result["nll"] == pytest.approx(log_loss(y, probs, labels=every))
    assert (result["brier"]
            == pytest.approx(brier_score_loss(y, probs, labels=every, scale_by_half=False)))
    recall = [(probs.argmax(1)[y == c] == c).mean() for c in np.unique(y)]
    assert result["balanced_accuracy"] == pytest.approx(np.mean(recall))
    if set(probs.argmax(1)) <= set(y):  # else scikit-learn warns and leaves classes out
        assert result["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, probs.argmax(1)))


@pytest.mark.parametrize("n_bins", [5, 10, 15])
def test_bins_are_scikit_learn_s_calibration_curve(n_bins):
    probs, y = predictions(500, 4)
    right, sure = (probs.argmax(1) == y).astype(int), probs.max(1)
    share, mean = calibration_curve(right, sure, n_bins=n_bins)  # of the answer being right
    bins = calibration_bins(probs, y, n_bins)
    full = bins.count > 0
    assert bins.accuracy[full] == pytest.approx(share) and bins.confidence[full] == pytest.approx(mean)
    gap = np.average(np.abs(share - mean), weights=bins.count[full])
    assert expected_calibration_error(probs, y, n_bins) == pytest.approx(gap)


@pytest.mark.parametrize("of",
                         [np.asarray, torch.tensor,
                          lambda x: torch.tensor(x).float() if np.asarray(x).dtype == float
                          else torch.tensor(x)])
def test_corners(of):
    def ece(probs, y):
        return expected_calibration_error(of(np.array(probs)), of(np.array(y)))

    assert ece([[0.3, 0.7]], [1]) == pytest.approx(0.3, abs=1e-6)  # one photo
    assert ece([[0.3, 0.7]], [0]) == pytest.approx(0.7, abs=1e-6)
    # all alike, and right half the time
    assert ece([[0.5, 0.5]] * 10, [0] * 5 + [1] * 5) == pytest.approx(0, abs=1e-6)
    assert ece([[0.25] * 4] * 8, [0, 1, 2, 3] * 2) == pytest.approx(0, abs=1e-6)
    # sureness 1 is in the last bin
    assert ece([[1.0, 0.0]] * 4, [0, 0, 0, 1]) == pytest.approx(0.25, abs=1e-6)
    # class 2 never occurs
    assert ece([[0.8, 0.2, 0.0]] * 5, [0, 0, 0, 0, 1]) == pytest.approx(0, abs=1e-6)
    assert score(of(np.array([[0.3, 0.7]])), of(np.array([1])))["brier"] == pytest.approx(0.18, abs=1e-6)


def test_the_largest_gap_and_every_class_by_hand():
    sure = np.array([0.55, 0.65, 0.75, 0.95, 0.95])
    probs, y = np.stack([sure, 1 - sure], 1), np.array([0, 1, 1, 0, 1])
    # five bins: (0.4, 0.6] gap 0.45, (0.6, 0.8] gap 0.7, (0.8, 1] gap 0.45
    assert expected_calibration_error(probs, y, 5) == pytest.approx((0.45 + 2 * 0.7 + 2 * 0.45) / 5)
    assert expected_calibration_error(probs, y, 5, norm="max") == pytest.approx(0.7)
    # class 1 has 1 - p and 1 - share of class 0: the same gaps, in mirrored bins, as long as no value
    # lies on an edge
    assert expected_calibration_error(probs, y, 5, classwise=True) == pytest.approx(
        (0.45 + 2 * 0.7 + 2 * 0.45) / 5
    )
    assert expected_calibration_error(probs, y, 5, norm="max", classwise=True) == pytest.approx(0.7)
    three = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])  # one bin: |.6 - .5|, |.25 - .5|, |.15 - 0|
    assert expected_calibration_error(three, [0, 1], 1, classwise=True) == pytest.approx(
        (0.1 + 0.25 + 0.15) / 3
    )
    assert expected_calibration_error(three, [0, 1], 1, norm="max", classwise=True) == pytest.approx(
        (0.1 + 0.25 + 0.15) / 3
    )


def by_definition(confidence, right, n_bins, norm):
    """Over bins (low, high]: the mean of |confidence - accuracy| weighted by the share of photos, or the
    largest."""
    gaps, weights = [], []
    for b in range(n_bins):
        inside = (confidence > b / n_bins) & (confidence
                                              <= (b + 1) / n_bins) if b else confidence <= 1 / n_bins
        if inside.any():
            gaps.append(abs(confidence[inside].mean() - right[inside].mean()))
            weights.append(inside.mean())
    return max(gaps) if norm == "max" else float(np.dot(gaps, weights))


@given(n=st.integers(1, 80), classes=st.integers(2, 6), seed=st.integers(0, 99),
       n_bins=st.integers(1, 20))
@settings(deadline=None, max_examples=60)
def test_every_form_is_its_definition(n, classes, seed, n_bins):
    probs, y = predictions(n, classes, seed)
    for norm in ("l1", "max"):
        expected = by_definition(probs.max(1), probs.argmax(1) == y, n_bins, norm)
        assert expected_calibration_error(probs, y, n_bins, norm) == pytest.approx(expected)
        by_class = [by_definition(probs[:, c], y == c, n_bins, norm) for c in range(classes)]
        assert (expected_calibration_error(probs, y, n_bins, norm, classwise=True)
                == pytest.approx(np.mean(by_class)))


def test_other_norms_are_refused():
    with pytest.raises(ValueError, match="'l1', 'max'"):
        expected_calibration_error([[0.3, 0.7]], [1], norm="l2")
    with pytest.raises(ValueError, match="n_bins"):
        expected_calibration_error([[0.3, 0.7]], [1], 0, classwise=True)


def test_a_network_that_is_as_sure_as_it_is_right_has_no_error():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 200_000)
    right = rng.random(200_000) < sure
    probs = np.stack([sure, 1 - sure], 1)
    assert expected_calibration_error(probs, (~right).astype(int)) < 0.005
    shy = np.stack([(sure + 0.5) / 2, 1 - (sure + 0.5) / 2], 1)  # the same answers, less sure
    assert expected_calibration_error(shy, (~right).astype(int)) == pytest.approx(0.125, abs=0.01)


@pytest.mark.parametrize("probs, y",
                         [([[0.3, 0.7]], [1]), ([[0.5, 0.5]] * 3, [0, 0, 1]),
                          ([[1.0, 0.0]] * 2, [0, 1])])
def test_diagram_is_drawn_for_the_corners_too(probs, y):
    axis = reliability_diagram(np.array(probs), np.array(y))
    assert f"{len(y)} photos" in axis.get_title()
