"""Made ablation_photos.csv: python make_ablation.py FOLDER_WITH_PHOTOS [SEEDS] [PIXELSxEPOCHS ...] and
ablation_bundled.csv: python make_ablation.py bundled [SEEDS] [PIXELSxEPOCHS ...]

Every technique of the course and its combinations, at two sizes and two lengths, at equal cost (pixels
trained on), judged on the validation photos. Beside the table lie, for each trial, which validation
photos it got right (_correct.npz), and how the studies were made (.json: settings, fingerprints,
versions). Starting again continues where it stopped: the stored table counts as done. The photos of the
stored table: the clothing dataset (small) by Alexey Grigorev and contributors, its ten most frequent
classes, 160 pixels on the shortest side. `beginning` in ablation_bundled.json is how the baseline with
seed 0 begins in the first setting: a test trains it again, and compares with it what is the same on
every machine. Two trainings ran side by side, one thread each, while the machine did other work too:
seconds are rough, pixels exact.
"""

import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback
from resume import write_arrays

from lessonkit.ablation import TECHNIQUES, run_ablation
from lessonkit.foundation.files import write_atomic
from lessonkit.images import ImageSet, load_images
from lessonkit.study.report import machine, versions
from lessonkit.study.settings import Settings
from lessonkit.study.trainer import train_trial
from lessonkit.study.trials import read_correct

HERE = Path(__file__).parent
SETTINGS = [(32, 5), (64, 5), (32, 20), (64, 20)]  # pixels, epochs
BUNDLED = [(32, 5), (32, 20)]


def unpack(name: str, folder: Path) -> None:
    """Lay out the stored trials as `run_ablation` stores them, so that it finds them."""
    table, about, right = (HERE / f"{name}{end}" for end in (".csv", ".json", "_correct.npz"))
    if not table.exists():
        return
    trials = pd.read_csv(table)
    correct, studies = np.load(right), json.loads(about.read_text(encoding="utf-8"))["studies"]
    for (size, epochs), rows in trials.groupby(["size", "epochs"]):
        study = folder / f"{size}px-{epochs}epochs"
        (study / "correct").mkdir(parents=True, exist_ok=True)
        (study / "study.json").write_text(json.dumps(studies[study.name]), encoding="utf-8")
        rows.drop(columns="key").to_json(study / "trials.jsonl", orient="records", lines=True,
                                         double_precision=15)
        for key, trial in zip(rows["key"], rows["id"]):
            np.save(study / "correct" / f"{trial}.npy", correct[key].astype(bool))


class Beginning(Callback):
    """Keeps of a training what is the same on every machine: the photos of each batch, how their crops
    look before the first step, and the loss of that step. What comes after depends on how a processor
    rounds, and a training makes small differences large."""

    def before_fit(self):
        self.photos, self.looks, self.loss_before = hashlib.sha256(), [], None

    def after_batch(self):
        if not self.training:
            return
        rows, labels = self.dls.train.last_indices, self.y
        self.photos.update(np.asarray([*rows, *labels.tolist()], dtype="<i8").tobytes())
        if self.loss_before is None:
            self.loss_before = self.loss.item()
            quarters = torch.nn.functional.adaptive_avg_pool2d(
                self.x.as_subclass(torch.Tensor)[:8].mean(1), 2
            )
            self.looks = [[round(value, 3) for value in photo] for photo in quarters.flatten(1).tolist()]

    @property
    def kept(self) -> dict[str, Any]:
        return {"photos": self.photos.hexdigest(), "looks": self.looks,
                "loss": round(self.loss_before, 5)}


def train_baseline(images: ImageSet, size: int,
                   epochs: int) -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
    """The baseline with seed 0: how it began, its row of the table, and which photos it got right."""
    seen = Beginning()
    row, right = train_trial(images, replace(TECHNIQUES["baseline"], callbacks=lambda: [seen]), 0,
                             Settings(size=size, epochs=epochs))
    return seen.kept, row, right


def pack(name: str, folder: Path, **about: Any) -> None:
    """Collect the trials of all studies into one table."""
    tables, correct, studies = [], {}, {}
    for study in sorted(folder.glob("*px-*epochs")):
        rows = [json.loads(line)
                for line in (study / "trials.jsonl").read_text(encoding="utf-8").splitlines()]
        trials = (
            pd.DataFrame([row for row in rows if "error" not in row]).drop_duplicates("id", keep="last")
        )
        if trials.empty:
            continue
        trials.insert(0, "key", trials["id"] + f"-{study.name}")
        right = read_correct(study, trials)
        correct |= {key: right[trial].astype(np.uint8)
                    for key, trial in zip(trials["key"], trials["id"])}
        studies[study.name] = json.loads((study / "study.json").read_text(encoding="utf-8"))
        tables.append(trials)
    write_arrays(HERE / f"{name}_correct.npz", correct)
    about |= {"studies": studies, "versions": versions(), "machine": machine()}
    write_atomic(HERE / f"{name}.json", json.dumps(about, indent=1) + "\n")
    table = pd.concat(tables).sort_values(["size", "epochs", "seed"], kind="stable")
    write_atomic(HERE / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))


def main(photos: str, seeds: int = 10, *only: str) -> None:
    torch.set_num_threads(1)
    bundled = photos == "bundled"
    name = "ablation_bundled" if bundled else "ablation_photos"
    folder = Path(tempfile.gettempdir()) / f"lessonkit-{name}"
    if not folder.exists():
        unpack(name, folder)
    images, settings = load_images(photos), BUNDLED if bundled else SETTINGS
    about = {"command": f"python make_ablation.py {Path(photos).name} {seeds}"}
    if bundled:
        about["beginning"] = train_baseline(images, *settings[0])[0]
    for upto in sorted({min(3, seeds), min(6, seeds), seeds}):  # some of everything first
        for size, epochs in settings:
            if not only or f"{size}x{epochs}" in only:
                study = folder / f"{size}px-{epochs}epochs"
                trained = {"epochs": epochs, "size": size, "jobs": 2, "threads": 1}
                run_ablation(images, None, upto, out=study, progress=False, **trained)
                pack(name, folder, **about)
                print(f"{study.name}: {upto} seeds", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]), *sys.argv[3:])
