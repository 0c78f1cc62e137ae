"""Questions: what a reader has answered is noted, and what a program or a test has answered is not."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from filelock import FileLock
from nbformat.v4 import new_code_cell, new_notebook

from lessonkit.teaching import quiz

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402

ANSWER = 'from lessonkit.teaching.quiz import check\ncheck("01.paired", 0.02);'


def run(folder: Path, **variables: str) -> None:
    """Run a notebook with a right answer, as the project's tools do."""
    nbformat.write(new_notebook(cells=[new_code_cell(ANSWER)]), folder / "answer.ipynb")
    done = notebooks.execute(folder / "answer.ipynb", {**notebooks.environment(), **variables})
    assert done.cells[0].outputs[0].text.startswith("Right.")


@pytest.fixture
def home(tmp_path):
    """Variables of a user whose data is in an empty folder."""
    return {name: str(tmp_path / "home")
            for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_DATA_HOME")}


def noted(folder: Path) -> list[Path]:
    return list((folder / "home").rglob("progress.json"))


def test_an_answer_in_jupyter_is_noted_by_name_and_time(tmp_path, home):
    run(tmp_path, **home, LESSONKIT_PROGRESS="")
    (file,) = noted(tmp_path)
    assert list(json.loads(file.read_text())) == ["01.paired"]
    assert file.name == "progress.json" and file.parent.name == "lessonkit"


def test_what_the_tools_run_is_not_noted(tmp_path, home):
    assert notebooks.environment()["LESSONKIT_PROGRESS"] == "off"
    run(tmp_path, **home)
    assert not noted(tmp_path)


@pytest.mark.parametrize("how", ["script", "nbdev_test"])
def test_a_script_or_a_test_is_no_reader(tmp_path, home, how):
    env = {**os.environ, **home, "LESSONKIT_PROGRESS": "", "PYTHONPATH": str(ROOT)}
    code = ANSWER.replace(";", "")
    if how == "nbdev_test":  # nbdev runs cells in a shell of IPython's kind
        nbformat.write(new_notebook(cells=[new_code_cell(ANSWER + "\nassert get_ipython()")]),
                       tmp_path / "a.ipynb")
        code = ("from nbdev.test import test_nb; "
                f"assert test_nb({str(tmp_path / 'a.ipynb')!r}, basepath='')[0]")
    subprocess.run([sys.executable, "-c", code], env=env, check=True, cwd=tmp_path)
    assert not noted(tmp_path)


def test_notebooks_that_are_open_at_once_lose_no_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("LESSONKIT_PROGRESS", str(tmp_path / "progress.json"))
    # no reader waits here: a slow disk must not count
    monkeypatch.setattr(quiz, "FileLock", lambda file, timeout: FileLock(file))
    shell = SimpleNamespace(get_ipython=lambda: "a shell: a reader answers")
    monkeypatch.setitem(sys.modules, "IPython", shell)
    names = list(quiz.QUESTIONS)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda name: quiz.check(name, quiz.QUESTIONS[name].answer), names))
    assert set(json.loads((tmp_path / "progress.json").read_text())) == set(names)
    assert all(right == asked > 0 for right, asked in quiz.progress().values())


def test_the_stored_front_page_is_that_of_somebody_new(monkeypatch, capsys):
    monkeypatch.setenv("LESSONKIT_PROGRESS", "off")
    quiz.show_progress()
    stored = nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4)
    shown = [cell.outputs[0].text
             for cell in stored.cells if cell.cell_type == "code" and cell.source == "show_progress()"]
    assert shown == [capsys.readouterr().out], "run: python tools/notebooks.py refresh nbs/index.ipynb"


@pytest.mark.parametrize("name", quiz.QUESTIONS)
def test_what_is_printed_fits_the_window(name, capsys):
    quiz.ask(name)
    quiz.hint(name)
    if quiz.QUESTIONS[name].kind != "function":  # code keeps its lines
        quiz.solution(name)
    for wrong, _ in quiz.QUESTIONS[name].mistakes:
        quiz.check(name, wrong)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 92
    assert not [line for line in lines if line.strip().startswith("%")]


@pytest.mark.parametrize("name",
                         [name for name, question in quiz.QUESTIONS.items()
                          if question.kind == "choice"])
def test_the_right_option_is_not_the_longest(name):
    question = quiz.QUESTIONS[name]
    lengths = {letter: len(text) for letter, text in question.choices.items()}
    assert lengths.pop(question.answer) <= max(lengths.values())
