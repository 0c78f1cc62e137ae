"""tools/notebooks.py: pages that need no server, and checks that find what they are for."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellTimeoutError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402

# --- pages

class Page(HTMLParser):
    """What a page asks for when it is opened, and where its links lead."""

    def __init__(self, path: Path):
        super().__init__()
        self.requests, self.links, self.anchors, self.title, self._in = [], [], set(), "", ""
        self.alternatives = []
        text = path.read_text(encoding="utf-8")
        self.feed(text)
        self.requests += re.findall(r"(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"')\s]+)", text)

    def handle_starttag(self, tag, attrs):
        self._in = tag
        attrs = dict(attrs)
        self.anchors.add(attrs.get("id"))
        if tag == "img":
            self.alternatives.append(attrs.get("alt"))
        if tag == "a":
            self.links.append(attrs.get("href") or "")
            return
        for name in ("src", "href", "srcset", "data", "poster", "xlink:href"):
            if re.match(r"\s*(https?:)?//", attrs.get(name) or ""):
                self.requests.append(attrs[name])

    def handle_data(self, data):
        if self._in == "title":
            self.title += data
        elif self._in == "script" and re.search(
            r"(?:import\s*\(?|from|fetch\(|\.src\s*=)\s*[\"'](https?:)?//", data
        ):
            self.requests.append(data[:200])

    def handle_endtag(self, tag):
        self._in = ""


@pytest.mark.parametrize("path", notebooks.lessons(), ids=lambda path: path.stem)
def test_page_of_a_lesson_asks_nothing_of_other_servers(path, tmp_path):
    notebooks.write_page(nbformat.read(path, as_version=4), tmp_path / "page.html",
                         notebooks.navigation(path))
    page = Page(tmp_path / "page.html")
    assert path.stem == "index" or page.links.count("index.html") >= 2, "no way back to the front page"
    assert page.requests == []
    assert page.title.strip()
    written = {p.relative_to(notebooks.NBS).with_suffix(".html").as_posix()
               for p in notebooks.notebooks()}
    for link in page.links:
        target, _, anchor = link.partition("#")
        if not target:
            assert not anchor or anchor in page.anchors, link
        elif not re.match(r"[a-z]+:", target):  # pages lie in _lessons/ as notebooks do in nbs/
            assert target in written or (notebooks.NBS / target).exists(), link


def test_page_of_a_notebook_with_all_that_could_ask(tmp_path):
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "a1"},
              "text/plain": "IntSlider()"}
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# A *title* with `code`\n\nSee [the next](01_next.ipynb#part), "
                              "[the web](https://example.org/a.ipynb)."),
            new_markdown_cell("```mermaid\ngraph TD; A-->B\n```\n\nInline $x^2$."),
            new_code_cell("#| hide\nimport secret"),
            new_code_cell("slider", outputs=[new_output("display_data", data=widget)]),
        ],
        metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {
            "state": {}, "version_major": 2, "version_minor": 0}}},
    )
    notebooks.write_page(notebook, tmp_path / "deep" / "page.html")
    page = Page(tmp_path / "deep" / "page.html")
    assert page.requests == []
    assert page.title == "A title with code"
    assert "secret" not in (tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    assert {"01_next.html#part", "https://example.org/a.ipynb"} <= set(page.links)


def test_a_folded_cell_is_folded_in_the_page_and_loses_no_line(tmp_path):
    folded = {"jupyter": {"source_hidden": True}}
    notebook = new_notebook(cells=[new_markdown_cell("# Title\n\n## One part\n\n## Another"),
                                   new_code_cell("#| code-fold: true\n# Two numbers that belong "
                                                 "together\nassert 1 + 1 == 2", metadata=folded),
                                   new_code_cell("print('in sight')")])
    notebooks.write_page(notebook, tmp_path / "page.html", "<a href='index.html'>Front page</a>")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count(
        '<details class="folded"'
    ) == 1 and "<summary>Two numbers that belong together</summary>" in page
    assert "code-fold" not in page and "assert" in page
    # what is on this page
    assert re.findall(r'<li><a href="#([^"]+)">', page) == ["One-part", "Another"]


def test_slider_leaves_its_still_picture_in_page_and_notebook(tmp_path):
    code = ("import matplotlib.pyplot as plt\nfrom lessonkit.foundation.plots import "
            "with_slider\nwith_slider(lambda a: plt.figure(), 0, 1, 0.5)")
    nbformat.write(new_notebook(cells=[new_code_cell(code)]), tmp_path / "slider.ipynb")
    notebook = notebooks.execute(tmp_path / "slider.ipynb", notebooks.environment())
    assert notebooks.SLIDER in notebook.cells[0].outputs[0].data  # it works where there is a kernel
    notebooks.write_page(notebook, tmp_path / "page.html")
    assert "data:image/png;base64" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert Page(tmp_path / "page.html").alternatives == ["a picture for the value = 0.5, and a slider"]
    assert list(notebook.cells[0].outputs[0].data) == ["image/png", "text/plain"]


@pytest.mark.parametrize("path", notebooks.notebooks(), ids=lambda path: path.stem)
def test_stored_notebook_shows_a_picture_where_a_slider_would_be_an_error(path):
    outputs = [o for cell in nbformat.read(path, as_version=4).cells for o in cell.get("outputs", [])]
    assert not any(notebooks.SLIDER in output.get("data", {})
                   for output in outputs), "run tools/notebooks.py refresh"


# --- running

def test_lesson_that_runs_too_long_is_stopped(tmp_path):
    path = tmp_path / "long.ipynb"
    for_ever = "while True:\n    time.sleep(1)"
    nbformat.write(new_notebook(cells=[new_code_cell("import time"), new_code_cell(for_ever)]), path)
    with pytest.raises(CellTimeoutError):
        notebooks.execute(path, notebooks.environment(), seconds=2)


def test_lesson_needs_nothing_of_the_home_folder(tmp_path):
    path = tmp_path / "home.ipynb"
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint(open('here.txt').read())"
    nbformat.write(new_notebook(cells=[new_code_cell(code)]), path)
    (tmp_path / "here.txt").write_text("the notebook's own folder")
    home = tmp_path / "home"
    home.mkdir()
    done = notebooks.execute(path,
                             {**notebooks.environment(), "HOME": str(home), "USERPROFILE": str(home)})
    outputs = done.cells[0].outputs
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any(output.get("text", "").startswith("the notebook's own folder") for output in outputs)
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not list(home.iterdir())


def test_progress_bars_leave_nothing_behind_and_other_output_stays(tmp_path):
    path = tmp_path / "bar.ipynb"
    bar = "from tqdm import tqdm\nimport sys, time\nprint('before')\n"
    bar += "for _ in tqdm(range(3), 'drawing', leave=False): time.sleep(0.3)\nprint('50 %\\r100 %')"
    warning = "print('a warning', file=sys.stderr)"
    nbformat.write(
        new_notebook(cells=[new_code_cell(bar), new_code_cell(warning), new_markdown_cell("text")]), path
    )
    done = notebooks.execute(path, notebooks.environment())
    said = [[(output.name, output.text.split()) for output in cell.outputs] for cell in done.cells[:2]]
    assert sum((words for _, words in said[0]), []) == ["before", "100", "%"]
    assert said[1] == [("stderr", ["a", "warning"])]


def test_figures_get_an_alternative_text(tmp_path):
    code = """import matplotlib.pyplot as plt
