"""`lessonkit ablate` to its end: the rival first, an answer that leads on, tuning, a time budget,
another metric."""

import html
import json
import re
import shlex

import pandas as pd
import pytest
import torch
import torchvision
from typed import SETTINGS

from lessonkit.ablation import load_best
from lessonkit.study.trials import read_trials

SMALL = [word for word in SETTINGS if word != "--no-frozen"] + ["--jobs", "1"]
QUICK = [*SMALL, "--no-frozen"]
NOTHING = """
import torch
from fastai.callback.core import Callback
from lessonkit.ablation import Technique

class OtherLuck(Callback):
    "Other initial weights, of the same kind: a technique that does nothing."

    def before_fit(self):
        with torch.random.fork_rng():
            torch.manual_seed(1000 + self.learn.dls.train.seed)
            for part in self.learn.model.modules():
                if hasattr(part, "reset_parameters"):
                    part.reset_parameters()

nothing = Technique("nothing", callbacks=lambda: [OtherLuck()])
"""


def test_the_rival_comes_first_and_the_answer_leads_on(folder, tmp_path, here):
    typed = ["ablate", folder, *SMALL, "--techniques", "tta", "--seeds", "2", "--out",
             tmp_path / "my study"]
    code, printed, _ = here(*typed)
    assert code == 0 and re.search(r"^frozen: \d+\.\d% \(\d+\.\d% to 100\.0%\) in \d+ s: features of",
                                   printed, re.M)
    assert printed.index("frozen: ") < printed.index("4 trials to train")
    rows = printed[printed.index("verdict") :].splitlines()
    assert rows[3].startswith("frozen ") and rows[4].startswith("baseline ")
    lines = printed.strip().splitlines()
    (step,) = [line for line in lines if line.startswith("Next: ")]
    found = re.fullmatch(
        r"Next: 3 more seeds for a verdict, about \d+ (s|min): (lessonkit ablate .*--seeds 5)", step
    )
    (network,) = [line for line in lines if "load_best(" in line]
    assert "the best mean here" in network and "Too few validation photos" in printed
    page = (tmp_path / "my study" / "report.html").read_text(encoding="utf-8")
    assert "load_best" in page and "frozen" in page and "3 more seeds for a verdict" in page
    probs = load_best(tmp_path / "my study").predict(sorted(folder.rglob("*.png"))[:3])
    assert list(probs) == ["bright", "dark"]
    code, again, _ = here(*shlex.split(found[2])[1:])
    assert code == 0 and "6 trials to train" in again and "first look" not in again


def test_without_weights_a_line_says_how_to_get_them(folder, tmp_path, here, monkeypatch):
    monkeypatch.setattr("lessonkit.study.rival.pretrained_at_hand", lambda: None)
    code, printed, _ = here("ablate", folder, *SMALL, "--techniques", "tta", "--seeds", "1", "--out",
                            "study")
    assert (code == 0
            and len(re.findall(r"^The row `frozen`.*pip install 'lessonkit\[pretrained\]'", printed,
                               re.M)) == 2)
    assert not (tmp_path / "study" / "frozen.json").exists()


def test_one_metric_is_compared_and_trains_nothing_anew(folder, tmp_path, here):
    typed = ["ablate", folder, *QUICK, "--techniques", "mixup", "--seeds", "5", "--out", "study"]
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "nll"):
        code, printed, _ = here(*typed, "--metric", metric)
        assert code == 0 and ("to train" in printed) == (metric == "accuracy")
        summary, trials = (
            pd.read_csv(tmp_path / "study" / "summary.csv"), read_trials(tmp_path / "study")
        )
        means = trials.groupby("technique")[metric].mean()
        assert summary.set_index("technique")["mean"].to_dict() == pytest.approx(means.to_dict())
        assert ("(nats)" in printed) == (metric == "nll") and "(points)" in printed or metric == "nll"


def test_each_arm_is_tuned_before_the_study(folder, tmp_path, here):
    typed = ["ablate", folder, *QUICK, "--techniques", "mixup", "--seeds", "1", "--tune", "--out",
             "study"]
    code, printed, _ = here(*typed)
    assert code == 0 and "Learning rate and crops of each arm were chosen on" in printed
    own = json.loads((tmp_path / "study" / "study.json").read_text())["techniques"]["mixup"]["own"]
    assert own["lr"] in (8e-4, 2e-3, 5e-3, 1.2e-2, 3e-2) and 0 < own["crops"] <= 1
    assert len(read_trials(tmp_path / "study")) == 2
    told = (r"Tuning first: 6 settings of 2 training runs with 1 epoch, about \d+ s; "
            r"up to 12 settings where .*\. Then the study, about \d+ s\.")
    assert (re.search(told, printed)
            and re.search(told, printed).start() < printed.index("Tuning, setting 1 of 6"))
    assert "Tuning first" not in here(*typed)[1]  # it is found again


