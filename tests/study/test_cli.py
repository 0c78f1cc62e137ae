"""The command, as a user runs it: a process of its own on a folder of photos."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lessonkit.cli import METHODS, main
from lessonkit.images import ImageSet
from lessonkit.study.trials import read_trials
from tiny_photos import draw, QUICK as SMALL

ROOT = str(Path(__file__).parents[2])
EVIL, CAT = "<script>alert(1)</script>".replace("/", "∕"), "🐈 & \"friends\""
SETTINGS = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items() if name != "progress"]
QUICK = [*SETTINGS, "--jobs", "1"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of tiny photos whose class names are hostile."""
    root, windows = tmp_path_factory.mktemp("cli") / "my photos", os.name == "nt"
    draw(root, ("&amp;", "🐈") if windows else (EVIL, CAT), ".png" if windows else " <b>.png")
    return root


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """Run the command in this process, which saves the seconds that imports take: code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lessonkit.selection.features.STEPS", 10)  # what is chosen doesn't matter here

    def run(*typed) -> tuple[int, str, str]:
        try:
            code = main([str(t) for t in typed])
        except SystemExit as stop:  # argparse
            code = stop.code
        return code, *capsys.readouterr()

    return run


def lessonkit(*typed, cwd: Path) -> subprocess.CompletedProcess:
    """Run the command in a process of its own."""
    return subprocess.run(
        [_script(), *map(str, typed)], cwd=cwd, capture_output=True, text=True, encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"}, timeout=200,
    )  # fmt: skip


def _script() -> str:
    name = "lessonkit.exe" if os.name == "nt" else "lessonkit"
    return str(Path(sys.executable).parent / name)


def test_the_folder_alone_is_enough_and_everything_is_written(photos, tmp_path, here):
    run = lessonkit("ablate", photos, *QUICK, "--seeds", "2", "--techniques", "normalization", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert re.search(r"4 trials to train: about \d+ s", run.stdout)
    assert run.stdout.index("to train") < run.stdout.index("verdict")  # how long it takes comes first
    assert re.search(r"^normalization .*%.*%", run.stdout, re.M) and "Traceback" not in run.stderr
    out = tmp_path / "ablation-my photos"
    summary = pd.read_csv(out / "summary.csv").set_index("technique")
    assert summary.loc["normalization", ["recipe", "control"]].tolist() == ["baseline", "no_normalization"]
    rows = [json.loads(line) for line in (out / "trials.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(r["technique"], r["seed"]) for r in rows} == {(t, s) for t in ("baseline", "no_normalization") for s in (0, 1)}
    assert Image.open(out / "ablation.png").size[0] > 500
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<b>" not in page and "&lt;script&gt;" in page and "🐈 &amp; &quot;" in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # one page, nothing else
    assert "lessonkit ablate" in page and "--techniques normalization" in page

    typed = ["ablate", photos, *QUICK, "--techniques", "normalization"]
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
    run = lessonkit("ablate", "nowhere", cwd=tmp_path)
    assert run.returncode == 2 and not run.stdout
    assert len(run.stderr.splitlines()) == 1 and run.stderr.startswith("lessonkit: 'nowhere' is neither")


def test_damaged_photos_are_left_out_by_choice(tmp_path, here):
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(10):
            Image.effect_noise((20, 20), 50).convert("RGB").save(tmp_path / "photos" / label / f"{i}.png")
    (tmp_path / "photos/a/2.png").write_bytes(b"\x89PNG")
    code, printed, _ = here("ablate", "photos", *QUICK, "--seeds", "1", "--skip-damaged")
    assert code == 0 and "Left out 1 of 20 photos" in printed and "2.png" in printed
    assert "can't tell" in printed  # one seed says nothing


def test_results_never_go_among_the_photos(photos, here, monkeypatch):
    before = sorted(photos.rglob("*"))
    monkeypatch.chdir(photos)
    assert here("ablate", ".", *QUICK, "--seeds", "1")[0] == 0
    assert (photos.parent / "ablation-my photos/report.html").exists() and sorted(photos.rglob("*")) == before


def test_changed_settings_are_refused_with_what_changed(photos, here):
    typed = ["ablate", photos, *QUICK, "--seeds", "1", "--techniques", "normalization", "--out", "study"]
    assert here(*typed)[0] == 0
    code, _, errors = here(*typed, "--epochs", "2")
    assert code == 2 and "epochs was 1, now 2" in errors and len(errors.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows can't send Ctrl-C to one process")
def test_ctrl_c_says_what_is_stored_and_how_to_go_on(photos, tmp_path):
    typed = [_script(), "ablate", str(photos), *QUICK, "--epochs", "3", "--seeds", "500", "--out", "study"]
    process = subprocess.Popen(
        typed, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background inherit "ignore Ctrl-C"
    )
    stored = tmp_path / "study/trials.jsonl"
    while not (stored.exists() and stored.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"Stopped\. \d+ trials are stored in study: the same command goes on", told)
    assert "Traceback" not in told


def test_help_is_quick_and_shows_examples(tmp_path):
    run = lessonkit("ablate", "--help", cwd=tmp_path)
    assert run.returncode == 0 and "examples:" in run.stdout and "lessonkit ablate photos" in run.stdout
    code = "import sys, lessonkit.cli; print([m for m in ('torch', 'fastai', 'pandas', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# --- lessonkit subset, and studies on a subset

def test_a_chosen_set_is_written_and_can_be_used_at_once(photos, tmp_path, here):
    run = lessonkit("subset", photos, "--n", "8", "--size", "16", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "Chosen: 8 of 32 training photos." in run.stdout and "Traceback" not in run.stderr
    assert re.search(r"^mean distance +[\d.]+ +[\d.]+ \([\d.]+ to [\d.]+\)$", run.stdout, re.M)  # random choice stands beside it
    whole, few = ImageSet.from_folder(photos), ImageSet.from_folder(tmp_path / "subset-my photos")
    assert len(few.indices("train")) == 8 and len(few.classes) == 2  # letters that other systems refuse are written as %XX
    assert np.bincount(few.labels[few.indices("train")]).tolist() == [4, 4]

    def contents(images, part):
        return sorted(images.paths[row].read_bytes() for row in images.indices(part))

    assert contents(few, "valid") == contents(whole, "valid")
    assert set(contents(few, "train")) <= set(contents(whole, "train"))
    assert (tmp_path / "subset-my photos/subset.json").exists()
    code, printed, _ = here("ablate", tmp_path / "subset-my photos", *QUICK, "--seeds", "1", "--techniques", "tta")
    assert code == 0 and "8 train, 8 valid" in printed


def test_a_share_another_method_and_links(photos, tmp_path, here):
    typed = ["subset", photos, "--n", "0.25", "--method", "random", "--how", "hardlink", "--size", "16", "--out", "few"]
    code, printed, _ = here(*typed, "--seed", "1")
    assert code == 0 and "Chosen: 8 of 32 training photos." in printed and "few" in printed.splitlines()[-1]
    few = ImageSet.from_folder(tmp_path / "few")
    assert all(path.stat().st_nlink >= 2 for path in few.paths)
    code, _, _ = here(*typed[:-1], "others", "--seed", "2")
    others = ImageSet.from_folder(tmp_path / "others")
    names = [{images.paths[row].name for row in images.indices("train")} for images in (few, others)]
    assert code == 0 and names[0] != names[1]


def test_features_are_kept_for_another_choice(photos, tmp_path, here):
    typed = ["subset", photos, "--size", "16", "--features", "photos.npy"]
    assert here(*typed, "--n", "8", "--out", "eight")[0] == 0
    kept = (tmp_path / "photos.npy").read_bytes()
    assert np.load(tmp_path / "photos.npy").shape[0] == 40
    assert here(*typed, "--n", "4", "--out", "four")[0] == 0
    assert (tmp_path / "photos.npy").read_bytes() == kept
    eight, four = ({path.read_bytes() for path in (tmp_path / name / "train").rglob("*.png")} for name in ("eight", "four"))
    assert four < eight  # the first picks of a larger choice are the smaller one


@pytest.mark.parametrize(
    "typed, told",
    [
        (["nowhere", "--n", "8"], "neither a folder"),
        (["{photos}", "--n", "33"], "33 photos can't be chosen from 32 training photos"),
        (["{photos}", "--n", "1"], "fewer than the 2 classes"),
        (["{photos}", "--n", "0.01"], "fewer than the 2 classes"),
        (["{photos}", "--n", "0"], "at least 1, or a share"),
        (["{photos}", "--n", "-3"], "at least 1, or a share"),
        (["{photos}", "--n", "1.5"], "at least 1, or a share"),
        (["{photos}", "--n", "nan"], "at least 1, or a share"),
        (["{photos}"], "--n"),
        (["{photos}", "--n", "8", "--method", "magic"], "'facility_location', 'k_center'"),
        (["{photos}", "--n", "8", "--balance", "fair"], "proportional"),
        (["{photos}", "--n", "8", "--how", "move"], "hardlink"),
        (["{photos}", "--n", "8", "--seed", "-1"], "at least 0"),
        (["{photos}", "--n", "8", "--out", "{photos}/few"], "among the photos"),
        (["{photos}", "--n", "8", "--out", "a file"], "is a file"),
        (["{photos}", "--n", "8", "--out", "full"], "full"),
        (["damaged", "--n", "4"], "2.png can't be decoded"),
    ],
)
def test_bad_input_of_subset_is_told_in_one_line_and_nothing_is_written(photos, tmp_path, here, typed, told):
    (tmp_path / "a file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("years of work")
    for label in "ab":
        (tmp_path / "damaged" / label).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (9, 9), "red").save(tmp_path / "damaged" / label / f"{i}.png")
    (tmp_path / "damaged/a/2.png").write_bytes(b"\x89PNG")
    before = sorted(tmp_path.rglob("*"))
    code, printed, errors = here("subset", *[t.format(photos=photos) for t in typed], "--size", "16")
    assert code == 2 and "Traceback" not in errors + printed
    last = errors.strip().splitlines()[-1]
    assert last.startswith("lessonkit") and told in last
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "full/thesis.txt").read_text() == "years of work"


def test_a_full_folder_is_told_before_anything_is_computed(photos, tmp_path, here, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").touch()
    monkeypatch.setattr("lessonkit.selection.features.embed", lambda *args, **kwargs: pytest.fail("computed"))
    assert here("subset", photos, "--n", "8", "--out", "full")[0] == 2
    assert here("subset", photos, "--n", "33")[0] == 2
    assert here("ablate", photos, "--subset", "33")[0] == 2


def test_damaged_photos_are_never_chosen(tmp_path, here):
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(10):
            Image.effect_noise((20, 20), 50).convert("RGB").save(tmp_path / "photos" / label / f"{i}.png")
    (tmp_path / "photos/a/2.png").write_bytes(b"\x89PNG")
    code, printed, _ = here("subset", "photos", "--n", "0.99", "--size", "16", "--skip-damaged")
    assert code == 0 and "Left out 1 of 20 photos" in printed
    assert not list((tmp_path / "subset-photos").rglob("a/*2.png"))


def test_ctrl_c_while_choosing_says_that_nothing_is_written(photos, here, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("lessonkit.selection.features.embed", stop)
    code, _, errors = here("subset", photos, "--n", "8")
    assert code == 130 and "Stopped. The set isn't written" in errors and "Traceback" not in errors


def test_every_method_that_can_be_typed_is_one(photos):
    from lessonkit.subset_selection import select_subset

    features = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    for method in METHODS:
        assert len(set(select_subset(features, 5, method=method).indices.tolist())) == 5


def test_a_study_on_a_subset_says_so_and_never_mixes_with_one_on_the_whole(photos, tmp_path, here):
    typed = ["ablate", photos, *QUICK, "--seeds", "1", "--techniques", "tta"]
    code, printed, _ = here(*typed, "--subset", "0.25")
    assert code == 0 and printed.count("8 of 32 training photos") >= 2
    out = tmp_path / "ablation-my photos-subset-0.25"
    record = json.loads((out / "study.json").read_text(encoding="utf-8"))["identity"]["subset"]
    assert (record["photos"], record["of"], record["method"]) == (8, 32, "facility_location")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Trained on 8 of 32 training photos" in page and "method: facility_location" in page
    code, printed, _ = here(*typed, "--subset", "0.25")
    assert code == 0 and "to train" not in printed  # the same choice is found again
    code, _, errors = here(*typed, "--out", out)
    assert code == 2 and "subset was" in errors and "now not set" in errors
    code, _, errors = here(*typed, "--subset", "16", "--out", out)
    assert code == 2 and "photos was 8, now 16" in errors
    assert here(*typed)[0] == 0  # the whole has a folder of its own


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_a_class_whose_name_is_no_text(photos, tmp_path, here):
    """Such a name can't be written into a file as it is; the report stands a mark for it."""
    odd = tmp_path / "photos" / os.fsdecode(b"d\xff")
    for source, target in zip(sorted(photos.iterdir()), (odd, tmp_path / "photos" / "plain $x_1$")):
        shutil.copytree(source, target)
    code, _, errors = here("ablate", tmp_path / "photos", *QUICK, "--seeds", "1", "--techniques", "mixup", "--out", tmp_path / "out")
    assert code == 0, errors
    for name in ("report.html", "report.md"):
        assert (tmp_path / "out" / name).read_text(encoding="utf-8")
    small = ("--n", "4", "--size", "16", "--out")
    code, _, errors = here("subset", tmp_path / "photos", *small, tmp_path / "few")
    assert code == 0, errors
    assert ImageSet.from_folder(tmp_path / "few").classes == ["d\udcff", "plain $x_1$"]
    code, _, errors = here("subset", tmp_path / "photos", *small, tmp_path / "table", "--how", "csv")
    assert code == 2 and "use how='copy'" in errors


