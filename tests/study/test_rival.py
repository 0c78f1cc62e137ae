"""The rival that a study names first: frozen features and a logistic regression, from whatever weights
are at hand."""

import json

import numpy as np
import pytest
import torch
import torchvision
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lessonkit.comparison import summarize
from lessonkit.foundation import models
from lessonkit.foundation.models import make_model, pretrained_at_hand
from lessonkit.study import rival
from lessonkit.study.rival import about_rival, accuracy_interval, fit_logistic, run_rival, with_rival
from lessonkit.study.tables import format_table, readable


@pytest.fixture
def no_wheel(monkeypatch, tmp_path):
    """A machine without the package of weights, whose caches are empty."""
    import huggingface_hub.constants

    monkeypatch.setattr(models, "from_wheel", lambda: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    return tmp_path


def test_the_regression_is_scikit_learn_s_with_a_c_chosen_on_the_training_photos():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150)
    features = rng.normal(0, 1, (150, 40)) + 0.7 * np.eye(40)[labels]
    fitted = fit_logistic(features, labels)
    c = fitted[-1].C
    assert 1e-5 <= c < 1  # with so few photos a strong penalty predicts better than the weakest
    by_hand = (
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300)).fit(features, labels)
    )
    np.testing.assert_allclose(fitted.predict_proba(features), by_hand.predict_proba(features))


def test_a_class_with_a_single_photo_is_learned_and_chooses_nothing():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 20 + [1] * 20 + [2])
    fitted = fit_logistic(rng.normal(0, 1, (41, 5)) + 3 * np.eye(5)[labels], labels)
    assert fitted.classes_.tolist() == [0, 1, 2]
    # too few to choose
    assert fit_logistic(rng.normal(0, 1, (4, 5)), np.array([0, 0, 1, 1]))[-1].C == 0.01


def test_fault_a_few_large_classes_chose_the_penalty_of_all():
    """Three large classes look alike, so that nothing predicts them; seven small ones are easy to tell
    apart."""
    rng = np.random.default_rng(5)
    middles = rng.normal(0, 1, (10, 256))
    middles[:3] = middles[0]

    def draw(photos):
        labels = np.repeat(np.arange(10), photos)
        return middles[labels] + rng.normal(0, 1, (len(labels), 256)), labels

    fitted, (features, labels) = fit_logistic(*draw([13, 9, 8, 4, 4, 3, 3, 2, 2, 2])), draw([30] * 10)
    # it was 0.1, what always guessing one class gets
    assert (fitted.predict(features) == labels).mean() > 0.7


def test_the_interval_is_wilson_s():
    found = accuracy_interval(np.array([True] * 8 + [False] * 2))
    # a textbook's 8 of 10
    assert found == pytest.approx({"accuracy_low": 0.4902, "accuracy_high": 0.9433}, abs=1e-4)


def test_the_rival_is_scored_once_and_found_again(images, tmp_path, monkeypatch):
    row = run_rival(images, tmp_path, 16, progress=False)
    assert row["accuracy"] == 1 and row["size"] == 128 and row["train_photos"] == 32  # bright and dark
    assert row["pixels"] == 32 * 128**2 and row["train_seconds"] > 0
    monkeypatch.setattr(rival, "frozen_features",
                        lambda *args: pytest.fail("looked at the photos again"))
    assert (run_rival(images, tmp_path, 16, progress=False)
            == json.loads((tmp_path / "frozen.json").read_text()) == row)
    monkeypatch.setattr(rival, "frozen_features", lambda images, *args: (np.eye(len(images)), 0.0, 0.0))
    # of other photos it is another one
    assert run_rival(images.take(range(39)), tmp_path, 16)["train_photos"] < 33


