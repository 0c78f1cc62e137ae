"""Run, refresh and check the notebooks. `python tools/notebooks.py --help` lists the commands."""

import argparse
import html
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from configparser import ConfigParser
from itertools import cycle
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
PAGES = ROOT / "_lessons"
CACHE = ROOT / ".cache"
# fastai's use of torch.jit, of which no reader can do anything
WARNINGS = "ignore::FutureWarning:torch.jit._script"
SLIDER = "application/vnd.jupyter.widget-view+json"
# a notebook without one: JupyterLab asks
KERNEL = {"display_name": "python3", "language": "python", "name": "python3"}
SENTENCE = 40  # letters; a cell of a table that has as many is no number or name
LESSON_SECONDS = 1200  # after so long a lesson is stopped


def notebooks(folder: Path = NBS) -> list[Path]:
    """Every notebook of the course, lessons first, then the supporting ones."""
    found = [p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    return sorted(found,
                  key=lambda p: (len(p.relative_to(folder).parts), p.name != "index.ipynb", p.name))


def lessons() -> list[Path]:
    """The notebooks that a reader goes through, the front page first."""
    return [
        p for p in notebooks() if p.parent == NBS and (p.stem == "index" or re.match(r"\d\d_", p.name))
    ]


def environment(**more: str) -> dict[str, str]:
    """Variables for programs that run notebooks: nothing in the home folder is needed, read or changed
    by Jupyter, IPython and Matplotlib, so a lesson runs the same way for everybody."""
    folders = {"IPYTHONDIR": "ipython", "JUPYTER_CONFIG_DIR": "jupyter", "JUPYTER_DATA_DIR": "jupyter",
               "JUPYTER_RUNTIME_DIR": "jupyter/runtime", "MPLCONFIGDIR": "matplotlib"}
    for folder in folders.values():
        (CACHE / folder).mkdir(parents=True, exist_ok=True)
    # PASSIVE: on a busy machine PyTorch's threads otherwise wait for each other in loops that use up the
    # cores, and a training takes ten times as long.
    env = {**os.environ, **{name: str(CACHE / folder) for name, folder in folders.items()},
           "PYTHONUTF8": "1",
           # what is stored doesn't depend on whose machine it was, and a run answers nothing
           "LESSONKIT_PROGRESS": "off",
           "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
           "PYTHONWARNINGS": ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), WARNINGS])),
           **more}
    env.pop("MPLBACKEND", None)  # IPython chooses the one that puts figures into the notebook
    # else the first figure would come with a message about the fonts
    if not any((CACHE / "matplotlib").iterdir()):
        subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], env=env,
                       stderr=subprocess.DEVNULL)
    return env


def tool(name: str) -> str:
    """The path of a command that is installed beside this Python."""
    found = shutil.which(name, path=sysconfig.get_path("scripts"))
    if not found:
        raise SystemExit(f'{name} is not installed: run pip install -c constraints.txt -e ".[dev]"')
    return found


# Runs in the kernel before a notebook's cells: every figure gets an alternative text, for those who
# can't see it, made of the words in it. Pages and the site show it; JupyterLab does not look for it.
DESCRIBE_FIGURES = """
def describe_figures():
    from matplotlib.figure import Figure

    def words(ax):
        legend = ax.get_legend()
        curves = [text.get_text() for text in legend.get_texts()] if legend else []
        title = ax.get_title() or ax.get_title(loc="left")
        axes = " against ".join(filter(None, [ax.get_ylabel(), ax.get_xlabel()]))
        said = [title, axes, ", ".join(curves)]
        return ", ".join(filter(None, said))

    def text(figure):
        parts = dict.fromkeys(filter(None, [figure.get_suptitle(), *map(words, figure.axes)]))
        return " ".join(("Picture: " + "; ".join(parts) if parts else "Picture without words").split())

    shell = get_ipython()
    shell.run_line_magic("matplotlib", "inline")
    formatter = shell.display_formatter.formatters["image/png"]
    draw = formatter.lookup_by_type(Figure)
    formatter.for_type(Figure, lambda figure: (draw(figure), {"alt": text(figure)}))

describe_figures()
del describe_figures
"""


