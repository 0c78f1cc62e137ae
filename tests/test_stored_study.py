"""The stored studies are what they say: one trial is trained again, and tables, photos and settings
belong together."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from make_ablation import train_baseline
from resume import Arm, Rows, Table, tune
from scipy import stats

from lessonkit.ablation import TECHNIQUES
from lessonkit.comparison import summarize
from lessonkit.images import ImageSet
from lessonkit.photos.bundled import make_bundled
from lessonkit.study.techniques import comparisons
from lessonkit.study.settings import Settings
from lessonkit.study.trials import fingerprint
from lessonkit.study.worth import read_study

RESULTS = Path(__file__).parent.parent / "nbs" / "results"
STUDIES = ["ablation_photos", "ablation_bundled"]


def stored(name):
    about = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return pd.read_csv(RESULTS / f"{name}.csv"), about, np.load(
        RESULTS / f"{name}_correct.npz", allow_pickle=False
    )


@pytest.fixture(scope="module")
def again():
    """The baseline of the stored study, trained here with the seed 0: how it begins, its row, and which
    photos it gets right."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train_baseline(ImageSet.from_folder(make_bundled()), size=32, epochs=5)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def same():
    """The stored trials of that kind, one for each seed."""
    trials, _, _ = stored("ablation_bundled")
    return trials[(trials["technique"] == "baseline") & (trials["size"] == 32) & (trials["epochs"] == 5)]


def interval(values):
    """In which one more value lies, but for one time in a thousand, by Student's distribution."""
    n = len(values)
    reach = stats.t.ppf(0.9995, n - 1) * values.std() * np.sqrt(1 + 1 / n)
    return values.mean() - reach, values.mean() + reach


@pytest.mark.processor
def test_a_stored_trial_comes_out_again(again, same):
    """On whatever processor: the same photos in the same batches, the same crops, the same loss before
    the first step, and as many pixels and answers. Only rounding may differ so far: by far less than the
    crops and losses of two seeds do."""
    beginning, row, right = again
    expected = stored("ablation_bundled")[1]["beginning"]
    assert beginning["photos"] == expected["photos"]
    np.testing.assert_allclose(beginning["looks"], expected["looks"], atol=0.01)
    assert beginning["loss"] == pytest.approx(expected["loss"], rel=1e-3)
    assert row["pixels"] == same["pixels"].iloc[0] and len(right) == same["photos"].iloc[0]


@pytest.mark.processor
@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_a_stored_trial_ends_where_other_seeds_do(again, same, metric):
    """Rounding differs between processors, and a training makes small differences large: the end is that
    of one more seed."""
    low, high = interval(same[metric])
    assert low <= again[1][metric] <= high


def test_that_interval_tells_a_training_that_went_wrong(same):
    """It is narrow enough: neither a network that guesses lies in it nor any that was trained four times
    as long."""
    trials, _, _ = stored("ablation_bundled")
    longer = trials[(trials["technique"] == "baseline") & (trials["epochs"] == 20)]
    for metric, guessing in (("accuracy", 0.1), ("nll", np.log(10))):
        low, high = interval(same[metric])
        assert not low <= guessing <= high and not longer[metric].between(low, high).any()


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
        assert [study["identity"][key] for key in ("size", "epochs", "cost", "recipe version")] == [
            size, epochs, "pixels", Settings.version
        ]
        longest = rows.loc[rows["technique"] == "baseline", "pixels"].max()
        assert (rows["pixels"] <= 1.02 * longest).all() and rows["threads"].eq(1).all()


@pytest.mark.parametrize("name", STUDIES)
def test_the_stored_settings_are_those_of_the_techniques(name):
    _, about, _ = stored(name)
    for study in about["studies"].values():
        for technique in TECHNIQUES.values():
            own = {key: value
                   for key, value in study["techniques"][technique.variant].items() if key != "epochs"}
            assert own == json.loads(json.dumps(technique.identity)), technique.name


@pytest.mark.parametrize("name", STUDIES)
def test_enough_seeds_for_an_interval(name):
    trials, _, correct = stored(name)
    rows = trials.assign(id=trials["key"]).groupby(["size", "epochs"])
    for _, group in rows:
        summary = summarize(group, pairs=comparisons(), correct=correct)
        assert (summary["seeds"] >= 3).all() and summary["covers"].dropna().eq("seeds and photos").all()


# tables that grew with `resume.run`, with their photos and runs beside them
GROWN = sorted(path.stem for path in RESULTS.glob("*.json")
               if path.with_name(f"{path.stem}_correct.npz").exists() and path.stem not in STUDIES)


@pytest.mark.parametrize("name", GROWN)
def test_a_rows_accuracy_is_that_of_its_stored_answers(name):
    table, right = read_study(RESULTS / f"{name}.csv")
    assert not table["id"].duplicated().any() and set(right) == set(table["id"])
    assert [right[name].mean() for name in table["id"]] == pytest.approx(table["accuracy"].tolist())


