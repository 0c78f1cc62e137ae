"""What the package makes can be pickled and copied: work goes to other processes and comes back."""

import copy
import importlib
import inspect
import pickle
import pkgutil
from pathlib import Path

import pytest

import lessonkit
from lessonkit.photos.photo_cache import DamagedPhoto

MODULES = [module.name for module in pkgutil.walk_packages(lessonkit.__path__, "lessonkit.")
           if not module.name.endswith("_modidx")]
ARGUMENTS = {DamagedPhoto: (Path("photos/1.jpg"), "it is cut off")}


def public_exceptions() -> list[type]:
    found = set()
    for name in MODULES:
        module = importlib.import_module(name)
        found |= {kind for _, kind in inspect.getmembers(module, inspect.isclass)
                  if issubclass(kind, Exception) and kind.__module__.startswith("lessonkit")}
    return sorted(found, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("ways", [pickle.dumps, copy.copy, copy.deepcopy],
                         ids=["pickle", "copy", "deepcopy"])
def test_every_exception_comes_back_as_it_was(ways):
    for kind in public_exceptions():
        error = kind(*ARGUMENTS.get(kind, ("what happened",)))
        back = pickle.loads(ways(error)) if ways is pickle.dumps else ways(error)
        assert type(back) is kind and str(back) == str(error) and vars(back) == vars(error)
    assert DamagedPhoto in public_exceptions()