def execute(path: Path, env: dict[str, str], seconds: float = LESSON_SECONDS):
    """Run a notebook from top to bottom in a fresh kernel of this Python; return it with its outputs."""
    import nbformat
    import zmq
    from nbclient import NotebookClient
    from traitlets.config import Config

    notebook = nbformat.read(path, as_version=4)
    # Without encryption the kernel warns that it has none.
    config = Config({"KernelManager": {"transport_encryption": "auto"}} if zmq.has("curve") else {})
    deadline = time.monotonic() + seconds
    client = NotebookClient(notebook, config=config, kernel_name="python3", startup_timeout=600,
                            resources={"metadata": {"path": str(path.parent)}},
                            timeout_func=lambda cell: max(1, round(deadline - time.monotonic())))
    client.on_notebook_start = lambda notebook: client.kc.execute(
        DESCRIBE_FIGURES, silent=True, store_history=False
    )
    client.execute(env=env)
    return without_progress(notebook)


def without_progress(notebook):
    """The same notebook with what a terminal would show at last: a progress bar that is gone leaves
    nothing behind."""
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.output_type != "stream"
                            or output.text.strip()]
    return notebook


def without_sliders(notebook):
    """The same notebook with the still pictures alone where there are sliders: without the kernel that
    made it, a slider is an error message."""
    notebook.metadata.pop("widgets", None)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        output.get("data", {}).pop(SLIDER, None)
    return notebook


def with_alternative_texts(notebook):
    """The same notebook in which every picture has an alternative text: the stored one, or the text that
    goes with it."""
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if "image/png" in output.get("data", {}):
            beside = output["data"].get("text/plain", "")
            alt = (output.get("metadata", {}).get("image/png", {}).get("alt")
                   or ("Picture" if beside.startswith("<") else beside))
            output.setdefault("metadata", {})["image/png"] = {"alt": alt or "Picture"}
    return notebook


def readable(error: Exception) -> str:
    """What went wrong; without colours where they would show as codes, as in a file."""
    text = f"{type(error).__name__}: {error}"
    return text if sys.stdout.isatty() else re.sub(r"\x1b\[[0-9;]*m", "", text)


# --- pages

def title(notebook) -> str:
    """The first heading of a notebook."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = re.search(r"^# +(.+)$", text, flags=re.MULTILINE)
    return re.sub(r"[`*]", "", found[1]) if found else ""


def navigation(path: Path) -> str:
    """Links from the page of a notebook to the front page and to the lessons beside it, as HTML."""
    if path not in lessons():
        return f'<a href="{"../" * len(path.relative_to(NBS).parts[1:])}index.html">Front page</a>'
    course = lessons()
    place = course.index(path)
    links = [("index", "Front page")] if place else []
    links += [(other.stem, f"Previous: {title_of(other)}")
              for other in course[max(1, place - 1) : place]]
    links += [(other.stem, f"Next: {title_of(other)}") for other in course[place + 1 : place + 2]]
    return " · ".join(f'<a href="{name}.html">{html.escape(text)}</a>' for name, text in links)


def title_of(path: Path) -> str:
    """The title of a notebook in a file."""
    import nbformat

    return title(nbformat.read(path, as_version=4)) or path.stem


def contents(page: str) -> str:
    """Links to the sections of a page."""
    sections = re.findall(r'<h2 id="([^"]+)">(.+?)<a ', page)
    rows = "".join(f'<li><a href="#{place}">{re.sub("<[^>]+>", "", text)}</a></li>'
                   for place, text in sections)
    return f"<details><summary>On this page</summary><ul>{rows}</ul></details>" if rows else ""


def with_labels(page: str) -> str:
    """A page whose tables of sentences say in each cell which column it is: a narrow window shows them
    row by row."""
    def words(html: str) -> list[str]:
        return [re.sub("<[^>]+>", "", cell).strip()
                for cell in re.findall(r"<t[dh]\b.*?</t[dh]>", html, flags=re.DOTALL)]

    def labelled(table: re.Match) -> str:
        head, end, body = table[0].partition("</thead>")
        if max(map(len, words(body)), default=0) < SENTENCE:
            return table[0]
        names = cycle(words(head))
        body = re.sub(r"<td(?=[ >])", lambda cell: f'<td data-label="{next(names)}"', body)
        return re.sub(r'<table(?: class="([^"]*)")?>', r'<table class="sentences \1">', head,
                      count=1) + end + body

    return re.sub(r'<table(?: class="docutils[^"]*")?>.*?</table>', labelled, page, flags=re.DOTALL)


def folded_title(source: str) -> str:
    """What is said in place of a folded cell: its first comment, else what it is for."""
    code = re.sub(r"^#\|.*\n?", "", source, flags=re.MULTILINE)
    if comment := re.search(r"^# *(.+)", code, flags=re.MULTILINE):
        return comment[1]
    return ("Imports" if re.match(r"(from|import) ", code) else "Checks of the sentences above"
            if "assert" in code else "Code")


def without_hidden_cells(notebook):
    """The same notebook without the cells that no reader needs: those that say `hide`, and the one that
    names the module."""
    notebook.cells = [cell for cell in notebook.cells if not re.match(
        r"(#\|.*\n)*#\| *(hide|default_exp)\b", cell.source
    )]
    return notebook


def without_directives(notebook):
    """The same notebook without the lines that are for tools alone."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.MULTILINE)
    return notebook


