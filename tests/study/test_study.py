"""A study: nothing is trained twice, what differs never mixes, and what fails costs itself only."""

import json
import math
import pickle
from dataclasses import FrozenInstanceError, replace

import pandas as pd
import pytest
import torch
from tiny_photos import MINE, QUICK
from fastai.callback.core import Callback

from lessonkit.ablation import run_ablation, Technique, TECHNIQUES
from lessonkit.comparison import summarize
from lessonkit.progressive_resizing import pixel_share, size_schedule
from lessonkit.study import study as study_module
from lessonkit.study import trainer
from lessonkit.study.report import ablation_report
from lessonkit.study.settings import Settings
from lessonkit.study.study import Study
from lessonkit.study.trainer import Pace, predict_plain
from lessonkit.study.trials import read_correct, StudyMismatch


# --- what is trained


def test_baseline_always_runs_and_rerun_trains_nothing(images, tmp_path, monkeypatch):
    table = run_ablation(images, ["normalization"], seeds=2, out=tmp_path, **QUICK)
    assert table.groupby("technique").size().to_dict() == {"baseline": 2, "no_normalization": 2}
    wanted = "technique seed size epochs accuracy balanced_accuracy nll ece train_seconds"
    wanted += " predict_seconds pixels"
    assert set(wanted.split()) <= set(table.columns)
    assert len(run_ablation(images, [], seeds=1, out=tmp_path, **QUICK)) == 1
    monkeypatch.setattr("lessonkit.study.study.train_trial", lambda *args: pytest.fail("trained again"))
    again = run_ablation(images, ["normalization"], seeds=2, out=tmp_path, **QUICK)
    assert again.equals(table)
    correct = read_correct(tmp_path)
    assert len(correct) == 4 and all(len(c) == len(images.indices("valid")) for c in correct.values())


def test_mixup_and_smoothing_run_from_their_names(images, tmp_path):
    names = ["mixup", "label_smoothing", "mixup+label_smoothing"]
    trials = run_ablation(images, names, seeds=2, out=tmp_path, **QUICK)
    assert set(trials["technique"]) == {"baseline", *names} and len(trials) == 8
    nll = trials.pivot(index="seed", columns="technique", values="nll")
    assert all((nll[name] != nll["baseline"]).all() for name in names)  # each changes the training
    assert (nll["mixup+label_smoothing"] != nll["mixup"]).all() and (
        nll["mixup+label_smoothing"] != nll["label_smoothing"]
    ).all()


def test_a_technique_that_changes_nothing_makes_no_difference(images):
    trials = run_ablation(images, [Technique("idle")], seeds=5, **QUICK)
    row = summarize(trials).set_index("technique").loc["idle"]
    assert (row.low, row.difference, row.high, row.verdict) == (0, 0, 0, "no difference beyond 0.01")


def test_progressive_resizing_is_cheaper_and_judged_at_the_full_size(images):
    trials = run_ablation(
        images, ["progressive_resizing"], seeds=1, **(QUICK | {"size": 32, "epochs": 3})
    ).set_index("technique")
    assert (trials["size"] == 32).all()
    assert 0.25 < trials.loc["progressive_resizing", "pixels"] / trials.loc["baseline", "pixels"] < 0.9


def test_tta_averages_the_photo_and_its_mirror_image(images):
    plain, mirror = (Technique(name, predict=predict)
                     for name, predict in (("plain", predict_plain), ("mirror", mirrored)))
    seen = {}

    def watched(technique):
        def predict(learn):
            seen[technique.name] = technique.predict(learn)
            return seen[technique.name]

        return replace(technique, predict=predict)

    run_ablation(images, [watched(technique) for technique in (plain, mirror, TECHNIQUES["tta"])],
                 seeds=1, **QUICK)
    torch.testing.assert_close(seen["tta"], (seen["plain"] + seen["mirror"]) / 2)


