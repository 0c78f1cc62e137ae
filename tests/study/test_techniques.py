"""What a technique is: names, combinations, and techniques of one's own."""

import math
import pickle
import sys

import pytest
from tiny_photos import MINE, QUICK
from torch import nn

from lessonkit.ablation import run_ablation, Technique, TECHNIQUES
from lessonkit.foundation.files import run_file
from lessonkit.study.settings import Settings
from lessonkit.study.techniques import choose_techniques, combine, comparisons, EXTRAS, techniques_from
from lessonkit.study.trainer import make_learner
from lessonkit.study.trials import StudyMismatch


# --- combinations


def test_a_combination_changes_what_its_parts_change():
    both = combine(TECHNIQUES["progressive_resizing"], TECHNIQUES["mixup"],
                   TECHNIQUES["label_smoothing"], TECHNIQUES["tta"])
    kinds = [type(callback).__name__ for callback in both.callbacks()]
    assert (
        sorted(kinds) == ["MixUp", "ProgressiveResize"]
        and type(both.loss()).__name__ == "LabelSmoothingCrossEntropy"
    )
    assert both.predict is TECHNIQUES["tta"].predict and both.predict_cost == 2
    assert both.train_cost == TECHNIQUES["progressive_resizing"].train_cost
    assert both.settings["alpha"] == 0.4 and both.settings["eps"] == 0.1


def test_each_training_of_a_combination_gets_callbacks_of_its_own():
    both = combine(TECHNIQUES["mixup"], TECHNIQUES["label_smoothing"])
    assert both.callbacks()[0] is not both.callbacks()[0]


def test_settings_with_the_same_name_are_both_kept():
    a, b = Technique("a", settings={"p": 1, "q": 5}), Technique("b", settings={"p": 2, "q": 5})
    assert combine(a, b).settings == {"p": 1, "q": 5, "b p": 2}


@pytest.mark.parametrize("typed", ["label_smoothing+mixup", "mixup+label_smoothing"])
def test_the_order_of_a_combination_does_not_matter(typed):
    assert [t.variant for t in choose_techniques([typed])] == ["baseline", "mixup+label_smoothing"]
    assert choose_techniques([typed])[1] is TECHNIQUES["mixup+label_smoothing"]


@pytest.mark.parametrize(
    "typed, told",
    [
        ("mixup+cutout", "no technique 'cutout'"),
        ("mixup+label_smothing", "Did you mean 'label_smoothing'"),
        ("normalization+mixup", "say no_normalization"),
        ("baseline+mixup", "the baseline has baseline already"),
        ("mixup+", "no technique ''"),
        ("mixup+mixup", "has mixup twice"),
        ("mixup+label_smoothing+mixup", "has mixup twice"),
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
    assert (
        make_learner(images, chosen, 0, Settings(16, 1, 8, 4)).dls.train.one_batch()[0].min() >= 0
    )  # not normalized


@pytest.mark.parametrize(
    "name, trained",
    [
        ("tta", "baseline"),
        ("mixup", "mixup"),
        ("mixup+tta", "mixup"),
        ("baseline", "baseline"),
        ("progressive_resizing+tta", "progressive_resizing"),
        ("no_normalization+tta", "no_normalization"),
    ],
)
def test_another_prediction_needs_no_training_of_its_own(name, trained):
    assert choose_techniques([name])[-1].weights_from == trained


# --- techniques of one's own


def test_techniques_of_a_file(mine, images):
    found = {t.name: t for t in techniques_from(mine)}
    assert set(found) == {"mine", "other"} and len(found["mine"].settings["code"]) == 16
    chosen = choose_techniques(["mine+tta", "other"], list(found.values()))
    assert [t.variant for t in chosen] == ["baseline", "mine+tta", "other"]
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
        (
            "from lessonkit.ablation import Technique\na = Technique('mixup')",
            "there is a technique 'mixup' already",
        ),
        (
            "from lessonkit.ablation import Technique\n"
            "a, b = Technique('a'), Technique('a', data={'augment': 0})",
            "two techniques called 'a'",
        ),
        (
            "from lessonkit.ablation import Technique\na = Technique('../a')",
            "line 2: ValueError: '../a' can't be a technique's name",
        ),
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


@pytest.mark.parametrize("name", [*TECHNIQUES, *EXTRAS])
def test_a_technique_of_the_course_travels_by_pickle(name):
    technique = (TECHNIQUES | EXTRAS)[name]
    there = pickle.loads(pickle.dumps(technique))
    assert (there.variant, there.identity, there.weights_from) == (
        technique.variant, technique.identity, technique.weights_from
    )
    makers = [one.callbacks or list for one in (there, technique)]
    assert [[type(callback) for callback in make()] for make in makers][0] == [
        type(callback) for callback in makers[1]()
    ]


@pytest.mark.parametrize("cost", [0, -1, math.inf, math.nan])
def test_a_cost_is_above_zero(cost):
    with pytest.raises(ValueError, match="train_cost of 'odd'"):
        Technique("odd", train_cost=cost)