def write_page(notebook, path: Path, links: str = "") -> None:
    """Write a notebook with its outputs as one HTML page that asks nothing of any server; `links` go to
    its top and end. The questions can be answered in it, and sliders moved."""
    from nbconvert import HTMLExporter
    from players import with_players
    from questions import with_forms

    notebook = with_players(with_forms(with_alternative_texts(without_sliders(notebook))))
    notebook.metadata["title"] = title(notebook) or path.stem
    notebook = without_directives(without_hidden_cells(notebook))
    exporter = HTMLExporter(template_name="offline_page", extra_template_basedirs=[str(ROOT / "tools")],
                            embed_images=True)
    exporter.register_filter("folded_title", folded_title)
    page, _ = exporter.from_notebook_node(notebook,
                                          resources={"metadata": {"name": path.stem, "path": str(NBS)}})
    if links:
        def bar(name: str, inside: str) -> str:
            return (f'<nav class="jp-RenderedHTMLCommon" aria-label="{name}" style="padding: '
                    f'1em 3em">{inside}</nav>')

        top, end = bar("Lessons", links + contents(page)), bar("Lessons, again", links)
        page = re.sub(r"(<main>)(.*)(</main>)", lambda m: m[1] + top + m[2] + end + m[3], page, count=1,
                      flags=re.DOTALL)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the corner of a table of pandas is no heading
    page = with_labels(page.replace("<th></th>", "<td></td>"))
    path.write_text(re.sub(r'(href="(?![a-z]+:)[^"#]*)\.ipynb', r"\1.html", page), encoding="utf-8")


def run_lessons(_) -> int:
    """Run every lesson and write it as a page into _lessons/; a lesson that fails is named, and the
    others still run."""
    import nbformat

    shutil.rmtree(PAGES, ignore_errors=True)
    env, todo, failed, begin = environment(), lessons(), [], time.perf_counter()
    texts = "".join(path.read_text(encoding="utf-8") for path in todo)
    minutes = sum(map(int, re.findall(r"\*\*Minutes:\*\* (\d+) to run", texts)))
    print(f"Running {len(todo)} lessons, about {minutes} minutes on two cores; "
          f"each becomes a page in {PAGES.name}/", flush=True)
    for number, path in enumerate(todo, start=1):
        print(f"[{number}/{len(todo)}] {path.stem:<28}", end="", flush=True)
        start = time.perf_counter()
        try:
            write_page(execute(path, env), PAGES / f"{path.stem}.html", navigation(path))
            print(f"ok  {time.perf_counter() - start:5.0f} s", flush=True)
        except Exception as error:  # whatever a cell raises, or the time limit
            failed.append(path.stem)
            print(f"FAILED after {time.perf_counter() - start:.0f} s\n{readable(error)}", flush=True)
    for path in notebooks():  # lessons link to them; shown as they are stored
        if path not in todo:
            page = PAGES / path.relative_to(NBS).with_suffix(".html")
            write_page(nbformat.read(path, as_version=4), page, navigation(path))
    print(f"\nAll lessons together: {(time.perf_counter() - begin) / 60:.1f} minutes.")
    print(f"Read them:      open {PAGES / 'index.html'} in a browser.")
    print(f"Work with them: make lab   (or: {sys.executable} -m jupyterlab "
          "--LabApp.default_url=/lab/tree/nbs/index.ipynb)")
    if failed:
        print(f"\n{len(failed)} of {len(todo)} lessons FAILED: {', '.join(failed)}. "
              "The errors are above.")
    return int(bool(failed))