class Counted(Callback):
    """Counts trainings, whatever the technique."""

    fits = 0

    def before_fit(self):
        Counted.fits += 1


def mirrored(learn):
    learn.model.eval()
    with torch.inference_mode():
        return torch.cat([learn.model(x.as_subclass(torch.Tensor).flip(-1)).softmax(1)
                          for x, _ in learn.dls.valid])


def test_a_technique_that_only_predicts_uses_the_trained_baseline(images, tmp_path, monkeypatch):
    made = trainer.Learner
    monkeypatch.setattr(trainer, "Learner", lambda *args, cbs,
                        **kwargs: made(*args, cbs=[*cbs, Counted()], **kwargs))
    Counted.fits, only_predicts = 0, Technique("mirrored", predict=mirrored)
    both = run_ablation(images, [only_predicts], seeds=2, out=tmp_path / "together", **QUICK)
    assert Counted.fits == 2  # the baselines
    by_name = both.set_index(["technique", "seed"])
    for seed in (0, 1):
        base, mirror = by_name.loc["baseline", seed], by_name.loc["mirrored", seed]
        assert base["nll"] != mirror["nll"]
        assert base["train_seconds"] == mirror["train_seconds"] and base["pixels"] == mirror["pixels"]

    # the same numbers later, and when the kept weights are damaged or gone and it must train itself
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


def test_kept_weights_give_what_a_training_gives(images, tmp_path):
    together = run_ablation(
        images, ["mixup", "mixup+tta"], seeds=1, out=tmp_path / "a", **QUICK
    ).set_index("technique")
    alone = run_ablation(images, ["mixup+tta"], seeds=1, out=tmp_path / "b",
                         **QUICK).set_index("technique")
    columns = ["accuracy", "nll", "ece", "pixels"]
    pd.testing.assert_series_equal(together.loc["mixup+tta", columns], alone.loc["mixup+tta", columns])
    assert (
        together.loc["mixup", "train_seconds"] == together.loc["mixup+tta", "train_seconds"]
    )  # one training
    assert together.loc["mixup", "nll"] != together.loc["mixup+tta", "nll"]


def test_the_row_says_both_lengths(images):
    trials = run_ablation(images, ["smaller_pictures"], seeds=1,
                          **(QUICK | {"epochs": 4})).set_index("technique")
    assert (
        trials["epochs"].tolist() == [4, 4] and trials.loc["smaller_pictures", "trained_epochs"] == 7
    )  # 4 / 0.75²
    assert trials.loc["smaller_pictures", "pixels"] == 7 * 32 * 12 * 12


def test_seconds_are_measured_once_and_kept(images, tmp_path, monkeypatch):

    monkeypatch.setattr("lessonkit.study.study.relative_epoch_seconds", lambda images, techniques,
                        *_: {t.variant: 0.5 for t in techniques})
    first = run_ablation(images, ["mixup", "tta"], seeds=1, out=tmp_path, cost="seconds",
                         **(QUICK | {"epochs": 2}))
    monkeypatch.setattr("lessonkit.study.study.relative_epoch_seconds",
                        lambda *_: pytest.fail("measured again"))
    again = run_ablation(images, ["mixup", "tta"], seeds=2, out=tmp_path, cost="seconds",
                         **(QUICK | {"epochs": 2}))
    for trials in (first, again):
        assert set(trials.loc[trials["technique"] == "mixup", "trained_epochs"]) == {4}
        assert set(trials.loc[trials["technique"] != "mixup", "trained_epochs"]) == {2}


def test_a_network_of_ones_own(mine, images, tmp_path):
    trials = run_ablation(images, ["mixup"], seeds=1, out=tmp_path / "study", model=f"{mine}:tiny",
                          jobs=2, **QUICK)
    assert len(trials) == 2
    about = json.loads((tmp_path / "study" / "study.json").read_text())["identity"]
    assert about["model"].startswith("my.py:tiny, code ")
    mine.write_text(MINE.replace("Conv2d(3, 4",
                                 "Conv2d(3, 4, bias=False, kernel_size=3) if False else nn.Conv2d(3, 4"))
    with pytest.raises(StudyMismatch, match="model was my.py:tiny"):
        run_ablation(images, [], seeds=1, out=tmp_path / "study", model=f"{mine}:tiny", **QUICK)