def test_a_table_grows_and_is_found_again(tmp_path, monkeypatch):
    """A killed script goes on after its last whole trial: no row twice, none without its array."""
    monkeypatch.setattr("resume.HERE", tmp_path)
    table = Rows("study")
    right = {key: np.array([True, False, seed == 1]) for seed, key in enumerate("ab")}
    for seed, key in enumerate("ab"):
        table.add([({"id": key, "seed": seed, "accuracy": right[key].mean()}, right[key])])
    table.add([({"id": "a", "seed": 0, "accuracy": 0.0}, right["b"])])  # it is there already
    again = Rows("study")
    assert again.done == {"a", "b"} and [row["accuracy"] for row in again.rows] == [1 / 3, 2 / 3]
    assert all(np.array_equal(again.arrays[key], right[key]) for key in "ab")

    def die(path, data):
        if path.suffix == ".csv":
            raise KeyboardInterrupt
        path.write_bytes(data)

    monkeypatch.setattr("resume.write_atomic", die)
    with pytest.raises(KeyboardInterrupt):
        again.add([({"id": "c", "seed": 2, "accuracy": 1.0}, np.ones(3, bool))])
    assert set(Rows("study").arrays) == Rows("study").done == {"a", "b"}


def test_a_study_lies_aside_until_it_is_whole(tmp_path, monkeypatch):
    """Lessons read whole studies; a script that is killed, and started again for other rows, leaves a
    half one where it is."""
    monkeypatch.setattr("resume.HERE", tmp_path)
    right = np.array([True, False, True])

    def rows(*names):
        return [({"id": name, "accuracy": 2 / 3}, right) for name in names]

    first = Table("study", {"photos": 3})
    first.add(rows("short 0"))
    first.finish(["short 0"])
    assert Rows("study").done == {"short 0"} and not list((tmp_path / "unfinished").iterdir())
    Table("study", {"photos": 3}).add(rows("long 0"))
    Table("study", {"photos": 3}).finish(["short 0"])
    assert Rows("study").done == {"short 0"}
    with pytest.raises(ValueError, match="other photos"):
        Table("study", {"photos": 4})
    again = Table("study", {"photos": 3})
    assert again.done == {"short 0", "long 0"}
    again.add(rows("long 1"))
    again.finish(["long 0", "long 1"])
    found = Rows("study")
    assert found.done == set(found.arrays) == {"short 0", "long 0", "long 1"}
    assert (tmp_path / "study.json").exists() and not list((tmp_path / "unfinished").iterdir())
    half = Table("study", {"photos": 3})
    half.add(rows("long 2"))
    Rows("study").add(rows("from elsewhere"))
    with pytest.raises(ValueError, match="'from elsewhere'"):
        half.finish()
    with pytest.raises(ValueError, match="1 rows that the unfinished table lacks"):
        Table("study", {"photos": 3})
    assert Rows("study").done == set(Rows("study").arrays) == found.done | {"from elsewhere"}


def test_half_as_long_trainings_choose_the_rate_and_whole_ones_the_crops(monkeypatch):
    """Strong crops lose in short trainings and win in long ones; the other arm likes weak ones."""
    trained = []

    def run(name, folder, arms, seeds):
        rows = []
        for arm in arms:
            at, likes = arm.settings, 0.35 if arm.name == "mixup" and arm.settings.epochs == 20 else 0.75
            trained.append((arm.name, at.lr, arm.min_area, at.epochs, arm.inner))
            accuracy = 0.7 - abs(arm.min_area - likes) - (0 if at.lr == 5e-3 else 0.1)
            rows.append({"technique": arm.name, "lr": at.lr, "min_area": arm.min_area,
                         "accuracy": accuracy, "nll": 1.0})
        return pd.DataFrame(rows)

    monkeypatch.setattr("resume.run", run)
    arms = [Arm(TECHNIQUES[name], Settings(epochs=20)) for name in ("baseline", "mixup")]
    chosen, found = tune("study", "photos", arms, (2e-3, 5e-3, 1.2e-2), (0.35, 0.75), share=0.5)
    assert [(arm.settings.lr, arm.min_area) for arm in chosen] == [(5e-3, 0.75), (5e-3, 0.35)]
    assert all(arm.settings.epochs == 20 and not arm.inner for arm in chosen)
    assert found["mixup"]["accuracy"] == pytest.approx(0.7) and found["grid"]["share"] == 0.5
    names = ["baseline", "mixup"]
    short = [(n, lr, 0.35, 10, True) for lr in (2e-3, 5e-3, 1.2e-2) for n in names]
    long = [(n, 5e-3, area, 20, True) for area in (0.35, 0.75) for n in names]
    assert trained == short + long
