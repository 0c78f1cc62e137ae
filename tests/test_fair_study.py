"""What makes a study fair and one's own: combinations, equal cost, own techniques and networks, choosing, looking again."""

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from tiny_photos import draw
from torch import nn

from lessonkit.ablation import TECHNIQUES, Technique, choose_best, inner_split, run_ablation
from lessonkit.comparison import look_confidence
from lessonkit.foundation.files import run_file
from lessonkit.foundation.models import make_model
from lessonkit.study import trainer
from lessonkit.study.report import ablation_report, markdown_report, plot_costs
from lessonkit.study.tables import fold_name, format_table
from lessonkit.study.techniques import choose_techniques, combine, comparisons, techniques_from
from lessonkit.study.trainer import Recipe, epochs_at_cost, make_learner, relative_epoch_seconds, train_trial
from lessonkit.study.trials import StudyMismatch, read_trials

QUICK = {"size": 16, "epochs": 1, "batch_size": 8, "width": 4, "progress": False}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def folder(images):
    return images.paths[0].parent.parent


# --- combinations


def test_a_combination_changes_what_its_parts_change():
    both = combine(TECHNIQUES["progressive_resizing"], TECHNIQUES["mixup"], TECHNIQUES["label_smoothing"], TECHNIQUES["tta"])
    kinds = [type(callback).__name__ for callback in both.callbacks()]
    assert sorted(kinds) == ["MixUp", "ProgressiveResize"] and type(both.loss()).__name__ == "LabelSmoothingCrossEntropy"
    assert both.predict is TECHNIQUES["tta"].predict and both.predict_cost == 2
    assert both.train_cost == TECHNIQUES["progressive_resizing"].train_cost
    assert both.settings["alpha"] == 0.4 and both.settings["eps"] == 0.1


def test_each_training_of_a_combination_gets_callbacks_of_its_own():
    both = combine(TECHNIQUES["mixup"], TECHNIQUES["label_smoothing"])
    assert both.callbacks()[0] is not both.callbacks()[0]


def test_settings_with_the_same_name_are_both_kept():
    a, b = Technique("a", settings={"p": 1, "q": 5}), Technique("b", settings={"p": 2, "q": 5})
    assert combine(a, b).settings == {"p": 1, "q": 5, "b p": 2}


@pytest.mark.parametrize("typed", ["label_smoothing+mixup", "mixup+label_smoothing", "mixup+label_smoothing+mixup"])
def test_the_order_of_a_combination_does_not_matter(typed):
    assert [t.recipe for t in choose_techniques([typed])] == ["baseline", "mixup+label_smoothing"]
    assert choose_techniques([typed])[1] is TECHNIQUES["mixup+label_smoothing"]


@pytest.mark.parametrize(
    "typed, told",
    [
        ("mixup+cutout", "no technique 'cutout'"),
        ("mixup+label_smothing", "Did you mean 'label_smoothing'"),
        ("normalization+mixup", "say no_normalization"),
        ("baseline+mixup", "the baseline has baseline already"),
        ("mixup+", "no technique ''"),
        ("smaller_pictures+no_normalization+tta+tta+x", "no technique 'x'"),
    ],
)
def test_a_combination_that_means_nothing_is_told(typed, told):
    with pytest.raises(ValueError, match=told):
        choose_techniques([typed])


def test_two_that_change_the_same_thing_are_not_combined():
    loss = Technique("focal", loss=nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match="two of them change the loss"):
        combine(loss, TECHNIQUES["label_smoothing"])
    with pytest.raises(ValueError, match="two of them change 'augment'"):
        combine(Technique("a", data={"augment": False}), Technique("b", data={"augment": False}))


def test_without_normalization_and_with_mixup_is_one_recipe(images):
    chosen = choose_techniques(["no_normalization+mixup"])[1]
    assert comparisons([chosen]) == {"no_normalization+mixup": ("no_normalization+mixup", "baseline")}
    assert make_learner(images, chosen, 0, Recipe(16, 1, 8, 4)).dls.train.one_batch()[0].min() >= 0  # not normalized


@pytest.mark.parametrize("name, trained", [("tta", "baseline"), ("mixup", "mixup"), ("mixup+tta", "mixup"), ("baseline", "baseline"),
    ("progressive_resizing+tta", "progressive_resizing"), ("no_normalization+tta", "no_normalization")])  # fmt: skip
def test_another_prediction_needs_no_training_of_its_own(name, trained):
    assert choose_techniques([name])[-1].trained_as == trained