# --- Colab: a link at the top of each lesson, and a first cell that fetches and installs the course
# there

COLAB_CELL = """\
#| hide
# In Colab: fetch the course, install it, and go to its notebooks. Anywhere else this cell does nothing.
import os
import sys

if "google.colab" in sys.modules and not os.path.exists("results/mixup.csv"):
    !git clone --quiet --depth 1 {repository} course
    %pip install --quiet "./course[pretrained]"
    os.chdir("course/nbs")"""


def repository() -> str:
    """The project's address, from settings.ini."""
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]["git_url"].rstrip("/")


def colab_cell() -> str:
    """The first code cell of each lesson."""
    return COLAB_CELL.format(repository=repository())


def colab_link(path: Path) -> str:
    """The paragraph that leads from a lesson to Colab; empty when the repository isn't on GitHub, where
    Colab looks."""
    if not repository().startswith("https://github.com/"):
        return ""
    place = repository().removeprefix("https://github.com/")
    return ("[Open in "
            f"Colab](https://colab.research.google.com/github/{place}/blob/main/nbs/{path.name}): "
            "nothing to install.")


def without_colab_link(text: str) -> str:
    return re.sub(r"\n\n\[Open in Colab\]\([^)\n]*\).*", "", text)


def with_colab(notebook, path: Path):
    """The same lesson with today's link, below the paragraph that gives the minutes, and today's first
    code cell."""
    from nbformat.v4 import new_code_cell

    top = notebook.cells[0]
    paragraphs = without_colab_link(top.source).split("\n\n")
    place = next((number for number, text in enumerate(paragraphs) if text.startswith("**Minutes:**")),
                 0)
    top.source = "\n\n".join(filter(None, [*paragraphs[: place + 1], colab_link(path),
                                           *paragraphs[place + 1 :]]))
    first = next((cell for cell in notebook.cells if cell.cell_type == "code"), None)
    if first is None or "google.colab" not in first.source:
        first = new_code_cell()
        notebook.cells.insert(1, first)
    first.source = colab_cell()
    return notebook


# --- notebooks in place

def refresh(args) -> int:
    """Export the modules, run notebooks in place, so that their stored outputs are new, and clean them.
    Lessons get the link and the cell for Colab."""
    import nbformat

    env = environment()
    env.pop("LESSONKIT_IMAGES", None)  # stored outputs show the bundled pictures, never somebody's own
    subprocess.run([tool("nbdev-export")], check=True, cwd=ROOT, env=env)
    for path in [Path(p).resolve() for p in args.paths] or notebooks():
        print(f"{path.relative_to(ROOT)}: ", end="", flush=True)
        start = time.perf_counter()
        try:
            notebook = execute(path, env)
        except Exception as error:  # whatever a cell raises, or the time limit
            print(f"FAILED, and left as it was\n{readable(error)}")
            return 1
        if path in lessons():
            notebook = with_colab(notebook, path)
        notebook.metadata["kernelspec"] = KERNEL
        nbformat.write(without_sliders(notebook), path)
        subprocess.run([tool("nbdev-clean"), "--fname", str(path)], check=True, cwd=ROOT, env=env)
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
    return 0


# --- checks

def never_tested(folder: Path = NBS) -> list[Path]:
    """Notebooks that nbdev_test leaves out without a word: hidden ones, those in hidden folders or
    beside a .notest file."""
    def left_out(path: Path) -> bool:
        return any(part[0] in "._"
                   for part in path.relative_to(folder).parts) or (path.parent / ".notest").exists()

    return [path for path in notebooks(folder) if left_out(path)]