figure, axes = plt.subplots(1, 2)
axes[0].plot([1, 2], label="mine")
axes[0].set(title="A <first>", xlabel="steps", ylabel="loss")
axes[0].legend()
axes[1].set_title("second")
plt.close(figure)
figure"""
    cells = [new_code_cell(code), new_code_cell("figure = plt.figure()\nplt.close(figure)\nfigure"),
             new_code_cell("plt.plot([1]);")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "figures.ipynb")
    notebook = notebooks.execute(tmp_path / "figures.ipynb", notebooks.environment())
    pictures = [output for cell in notebook.cells for output in cell.outputs
                if "image/png" in output.get("data", {})]
    said = [output.metadata["image/png"]["alt"] for output in pictures]
    assert said[0] == "Picture: A <first>, loss against steps, mine; second"
    assert set(said[1:]) == {"Picture without words"}
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3]  # as for a reader
    notebooks.write_page(notebook, tmp_path / "page.html")
    assert Page(tmp_path / "page.html").alternatives == said


# --- Colab

WITHOUT_COLAB = set()


@pytest.mark.parametrize("path", notebooks.lessons(), ids=lambda path: path.stem)
def test_lesson_has_todays_link_and_cell_for_colab(path):
    if path.stem in WITHOUT_COLAB:
        pytest.skip("its next refresh adds them")
    stored = nbformat.read(path, as_version=4)
    assert (notebooks.with_colab(nbformat.read(path, as_version=4), path)
            == stored), f"run tools/notebooks.py refresh {path.name}"
    assert (next(cell.source for cell in stored.cells if cell.cell_type == "code")
            == notebooks.colab_cell())
    (link,) = re.findall(r"\[Open in Colab\]\((.*?)\)", stored.cells[0].source)
    owner_and_name = notebooks.repository().removeprefix("https://github.com/")
    assert link == f"https://colab.research.google.com/github/{owner_and_name}/blob/main/nbs/{path.name}"


def test_a_new_address_takes_the_old_ones_place(monkeypatch):
    text = "# T\n\n> C\n\n**Minutes:** 1\nand more.\n\nIn this lesson"
    notebook = new_notebook(cells=[new_markdown_cell(text), new_code_cell("1")])
    for address in ("https://github.com/one/course", "https://github.com/two/fork",
                    "https://gitlab.com/three/fork"):
        monkeypatch.setattr(notebooks, "repository", lambda: address)
        notebook = notebooks.with_colab(notebook, notebooks.NBS / "05_mixup.ipynb")
        assert (notebook.cells[1].source.count("git clone") == 1
                and f"{address} course" in notebook.cells[1].source)
        assert [cell.source for cell in notebook.cells[2:]] == ["1"]
    assert notebook.cells[0].source == text  # Colab reads GitHub alone


@pytest.mark.parametrize("colab", [True, False])
def test_cell_for_colab_fetches_the_course_there_and_does_nothing_elsewhere(tmp_path, colab):
    """Git is told to fetch a small repository that stands in for the course; a stand-in for pip says
    what it is to install."""
    def git(*words):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words]
        notebooks.subprocess.run(command, check=True, cwd=tmp_path / "origin", capture_output=True)

    (tmp_path / "origin" / "nbs" / "results").mkdir(parents=True)
    (tmp_path / "origin" / "nbs" / "results" / "mixup.csv").write_text("a\n1\n")
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "all")):
        git(*words)
    (tmp_path / "here").mkdir()
    stand_in = (
        "import sys, types\nsys.modules['google.colab'] = types.ModuleType('colab')\n" if colab else ""
    )
    stand_in += ("get_ipython().register_magic_function(lambda line: print('pip', line), "
                 "magic_name='pip')")
    look = ("print(os.path.relpath(os.getcwd(), start), os.path.exists('results/mixup.csv'), "
            "sorted(os.listdir(start)))")
    cells = [stand_in, "import os\nstart = os.getcwd()", notebooks.colab_cell(), look,
             notebooks.colab_cell(), look]
    path = tmp_path / "here" / "lesson.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
    env = notebooks.environment(GIT_CONFIG_COUNT="1",
                                GIT_CONFIG_KEY_0=f"url.{(tmp_path / 'origin').as_uri()}.insteadOf",
                                GIT_CONFIG_VALUE_0=notebooks.repository())
    done = notebooks.execute(path, env)
    said = ["".join(output.get("text", "") for output in cell.outputs).split("\n")[0]
            for cell in done.cells]
    if colab:
        there = "course/nbs True ['course', 'lesson.ipynb']"
        assert said[2:] == ['pip install --quiet "./course[pretrained]"', there, "", there]
    else:
        assert said[2:] == ["", ". False ['lesson.ipynb']", "", ". False ['lesson.ipynb']"]


# --- checks

def test_stale_files_are_found(tmp_path):
    (tmp_path / "nbs").mkdir()
    (tmp_path / "lessonkit").mkdir()
    (tmp_path / "lessonkit" / "__init__.py").write_text("")
    for name in ("pyproject.toml", "settings.ini"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("changed", "gone"):
        code = [f"#| default_exp {name}", f"#| export\ndef {name}():\n    return 'ä'"]
        cells = [new_markdown_cell("# Title"), *map(new_code_cell, code)]
        nbformat.write(new_notebook(cells=cells), tmp_path / "nbs" / f"00_{name}.ipynb")
    for command in ("nbdev-clean", "nbdev-export"):
        notebooks.subprocess.run([notebooks.tool(command)], check=True, cwd=tmp_path,
                                 env={**notebooks.os.environ, "PYTHONUTF8": "1"})
    assert notebooks.stale_files(tmp_path) == []

    changed, notebook = tmp_path / "lessonkit" / "changed.py", tmp_path / "nbs" / "00_gone.ipynb"
    good = changed.read_text(encoding="utf-8")
    changed.write_text(good.replace("'ä'", "'b'"), encoding="utf-8")
    (tmp_path / "lessonkit" / "gone.py").unlink()
    (tmp_path / "lessonkit" / "orphan.py").write_text(good.replace("changed", "orphan"),
                                                      encoding="utf-8")
    content = nbformat.read(notebook, as_version=4)
    content.cells[1].metadata["scrolled"] = True
    nbformat.write(content, notebook)
    assert sorted(notebooks.stale_files(tmp_path)) == [
        "lessonkit/changed.py: not what its notebook exports",
        "lessonkit/gone.py: not exported yet",
        "lessonkit/orphan.py: no notebook exports it",
        "nbs/00_gone.ipynb: not clean",
    ]


def test_notebooks_that_would_be_left_out_are_found(tmp_path):
    for name in ("00_a.ipynb", "_draft.ipynb", "_old/01_b.ipynb", "support/c.ipynb",
                 "support/.ipynb_checkpoints/c.ipynb"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert sorted(p.relative_to(tmp_path).as_posix() for p in notebooks.never_tested(tmp_path)) == [
        "_draft.ipynb", "_old/01_b.ipynb"
    ]
    (tmp_path / "support" / ".notest").touch()
    assert "c.ipynb" in [p.name for p in notebooks.never_tested(tmp_path)]
    assert notebooks.never_tested() == []


# --- nbdev's own commands


@pytest.mark.parametrize("command", ["nbdev-proc-nbs", "nbdev-prepare"])
def test_nbdevs_own_commands_leave_the_project_as_it_is(tmp_path, command):
    """In a small copy: README.md isn't rendered from the front page, no cell with an import runs, all
    that comes is ignored."""
    place = "foundation/trial_tables"
    shutil.copytree(ROOT / "lessonkit", tmp_path / "lessonkit",
                    ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "settings.ini", "setup.py", "README.md", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    notebook = nbformat.read(ROOT / f"nbs/{place}.ipynb", as_version=4)
    front = new_notebook(cells=[new_markdown_cell("# Front page"),
                                new_code_cell("#| notest\nimport os\nos.remove('README.md')")])
    for name, content in ((place, notebook), ("index", front)):
        (tmp_path / f"nbs/{name}.ipynb").parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(content, tmp_path / f"nbs/{name}.ipynb")
    os.utime(tmp_path / "README.md", (0, 0))  # older than the front page
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for step in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "as it is"]):
        subprocess.run([*git, *step], cwd=tmp_path, check=True)
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONUTF8": "1"}
    run = subprocess.run([notebooks.tool(command)], cwd=tmp_path, env=env, capture_output=True,
                         text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    left = subprocess.run(["git", "status", "--short"], cwd=tmp_path, capture_output=True, text=True,
                          check=True).stdout
    assert [line for line in left.splitlines() if not line.endswith((".ipynb", ".py"))] == []
    assert (tmp_path / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()