def test_a_known_network_is_trained(images):
    row = run_ablation(images, [], seeds=1, model="mobilenet_v3_small", **(QUICK | {"size": 32})).iloc[0]
    assert math.isfinite(row["nll"])


# --- what is told before and meanwhile


def test_how_many_trainings_are_announced(images, tmp_path, capsys):
    loud = QUICK | {"progress": True}
    run_ablation(images, [Technique("mirrored", predict=mirrored)], seeds=1, out=tmp_path, **loud)
    assert "2 trials to train (1 only to predict)" in capsys.readouterr().out


def test_the_time_told_knows_cheap_trainings_and_dear_predictions(images, tmp_path):
    names = ["progressive_resizing", "tta", "mixup", "mixup+tta"]
    study = Study(images, names, tmp_path, Settings(16, 2, 8, 4), seeds=2)
    vars(study)["pace"] = Pace(start=1, epoch=10, valid=0.5)
    todo = [(name, seed) for seed in (0, 1) for name in study.variants]
    told = {name: seconds for (name, seed), seconds in study.guess(todo).items() if seed == 1}
    share, length = TECHNIQUES["progressive_resizing"].train_cost, study.epochs["progressive_resizing"]
    assert told == {
        "baseline": 1 + 2 * 10 + 0.5,
        "progressive_resizing": pytest.approx(1 + length * share * 10 + 0.5),
        "tta": 1 + 2 * 0.5,  # only predicts
        "mixup": 1 + 2 * 10 + 0.5,
        "mixup+tta": 1 + 2 * 0.5,
    }
    # on its own it trains
    assert study.guess([("mixup+tta", 0)]) == {("mixup+tta", 0): 1 + 2 * 10 + 2 * 0.5}
    assert share == pytest.approx(pixel_share(size_schedule(100, 32, 64)))


def test_a_running_study_shows_no_interval_and_no_verdict(images, tmp_path, capsys):
    run_ablation(images, [Technique("idle")], out=tmp_path, **QUICK | {"seeds": 2, "progress": True})
    shown = "".join(capsys.readouterr())
    assert "After 1 seed of 2, accuracy:" in shown and "adds (points)" in shown
    assert not any(word in shown for word in ("interval", "verdict", "can't tell", "no difference"))


