"""Train the arms of a question again and again; a finished trial is stored before the next begins.

The `make_*.py` beside this file declare arms and call `run`. It keeps three files, each written as a
whole: NAME.csv has a row for each trial and way to predict, NAME_correct.npz for each row which of the
judged photos were right (bits: `read_study`), and NAME.json the photos, and processor, commit and
versions from which row on. The seed is the outermost loop; two trials run side by side, one thread each.
Until the last one they lie in the folder `unfinished`, and a run that is started again, with the same
arms and seeds, continues where it stopped.
`judged_on` tells whether all training photos were trained on ("valid"), or a part of them, judged on the
rest ("inner"). Seconds are taken while the machine does other work too: compare pixels.

    python resume.py NAME [TECHNIQUE ...]     # what the table says so far, of all or some techniques
"""

import io
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.learner import Learner
from joblib.externals.loky import ProcessPoolExecutor
from torch import Tensor

import lessonkit
from lessonkit.ablation import Technique
from lessonkit.comparison import summarize
from lessonkit.foundation.batch_transforms import Augment
from lessonkit.foundation.calibration import score
from lessonkit.foundation.files import write_atomic
from lessonkit.foundation.speedups import BFloat16
from lessonkit.images import ImageSet, load_images
from lessonkit.study.report import machine, versions
from lessonkit.study.techniques import BASELINE
from lessonkit.study.settings import Settings
from lessonkit.study.trainer import predict_plain, statistics_for, train_trial
from lessonkit.study.trials import photos_identity
from lessonkit.study.worth import read_study
from lessonkit.study.tuning import choose_on_grid, inner_split

HERE = Path(__file__).parent
Predict = Callable[[Learner], Tensor]  # probabilities of the judged photos, (N, C)


@dataclass(frozen=True)
class Arm:
    """One way to train, and the ways to predict with what was trained."""

    technique: Technique
    settings: Settings  # size, epochs, width, learning rate, and what is held equal to the baseline's
    name: str = ""  # in the table; the technique's when empty
    min_area: float = 0.35  # smallest share of a photo that a crop keeps
    precision: str = "float32"  # or "bfloat16", of the training
    inner: bool = False  # judge on set-aside training photos
    photos: str = ""  # which training photos, in words, where not all as they are
    choose: Callable[[ImageSet], ImageSet] | None = None  # makes them of all photos
    stats: Any = None  # to normalize with, where not the usual ones
    # more rows of the table, predicted with the same weights
    views: Mapping[str, Predict] = field(default_factory=dict)
    # more columns: what is measured on the trained network
    measures: Mapping[str, Callable[[Learner], float]] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "name", self.name or self.technique.variant)

    @property
    def trained_epochs(self) -> int:
        """As many as cost no more than the baseline's. `epochs_at_cost` takes 29.96 for 30 by now; the
        first tables were made with 29, and a table keeps its rule."""
        share = self.technique.train_cost if self.settings.cost == "pixels" else 1
        return max(1, math.floor(self.settings.epochs / share + 1e-9))

    def columns(self, seed: int) -> dict[str, Any]:
        """What decides a trial, as columns of the table."""
        settings = self.settings
        found = {"size": settings.size, "epochs": settings.epochs, "lr": settings.lr,
                 "min_area": self.min_area}
        found |= {"width": settings.width, "precision": self.precision, "cost": settings.cost}
        found |= {"model": settings.model} if settings.pretrained else {}
        found |= {"judged_on": "inner" if self.inner else "valid"}
        return {"seed": seed} | found | ({"photos_used": self.photos} if self.photos else {})

    def row_id(self, name: str, seed: int) -> str:
        """The name of a row, which tells all that decides it."""
        return " ".join([name, *(f"{key}={value}" for key, value in self.columns(seed).items())])


def train(images: ImageSet, about: str, stats: Any, arm: Arm,
          seed: int) -> list[tuple[dict, np.ndarray]]:
    """Train once; for each way to predict a row of the table, and which photos were right."""
    torch.set_num_threads(1)  # two trainings side by side
    found, measured = {}, {}

    def predict(learn: Learner) -> Tensor:
        measured.update({name: measure(learn) for name, measure in arm.measures.items()})
        for name, look in ({arm.name: arm.technique.predict or predict_plain} | dict(arm.views)).items():
            start = time.perf_counter()
            found[name] = look(learn), round(time.perf_counter() - start, 3)
        return found[arm.name][0]

    make = arm.technique.callbacks or list
    technique = replace(
        arm.technique,
        data={"augment": Augment(arm.min_area)} | dict(arm.technique.data),
        callbacks=(lambda: [BFloat16(), *make()]) if arm.precision == "bfloat16" else make,
        predict=predict,
    )
    cost, _ = train_trial(images, technique, seed, arm.settings, stats, epochs=arm.trained_epochs)
    cost = {name: cost[name] for name in ("trained_epochs", "train_seconds", "core_seconds", "pixels")}
    targets, rows = images.labels[images.indices("valid")], []
    for name, (probs, seconds) in found.items():
        row = {"id": arm.row_id(name, seed), "images": about, "technique": name} | arm.columns(seed)
        row |= score(probs, targets) | cost | {"predict_seconds": seconds, "photos": len(targets)}
        row |= measured
        rows.append((row, probs.argmax(1).numpy() == targets))
    return rows


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Store arrays by name; a file that is half written never stands there."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def place(name: str) -> Path:
    """Where a table lies, with all its rows: aside while a run adds to it."""
    begun = HERE / "unfinished" / f"{name}.csv"
    return begun if begun.exists() else HERE / begun.name