def test_tuning_keeps_to_its_share_of_a_time(folder, tmp_path, here):
    typed = ["ablate", folder, *QUICK, "--techniques", "mixup", "--tune", "--out", "study",
             "--time-budget"]
    code, _, told = here(*typed, "0.01s")  # gone before anything is timed, on any machine
    assert code == 2 and re.search(
        r"Tuning takes about \d+ s at least, and may take 1 s of --time-budget", told
    )
    code, printed, _ = here(*typed, "3h")
    assert code == 0 and "up to 12 settings" not in printed and "Then the study" not in printed
    assert sorted(path.name for path in (tmp_path / "study" / "tuning").iterdir()) == sorted(
        f"lr-{lr}-crops-{crops}" for lr in ("0.002", "0.005", "0.012") for crops in ("0.35", "0.75"))
    assert here(*typed, "2h")[0] == 0  # goes on with what was planned
    typed = ["--techniques", "tta", "--time-budget", "0.01s", "--out", "none"]
    code, _, told = here("ablate", folder, *QUICK, *typed)
    assert code == 2 and "No time is left to train: two seeds of 1 epoch take about" in told
    assert not (tmp_path / "none").exists()


def test_a_time_becomes_a_plan_with_looks(folder, tmp_path, here):
    (tmp_path / "my.py").write_text(NOTHING)
    typed = ["--techniques", "nothing", "--techniques-from", "my.py", "--time-budget", "3h", "--seeds",
             "8", "--out", "study"]
    code, printed, _ = here("ablate", folder, *QUICK, *typed)
    assert (code == 0 and "Planned: 1 epoch, up to 8 seeds." in printed and "Planned for 3.0 h of "
            "training: 1 epoch and" in printed)
    assert json.loads((tmp_path / "study" / "looks.json").read_text())["looks"][0] == 5
    report = (tmp_path / "study" / "report.md").read_text(encoding="utf-8")
    assert "Looks were planned after 5 seeds" in report
    # goes on with the planned epochs
    if advice := re.search(r"^Next: .*: (lessonkit .*)", printed, re.M):
        assert "--epochs 1 " in advice[1] and "--time-budget" not in advice[1]
    trials = read_trials(tmp_path / "study")
    assert trials["seed"].max() == 7 or "Dropped: nothing" in printed
    assert not re.search(r"nothing \([^)]*\) helps", printed)  # a technique that does nothing


def test_a_technique_that_does_nothing_is_no_help(folder, tmp_path, here):
    """Five real seeds; how often this may go wrong is simulated in test_planner.py."""
    (tmp_path / "my.py").write_text(NOTHING)
    typed = ["--techniques", "nothing", "--techniques-from", "my.py", "--seeds", "5", "--out", "study"]
    code, printed, _ = here("ablate", folder, *QUICK, *typed)
    assert code == 0 and "On these photos: no technique is known to help or to hurt" in printed
    nll = read_trials(tmp_path / "study").pivot(index="seed", columns="technique", values="nll")
    assert (nll["nothing"] != nll["baseline"]).all()  # it trained with luck of its own


def test_a_network_that_ends_in_a_convolution_is_fine_tuned_and_the_report_s_lines_predict(
    folder, tmp_path, here, monkeypatch, capsys
):
    """SqueezeNet has no linear layer. Its weights lie in torchvision's cache, as after a download."""
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    file = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url.rsplit("/", 1)[1]
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "hub" / "checkpoints" / file)
    typed = [*QUICK, "--techniques", "label_smoothing", "--seeds", "1", "--size", "32", "--model",
             "squeezenet1_1", "--pretrained"]
    assert here("ablate", folder, *typed, "--out", "study")[0] == 0
    page = (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
    lines = html.unescape(re.search(r"<code>(from lessonkit.*?)</code>", page, re.S)[1])
    one, two = sorted(folder.rglob("*.png"))[::20]
    exec(lines.replace("one.jpg", str(one)).replace("two.jpg", str(two)), {})
    said = capsys.readouterr().out
    assert len(lines.splitlines()) == 3 and "bright" in said and str(one) in said and str(two) in said
