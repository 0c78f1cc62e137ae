"""`lessonkit ablate`, as a user runs it: a process of its own on a folder of photos."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time

import pandas as pd
import processes
import pytest
from PIL import Image
from typed import lessonkit, QUICK, SCRIPT, SETTINGS

from lessonkit.cli import main
from lessonkit.study.trials import read_trials


def test_the_folder_alone_is_enough_and_everything_is_written(photos, tmp_path, here):
    typed = ["ablate", photos, *QUICK, "--techniques", "normalization"]
    code, printed, errors = here(*typed, "--seeds", "2")
    assert code == 0, errors
    assert re.search(r"4 trials to train: about \d+ s", printed)
    assert printed.index("to train") < printed.index("verdict")  # how long it takes comes first
    assert re.search(r"^normalization .*%.*%", printed, re.M) and "Traceback" not in errors
    out = tmp_path / "ablation-my photos"
    summary = pd.read_csv(out / "summary.csv").set_index("technique")
    assert summary.loc["normalization", ["recipe", "control"]].tolist() == [
        "baseline", "no_normalization"
    ]
    rows = [json.loads(line) for line in (out / "trials.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(r["technique"], r["seed"]) for r in rows} == {
        (t, s) for t in ("baseline", "no_normalization") for s in (0, 1)
    }
    assert Image.open(out / "ablation.png").size[0] > 500
    page = (out / "report.html").read_text(encoding="utf-8")
    assert (
        page.count("<script") == 1  # our own, which sorts a table
        and "<b>" not in page
        and "&lt;script&gt;" in page
        and "🐈 &amp; &#34;" in page
    )
    assert not re.search(r'(src|href)="(?!data:)', page)  # one page, nothing else
    words = re.sub(r"<[^>]+>", "", page)
    assert "lessonkit ablate" in words and "--techniques normalization" in words

    code, printed, _ = here(*typed, "--seeds", "2")
    assert code == 0 and "to train" not in printed
    code, printed, _ = here(*typed, "--seeds", "3")
    assert code == 0 and "2 trials to train" in printed


@pytest.mark.parametrize(
    "typed, told",
    [
        (["nowhere"], "neither a folder"),
        (["{photos}", "--techniques", "normalisation"], "Did you mean 'normalization'"),
        (["{photos}", "--techniques", ","], "names none"),
        (["{photos}", "--seeds", "0"], "at least 1"),
        (["{photos}", "--device", "nonsense"], "can't be used here"),
        (["{photos}", "--out", "{photos}/study"], "among the photos"),
        (["{photos}", "--out", "a file"], "is a file"),
        (["empty"], "No photos found"),
        (["damaged"], "2.png can't be decoded"),
        (["{photos}", "--model", "resnet999"], "network 'resnet999'"),
        (["{photos}", "--techniques", "mixup+mixup"], "has mixup twice"),
        (["{photos}", "--batch-size", "1"], "batch_size=1"),
        (["{photos}", "--lr", "0"], "lr=0"),
        (["{photos}", "--lr", "high"], "invalid float value"),
        (["{photos}", "--crops", "1.5"], "crops=1.5"),
        (["{photos}", "--metric", "euros"], "invalid choice: 'euros'"),
        (["{photos}", "--time-budget", "20"], "'20' must be a time such as 90s, 20m or 1.5h"),
        (["{photos}", "--time-budget", "0m"], "must be a time"),
        (["{photos}", "--time-budget", "0.01s"], "No time is left to train: two seeds of"),
        (["{photos}", "--time-budget", "20m", "--planned", "9"], "--time-budget plans for itself"),
        (["{photos}", "--device", "gpu"], "PyTorch knows no device of this name"),
    ],
)
def test_bad_input_is_told_in_one_line(photos, tmp_path, here, typed, told):
    (tmp_path / "a file").touch()
    (tmp_path / "empty").mkdir()
    for label in "ab":
        (tmp_path / "damaged" / label).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (9, 9), "red").save(tmp_path / "damaged" / label / f"{i}.png")
    (tmp_path / "damaged/a/2.png").write_bytes(b"\x89PNG")
    code, printed, errors = here("ablate", *QUICK, *[t.format(photos=photos) for t in typed])
    assert code == 2 and "Traceback" not in errors + printed
    last = errors.strip().splitlines()[-1]
    assert last.startswith("lessonkit") and told in last
    assert not list(tmp_path.glob("**/trials.jsonl")) and not list(tmp_path.glob("ablation-*"))


def test_bad_input_in_a_process_of_its_own_leaves_no_traceback(tmp_path):
    process = processes.start(main, ["ablate", "nowhere"], folder=tmp_path)
    process.join()
    (told,) = (tmp_path / "said.txt").read_text(encoding="utf-8").splitlines()
    assert process.exitcode == 2 and told.startswith("lessonkit: 'nowhere' is neither")


def test_damaged_photos_are_left_out_by_choice(damaged, here):
    code, printed, _ = here("ablate", "photos", *QUICK, "--seeds", "1", "--skip-damaged")
    assert code == 0 and "Left out 1 of 20 photos" in printed and "2.png" in printed
    assert "first look" in printed  # one seed says nothing


def test_results_never_go_among_the_photos(photos, here, monkeypatch):
    before = sorted(photos.rglob("*"))
    monkeypatch.chdir(photos)
    assert here("ablate", ".", *QUICK, "--seeds", "1")[0] == 0
    assert (photos.parent / "ablation-my photos/report.html").exists() and sorted(
        photos.rglob("*")
    ) == before


def test_changed_settings_are_refused_with_what_changed(photos, here):
    typed = ["ablate", photos, *QUICK, "--seeds", "1", "--techniques", "normalization", "--out", "study"]
    assert here(*typed)[0] == 0
    code, _, errors = here(*typed, "--epochs", "2")
    assert code == 2 and "epochs was 1, now 2" in errors and len(errors.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows can't send Ctrl-C to one process")
def test_ctrl_c_says_what_is_stored_and_how_to_go_on(photos, tmp_path):
    typed = ["ablate", str(photos), *QUICK, "--epochs", "3", "--seeds", "500", "--out", "study"]
    process = processes.start(main, typed, folder=tmp_path)
    stored = tmp_path / "study/trials.jsonl"
    while not (stored.exists() and stored.read_bytes().count(b"\n") >= 2):
        assert process.is_alive()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    told = (tmp_path / "said.txt").read_text(encoding="utf-8")
    assert process.exitcode == 130
    assert re.search(r"Stopped\. \d+ trials are stored in study: the same command goes on", told)
    assert "Traceback" not in told


def test_help_is_quick_and_shows_examples(tmp_path):
    run = lessonkit("ablate", "--help", cwd=tmp_path)
    assert run.returncode == 0 and "examples:" in run.stdout and "lessonkit ablate photos" in run.stdout
    heavy = "{'torch', 'fastai', 'pandas', 'matplotlib'}"
    code = f"import sys, lessonkit.cli; print({heavy} & {{*sys.modules}})"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "set()"
    )


def test_trials_side_by_side_say_nothing_that_is_meant_for_developers(photos, tmp_path):
    typed = ["ablate", str(photos), "--techniques", "mixup", "--seeds", "1", "--out",
             str(tmp_path / "study")]
    settings = [*SETTINGS, "--jobs", "2"]
    quiet = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    child = subprocess.run([SCRIPT, *typed, *settings], env=quiet, capture_output=True, text=True)
    assert child.returncode == 0 and "The whole report" in child.stdout
    assert child.stdout.index("Starting 2 workers.") < child.stdout.index("to train, 2 side by side")
    assert "Warning" not in child.stderr and "warn" not in child.stderr


# --- techniques and networks of one's own


TYPED = [*(typed for typed in SETTINGS if "width" not in typed), "--jobs", "2", "--seeds", "2"]


def test_the_command_takes_techniques_and_networks_of_ones_own(folder, mine, tmp_path, here):
    own = ["--techniques", "mine,mixup+tta", "--techniques-from", mine, "--model", f"{mine}:tiny"]
    more = ["--choose", "--planned", "4", "--out", tmp_path / "out"]
    code, printed, errors = here("ablate", folder, *TYPED, *own, *more)
    assert code == 0, errors
    assert ("Chosen among 3 variants" in printed and "of 4 planned seeds" in printed
            and "2 side by side" in printed)
    assert {"report.html", "report.md", "choice"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert len(read_trials(tmp_path / "out" / "choice")) == 6


@pytest.mark.parametrize(
    "typed, told",
    [
        (["--techniques-from", "none.py"], "no file none.py"),
        (["--model", "none"], "network 'none'"),
        (["--planned", "1"], "must be at least --seeds 2"),
        (["--cost", "euros"], "invalid choice"),
        (["--jobs", "0"], "at least 1"),
    ],
)
def test_the_command_tells_what_is_wrong_in_a_line(folder, here, typed, told):
    code, _, errors = here("ablate", folder, *TYPED, *typed)
    assert code == 2 and told in errors


# --- failures


BROKEN = """
from lessonkit.ablation import Technique
def loss():
    raise ValueError("no such loss")