class Rows:
    """A table on disk, NAME.csv, that grows by finished trials; starting again finds them in `done`.

    NAME_correct.npz holds an array for each row, mostly which photos were right.
    """

    def __init__(self, name: str, folder: Path | None = None):
        folder = folder or HERE
        self.csv, self.npz = folder / f"{name}.csv", folder / f"{name}_correct.npz"
        self.rows = pd.read_csv(self.csv).to_dict("records") if self.csv.exists() else []
        self.done = {row["id"] for row in self.rows}
        stored = dict(np.load(self.npz)) if self.npz.exists() else {}
        self.arrays = {key: array for key, array in stored.items() if key in self.done}

    def add(self, rows: Iterable[tuple[dict, np.ndarray | None]]) -> None:
        """Store the rows of a trial, and their arrays."""
        for row, right in rows:
            if row["id"] in self.done:  # a way to predict was added later
                continue
            self.rows.append(row)
            self.done.add(row["id"])
            if right is not None:
                self.arrays[row["id"]] = right
        self.write()

    def write(self) -> None:
        """Store everything; arrays first, so that no row is ever without."""
        if self.arrays:
            write_arrays(self.npz, self.arrays)
        write_atomic(self.csv, pd.DataFrame(self.rows).to_csv(index=False, lineterminator="\n"))


class Table(Rows):
    """The rows of a question, which photos each got right (bits), and where they come from.

    Until `finish` it grows in the folder `unfinished`: lessons read no study that was interrupted.
    """

    def __init__(self, name: str, photos: Mapping[str, Any]):
        super().__init__(name, place(name).parent)
        self._refuse_lost_rows()
        self.json = self.csv.with_suffix(".json")
        known = json.loads(self.json.read_text(encoding="utf-8")) if self.json.exists() else {}
        if known.get("photos", photos) != photos:
            raise ValueError(f"{self.csv.name} was made of other photos.")
        run = {"commit": COMMIT, **machine(), "versions": versions()}
        runs = [run for run in known.get("runs", []) if run["from_row"] < len(self.rows)]
        if not runs or run != {key: value for key, value in runs[-1].items() if key != "from_row"}:
            runs.append({"from_row": len(self.rows)} | run)
        self.about = {"photos": photos, "runs": runs}
        paths = self.csv, self.npz, self.json
        self.csv, self.npz, self.json = (HERE / "unfinished" / path.name for path in paths)

    def add(self, rows: Iterable[tuple[dict, np.ndarray]]) -> None:
        """Store the rows of a trial, and which photos they got right."""
        self.json.parent.mkdir(exist_ok=True)
        write_atomic(self.json, json.dumps(self.about, indent=1) + "\n")
        super().add((row, np.packbits(right)) for row, right in rows)

    def _refuse_lost_rows(self) -> set[str]:
        """The rows that aren't where the lessons read; an error if others are only there."""
        there = Rows(self.csv.stem).done
        if lost := there - self.done:
            raise ValueError(f"{HERE / self.csv.name} has {len(lost)} rows that the unfinished table "
                             f"lacks, such as {min(lost)!r}: put both into one, or delete that one.")
        return self.done - there

    def finish(self, wanted: Iterable[str] | None = None) -> None:
        """Put the table where the lessons read it, unless other rows than the wanted are new in it."""
        new = self._refuse_lost_rows()
        if wanted is not None and (others := new - set(wanted)):
            print(f"{self.csv} stays aside: it has {len(others)} rows of another run, such as "
                  f"{min(others)!r}.")
            return
        if not self.csv.exists():
            return
        for path in (self.npz, self.json, self.csv):
            if path.exists():
                write_atomic(HERE / path.name, path.read_bytes())
        for path in (self.csv, self.npz, self.json):
            path.unlink(missing_ok=True)


