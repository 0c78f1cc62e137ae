"""What holds for every test: threads that leave the cores to others while they wait, the same random
numbers whatever ran before, and no time limit but pytest's own."""

import os
import random
import sys


# PyTorch reads these when it is imported. Waiting threads would take the cores from the other processes,
# and a training could last ten times as long; with pytest-xdist each process has a core of its own.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# Hypothesis' own profile for servers: no limit of time for an example, which a busy machine would pass,
# and the same examples each time, so that no commit is red by bad luck. `pytest
# --hypothesis-profile=search` looks for new ones, as the weekly workflow does.
settings.register_profile("search", settings.get_profile("ci"), derandomize=False, print_blob=True)
settings.load_profile("ci")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """The random states that libraries share: a test on its own draws what it draws after all others."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


# What computes or trains: `make test-processors` tries it as on other processors.
COMPUTES = {"foundation", "lessons", "selection", "parity"}


# The files that take longest, longest first: with two processes no long one is left for the end.
LONG = ["test_typing", "test_workers", "test_notebook_tools", "test_images", "test_loaders", "test_cli",
        "test_study", "test_cli_answer", "test_wheel"]


def pytest_collection_modifyitems(items):
    # apricot makes PyTorch's trainings in its process four times slower: it comes last
    order = {name: number - 99 for number, name in enumerate(LONG)} | {"test_parity_predictions": 1}
    items.sort(key=lambda item: order.get(item.path.stem, 0))
    for item in items:
        if item.path.parent.name in COMPUTES or item.path.stem in (
            "test_hostile_numbers", "test_trainer"
        ):
            item.add_marker(pytest.mark.processor)


@pytest.fixture(scope="session")
def warm():
    """New processes begin at once: see `processes.py`."""
    import processes

    with processes.warm_up():
        yield


@pytest.fixture(scope="session")
def random_photos(tmp_path_factory):
    """Thirty photos of random pixels, in two classes; 24 are for training."""
    import numpy as np
    from PIL import Image

    from lessonkit.images import ImageSet

    folder, rng = tmp_path_factory.mktemp("random_photos"), np.random.default_rng(0)
    for label in ("cat", "owl"):
        (folder / label).mkdir()
        for number in range(15):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(
                folder / label / f"{number}.png"
            )
    return ImageSet.from_folder(folder)


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    """A cache folder for the tests alone."""
    monkeypatch.setenv("LESSONKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def shard(monkeypatch):
    """Make fastai's loader of one rank's share: `shard(loader, rank, of=2)`; here all ranks are in this
    process."""
    from types import ModuleType

    module = ModuleType("accelerate")  # fastai.distributed wants its name, and no more of it
    module.Accelerator = type("Accelerator", (), {"__init__": lambda self, device_placement=True: None})
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "accelerate", sys.modules.get("accelerate", module))
        from fastai.distributed import DistributedDL

    class Shard(DistributedDL):
        def _broadcast(self, rows, rank):
            return rows

    return lambda loader, rank, of=2: Shard(loader, rank, of)


@pytest.fixture
def photo_set(tmp_path):
    """Ten photos: the training ones in one tone, the validation and test ones in another."""
    import numpy as np
    from PIL import Image

    from lessonkit.images import ImageSet

    paths, split = [], ["train"] * 5 + ["valid"] * 3 + ["test"] * 2
    for i, part in enumerate(split):
        tone = {"train": (40 + i, 90, 120 - i), "valid": (250, 0, 250), "test": (0, 255, 0)}[part]
        picture = Image.new("RGB", (40, 40), tone)
        picture.paste((0, 0, 0), (0, 0, 40, 10 + i))
        paths.append(tmp_path / f"{i}.png")
        picture.save(paths[-1])
    return ImageSet(paths, np.arange(10) % 2, ["a", "b"], split)