def test_kept_weights_give_what_a_training_gives(images, tmp_path):
    together = run_ablation(images, ["mixup", "mixup+tta"], seeds=1, out=tmp_path / "a", **QUICK).set_index("technique")
    alone = run_ablation(images, ["mixup+tta"], seeds=1, out=tmp_path / "b", **QUICK).set_index("technique")
    columns = ["accuracy", "nll", "ece", "pixels"]
    pd.testing.assert_series_equal(together.loc["mixup+tta", columns], alone.loc["mixup+tta", columns])
    assert together.loc["mixup", "train_seconds"] == together.loc["mixup+tta", "train_seconds"]  # one training
    assert together.loc["mixup", "nll"] != together.loc["mixup+tta", "nll"]


# --- equal cost


@pytest.mark.parametrize("name", sorted(TECHNIQUES))
@pytest.mark.parametrize("epochs", [1, 4, 10])
def test_no_technique_trains_on_more_pixels_than_the_baseline(images, name, epochs):
    technique, recipe = TECHNIQUES[name], Recipe(size=64, epochs=epochs, batch_size=16, width=1)
    own_epochs = epochs_at_cost(technique, recipe)
    baseline = epochs * len(images.indices("train")) * 64**2
    seen = train_trial(images, technique, 0, recipe, epochs=own_epochs)[0]["pixels"]
    assert own_epochs >= epochs and seen <= baseline * 1.02  # sizes that grow are rounded to whole pixels
    if epochs == 10:
        assert seen > 0.85 * baseline  # and what it saves is given to it
    if name == "baseline":
        assert seen == baseline


def test_epochs_in_each_currency():
    half = Technique("half", train_cost=0.5)
    assert epochs_at_cost(half, Recipe(epochs=5)) == 10
    assert epochs_at_cost(half, Recipe(epochs=5, cost="epochs")) == 5
    assert epochs_at_cost(half, Recipe(epochs=5, cost="seconds"), seconds=0.7) == 7
    assert epochs_at_cost(Technique("dear", train_cost=9), Recipe(epochs=5)) == 1


def test_the_row_says_both_lengths(images):
    trials = run_ablation(images, ["smaller_pictures"], seeds=1, **(QUICK | {"epochs": 4})).set_index("technique")
    assert trials["epochs"].tolist() == [4, 4] and trials.loc["smaller_pictures", "trained_epochs"] == 7  # 4 / 0.75²
    assert trials.loc["smaller_pictures", "pixels"] == 7 * 32 * 12 * 12


def test_seconds_are_measured_once_and_kept(images, tmp_path, monkeypatch):

    monkeypatch.setattr("lessonkit.study.study.relative_epoch_seconds", lambda images, techniques, *_: {t.recipe: 0.5 for t in techniques})
    first = run_ablation(images, ["mixup", "tta"], seeds=1, out=tmp_path, cost="seconds", **(QUICK | {"epochs": 2}))
    monkeypatch.setattr("lessonkit.study.study.relative_epoch_seconds", lambda *_: pytest.fail("measured again"))
    again = run_ablation(images, ["mixup", "tta"], seeds=2, out=tmp_path, cost="seconds", **(QUICK | {"epochs": 2}))
    for trials in (first, again):
        assert set(trials.loc[trials["technique"] == "mixup", "trained_epochs"]) == {4}
        assert set(trials.loc[trials["technique"] != "mixup", "trained_epochs"]) == {2}


def test_the_pilot_finds_a_dearer_training(images, monkeypatch):
    """By a clock of the test's own: two epochs of the baseline take ten seconds, and each of the eight batches of the other five more."""

    clock = [0.0]

    class Clock(Callback):
        def after_fit(self):
            clock[0] += 10

    class Slow(Callback):
        def after_batch(self):
            clock[0] += 5 * self.training

    made = trainer.Learner
    monkeypatch.setattr(trainer, "Learner", lambda *args, cbs, **kwargs: made(*args, cbs=[*cbs, Clock()], **kwargs))
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: clock[0], process_time=lambda: 0.0))
    seconds = relative_epoch_seconds(images, [Technique("slow", callbacks=lambda: [Slow()])], Recipe(16, 2, 8, 4), None)
    assert seconds == {"slow": (10 + 8 * 5) / 10}


def test_another_cost_is_another_study(images, tmp_path):
    run_ablation(images, [], seeds=1, out=tmp_path, **QUICK)
    with pytest.raises(StudyMismatch, match="cost was pixels, now epochs"):
        run_ablation(images, [], seeds=1, out=tmp_path, cost="epochs", **QUICK)


