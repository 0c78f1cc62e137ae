"""Calibration beside torchmetrics; intervals, verdicts and variances beside statsmodels. `make
test-peers` installs them."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonkit.comparison import estimate, paired_interval, summarize
from lessonkit.foundation.calibration import calibration_bins, expected_calibration_error, score
from lessonkit.study.rival import accuracy_interval

pytestmark = pytest.mark.filterwarnings("ignore")
QUICK = settings(deadline=None, derandomize=True, max_examples=40)


@st.composite
def predictions(draw, classes=(2, 3, 10, 100)):
    """Probabilities that lie on no bin's edge, and class numbers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    n, n_classes = draw(st.integers(1, 300)), draw(st.sampled_from(classes))
    logits = draw(st.sampled_from([0.3, 1, 3])) * rng.standard_normal((n, n_classes))
    return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rng.integers(0, n_classes, n),
            draw(st.integers(1, 30)))


def by_norm(gaps, weights):
    return {"l1": np.average(gaps, weights=weights), "l2": np.sqrt(np.average(gaps**2, weights=weights)),
            "max": gaps.max()}


@QUICK
@given(predictions())
def test_calibration_of_several_classes_is_torchmetrics(case):
    measures = pytest.importorskip("torchmetrics.functional.classification")
    probs, y, n_bins = case
    table = calibration_bins(probs, y, n_bins)
    mine = by_norm(table.gaps, table.count)
    for norm, value in mine.items():
        theirs = measures.multiclass_calibration_error(torch.from_numpy(probs), torch.from_numpy(y),
                                                       probs.shape[1], n_bins=n_bins, norm=norm)
        assert value == pytest.approx(float(theirs), abs=1e-6)
        if norm != "l2":
            assert expected_calibration_error(probs, y, n_bins, norm) == pytest.approx(
                float(theirs), abs=1e-6
            )


@QUICK
@given(predictions(classes=(2,)), st.sampled_from(["l1", "max"]))
def test_calibration_of_yes_and_no_is_torchmetrics(case, norm):
    """For two classes the probability of yes says all: both classes have the same gaps, mirrored."""
    measures = pytest.importorskip("torchmetrics.functional.classification")
    probs, y, n_bins = case
    theirs = measures.binary_calibration_error(torch.from_numpy(probs[:, 1]), torch.from_numpy(y),
                                               n_bins=n_bins, norm=norm)
    assert expected_calibration_error(probs, y, n_bins, norm, classwise=True) == pytest.approx(
        float(theirs), abs=1e-6
    )


@pytest.mark.differs(
    library="torchmetrics",
    there="a confidence of exactly 1 has a bin of its own, and others on an edge go to the bin above",
    here="to the bin below, as in the paper",
    why="the paper's bins are (a, b]; a network that is always certain is judged with the nearly "
    "certain",
)
def test_confidences_on_an_edge():
    measures = pytest.importorskip("torchmetrics.functional.classification")
    probs, y = np.array([[0.0, 1], [0.04, 0.96]]), np.array([1, 0])
    theirs = measures.multiclass_calibration_error(torch.from_numpy(probs), torch.from_numpy(y), 2,
                                                   n_bins=10, norm="max")
    assert float(theirs) == pytest.approx(0.96)  # alone in its bin
    assert expected_calibration_error(probs, y, 10, "max") == pytest.approx(0.98 - 0.5)


@QUICK
@given(predictions(classes=(3, 10)))
def test_scores_are_torchmetrics(case):
    measures = pytest.importorskip("torchmetrics.functional.classification")
    probs, y, _ = case
    theirs = torch.from_numpy(probs), torch.from_numpy(y), probs.shape[1]
    mine = score(probs, y)
    assert (mine["accuracy"]
            == pytest.approx(float(measures.multiclass_accuracy(*theirs, average="micro"))))
    assert mine["ece"] == pytest.approx(float(measures.multiclass_calibration_error(*theirs, n_bins=15)),
                                        abs=1e-6)
    # torchmetrics leaves out classes that are neither true nor predicted
    seen = np.union1d(y, probs.argmax(1))
    each = measures.multiclass_f1_score(*theirs, average="none").numpy()
    assert mine["macro_f1"] == pytest.approx(each[seen].mean(), abs=1e-6)


# --- statsmodels

differences = st.lists(st.floats(-1, 1, width=16), min_size=2, max_size=30)


@pytest.mark.against(ours="paired_interval", theirs="statsmodels DescrStatsW")
@QUICK
@given(differences, st.floats(0.5, 0.999))
def test_the_interval_of_paired_differences_is_statsmodels(values, confidence):
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    theirs = weightstats.DescrStatsW(values).tconfint_mean(1 - confidence)
    assert paired_interval(values, confidence) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.against(ours="summarize", theirs="statsmodels multipletests")
@QUICK
@given(st.lists(st.floats(0.001, 0.2), min_size=1, max_size=6), st.integers(5, 12),
       st.integers(0, 2**16))
def test_verdicts_of_a_family_are_statsmodels_bonferroni(effects, n_seeds, seed):
    """A row is settled exactly where its p-value, times the number of rows, is below 5%."""
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(seed)
    base = rng.normal(0.7, 0.02, n_seeds)
    sides = {f"t{i}": base + rng.normal(effect, 0.05, n_seeds) for i, effect in enumerate(effects)}
    rows = [{"technique": name, "seed": s, "size": 64, "epochs": 1, "accuracy": value}
            for name, values in {"baseline": base, **sides}.items() for s, value in enumerate(values)]
    table = summarize(pd.DataFrame(rows), margin=0.0).set_index("technique").loc[list(sides)]
    p = [weightstats.DescrStatsW(values - base).ttest_mean()[1] for values in sides.values()]
    rejected = multitest.multipletests(p, 0.05, method="bonferroni")[0]
    assert (table["verdict"].isin(["helps", "hurts"]) == rejected).all()
    for level, low, high, values in zip(table["level"], table["low"], table["high"], sides.values()):
        assert (low, high) == pytest.approx(
            weightstats.DescrStatsW(values - base).tconfint_mean(1 - level), abs=1e-9
        )


@pytest.mark.parametrize("n_seeds, n_photos", [(2, 5), (5, 12), (3, 30)])
def test_the_photos_part_of_the_variance_is_statsmodels_analysis(n_seeds, n_photos):
    formula = pytest.importorskip("statsmodels.formula.api")
    anova = pytest.importorskip("statsmodels.stats.anova")
    rng = np.random.default_rng(n_photos)
    table = np.sign(rng.normal(size=(n_seeds, n_photos)) + rng.normal(size=n_photos)).astype(float)
    long = pd.DataFrame(table).melt(ignore_index=False, var_name="photo",
                                    value_name="d").reset_index(names="seed")
    squares = anova.anova_lm(formula.ols("d ~ C(seed) + C(photo)", long).fit())["mean_sq"]
    between = max(squares["C(photo)"] - squares["Residual"], 0) / table.size
    now = estimate(table)
    assert now.photos == pytest.approx(between + 1 / n_photos**2)
    assert now.seeds == pytest.approx(squares["C(seed)"] / table.size)


@QUICK
@given(st.integers(0, 400), st.integers(1, 400))
def test_the_interval_of_an_accuracy_is_statsmodels_wilson(right, n):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    right = min(right, n)
    theirs = proportion.proportion_confint(right, n, 0.05, method="wilson")
    assert tuple(accuracy_interval(np.arange(n) < right).values()) == pytest.approx(theirs, abs=1e-9)
