"""How time and memory grow with the number of things: listing and decoding photos, choosing some,
running and judging a study."""

import multiprocessing
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from ratios import Ratio
from selecting import features
from usage import MIB, empty_cache, timed

from lessonkit.comparison import summarize
from lessonkit.images import ImageSet, decode, load_images
from lessonkit.study.workers import run_trials
from lessonkit.subset_selection import select_subset

# the most that a thing may cost in the largest run, as a multiple of its cost in one a quarter as large
PER_THING = 1.3


@dataclass(frozen=True)
class Curve:
    """What a call took for several numbers of things."""

    name: str
    things: str
    numbers: list[int]
    seconds: list[float]
    mib: list[float]  # memory at its peak, less what was used before

    def ratio(self) -> Ratio:
        """Seconds for the most things, beside what the run with a quarter of them would lead one to
        expect."""
        few, many = self.numbers[-2:]
        name = f"{self.name}, {many:,} {self.things}: seconds / {many / few:g} times those for {few:,}"
        return Ratio(name, self.seconds[-1:], [self.seconds[-2] * many / few], "<=", PER_THING)


def listed(n: int) -> Callable:
    """The listing of a folder with n files in 100 class folders; it opens none, so they are empty."""
    folder = tempfile.TemporaryDirectory()
    for number in range(n):
        path = Path(folder.name, "val" if number % 500 < 100 else "train", f"class{number % 100:02}",
                    f"{number}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def call() -> None:
        with folder:
            assert len(ImageSet.from_folder(folder.name)) == n

    return call


def decoded(photos: ImageSet, n: int) -> Callable:
    """n photos to 64 pixels; where the folder has fewer, they come again."""
    images = photos.take(np.arange(n) % len(photos))

    def call() -> None:
        with empty_cache():
            decode(images, 64, progress=False)

    return call


def chosen(n: int, per_class: int = 1280) -> Callable:
    """One in a hundred of n rows of 64 numbers, by facility location within each class."""
    x, labels = features(n, n // per_class)
    return lambda: select_subset(x, n // 100, labels)


def trial(technique: str, seed: int, tick: Callable) -> tuple[dict, np.ndarray]:
    """A training that takes no time: only what the study does around it is left."""
    draws = np.random.default_rng([seed, len(technique)])
    correct = draws.random(1000) < 0.7
    return {"accuracy": correct.mean(), "size": 32, "epochs": 5}, correct


def studied(n: int) -> Callable:
    """n trials of ten techniques, each stored with its 1,000 photos and then read back for the table."""

    def call() -> None:
        with tempfile.TemporaryDirectory() as folder:
            run_trials({f"a{'b' * i}": {} for i in range(10)}, n // 10, trial, folder, {},
                       progress=False, each=len)

    return call


def judged(n: int) -> Callable:
    """The table of ten techniques, ten seeds and n validation photos."""
    draws = np.random.default_rng(0)
    correct = {f"{t}-{seed}": draws.random(n) < 0.7 for t in range(10) for seed in range(10)}
    rows = [{"id": f"{t}-{seed}", "technique": f"t{t}", "seed": seed, "size": 32, "epochs": 5,
             "accuracy": correct[f"{t}-{seed}"].mean()} for t in range(10) for seed in range(10)]
    return lambda: summarize(pd.DataFrame(rows), "t0", correct=correct)


def alone(make: Callable[[int], Callable], few: int, n: int) -> tuple[float, int]:
    """Seconds and memory of one call, after a small one that isn't counted."""
    make(few)()
    return timed(make(n))


def measure(name: str, things: str, make: Callable[[int], Callable], numbers: list[int],
            rounds: int) -> Curve:
    """Medians over rounds. Each call has a process of its own: memory that an earlier one gave back
    would hide what it needs."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        taken = [[pool.submit(alone, make, numbers[0], n).result() for _ in range(rounds)]
                 for n in numbers]
    seconds, memory = ([statistics.median(pair[i] for pair in pairs) for pairs in taken] for i in (0, 1))
    print(f"growth, {name}: "
          + ", ".join(f"{n:,} {s:.2f} s {m / MIB:.0f} MiB" for n, s, m in zip(numbers, seconds, memory)),
          flush=True)
    return Curve(name, things, numbers, seconds, [amount / MIB for amount in memory])


def curves(folder: Path, rounds: int) -> list[Curve]:
    photos = load_images(folder)
    return [measure("listing a folder", "files", listed, [1000, 4000, 16_000, 64_000], rounds),
            measure("decoding to 64 px", "photos", partial(decoded, photos), [250, 1000, 4000, 16_000],
                    rounds),
            measure("choosing 1 % by class", "photos", chosen, [5120, 20_480, 81_920, 327_680], rounds),
            measure("storing a study", "trials", studied, [20, 80, 320, 1280], rounds),
            measure("judging a study", "validation photos", judged, [1000, 4000, 16_000, 64_000],
                    rounds)]
