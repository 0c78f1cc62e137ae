"""The package as others get it: a built wheel, used with nothing but its run-time requirements."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytest.importorskip("setuptools", "77")
ROOT = Path(__file__).resolve().parent.parent
# Runs in a fresh process: what the wheel doesn't ask for can't be imported, whether it is installed here
# or not.
ALONE = """
import importlib.abc, json, sys

class Missing(importlib.abc.MetaPathFinder):
    names = set(json.loads(sys.argv[2]))

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.path.insert(0, sys.argv[1])
"""


BUILD_SOURCE = """
import sys, tarfile
from setuptools import build_meta
folder = sys.argv[1]
tarfile.open(f"{folder}/{build_meta.build_sdist(folder)}").extractall(folder, filter="data")
"""
BUILD_WHEEL = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the source distribution, unpacked too, and the wheel that is built from it, as it is
    published. It is made from a copy, so that nothing is left in this folder."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    shutil.copytree(ROOT / "lessonkit", source / "lessonkit",
                    ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", source / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "settings.ini", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    for code, place in ((BUILD_SOURCE, source), (BUILD_WHEEL, None)):
        place = place or next(path for path in folder.glob("lessonkit-*") if path.is_dir())
        command = [sys.executable, "-c", code, str(folder)]
        run = subprocess.run(command, cwd=place, capture_output=True, text=True, encoding="utf-8")
        assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    """The wheel, unpacked."""
    (path,) = built.glob("*.whl")
    zipfile.ZipFile(path).extractall(built / "site")
    return built / "site"


def metadata(wheel: Path):
    (folder,) = wheel.glob("*.dist-info")
    return Parser().parsestr((folder / "METADATA").read_text(encoding="utf-8"))


def needed(requirements: list[str]) -> set[str]:
    """The packages that these lines ask for, and what those ask for, by their canonical names."""
    todo, seen = [(Requirement(line), "") for line in requirements], set()
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            try:
                todo += [(Requirement(line), wanted) for line in distribution(name).requires or []]
            except PackageNotFoundError:
                pass  # such as what only a graphics card needs
    return {name for name, _ in seen}


@pytest.fixture(scope="module")
def alone(wheel):
    """Runs code with the wheel and its run-time requirements alone; returns what it prints."""
    wanted = needed(metadata(wheel).get_all("Requires-Dist"))
    assert {"torch", "fastai", "pandas"} <= wanted and not wanted & {
        "nbdev", "jupyterlab", "ipywidgets", "pytest", "kornia"
    }
    missing = [name for name, owners in packages_distributions().items()
               if not {canonicalize_name(owner) for owner in owners} & wanted
               and name not in sys.stdlib_module_names | {"lessonkit"}]
    assert {"nbdev", "jupyterlab", "ipywidgets", "pytest"} <= set(missing)

    def run(code: str) -> str:
        command = [sys.executable, "-W", "ignore", "-c", ALONE + code, str(wheel), json.dumps(missing)]
        done = subprocess.run(command, cwd=wheel, capture_output=True, text=True, encoding="utf-8",
                              env=environment())
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def environment() -> dict[str, str]:
    return (
        {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONUTF8": "1"}
    )


def test_wheel_holds_the_package_with_its_types_and_templates_alone(wheel):
    files = {path.relative_to(wheel).as_posix()
             for path in wheel.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in files if ".dist-info/" not in path} == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "lessonkit").rglob("*")
        if path.is_file() and (path.suffix in (".py", ".jinja") or path.name == "py.typed")}
    assert any(path.endswith("/LICENSE") for path in files)


def test_source_distribution_holds_what_the_wheel_is_built_from_alone(built):
    (path,) = built.glob("*.tar.gz")
    assert ({Path(name).parts[1] for name in tarfile.open(path).getnames() if "/" in name}
            == {"lessonkit", "lessonkit.egg-info", "setup.py", "settings.ini", "pyproject.toml",
                "README.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "setup.cfg"})


def test_wheel_installs_one_command(wheel):
    """`nbdev_test` is for those who work on the course, and needs nbdev."""
    (file,) = wheel.glob("*.dist-info/entry_points.txt")
    points = ConfigParser(delimiters=["="])
    points.read_string(file.read_text(encoding="utf-8"))
    assert dict(points["console_scripts"]) == {"lessonkit": "lessonkit.cli:main"}


def test_every_requirement_is_imported(wheel):
    """No package is installed for nothing."""
    lines = map(Requirement, metadata(wheel).get_all("Requires-Dist"))
    modules = {"scikit-learn": "sklearn", "pillow": "PIL"}
    source = "\n".join(path.read_text(encoding="utf-8") for path in (wheel / "lessonkit").rglob("*.py"))
    for requirement in (line for line in lines if not line.marker):
        name = modules.get(requirement.name, requirement.name)
        assert re.search(rf"^ *(?:import|from) {name}\b", source, flags=re.MULTILINE), requirement


def test_description_leads_to_this_version_from_anywhere(wheel):
    about = metadata(wheel)
    description = about.get_payload()
    links = re.findall(r"\]\(([^)\s]+)\)", description) + re.findall(
        r'(?:src|srcset)="([^"]+)"', description
    )
    assert len(links) > 15
    address = about["Home-page"]
    raw = address.replace("github.com", "raw.githubusercontent.com")
    for link in links:
        if not link.startswith(f"{address}/actions/"):
            found = re.fullmatch(rf"(?:{address}/blob|{raw})/v{re.escape(about['Version'])}/(.+)", link)
            assert found and (ROOT / found[1]).is_file(), link


def test_every_module_can_be_imported_and_it_works(alone, wheel):
    names = sorted(".".join(path.relative_to(wheel / "lessonkit").with_suffix("").parts)
                   for path in (wheel / "lessonkit").rglob("[a-z]*.py"))
    said = alone(f"""
import importlib
for name in {names}:
    module = importlib.import_module("lessonkit." + name)
    assert module.__file__.startswith(sys.argv[1]), module.__file__
    print(name)

import torch
from lessonkit.label_smoothing import LabelSmoothingCrossEntropy
from lessonkit.mixup import mixed_loss, mixup, sample_lambda
from lessonkit.normalization import Normalize
x, y = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
lam = sample_lambda(4)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
pred = model(mixup(Normalize([0.5] * 3, [0.25] * 3)(x), lam))
print(mixed_loss(LabelSmoothingCrossEntropy(), pred, y, lam).isfinite().item())
""")
    assert said.split() == [*names, "True"]


def test_the_command_says_what_it_can_do(alone):
    said = alone("from lessonkit.cli import main\nsys.argv = ['lessonkit', '--help']\ntry:\n    "
                 "main()\nexcept SystemExit as end:\n    assert not end.code")
    assert re.search(r"usage: lessonkit", said) and "ablate" in said
