"""A study's best network comes back as it predicted, and nothing is unpickled."""

import json
import sys

import numpy as np
import pandas as pd
import processes
import pytest
import torch
from PIL import Image
from tiny_photos import QUICK

from lessonkit.ablation import load_best, run_ablation
from lessonkit.study.settings import Settings
from lessonkit.study.study import Study
from lessonkit.study.trained import choose_network, usage_lines

SETTINGS = Settings(16, 2, 8, 4)


@pytest.fixture(scope="module")
def study(images, tmp_path_factory):
    """A study with a network for each arm, and its trials."""
    study = Study(images, ["normalization", "tta"], tmp_path_factory.mktemp("study"), SETTINGS,
                  seeds=[3, 4])
    return study, study.run(progress=False)


def networks(study):
    return {t.variant: t.weights_from for t in study.techniques}


def test_each_arm_keeps_the_network_of_its_first_seed(study):
    study, _ = study
    assert {p.stem for p in (study.folder / "networks").iterdir()} == {"baseline", "no_normalization"}
    about = json.loads((study.folder / "networks" / "baseline.json").read_text())
    assert about["classes"] == ["bright", "dark"] and about["size"] == 16 and len(about["losses"]) == 2
    assert about["mean"] == pytest.approx(study.stats.mean)
    assert json.loads((study.folder / "networks" / "no_normalization.json").read_text())["mean"] is None


@pytest.mark.parametrize("arm", ["baseline", "no_normalization", "tta"])
def test_it_predicts_what_the_study_predicted(study, images, arm):
    study, trials = study
    ranked = trials.assign(accuracy=(trials["technique"] == arm).astype(float))
    assert choose_network(study.folder, ranked, networks(study), flips=["tta"]) == arm
    best, valid = load_best(study.folder), images.indices("valid")
    probs = best.predict([images.paths[i] for i in valid])
    assert list(probs) == images.classes and np.allclose(probs.sum(1), 1) and best.flip == (arm == "tta")
    right = probs.to_numpy().argmax(1) == images.labels[valid]
    stored = np.load(study.folder / "correct" / f"{arm}-seed3.npy")
    assert (right == stored).all()
    row = trials[(trials["technique"] == arm) & (trials["seed"] == 3)].iloc[0]
    of_truth = probs.to_numpy()[np.arange(len(valid)), images.labels[valid]]
    assert -np.log(of_truth).mean() == pytest.approx(row["nll"], abs=1e-5)


def test_the_best_is_the_lowest_nll_where_that_is_compared(study):
    study, trials = study
    best = trials.groupby("technique")["nll"].mean().idxmin()
    assert choose_network(study.folder, trials, networks(study), metric="nll") == best
    assert choose_network(study.folder, trials[:0], networks(study)) is None


def test_the_lines_that_predict_run_as_they_stand(study, tmp_path):
    study, trials = study
    choose_network(study.folder, trials, networks(study))
    for name in ("one", "two"):
        Image.new("L", (50, 30), 150 if name == "one" else 40).save(tmp_path / f"{name}.jpg")
    code = "\n".join(usage_lines(study.folder))
    process = processes.start(exec, code, {}, folder=tmp_path)
    process.join()
    said = (tmp_path / "said.txt").read_text(encoding="utf-8")
    assert process.exitcode == 0, said
    assert "bright" in said and "one.jpg" in said and len(code.splitlines()) == 3
    assert usage_lines(tmp_path) == []


def test_without_safetensors_weights_are_read_as_numbers_only(images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)  # as if it weren't installed
    trials = run_ablation(images, [], seeds=1, out=tmp_path, **QUICK)
    choose_network(tmp_path, trials, {"baseline": "baseline"})
    assert [p.suffix for p in sorted((tmp_path / "networks").iterdir())] == [".json", ".pt"]
    asked, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args,
                        **kwargs: asked.append(kwargs) or load(*args, **kwargs))
    assert load_best(tmp_path).network is not None and asked == [{"weights_only": True}]


def test_a_folder_without_a_network_is_told(study, tmp_path):
    with pytest.raises(ValueError, match="has no trained network: run `lessonkit ablate`"):
        load_best(tmp_path)
    study, trials = study
    choose_network(study.folder, trials, networks(study))
    (tmp_path / "networks").mkdir()
    for name in ("best.json", "networks/baseline.json", "networks/no_normalization.json"):
        (tmp_path / name).write_bytes((study.folder / name).read_bytes())
    with pytest.raises(ValueError, match="has no weights of"):
        load_best(tmp_path)


def test_predictions_are_a_table_by_file_and_class(study):
    study, trials = study
    choose_network(study.folder, trials, networks(study))
    paths = study.images.paths[:3]
    probs = load_best(study.folder).predict(paths, batch_size=2)
    assert isinstance(probs, pd.DataFrame) and list(probs.index) == [str(p) for p in paths]