def commit() -> str:
    """The commit of the package that trains, marked where it or these scripts were changed since."""
    git = ["git", "-C", str(Path(lessonkit.__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    asked = [*git, "status", "--porcelain", "--", "*.py", str(HERE / "*.py")]
    return head + (" and changes" if subprocess.run(asked, capture_output=True).stdout else "")


COMMIT = commit()  # when this was started


def run(name: str, folder: str, arms: Sequence[Arm] | Callable[[int], Sequence[Arm]],
        seeds: Iterable[int], jobs: int = 2) -> pd.DataFrame:
    """Train all arms (or those of a seed) with each seed, but for what is stored; their rows."""
    os.environ["OMP_NUM_THREADS"] = "1"
    whole, about = load_images(folder), Path(folder).resolve().name
    table = Table(name, photos_identity(whole))
    trials = [(seed, arm) for seed in seeds for arm in (arms(seed) if callable(arms) else arms)]
    if other := {row["precision"] for row in table.rows} - {arm.precision for _, arm in trials}:
        raise ValueError(f"{name}.csv was trained in {other.pop()}: one table, one precision.")
    missing = [
        t for t in trials if not {t[1].row_id(n, t[0]) for n in (t[1].name, *t[1].views)} <= table.done
    ]
    sets, stats = {}, {}  # of each selection of photos; the statistics for each size and network, too

    def given(arm: Arm) -> tuple:
        """Photos and statistics of an arm, made once."""
        which = arm.photos, arm.inner
        if which not in sets:
            images = arm.choose(whole) if arm.choose else whole
            sets[which] = inner_split(images) if arm.inner else images
        key = which, arm.settings.size, arm.settings.model
        if key not in stats:
            stats[key] = statistics_for(sets[which], arm.settings)
        return sets[which], about, arm.stats or stats[key]

    start, todo, number = time.time(), iter(missing), 0
    with ProcessPoolExecutor(jobs) as pool:

        def begin(how_many: int) -> dict:
            return {pool.submit(train, *given(arm), arm, seed): arm
                    for seed, arm in islice(todo, how_many)}

        running = begin(jobs)
        while running:
            for finished in wait(running, return_when=FIRST_COMPLETED).done:
                arm = running.pop(finished)
                number += 1
                told = f"{time.time() - start:.0f} s, {number} of {len(missing)}: "
                try:
                    rows = finished.result()
                except ValueError as error:  # such as a training that diverged; the others go on
                    print(f"{told}{arm.name}, {arm.settings.lr=}: {error}", flush=True)
                else:
                    table.add(rows)
                    row = rows[0][0]
                    print(f"{told}{row['id']}: {row['accuracy']:.4f}, {row['core_seconds']:.0f} s",
                          flush=True)
                running |= begin(1)
    wanted = {arm.row_id(n, seed) for seed, arm in trials for n in (arm.name, *arm.views)}
    table.finish(wanted)
    return pd.DataFrame([row for row in table.rows if row["id"] in wanted])


def tune(
    name: str,  # of the table of the tuning
    folder: str,  # of the photos
    arms: Sequence[Arm],
    rates: Sequence[float],  # learning rates, ascending
    areas: Sequence[float],  # for `Arm.min_area`
    share: float = 1,  # length of a training that chooses the learning rate, in the arm's own
) -> tuple[list[Arm], dict[str, dict]]:  # the arms with their own settings; for each what was found
    """Choose learning rate and crops of each arm on set-aside training photos, with one seed.

    The grid is the same for all. Where more than three quarters of the arms choose the same end of the
    learning rates or of the crops, one more is tried there, by all. With a `share` below 1 the learning
    rate is chosen in short trainings on the strongest crops, and then the crops at the whole length:
    how strong they should be depends on it.
    """
    names = [arm.name for arm in arms]

    def measure(share: float, settings: Iterable[tuple[Arm, float, float]]) -> pd.DataFrame:
        grid = [
            replace(
                arm,
                settings=replace(arm.settings, lr=lr, epochs=max(1, round(share * arm.settings.epochs))),
                min_area=area,
                inner=True,
                views={},
            )
            for arm, lr, area in settings
        ]
        return run(name, folder, grid, [0])

    def measure_both(rates: Sequence[float], areas: Sequence[float]) -> pd.DataFrame:
        return measure(share, [(arm, lr, area) for lr in rates for area in areas for arm in arms])

    def measure_crops(_: Sequence[float], areas: Sequence[float]) -> pd.DataFrame:
        return measure(1, [(arm, float(best.lr[arm.name]), area) for area in areas for arm in arms])

    if share == 1:
        best, rates, areas = choose_on_grid(measure_both, names, rates, areas)
    else:
        best, rates, _ = choose_on_grid(measure_both, names, rates, areas[:1])
        best, _, areas = choose_on_grid(measure_crops, names, [], areas)
    chosen = [
        replace(
            arm,
            settings=replace(arm.settings, lr=float(best.lr[arm.name])),
            min_area=float(best.min_area[arm.name]),
        )
        for arm in arms
    ]
    found = {n: {k: float(row[k]) for k in ("lr", "min_area", "accuracy", "nll")}
             for n, row in best.iterrows()}
    return chosen, found | {"grid": {"lr": rates, "min_area": areas, "share": share}}


def so_far(name: str, techniques: Sequence[str] = ()) -> pd.DataFrame:
    """Differences to the baseline in points; intervals at the level 1 - 0.05/m for m rows."""
    rows, right = read_study(place(name))
    rows = rows[rows["technique"].isin([BASELINE, *techniques])] if techniques else rows
    table = summarize(rows, correct=right)
    points = table[["mean", "difference", "low", "high"]].mul(100).round(2)
    return pd.concat([table[["size", "epochs", "technique", "seeds"]], points, table[["verdict"]]],
                     axis=1)


if __name__ == "__main__":
    print(so_far(sys.argv[1], sys.argv[2:]).to_string(index=False))
