"""Copy a finished study of `lessonkit ablate` into this folder: python store_study.py STUDY NAME "COMMAND"

Writes NAME.csv (one row a trial), NAME_correct.npz (for each trial, which validation photos it got right) and NAME.json
(how it was made).
"""

import json
import sys
from pathlib import Path

import numpy as np

from lessonkit.report import machine, versions
from lessonkit.trials import read_correct, read_trials


def store(study: str, name: str, command: str) -> None:
    here = Path(__file__).parent
    trials = read_trials(study).sort_values(["seed", "technique"])
    about = json.loads((Path(study) / "study.json").read_text(encoding="utf-8"))
    trials.to_csv(here / f"{name}.csv", index=False, lineterminator="\n")
    np.savez_compressed(here / f"{name}_correct.npz", **read_correct(study, trials))
    made = {"command": command, **about, "versions": versions(), "machine": machine()}
    (here / f"{name}.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    print(f"{len(trials)} trials stored as {name}.csv")


if __name__ == "__main__":
    store(*sys.argv[1:4])
