"""What holds for every test: threads that leave the cores to others while they wait, the same random numbers whatever ran before,
and no time limit but pytest's own."""

import os
import random
import sys


# PyTorch reads these when it is imported. Waiting threads would take the cores from the other processes, and a training could last ten
# times as long; with pytest-xdist each process has a core of its own.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# Hypothesis' own profile for servers: no limit of time for an example, which a busy machine would pass, and the same examples each time,
# so that no commit is red by bad luck. `pytest --hypothesis-profile=search` looks for new ones, as the weekly workflow does.
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


# Whole files of the marker `processor`, which `make test-processors` tries as on other processors.
COMPUTES = {
    "test_ablation", "test_calibration", "test_label_smoothing", "test_mixup", "test_normalization", "test_progressive_resizing",
    "test_subset_selection", "test_training", "test_tta", "test_hostile_numbers",
    "test_parity_losses", "test_parity_mixing", "test_parity_pictures", "test_parity_predictions", "test_parity_training",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem.startswith(tuple(COMPUTES)):
            item.add_marker(pytest.mark.processor)