broken = Technique("broken", loss=loss)
"""


def test_a_quick_failure_side_by_side_costs_itself_only(folder, tmp_path, here):
    (tmp_path / "my.py").write_text(BROKEN)
    typed = [
        "--techniques",
        "broken,mixup",
        "--techniques-from",
        "my.py",
        "--seeds",
        "2",
        "--jobs",
        "2",
        "--out",
        str(tmp_path / "study"),  # other processes work in another folder
    ]
    code, _, errors = here("ablate", folder, *SETTINGS, *typed)
    assert code == 1 and "Traceback" not in errors
    assert all(f"broken, seed {seed} failed: ValueError: no such loss" in errors for seed in (0, 1))
    assert (
        len(read_trials(tmp_path / "study")) == 4
        and len(read_trials(tmp_path / "study", failed=True)) == 2
    )
    assert (tmp_path / "study" / "report.html").exists()


def test_when_no_trial_finishes_the_reason_is_told(folder, here):
    code, _, errors = here("ablate", folder, *QUICK, "--lr", "1e30", "--techniques", "mixup", "--out",
                           "study", "--seeds", "1")
    assert (code == 1 and errors.splitlines()[-1].startswith(
        "lessonkit: 2 of 2 trials failed"
    ) and "Did training diverge?" in errors)


@pytest.mark.parametrize("module", ["lessonkit", "lessonkit.cli"])
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # as `python -m` would run it
def test_the_command_is_a_module_too(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lessonkit", "ablate", "nowhere"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(module, run_name="__main__")
    assert stop.value.code == 2 and "'nowhere' is neither" in capsys.readouterr().err


def test_demo_runs_with_no_photos_and_opens_its_report(here, tmp_path, monkeypatch):
    """Without the frozen features of 1,300 drawings: test_cli_answer.py has that row."""
    monkeypatch.setattr("lessonkit.cli.DEMO", [*SETTINGS, "--techniques", "tta", "--seeds", "1"])
    seen = []
    monkeypatch.setattr("webbrowser.open", seen.append)
    code, printed, _ = here("demo")
    report = tmp_path / "lessonkit-demo" / "report.html"
    assert code == 0 and report.exists() and seen == [report.as_uri()]
    assert printed.startswith("For your photos you would type: lessonkit ablate FOLDER.")
    assert "what helps on them may not help on your photos" in printed
    assert here("demo", "--no-open")[0] == 0 and seen == [report.as_uri()]


def test_demo_opens_nothing_where_it_failed(here, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("webbrowser.open", seen.append)
    (tmp_path / "taken").touch()
    code, _, told = here("demo", "--out", "taken")
    assert (code == 2 and not seen and told.strip() == "lessonkit: taken is a file. "
            "Choose a folder for --out.")