# --- own techniques and networks

MINE = """
from dataclasses import dataclass
from torch import nn
from lessonkit.ablation import Technique

@dataclass
class Smooth(nn.Module):
    eps: "float" = 0.2
    def __post_init__(self):
        super().__init__()
    def forward(self, x, y):
        return nn.functional.cross_entropy(x, y, label_smoothing=self.eps)

mine = Technique("mine", loss=Smooth, card="Of my own.")
more = [Technique("other", data={"augment": False})]

def tiny(n_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n_classes))
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "my.py").write_text(MINE)
    return tmp_path / "my.py"


def test_techniques_of_a_file(mine, images):
    found = {t.name: t for t in techniques_from(mine)}
    assert set(found) == {"mine", "other"} and len(found["mine"].settings["code"]) == 16
    chosen = choose_techniques(["mine+tta", "other"], list(found.values()))
    assert [t.recipe for t in chosen] == ["baseline", "mine+tta", "other"]
    trials = run_ablation(images, [found["mine"]], seeds=1, jobs=2, **QUICK)
    assert sorted(trials["technique"]) == ["baseline", "mine"]


def test_a_changed_file_is_another_technique(mine, images, tmp_path):
    run_ablation(images, techniques_from(mine), seeds=1, out=tmp_path / "study", **QUICK)
    mine.write_text(MINE.replace("0.2", "0.3"))
    with pytest.raises(StudyMismatch, match="mine: settings: code was"):
        run_ablation(images, techniques_from(mine), seeds=1, out=tmp_path / "study", **QUICK)


@pytest.mark.parametrize(
    "text, told",
    [
        ("x = 1", "defines no Technique"),
        ("x = 1\ny = x / 0", "line 2: ZeroDivisionError"),
        ("x = (", "line 1: SyntaxError"),
        ("import nowhere_at_all", "line 1: ModuleNotFoundError"),
        ("from lessonkit.ablation import Technique\na = Technique('mixup')", "there is a technique 'mixup' already"),
        ("from lessonkit.ablation import Technique\na, b = Technique('a'), Technique('a', data={'augment': 0})", "two techniques called 'a'"),
        ("from lessonkit.ablation import Technique\na = Technique('../a')", "line 2: ValueError: '../a' can't be a technique's name"),
    ],
)
def test_a_file_with_a_fault_is_told(tmp_path, text, told):
    (tmp_path / "my.py").write_text(text)
    with pytest.raises(ValueError, match=told):
        techniques_from(tmp_path / "my.py")
    with pytest.raises(ValueError, match="no file"):
        techniques_from(tmp_path / "none.py")


def test_running_a_file_leaves_no_module_behind(mine):
    before = set(sys.modules)
    run_file(mine)
    assert not [name for name in set(sys.modules) - before if name.startswith("my_")]


def test_a_network_of_ones_own(mine, images, tmp_path):
    trials = run_ablation(images, ["mixup"], seeds=1, out=tmp_path / "study", model=f"{mine}:tiny", jobs=2, **QUICK)
    assert len(trials) == 2
    about = json.loads((tmp_path / "study" / "study.json").read_text())["identity"]
    assert about["model"].startswith("my.py:tiny, code ")
    mine.write_text(MINE.replace("Conv2d(3, 4", "Conv2d(3, 4, bias=False, kernel_size=3) if False else nn.Conv2d(3, 4"))
    with pytest.raises(StudyMismatch, match="model was my.py:tiny"):
        run_ablation(images, [], seeds=1, out=tmp_path / "study", model=f"{mine}:tiny", **QUICK)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "regnet_y_400mf", "resnet10t", "efficientnet_lite0"])
def test_networks_of_torchvision_and_timm(images, name):
    torch.manual_seed(0)
    first = make_model(name, 7)
    assert first.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 7)
    torch.manual_seed(0)
    assert torch.equal(next(make_model(name, 7).parameters()), next(first.parameters()))


def test_a_known_network_is_trained(images):
    row = run_ablation(images, [], seeds=1, model="mobilenet_v3_small", **(QUICK | {"size": 32})).iloc[0]
    assert math.isfinite(row["nll"])


@pytest.mark.parametrize(
    "name, told",
    [
        ("resnet_18", "Neither torchvision nor timm has a network 'resnet_18'"),
        ("nowhere.py:f", "no file nowhere.py"),
        ("small_resnet", "no pretrained weights"),
    ],
)
def test_a_network_that_cannot_be_had_is_told(name, told):
    with pytest.raises(ValueError, match=told):
        make_model(name, 3, pretrained=True)


def test_weights_that_cannot_be_downloaded_are_told(monkeypatch):
    import torchvision

    def offline(*args, **kwargs):
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(ValueError, match="pretrained weights of resnet18 can't be had .*from scratch"):
        make_model("resnet18", 3, pretrained=True)


@pytest.mark.parametrize(
    "text, told",
    [
        ("def f(n): return 5", "gave a int, not a network"),
        ("def f(n): raise RuntimeError('no')", r"f\(2\) failed: RuntimeError: no"),
        ("f = 3", "no function 'f'"),
        ("from torch import nn\ndef f(n): return nn.Flatten()", r"gives \(2, 768\) for 2 pictures, and should give \(2, 2\)"),
        ("from torch import nn\ndef f(n): return nn.Linear(5, n)", "can't be trained on pictures of 16 px"),
    ],
)
def test_a_network_that_does_not_fit_is_told_before_training(tmp_path, images, text, told):
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(ValueError, match=told):
        run_ablation(images, [], seeds=1, model=f"{tmp_path / 'net.py'}:f", **QUICK)


def test_a_pretrained_network_gets_the_statistics_it_was_trained_with(images, monkeypatch):
    """The weights aren't downloaded here: torchvision's untrained network stands in for them."""
    import torchvision

    real = torchvision.models.get_model
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights=None, **kw: real(name, **kw))
    learn = make_learner(images, TECHNIQUES["baseline"], 0, Recipe(32, 1, 8, model="resnet18", pretrained=True))
    assert learn.model.fc.out_features == 2
    normalize = [t for t in learn.dls.train.after_batch.fs if hasattr(t, "mean")] or [learn.dls.train.normalize]
    assert torch.allclose(torch.as_tensor(normalize[0].mean).flatten().float(), torch.tensor([0.485, 0.456, 0.406]), atol=1e-6)


# --- choosing, and looking again


def test_the_inner_split_never_sees_a_validation_photo(images):
    inner = inner_split(images, 0.25, seed=1)
    held_out = {images.paths[i] for i in images.indices("valid")}
    assert len(inner) == 32 and not held_out & set(inner.paths)
    assert np.bincount(inner.labels[inner.indices("valid")]).tolist() == [4, 4]
    again = inner_split(images, 0.25, seed=1)
    assert (again.split == inner.split).all() and (inner_split(images, 0.25, seed=2).split != inner.split).any()


def test_choosing_looks_at_inner_photos_only_and_takes_the_best(images, tmp_path, monkeypatch):

    seen = []
    values = {"baseline": 0.2, "mixup": 0.8, "tta": 0.5}

    def trial(photos, technique, seed, *args):
        seen.append(photos)
        right = np.arange(len(photos.indices("valid"))) < values[technique.recipe] * len(photos.indices("valid"))
        return {"size": 16, "epochs": 1, "accuracy": right.mean(), "train_seconds": 1.0, "predict_seconds": 1.0, "pixels": 1}, right

    monkeypatch.setattr("lessonkit.study.study.train_trial", trial)
    chosen, told = choose_best(images, ["tta", "mixup"], out=tmp_path, seeds=2, **QUICK)
    assert [t.recipe for t in chosen] == ["baseline", "mixup"] and "Chosen among 3 recipes: mixup" in told
    assert (tmp_path / "choice" / "trials.jsonl").exists() and not (tmp_path / "trials.jsonl").exists()
    held_out = {images.paths[i] for i in images.indices("valid")}
    assert seen and not any(held_out & set(photos.paths) for photos in seen)
    values["baseline"] = 1.0
    assert [t.recipe for t in choose_best(images, ["tta", "mixup"], seeds=1, **QUICK)[0]] == ["baseline"]
    with pytest.raises(ValueError, match="one technique beside the baseline"):
        choose_best(images, [], seeds=1, **QUICK)


def test_looks_are_noted_and_widen_the_interval(images, tmp_path):
    def report(seeds, planned=10):
        trials = run_ablation(images, ["mixup"], seeds=seeds, out=tmp_path, **QUICK)
        return ablation_report(images, trials, tmp_path, ["mixup"], planned=planned)

    wide = report(3)
    levels = look_confidence([3, 5], 10)
    assert f"{levels[0]:.4%} interval" in wide and "Looked at with 3 of 10 planned seeds" in wide
    assert report(3) == wide  # the same look again is no further look
    assert f"{levels[1]:.1%} interval" in report(5, planned=None)  # the plan is remembered
    assert json.loads((tmp_path / "looks.json").read_text()) == {"planned": 10, "looks": [3, 5]}
    with pytest.raises(ValueError, match="10 seeds were planned before the first look, now 20"):
        report(5, planned=20)


# --- reports


def test_markdown_shows_names_as_they_are(images, tmp_path):
    trials = run_ablation(images, ["mixup", "label_smoothing", "mixup+label_smoothing"], seeds=2, out=tmp_path, **QUICK)
    ablation_report(images, trials, tmp_path, ["mixup", "label_smoothing", "mixup+label_smoothing"],
        title="a|b <script>`*_", command="lessonkit ablate '```x'")  # fmt: skip
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "# a\\|b \\<script\\>\\`\\*\\_" in text and "````sh\nlessonkit ablate '```x'\n````" in text
    assert "## Together" in text and "together minus the sum of both" in text
    assert "Equal for all: pixels trained on" in text and "all settings were fixed before" in text
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "together minus the sum of both" in page and "<script>" not in page.split("</style>")[1]
    head, rule, *rows = [line for line in text.splitlines() if line.startswith("|")][:5]
    cells = [len(line.replace("\\|", "").split("|")) for line in (head, rule, *rows)]
    assert len(set(cells)) == 1


@pytest.mark.parametrize("name, lines", [("tta", ["tta"]), ("progressive_resizing+tta+mixup", ["progressive_resizing+", "tta+mixup"]),
    ("a" * 40, ["a" * 40])])  # fmt: skip
def test_long_names_are_folded_at_a_plus(name, lines):
    assert fold_name(name) == "\n".join(lines) and fold_name(name).replace("\n", "") == name


def test_costs_are_drawn_once_for_each_recipe_and_size():
    rows = [(t, s, size, e, e * size, 0.5) for t in "ab" for s in (0, 1) for size in (32, 64) for e in (1, 8)]
    trials = pd.DataFrame(rows, columns=["technique", "seed", "size", "epochs", "train_seconds", "accuracy"])
    ax = plot_costs(trials)
    assert len(ax.containers) == 4 and ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "64 px", "32 px"]
    assert plot_costs(trials[trials["epochs"] == 1].assign(train_seconds=1.0)).get_xscale() == "linear"


# --- the command


TYPED = ["--size", "16", "--epochs", "1", "--batch-size", "8", "--jobs", "2", "--seeds", "2"]


def test_the_command_takes_techniques_and_networks_of_ones_own(folder, mine, tmp_path, capsys):
    from lessonkit.cli import main

    own = ["--techniques-from", mine, "--model", f"{mine}:tiny", "--choose", "--planned", "4", "--out", tmp_path / "out"]
    code = main([*map(str, ("ablate", folder, *TYPED, "--techniques", "mine,mixup+tta", *own))])
    printed, errors = capsys.readouterr()
    assert code == 0, errors
    assert "Chosen among 3 recipes" in printed and "of 4 planned seeds" in printed and "2 side by side" in printed
    assert {"report.html", "report.md", "choice"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert len(read_trials(tmp_path / "out" / "choice")) == 6


@pytest.mark.parametrize("typed, told", [(["--techniques-from", "none.py"], "no file none.py"), (["--model", "none"], "network 'none'"),
    (["--planned", "1"], "must be at least --seeds 2"), (["--cost", "euros"], "invalid choice"), (["--jobs", "0"], "at least 1")])  # fmt: skip
def test_the_command_tells_what_is_wrong_in_a_line(folder, tmp_path, typed, told, capsys, monkeypatch):
    from lessonkit.cli import main

    monkeypatch.chdir(tmp_path)
    try:
        code = main(["ablate", str(folder), *TYPED, *typed])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2 and told in capsys.readouterr().err


def test_the_table_of_a_terminal_has_no_line_that_is_too_long(images, tmp_path):
    from lessonkit.comparison import summarize

    trials = run_ablation(images, None, seeds=2, out=tmp_path, **QUICK)
    told = format_table(summarize(trials, pairs=comparisons()))
    assert max(map(len, told.splitlines())) <= 150 and "all 9 hold together in 95% of studies" in told
    assert markdown_report("x", summarize(trials, pairs=comparisons()), trials).count("\n| ") > 12