def stale_files(root: Path = ROOT) -> list[str]:
    """What is wrong with notebooks and modules, found on a copy of the tree: a notebook that isn't
    clean, a module that differs from what its notebook exports, a module whose notebook is gone, one
    that was never exported."""
    generated = "# AUTOGENERATED! DO NOT EDIT!"

    def modules(folder: Path) -> list[Path]:
        return [p for p in (folder / "lessonkit").rglob("*.py") if "__pycache__" not in p.parts]

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve() / "project"
        for name in ("nbs", "lessonkit"):
            shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns(
                "__pycache__", ".ipynb_checkpoints", ".last_checked"
            ))
        for name in ("pyproject.toml", "settings.ini"):
            shutil.copy(root / name, copy)
        for path in modules(copy):  # what no notebook exports any more stays away
            if generated in path.read_text(encoding="utf-8") and path.name != "_modidx.py":
                path.unlink()
        for command in ("nbdev-clean", "nbdev-export"):
            subprocess.run([tool(command)], check=True, cwd=copy, env={**os.environ, "PYTHONUTF8": "1"})
        faults = []
        for path in [*notebooks(copy / "nbs"), *modules(copy)]:
            name = path.relative_to(copy)
            # read_text: a checkout on Windows may have other line ends
            if not (root / name).exists():
                faults.append(f"{name.as_posix()}: not exported yet")
            elif path.read_text(encoding="utf-8") != (root / name).read_text(encoding="utf-8"):
                faults.append(f"{name.as_posix()}: " + (
                    "not clean" if path.suffix == ".ipynb" else "not what its notebook exports"
                ))
        gone = [p.relative_to(root) for p in modules(root) if not (copy / p.relative_to(root)).exists()]
        return faults + [f"{name.as_posix()}: no notebook exports it" for name in gone]


def test_notebooks(flags: str) -> set[str]:
    """Run `nbdev_test` on all notebooks; return those it really ran (it reports success even when it
    found none)."""
    cores = os.cpu_count() or 1
    workers = min(cores, 4)
    # Two notebooks side by side with all cores each would fight for them.
    env = environment(OMP_NUM_THREADS=str(max(1, cores // workers)), PYTHONUNBUFFERED="1")
    env.pop("LESSONKIT_IMAGES", None)  # the same pictures for everybody
    command = [tool("nbdev_test"), "--do-print", "--timing", "--n-workers", str(workers), "--flags",
               flags]
    ran = set()
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True,
                          encoding="utf-8", errors="replace") as run:
        for line in run.stdout:
            print(line, end="", flush=True)
            # More than one can stand in a line: several processes print.
            ran |= {Path(found).relative_to(NBS).as_posix()
                    for found in re.findall(r"- Completed (.+?\.ipynb)", line)}
    if run.returncode:
        raise SystemExit("nbdev_test FAILED: the notebooks and errors are named above.")
    return ran


def check(args) -> int:
    """Check that modules are in sync with their notebooks, that notebooks are clean, and that each of
    them runs."""
    from nbdev.test import nb_test_cells

    if hidden := never_tested():
        print("nbdev_test would leave these out; rename or move them:", *hidden, sep="\n  ")
        return 1
    if stale := stale_files():
        print("Not clean or not in sync. Run nbdev-export and nbdev-clean, then look at the change:",
              *stale, sep="\n  ")
        return 1
    print("Modules are in sync with their notebooks; notebooks are clean.", flush=True)
    expected = {path.relative_to(NBS).as_posix(): path for path in notebooks()}
    ran = test_notebooks(args.flags)
    cells = {name: len(nb_test_cells(path, [], [])) for name, path in expected.items()}
    print(f"nbdev_test ran {len(ran)} of {len(expected)} notebooks, {sum(cells[name] for name in ran)} "
          "code cells.")
    if missed := sorted(expected.keys() - ran):
        print("Not run:", *missed, sep="\n  ")
    if empty := sorted(name for name in ran if not cells[name]):
        print("Nothing in these was run:", *empty, sep="\n  ")
    return int(bool(missed or empty or not expected))


def main() -> int:
    module = re.escape(WARNINGS.rpartition(":")[2])  # here too: the players draw with PyTorch
    warnings.filterwarnings("ignore", category=FutureWarning, module=module)
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("lessons", help=run_lessons.__doc__).set_defaults(do=run_lessons)
    one = commands.add_parser("refresh", help=refresh.__doc__)
    one.add_argument("paths", nargs="*", help="notebooks; all of them when none is named")
    one.set_defaults(do=refresh)
    one = commands.add_parser("check", help=check.__doc__)
    one.add_argument("--flags", default="", help="nbdev test flags to run that are normally left out")
    one.set_defaults(do=check)
    args = parser.parse_args()
    os.environ.update(environment())
    return args.do(args)


if __name__ == "__main__":
    sys.exit(main())