def test_bad_settings_are_told_before_anything_is_trained(images, tmp_path):
    for change, told in [({"size": 0}, "size=0"), ({"epochs": 0}, "epochs=0"),
                         ({"device": "nonsense"}, "can't be used")]:
        with pytest.raises(ValueError, match=told):
            run_ablation(images, out=tmp_path / "study", **(QUICK | change))
    for change, told in [({"size": 2.5}, "size=2.5"), ({"jobs": "two"}, "jobs='two'"),
                         ({"seeds": 1.5}, "seeds=1.5"), ({"colour": 1}, "colour")]:
        with pytest.raises(TypeError, match=told):
            run_ablation(images, out=tmp_path / "study", **(QUICK | change))
    with pytest.raises(ValueError, match="network 'resnet999'"):
        run_ablation(images, out=tmp_path / "study", model="resnet999", **QUICK)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    "text, told",
    [
        ("def f(n): return 5", "gave a int, not a network"),
        ("def f(n): raise RuntimeError('no')", r"f\(2\) failed: RuntimeError: no"),
        ("f = 3", "no function 'f'"),
        (
            "from torch import nn\ndef f(n): return nn.Flatten()",
            r"gives \(2, 768\) for 2 pictures, and should give \(2, 2\)",
        ),
        (
            "from torch import nn\ndef f(n): return nn.Linear(5, n)",
            "can't be trained on pictures of 16 px",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_told_before_training(tmp_path, images, text, told):
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(ValueError, match=told):
        run_ablation(images, [], seeds=1, model=f"{tmp_path / 'net.py'}:f", **QUICK)


# --- what never mixes


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


def test_another_cost_is_another_study(images, tmp_path):
    run_ablation(images, [], seeds=1, out=tmp_path, **QUICK)
    with pytest.raises(StudyMismatch, match="cost was pixels, now epochs"):
        run_ablation(images, [], seeds=1, out=tmp_path, cost="epochs", **QUICK)


# --- what fails


def test_a_technique_that_fails_doesnt_stop_the_others(images, tmp_path):
    def broken():
        raise ValueError("no such loss")

    with pytest.warns(UserWarning, match="1 of 2 trials failed.*no such loss"):
        trials = run_ablation(images, [Technique("broken", loss=broken)], seeds=1, out=tmp_path, **QUICK)
    assert trials["technique"].tolist() == ["baseline"]
    text = ablation_report(images, trials, tmp_path, [Technique("broken")])
    assert "can't tell" in text and "no such loss" in (tmp_path / "report.html").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_failed_trial_says_its_own_error_and_the_others_go_on(images, tmp_path, capfd, jobs):
    """Even if the first outcome is a failure, and there is no trial yet to show in a table."""

    def broken():
        raise ValueError("no such loss")

    def other():
        raise RuntimeError("no such\nthing")

    broken = [Technique("broken", loss=broken), Technique("other", loss=other)]
    with pytest.warns(UserWarning, match="4 of 6 trials failed"):
        trials = run_ablation(images, broken, seeds=2, out=tmp_path, jobs=jobs,
                              **QUICK | {"progress": True})
    assert trials["technique"].tolist() == ["baseline"] * 2
    told = capfd.readouterr().err
    for seed in (0, 1):
        assert f"broken, seed {seed} failed: ValueError: no such loss" in told
        assert f"other, seed {seed} failed: RuntimeError: no such thing" in told


def test_a_study_is_a_value_that_travels(images, tmp_path):
    study = Study(images, ["mixup", "tta"], tmp_path, Settings(16, 1, 8, 4), seeds=[3, 5, 3])
    assert [t.variant for t in study.techniques] == ["baseline", "mixup", "tta"] and study.seeds == (
        3,
        5,
    )
    row, right = study.train("mixup", 3)
    there = pickle.loads(pickle.dumps(study))
    same_row, same_right = there.train("mixup", 3)
    assert there.identity == study.identity and (same_right == right).all()
    assert {k: v for k, v in row.items() if "seconds" not in k} == {
        k: v for k, v in same_row.items() if "seconds" not in k
    }
    with pytest.raises(FrozenInstanceError):
        study.seeds = (1,)


def test_what_a_study_finds_out_it_finds_out_once(images, tmp_path, monkeypatch):
    made, counted = [], []
    for name, calls in (("make_network", made), ("statistics_for", counted)):
        real = getattr(study_module, name)
        monkeypatch.setattr(study_module, name, lambda *args, real=real,
                            calls=calls: calls.append(args) or real(*args))
    study = Study(images, ["mixup"], tmp_path, Settings(16, 1, 8, 4), seeds=2)
    study.run()
    assert len(made) == len(counted) == 1  # to check, to time; the trials make their own
    assert len(pickle.dumps(study)) < 50_000  # without a network


def test_only_one_network_is_made_before_the_first_trial(images, tmp_path, monkeypatch):
    made, real = [], trainer.make_model
    monkeypatch.setattr(trainer, "make_model", lambda *args: made.append(args) or real(*args))
    monkeypatch.setattr(study_module, "train_trial",
                        lambda *args: ({"accuracy": 0.5, "size": 16, "epochs": 1}, None))
    run_ablation(images, None, seeds=1, out=tmp_path, **QUICK | {"progress": True})
    assert len(made) == 1
