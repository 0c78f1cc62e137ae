"""The fair comparison: the same seed is the same luck for every technique, and nothing is trained twice."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from PIL import Image
from tiny_photos import draw, trained
from torch import nn

from lessonkit.ablation import TECHNIQUES, Technique, run_ablation, smallest_subset
from lessonkit.comparison import summarize
from lessonkit.images import image_dataloaders
from lessonkit.progressive_resizing import pixel_share, size_schedule
from lessonkit.study import subset_study, trainer
from lessonkit.study.ranking import rank_agreement
from lessonkit.study.report import ablation_report, plot_ablation
from lessonkit.study.subset_study import photo_count, take_subset
from lessonkit.study.tables import format_subsets, smallest_passing
from lessonkit.study.techniques import comparisons
from lessonkit.study.trainer import Recipe, make_learner, predict_plain, train_trial  # fmt: skip
from lessonkit.study.trials import StudyMismatch, read_correct, read_trials

QUICK = {"size": 16, "epochs": 1, "batch_size": 8, "width": 4, "progress": False}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("photos"))


class Gambler(Callback):
    """Draws from every random state that libraries share."""

    def before_batch(self):
        torch.rand(5), np.random.rand(5), random.random()


class Witness(Callback):
    """Remembers what goes into training."""

    seen: list = []

    def before_batch(self):
        if self.training:
            Witness.seen.append((self.dls.train.last_indices.copy(), self.x.clone().as_subclass(torch.Tensor)))


TRICKS = {
    "gambler": Technique("gambler", callbacks=lambda: [Gambler(), Witness()]),
    "loss": Technique("loss", loss=lambda: nn.CrossEntropyLoss(label_smoothing=0.3), callbacks=lambda: [Witness()]),
    "plain": Technique("plain", callbacks=lambda: [Witness()]),
}


def witnessed(images, technique, seed):
    Witness.seen = []
    train_trial(images, technique, seed, Recipe(16, 2, 8, 4))
    return Witness.seen


@pytest.mark.parametrize("name", ["gambler", "loss"])
def test_same_seed_gives_every_technique_the_same_batches_and_crops(images, name):
    plain, other = witnessed(images, TRICKS["plain"], 3), witnessed(images, TRICKS[name], 3)
    assert len(plain) == len(other) == 8
    for (rows, x), (other_rows, other_x) in zip(plain, other):
        assert (rows == other_rows).all() and torch.equal(x, other_x)


@pytest.mark.parametrize("name", [name for name, technique in TECHNIQUES.items() if not technique.in_baseline])
def test_every_technique_starts_from_the_same_batches_and_crops(images, name):
    technique = TECHNIQUES[name]
    own = technique.callbacks or list
    watched = replace(technique, callbacks=lambda: [*own(), Witness()])
    for (rows, x), (other_rows, other_x) in zip(witnessed(images, TRICKS["plain"], 3), witnessed(images, watched, 3), strict=True):
        assert (rows == other_rows).all()
        if x.shape == other_x.shape:  # progressive resizing ends, but doesn't begin, at the full size
            assert torch.equal(x, other_x)  # Witness looks before anything is mixed
    assert x.shape == other_x.shape or "size_share" in technique.data


def test_progressive_resizing_is_cheaper_and_judged_at_the_full_size(images):
    trials = run_ablation(images, ["progressive_resizing"], seeds=1, **(QUICK | {"size": 32, "epochs": 3})).set_index("technique")
    assert (trials["size"] == 32).all()
    assert 0.25 < trials.loc["progressive_resizing", "pixels"] / trials.loc["baseline", "pixels"] < 0.9


def test_tta_averages_the_photo_and_its_mirror_image(images):
    plain, mirror = (Technique(name, predict=predict) for name, predict in (("plain", predict_plain), ("mirror", mirrored)))
    seen = {}

    def watched(technique):
        def predict(learn):
            seen[technique.name] = technique.predict(learn)
            return seen[technique.name]

        return replace(technique, predict=predict)

    run_ablation(images, [watched(technique) for technique in (plain, mirror, TECHNIQUES["tta"])], seeds=1, **QUICK)
    torch.testing.assert_close(seen["tta"], (seen["plain"] + seen["mirror"]) / 2)


def test_mixup_and_smoothing_run_from_their_names(images, tmp_path):
    names = ["mixup", "label_smoothing", "mixup+label_smoothing"]
    trials = run_ablation(images, names, seeds=2, out=tmp_path, **QUICK)
    assert set(trials["technique"]) == {"baseline", *names} and len(trials) == 8
    nll = trials.pivot(index="seed", columns="technique", values="nll")
    assert all((nll[name] != nll["baseline"]).all() for name in names)  # each changes the training
    assert (nll["mixup+label_smoothing"] != nll["mixup"]).all() and (nll["mixup+label_smoothing"] != nll["label_smoothing"]).all()


def test_without_normalization_photos_and_crops_are_the_same_before_it(images):
    removed = Technique("normalization", data={"normalize": False}, in_baseline=True, callbacks=lambda: [Witness()])
    plain, without = witnessed(images, TRICKS["plain"], 3), witnessed(images, removed, 3)
    for (rows, x), (other_rows, other_x) in zip(plain, without):
        assert (rows == other_rows).all()
        assert other_x.min() >= 0 and other_x.max() <= 1
        for channel in range(3):  # equal but for shift and scale
            correlation = np.corrcoef(x[:, channel].flatten(), other_x[:, channel].flatten())[0, 1]
            assert correlation > 1 - 1e-5


def test_another_seed_gives_other_weights_and_batches(images):
    first, second = witnessed(images, TRICKS["plain"], 3), witnessed(images, TRICKS["plain"], 4)
    assert any((a[0] != b[0]).any() for a, b in zip(first, second))


def test_same_seed_gives_every_technique_the_same_initial_weights(images):
    weights = []
    for technique in (TECHNIQUES["baseline"], TECHNIQUES["normalization"], *TRICKS.values()):
        torch.manual_seed(5)
        learn = make_learner(images, technique, 5, Recipe(16, 1, 8, 4))
        weights.append(torch.cat([p.flatten() for p in learn.model.parameters()]))
    assert all(torch.equal(weights[0], other) for other in weights[1:])


def test_a_repeated_trial_is_equal_and_leaves_random_states_alone(images):
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    (row, correct), (again, correct_again) = (
        train_trial(images, TECHNIQUES["baseline"], 0, Recipe(16, 1, 8, 4)) for _ in range(2)
    )
    assert {k: v for k, v in row.items() if "seconds" not in k} == {k: v for k, v in again.items() if "seconds" not in k}
    assert (correct == correct_again).all() and correct.mean() == pytest.approx(row["accuracy"])
    after = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    assert after == (torch.rand(1), np.random.rand(), random.random())


@pytest.mark.processor
def test_the_same_machine_gives_the_same_numbers_twice(images):
    """To the last digit, whatever the number of threads, in this process and in another one: numbers as JSON have all their digits."""
    folder = images.paths[0].parent.parent
    here, again = ({threads: trained(folder, threads) for threads in (1, 2)} for _ in range(2))
    assert here == again and len(here[1]["losses"]) == len(here[2]["losses"]) == 8
    code = "import json, sys; from tiny_photos import trained; print(json.dumps([trained(sys.argv[1], threads) for threads in (1, 2)]))"
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(folder)], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert json.loads(run.stdout.splitlines()[-1]) == [here[1], here[2]]


def test_baseline_always_runs_and_rerun_trains_nothing(images, tmp_path, monkeypatch):
    table = run_ablation(images, ["normalization"], seeds=2, out=tmp_path, **QUICK)
    assert table.groupby("technique").size().to_dict() == {"baseline": 2, "no_normalization": 2}
    wanted = "technique seed size epochs accuracy balanced_accuracy nll ece train_seconds predict_seconds pixels"
    assert set(wanted.split()) <= set(table.columns)
    assert len(run_ablation(images, [], seeds=1, out=tmp_path, **QUICK)) == 1
    monkeypatch.setattr("lessonkit.study.study.train_trial", lambda *args: pytest.fail("trained again"))
    again = run_ablation(images, ["normalization"], seeds=2, out=tmp_path, **QUICK)
    assert again.equals(table)
    correct = read_correct(tmp_path)
    assert len(correct) == 4 and all(len(c) == len(images.indices("valid")) for c in correct.values())


def test_a_technique_that_changes_nothing_makes_no_difference(images):
    trials = run_ablation(images, [Technique("idle")], seeds=2, **QUICK)
    row = summarize(trials).set_index("technique").loc["idle"]
    assert (row.low, row.difference, row.high, row.verdict) == (0, 0, 0, "no difference beyond 0.01")


class Counted(Callback):
    """Counts trainings, whatever the technique."""

    fits = 0

    def before_fit(self):
        Counted.fits += 1


def mirrored(learn):
    learn.model.eval()
    with torch.inference_mode():
        return torch.cat([learn.model(x.as_subclass(torch.Tensor).flip(-1)).softmax(1) for x, _ in learn.dls.valid])


def test_a_technique_that_only_predicts_uses_the_trained_baseline(images, tmp_path, monkeypatch):
    made = trainer.Learner
    monkeypatch.setattr(trainer, "Learner", lambda *args, cbs, **kwargs: made(*args, cbs=[*cbs, Counted()], **kwargs))
    Counted.fits, only_predicts = 0, Technique("mirrored", predict=mirrored)
    both = run_ablation(images, [only_predicts], seeds=2, out=tmp_path / "together", **QUICK)
    assert Counted.fits == 2  # the baselines
    by_name = both.set_index(["technique", "seed"])
    for seed in (0, 1):
        base, mirror = by_name.loc["baseline", seed], by_name.loc["mirrored", seed]
        assert base["nll"] != mirror["nll"]
        assert base["train_seconds"] == mirror["train_seconds"] and base["pixels"] == mirror["pixels"]

    # the same numbers when it comes later, and when the kept weights are damaged or gone and it must train itself
    run_ablation(images, ["baseline"], seeds=2, out=tmp_path / "later", **QUICK)
    zero, one = sorted((tmp_path / "later" / "weights").iterdir())
    zero.write_bytes(zero.read_bytes()[:1000])
    one.unlink()
    Counted.fits = 0
    later = run_ablation(images, [only_predicts], seeds=2, out=tmp_path / "later", **QUICK)
    assert Counted.fits == 2
    scores = ["technique", "seed", "accuracy", "nll", "ece"]
    assert later[scores].equals(both[scores])
    assert zero.stat().st_size > 1000 and one.exists()


def test_how_many_trainings_are_announced(images, tmp_path, capsys):
    loud = QUICK | {"progress": True}
    run_ablation(images, [Technique("mirrored", predict=mirrored)], seeds=1, out=tmp_path, **loud)
    assert "2 trials to train (1 only to predict)" in capsys.readouterr().out


def test_own_prediction_and_changed_photos(images, tmp_path):
    certain = Technique("certain", predict=lambda learn: torch.eye(2)[[0] * 4 + [1] * 4])
    trials = run_ablation(images, [certain], seeds=1, out=tmp_path, **QUICK)
    assert trials.set_index("technique").accuracy["certain"] == 1
    with pytest.raises(StudyMismatch, match="photos: train was 32, now 31"):
        run_ablation(images.take(range(1, 40)), [], seeds=1, out=tmp_path, **QUICK)


def test_changed_settings_of_a_technique_are_noticed(images, tmp_path):
    run_ablation(images, [Technique("trick", settings={"alpha": 1})], seeds=1, out=tmp_path, **QUICK)
    with pytest.raises(StudyMismatch, match="alpha was 1, now 2"):
        run_ablation(images, [Technique("trick", settings={"alpha": 2})], seeds=1, out=tmp_path, **QUICK)


def test_a_technique_that_fails_doesnt_stop_the_others(images, tmp_path):
    def broken():
        raise ValueError("no such loss")

    with pytest.warns(UserWarning, match="1 of 2 trials failed.*no such loss"):
        trials = run_ablation(images, [Technique("broken", loss=broken)], seeds=1, out=tmp_path, **QUICK)
    assert trials["technique"].tolist() == ["baseline"]
    text = ablation_report(images, trials, tmp_path, [Technique("broken")])
    assert "can't tell" in text and "no such loss" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_bad_settings_are_told_before_anything_is_trained(images, tmp_path):
    for change, told in [({"size": 0}, "size=0"), ({"epochs": 0}, "epochs=0"), ({"device": "nonsense"}, "can't be used")]:
        with pytest.raises(ValueError, match=told):
            run_ablation(images, out=tmp_path, **(QUICK | change))
    assert read_trials(tmp_path).empty


def test_picture_has_a_line_for_each_technique(images):
    trials = run_ablation(images, ["normalization", Technique("idle")], seeds=2, **QUICK)
    summary = summarize(trials, pairs=comparisons(["normalization", Technique("idle")]))
    ax = plot_ablation(summary, margin=0.01)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["normalization", "idle"]
    assert ax.texts[0].get_text() == "first look"
    ends = [100 * end for end in summary.loc[summary.technique == "normalization", ["low", "high"]].iloc[0]]
    assert list(ax.lines[0].get_xdata()) == pytest.approx(ends) and "97.5% interval" in ax.get_xlabel()  # the verdict's interval


def test_a_running_study_shows_no_interval_and_no_verdict(images, tmp_path, capsys):
    run_ablation(images, [Technique("idle")], out=tmp_path, **QUICK | {"seeds": 2, "progress": True})
    shown = "".join(capsys.readouterr())
    assert "After 1 seed of 2:" in shown and "adds (points)" in shown
    assert not any(word in shown for word in ("interval", "verdict", "can't tell", "no difference"))


# --- a study on a subset

STRANGE = [Technique("flat", data={"augment": False}), Technique("raw", data={"normalize": False})]


def brightness(images) -> np.ndarray:
    """A feature for each photo."""
    return np.array([[np.asarray(Image.open(path)).mean()] for path in images.paths], dtype=np.float32)


@pytest.mark.parametrize("size, count", [(0.25, 8), (8, 8), (np.int64(8), 8), (0.07, 2), (1.0, 32), (32, 32)])
def test_photo_count_takes_shares_and_numbers(images, size, count):
    assert photo_count(images, size) == count


@pytest.mark.parametrize("size, told", [
    (33, "33 photos can't be chosen from 32"), (1, "fewer than the 2 classes"), (0.03, "fewer than the 2 classes"),
    (0, "must be a share"), (-0.5, "must be a share"), (1.5, "must be a share"), (True, "must be a share"),
    (float("nan"), "must be a share"),
])  # fmt: skip
def test_photo_count_refuses_what_cant_be_chosen(images, size, told):
    with pytest.raises(ValueError, match=told):
        photo_count(images, size)


def test_steps_are_those_of_the_loader(images):
    for photos, batch_size in [(8, 4), (9, 4), (10, 4), (3, 4), (4, 4), (5, 2), (32, 8), (1, 4)]:
        rows = np.concatenate([images.indices("train")[:photos], images.indices("valid")])
        loaders = image_dataloaders(images.take(rows), size=8, batch_size=batch_size)
        assert subset_study._steps(photos, batch_size) == len(loaders.train)


def test_take_subset_keeps_validation_photos_and_says_how_it_chose(images):
    subset, record = take_subset(images, 0.25, brightness(images))
    assert [images.paths[row] for row in images.indices("valid")] == [subset.paths[row] for row in subset.indices("valid")]
    chosen = [subset.paths[row] for row in subset.indices("train")]
    assert len(set(chosen)) == 8 and set(chosen) <= {images.paths[row] for row in images.indices("train")}
    assert np.bincount(subset.labels[subset.indices("train")]).tolist() == [4, 4] and subset.classes == images.classes
    assert record == {"method": "facility_location", "balance": "proportional", "seed": 0, "photos": 8, "of": 32}
    with pytest.raises(ValueError, match="3 rows of features for 40 photos"):
        take_subset(images, 8, np.zeros((3, 1)))
    with pytest.raises(ValueError, match="method"):
        take_subset(images, 8, brightness(images), method="magic")


def test_trials_of_the_subset_and_the_whole_never_mix(images, tmp_path):
    subset, record = take_subset(images, 8, brightness(images))
    run_ablation(subset, [], seeds=1, out=tmp_path / "subset", subset=record, **QUICK)
    assert json.loads((tmp_path / "subset/study.json").read_text())["identity"]["subset"] == record
    with pytest.raises(StudyMismatch, match="subset was .*, now not set"):
        run_ablation(images, [], seeds=1, out=tmp_path / "subset", **QUICK)
    other = take_subset(images, 8, brightness(images), method="random", seed=3)
    with pytest.raises(StudyMismatch, match="subset: method was facility_location, now random"):
        run_ablation(other[0], [], seeds=1, out=tmp_path / "subset", subset=other[1], **QUICK)
    run_ablation(images, [], seeds=1, out=tmp_path / "whole", **QUICK)
    assert "subset" not in json.loads((tmp_path / "whole/study.json").read_text())["identity"]  # as in older studies
    report = ablation_report(subset, read_trials(tmp_path / "subset"), tmp_path / "subset", [])
    assert "baseline" in report and "photos: 8, of: 32" in (tmp_path / "subset/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("same, epochs, steps", [("epochs", [2, 2, 2], [2, 4, 8]), ("steps", [8, 4, 2], [8, 8, 8])])
def test_smallest_subset_compares_each_size_with_the_whole(images, tmp_path, same, epochs, steps):
    settings = QUICK | {"epochs": 2}
    arguments = dict(sizes=(16, 0.25), seeds=2, same=same, features=brightness(images), out=tmp_path, **settings)
    table = smallest_subset(images, STRANGE, **arguments)
    assert table["photos"].tolist() == [8, 16, 32] and table["size"].tolist() == [0.25, 0.5, 1]
    assert table["epochs"].tolist() == epochs and table["steps"].tolist() == steps
    assert np.isnan(table["tau"][2]) and table["ceiling"].nunique(dropna=False) == 1
    assert table["saved"].iloc[-1] == 0 and table["coverage"].iloc[-1] == 0 and (table["techniques"] == 3).all()
    assert len(pd.read_csv(tmp_path / "smallest_subset.csv")) == 3
    whole = read_trials(tmp_path / "whole")
    part = read_trials(tmp_path / f"facility_location-8-same-{same}")
    assert table["tau"][0] == pytest.approx(rank_agreement(whole, part).tau, nan_ok=True)
    assert (part["photos"] == len(images.indices("valid"))).all()  # judged on all of them

    def fail(*args):
        pytest.fail("trained again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lessonkit.study.study.train_trial", fail)
        assert smallest_subset(images, STRANGE, **arguments).equals(table)
    assert "of the training photos" in format_subsets(table) or "None of these" in format_subsets(table)


def made_up_study(monkeypatch, gains):
    """Let trials have an accuracy by technique and number of training photos, in place of training."""

    def trial(images, technique, seed, recipe, *args):
        gain = gains(technique.recipe, len(images.indices("train")))
        if gain is None:
            raise RuntimeError("failed")
        accuracy = 0.5 + gain + 0.001 * np.random.default_rng([seed, len(technique.recipe)]).normal()
        return {"size": recipe.size, "epochs": recipe.epochs, "accuracy": accuracy, "train_seconds": 60.0 * len(images), "predict_seconds": 0.0}, None

    monkeypatch.setattr("lessonkit.study.study.train_trial", trial)


def test_the_answer_is_the_smallest_size_from_which_on_all_pass(images, monkeypatch):
    order = {"baseline": 0, "flat": 0.1, "raw": 0.2}
    made_up_study(monkeypatch, lambda name, photos: order[name] * (-1 if photos == 8 else 1))
    arguments = dict(sizes=(4, 8, 16, 24), features=brightness(images), **QUICK)
    table = smallest_subset(images, STRANGE, **arguments)
    assert table["tau"].tolist()[:4] == [1, -1, 1, 1] and table["passes"].tolist() == [True, False, True, True, True]
    assert smallest_passing(table) == 16 and table["why"][1] == "agreement -1.00 below 0.8"
    assert table["minutes"].tolist() == pytest.approx([3 * 5 * (n + 8) for n in (4, 8, 16, 24, 32)])
    told = " ".join(format_subsets(table).split())
    assert "The smallest subset that is enough: 50% of the training photos, 16." in told and "12.5% passes too" in told
    strict = smallest_subset(images, STRANGE, min_agreement=1.1, **arguments)
    assert smallest_passing(strict) is None and "None of these subsets is enough" in format_subsets(strict)


def test_noise_that_hides_the_techniques_is_told(images, monkeypatch):
    made_up_study(monkeypatch, lambda name, photos: 0 if photos < 32 else {"baseline": 0, "flat": 0.1, "raw": 0.2}[name])
    table = smallest_subset(images, STRANGE, sizes=(8,), features=brightness(images), min_agreement=-1, **QUICK)
    assert not table["passes"][0] and "0 % of pairs told apart, below 50 %" in table["why"][0] and table["passes"][1]


def test_a_technique_that_fails_on_a_subset_doesnt_end_the_study(images, monkeypatch):
    made_up_study(monkeypatch, lambda name, photos: None if (name, photos) == ("raw", 8) else len(name) / 10)
    with pytest.warns(UserWarning, match="trials failed"):
        table = smallest_subset(images, STRANGE, sizes=(8, 16), features=brightness(images), **QUICK)
    assert np.isnan(table["tau"][0]) and table["why"][0] == "only one side has trials of raw" and table["passes"][1]
    assert "nan" not in format_subsets(table)


@pytest.mark.parametrize("change, told", [
    ({"same": "pixels"}, "'epochs' or 'steps'"), ({"sizes": (32, 1.0)}, "no part"), ({"sizes": (99,)}, "can't be chosen"),
    ({"techniques": []}, "one technique beside"), ({"epochs": 0}, "epochs=0"), ({"method": "magic"}, "method"),
])  # fmt: skip
def test_smallest_subset_tells_bad_settings_before_it_trains(images, monkeypatch, change, told):
    monkeypatch.setattr("lessonkit.study.study.train_trial", lambda *args: pytest.fail("trained"))
    arguments = dict(techniques=STRANGE, sizes=(8,), features=brightness(images), **QUICK) | change
    with pytest.raises(ValueError, match=told):
        smallest_subset(images, **arguments)


def test_the_time_told_knows_cheap_trainings_and_dear_predictions(images, tmp_path, monkeypatch):
    asked = {}

    def estimate(images, n_trials, recipe, stats, n_predictions):
        asked.update(trainings=n_trials, predictions=n_predictions)
        return 1.0

    monkeypatch.setattr("lessonkit.study.study.estimate", estimate)
    run_ablation(images, ["progressive_resizing", "tta"], seeds=2, out=tmp_path, **(QUICK | {"progress": True}))
    share = TECHNIQUES["progressive_resizing"].train_cost
    assert asked == {"trainings": pytest.approx(2 * (1 + share)), "predictions": 2 * (1 + 1 + 2)}
    assert share == pytest.approx(pixel_share(size_schedule(100, 32, 64)))
