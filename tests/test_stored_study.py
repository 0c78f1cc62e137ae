"""The stored studies are what they say: one trial is trained again, and tables, photos and settings belong together."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback

from lessonkit.ablation import TECHNIQUES
from lessonkit.comparison import summarize
from lessonkit.images import ImageSet
from lessonkit.photos.bundled import make_bundled
from lessonkit.study.techniques import comparisons
from lessonkit.study.settings import Settings
from lessonkit.study.trainer import train_trial
from lessonkit.study.trials import fingerprint

RESULTS = Path(__file__).parent.parent / "nbs" / "results"
STUDIES = ["ablation_photos", "ablation_bundled"]


def stored(name):
    about = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return pd.read_csv(RESULTS / f"{name}.csv"), about, np.load(RESULTS / f"{name}_correct.npz", allow_pickle=False)


class Losses(Callback):
    def before_fit(self):
        self.seen = []

    def after_loss(self):
        self.seen += [self.loss.item()] if self.training else []


@pytest.mark.timeout(300)
def test_a_stored_trial_comes_out_again(monkeypatch):
    """The first losses agree; the end only within the spread over seeds, since tiny differences between machines grow."""
    trials, about, _ = stored("ablation_bundled")
    monkeypatch.delenv("LESSONKIT_IMAGES", raising=False)
    images, seen, threads = ImageSet.from_folder(make_bundled()), Losses(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        row, right = train_trial(images, replace(TECHNIQUES["baseline"], callbacks=lambda: [seen]), 0, Settings(size=32, epochs=5))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(seen.seen[:10], about["first_losses"], rtol=1e-4)
    same = trials[(trials["technique"] == "baseline") & (trials["size"] == 32) & (trials["epochs"] == 5)]
    margin = 2 * same["accuracy"].std()
    assert same["accuracy"].min() - margin <= row["accuracy"] <= same["accuracy"].max() + margin
    assert row["pixels"] == same["pixels"].iloc[0] and len(right) == same["photos"].iloc[0]


@pytest.mark.parametrize("name", STUDIES)
def test_tables_photos_and_settings_belong_together(name):
    trials, about, correct = stored(name)
    assert set(trials["key"]) == set(correct.files) and not trials["key"].duplicated().any()
    assert set(trials["technique"]) == {technique.variant for technique in TECHNIQUES.values()}
    for key, accuracy in zip(trials["key"], trials["accuracy"]):
        assert correct[key].mean() == pytest.approx(accuracy, abs=1e-6)
    for (size, epochs), rows in trials.groupby(["size", "epochs"]):
        study = about["studies"][f"{size}px-{epochs}epochs"]
        assert set(rows["fingerprint"]) == {study["fingerprint"]} == {fingerprint(study["identity"])}
        assert [study["identity"][key] for key in ("size", "epochs", "cost", "recipe version")] == [size, epochs, "pixels", Settings.version]
        longest = rows.loc[rows["technique"] == "baseline", "pixels"].max()
        assert (rows["pixels"] <= 1.02 * longest).all() and rows["threads"].eq(1).all()


@pytest.mark.parametrize("name", STUDIES)
def test_the_stored_settings_are_those_of_the_techniques(name):
    _, about, _ = stored(name)
    for study in about["studies"].values():
        for technique in TECHNIQUES.values():
            own = {key: value for key, value in study["techniques"][technique.variant].items() if key != "epochs"}
            assert own == json.loads(json.dumps(technique.identity)), technique.name


@pytest.mark.parametrize("name", STUDIES)
def test_enough_seeds_for_an_interval(name):
    trials, _, correct = stored(name)
    rows = trials.assign(id=trials["key"]).groupby(["size", "epochs"])
    for _, group in rows:
        summary = summarize(group, pairs=comparisons(), correct=correct)
        assert (summary["seeds"] >= 3).all() and summary["covers"].dropna().eq("seeds and photos").all()
