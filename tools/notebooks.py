"""Run, refresh and check the notebooks. `python tools/notebooks.py --help` lists the commands."""

import argparse
import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
PAGES = ROOT / "_lessons"


def notebooks(folder: Path = NBS) -> list[Path]:
    """Every notebook of the course, lessons first, then the supporting ones."""
    found = [p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    return sorted(found, key=lambda p: (len(p.relative_to(folder).parts), p.name))


def lessons() -> list[Path]:
    """The notebooks that a reader goes through, the front page first."""
    pages = [p for p in notebooks() if p.parent == NBS]
    return sorted(pages, key=lambda p: (p.name != "index.ipynb", p.name))


def execute(path: Path):
    """Run a notebook from top to bottom in a fresh kernel of this Python; return it with its outputs."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    return notebook


def write_page(notebook, path: Path) -> None:
    """Write an executed notebook as one HTML page that asks nothing of any server."""
    from nbconvert import HTMLExporter

    notebook.metadata.pop("widgets", None)  # sliders need a kernel; their still picture is in the page
    exporter = HTMLExporter(template_name="offline_page", extra_template_basedirs=[str(ROOT / "tools")])
    page, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": path.stem}})
    path.write_text(re.sub(r'(href="(?!https?:)[^"#]*)\.ipynb', r"\1.html", page), encoding="utf-8")


def run_lessons(_) -> int:
    """Run every lesson and write it as a page into _lessons/; a lesson that fails is named, and the others still run."""
    PAGES.mkdir(exist_ok=True)
    todo, failed = lessons(), []
    for number, path in enumerate(todo, start=1):
        print(f"[{number}/{len(todo)}] {path.stem:<28}", end="", flush=True)
        start = time.perf_counter()
        try:
            write_page(execute(path), PAGES / f"{path.stem}.html")
            print(f"ok  {time.perf_counter() - start:5.0f} s", flush=True)
        except Exception as error:  # whatever a cell raises
            failed.append(path.stem)
            print(f"FAILED\n{error}", flush=True)
    python = Path(sys.executable)
    print(f"\nRead the lessons: open {PAGES / 'index.html'} in a browser.")
    print(f"Work with them:   make lab   (or: {python.parent / 'jupyter-lab'} {NBS / 'index.ipynb'})")
    if failed:
        print(f"\n{len(failed)} of {len(todo)} lessons failed: {', '.join(failed)}")
    return int(bool(failed))


def tool(name: str) -> str:
    """The path of a command that is installed beside this Python."""
    return str(Path(sys.executable).parent / name)


def refresh(args) -> int:
    """Run notebooks in place, so that their stored outputs are new, and clean them."""
    import nbformat

    for path in [Path(p).resolve() for p in args.paths] or notebooks():
        start = time.perf_counter()
        nbformat.write(execute(path), path)
        subprocess.run([tool("nbdev-clean"), "--fname", str(path)], check=True, cwd=ROOT)
        print(f"{path.relative_to(ROOT)}: {time.perf_counter() - start:.0f} s", flush=True)
    return 0


def stale_files() -> list[str]:
    """Notebooks that aren't clean and modules that differ from what their notebook exports, found on a copy of the tree."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / ROOT.name
        ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".last_checked")
        for name in ("nbs", "lessonkit"):
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        for name in ("pyproject.toml", "settings.ini"):
            shutil.copy(ROOT / name, copy)
        for command in ("nbdev-clean", "nbdev-export"):
            subprocess.run([tool(command)], check=True, cwd=copy)
        made = [*notebooks(copy / "nbs"), *(copy / "lessonkit").rglob("*.py")]
        names = [p.relative_to(copy) for p in made if "__pycache__" not in p.parts]
        return [str(n) for n in names if not (ROOT / n).exists() or not filecmp.cmp(copy / n, ROOT / n, shallow=False)]


def test_notebooks(flags: str) -> int:
    """Run `nbdev_test` on all notebooks; return how many it really ran (it reports success even when it found none)."""
    cores = os.cpu_count() or 1
    workers = min(cores, 4)
    # Two notebooks side by side with all cores each would fight for them.
    env = {**os.environ, "OMP_NUM_THREADS": str(max(1, cores // workers)), "PYTHONUTF8": "1"}
    command = [tool("nbdev_test"), "--do_print", "--timing", "--n_workers", str(workers), "--flags", flags]
    run = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    ran = 0
    for line in run.stdout:
        print(line, end="", flush=True)
        ran += line.startswith("- Completed")
    if run.wait():
        raise SystemExit("nbdev_test failed: see above.")
    return ran


def check(args) -> int:
    """Check that modules are in sync with their notebooks, that notebooks are clean, and that each of them runs."""
    if stale := stale_files():
        print("Not clean, or not in sync with its notebook. Run nbdev-clean and nbdev-export, then look at the change:")
        print("\n".join(f"  {name}" for name in stale))
        return 1
    print("Modules are in sync with their notebooks; notebooks are clean.")
    expected = len(notebooks())
    ran = test_notebooks(args.flags)
    print(f"nbdev_test ran {ran} of {expected} notebooks.")
    return int(ran != expected)


def main() -> int:
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
    return args.do(args)


if __name__ == "__main__":
    sys.exit(main())