def test_the_rival_learns_from_the_photos_that_there_is_time_for(images, tmp_path, monkeypatch):
    """Here a photo takes a second, and the fit half as long as looking at all of them; 8 photos
    validate."""
    now = [0.0]

    def look(images, *args):
        now[0] += len(images) * (1.0 if now[0] < 1000 else 4.0)
        return np.eye(len(images), 3), 1.0, 1.0

    def run(name, seconds):
        monkeypatch.setattr(rival, "AT_ONCE", 1)
        begun = now[0]
        row = run_rival(images, tmp_path / name, 16, most_seconds=seconds, clock=lambda: now[0])
        assert now[0] - begun <= seconds / 1.5
        return row

    monkeypatch.setattr(rival, "frozen_features", look)
    row = run("a", 1.5 * (8 + 25))
    assert (row["train_photos"] == 25
            and "from 25 of 32, for which there was time" in about_rival(tmp_path / "a"))
    assert run("b", 1e4)["train_photos"] == 32 and "from 32 photos" in about_rival(tmp_path / "b")
    assert run("c", 20) is None  # fewer than ten of a class
    assert (about_rival(tmp_path / "c") == "The row `frozen` is left out: it would take 42 s at least. "
            "--time-budget has less for it.")
    # with more time it is made up for
    assert run_rival(images, tmp_path / "c", 16)["train_photos"] == 32
    now[0] = 970.0  # after thirty photos the machine is busy: each takes four seconds
    assert run("d", 1.5 * 51)["train_photos"] == 30 + 5 - 8


def test_the_fit_keeps_to_its_time_too():
    """Each look at the clock costs a second here: none, some or all of the strengths are tried, the
    usual one first."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    features, tried = rng.normal(0, 1, (90, 10)) + np.eye(10)[labels], []
    for deadline in (-1, 6, 1e9):
        now = iter(range(1000))
        tried.append((fit_logistic(features, labels, deadline, lambda: next(now))[-1].C, next(now)))
    assert tried[0] == (0.01, 1) and 0 < tried[1][1] < tried[2][1] == 2 * len(rival.STRENGTHS)
    assert tried[2][0] == fit_logistic(features, labels)[-1].C


def test_the_rival_is_the_first_row_and_is_compared_with_nothing(images, tmp_path):
    from made_up_trials import table

    summary = summarize(table({"baseline": {s: 0.5 for s in range(5)},
                               "mixup": {s: 0.6 for s in range(5)}}))
    assert with_rival(summary, tmp_path).equals(summary) and "pip install" in about_rival(tmp_path)
    run_rival(images, tmp_path, 16, progress=False)
    both = with_rival(summary, tmp_path)
    assert both["technique"].tolist() == ["frozen", "baseline", "mixup"]
    assert both["level"].count() == summary["level"].count()  # it is not in the family
    first = readable(both).iloc[0]
    assert (first["with"] == "100.0%" and first["verdict"] == "(reference)"
            and "(67.6% to 100.0%)" in first.to_list())
    assert format_table(both).splitlines()[3].startswith("frozen")
    assert "128 px" in about_rival(tmp_path) and "32 photos" in about_rival(tmp_path)


def test_weights_come_from_torchvision_s_cache_where_there_is_no_package(no_wheel):
    assert pretrained_at_hand() is None
    weights = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT
    folder = no_wheel / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "other-1234.pth").write_bytes(b"not a network of torchvision")
    torch.manual_seed(0)
    state = torchvision.models.mobilenet_v3_small().state_dict()
    torch.save(state, folder / weights.url.rsplit("/", 1)[1])
    name, network = pretrained_at_hand()
    assert name == "mobilenet_v3_small" and network.lessonkit_weights is weights
    assert torch.equal(network.state_dict()["classifier.3.weight"], state["classifier.3.weight"])


def test_weights_come_from_timm_s_cache_too(no_wheel):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    folder = no_wheel / "hf" / "models--timm--resnet10t.c3_in1k" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    state = timm.create_model("resnet10t").state_dict()
    save_file(state, folder / "model.safetensors")
    name, network = pretrained_at_hand()
    assert name == "resnet10t.c3_in1k" and torch.equal(network.state_dict()["fc.weight"],
                                                       state["fc.weight"])


def test_the_network_of_the_package_gets_a_new_last_layer_with_no_connection():
    name, network = pretrained_at_hand()
    fine_tuned = make_model(name, 7, pretrained=True)
    assert fine_tuned.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 7)
    assert torch.equal(fine_tuned.conv_stem.weight, network.conv_stem.weight)