def test_trials_side_by_side_say_nothing_that_is_meant_for_developers(photos, tmp_path):
    typed = ["ablate", str(photos), "--techniques", "mixup", "--seeds", "1", "--out", str(tmp_path / "study")]
    settings = [*SETTINGS, "--jobs", "2"]
    quiet = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    child = subprocess.run([_script(), *typed, *settings], env=quiet, capture_output=True, text=True, timeout=200)
    assert child.returncode == 0 and "The whole report" in child.stdout
    assert "Warning" not in child.stderr and "warn" not in child.stderr


# --- techniques and networks of one's own


TYPED = [*(typed for typed in SETTINGS if "width" not in typed), "--jobs", "2", "--seeds", "2"]


@pytest.mark.timeout(300)
def test_the_command_takes_techniques_and_networks_of_ones_own(folder, mine, tmp_path):
    run = lessonkit("ablate", folder, *TYPED, "--techniques", "mine,mixup+tta", "--techniques-from", mine, "--model", f"{mine}:tiny",
        "--choose", "--planned", "4", "--out", tmp_path / "out", cwd=tmp_path)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "Chosen among 3 variants" in run.stdout and "of 4 planned seeds" in run.stdout and "2 side by side" in run.stdout
    assert {"report.html", "report.md", "choice"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert len(read_trials(tmp_path / "out" / "choice")) == 6


@pytest.mark.parametrize("typed, told", [(["--techniques-from", "none.py"], "no file none.py"), (["--model", "none"], "network 'none'"),
    (["--planned", "1"], "must be at least --seeds 2"), (["--cost", "euros"], "invalid choice"), (["--jobs", "0"], "at least 1")])  # fmt: skip
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


def test_a_quick_failure_side_by_side_costs_itself_only(folder, tmp_path):
    (tmp_path / "my.py").write_text(BROKEN)
    typed = ["--techniques", "broken,mixup", "--techniques-from", "my.py", "--seeds", "2", "--jobs", "2", "--out", "study"]
    run = lessonkit("ablate", folder, *SETTINGS, *typed, cwd=tmp_path)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert all(f"broken, seed {seed} failed: ValueError: no such loss" in run.stderr for seed in (0, 1))
    assert len(read_trials(tmp_path / "study")) == 4 and len(read_trials(tmp_path / "study", failed=True)) == 2
    assert (tmp_path / "study" / "report.html").exists()


def test_when_no_trial_finishes_the_reason_is_told(folder, here):
    code, _, errors = here("ablate", folder, *QUICK, "--lr", "1e30", "--techniques", "mixup", "--out", "study", "--seeds", "1")
    assert code == 1 and errors.splitlines()[-1].startswith("lessonkit: 2 of 2 trials failed") and "Did training diverge?" in errors


@pytest.mark.parametrize("module", ["lessonkit", "lessonkit.cli"])
def test_the_command_is_a_module_too(module, tmp_path):
    typed = [sys.executable, "-m", module, "ablate", "nowhere"]
    run = subprocess.run(typed, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ROOT})
    assert run.returncode == 2 and "'nowhere' is neither" in run.stderr
