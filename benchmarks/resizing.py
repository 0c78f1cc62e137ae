"""How much of the time of full size throughout growing pictures need for the same accuracy.

Trainings with several seeds take hours, so this reads the stored ones of
nbs/results/make_progressive_resizing.py, which says how they were made; seconds are those in which a
core worked.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from ratios import Line

from lessonkit.study.ranking import CostRatio, cost_ratio

STUDY = Path(__file__).parents[1] / "nbs" / "results" / "progressive_resizing.csv"
EPOCHS = {64: 10, 128: 5}  # of full size throughout: its final accuracy is to be reached
LIMIT = 0.6


@dataclass(frozen=True)
class StoredRatio(Line):
    """From a stored study; the spread is a 95 % interval over seeds, and "never" an accuracy that wasn't
    reached."""

    name: str
    found: CostRatio
    sign: str = "<="
    limit: float = LIMIT

    @property
    def before(self) -> str:
        return "at most " if self.found.at_most else ""

    def value(self) -> float:
        return self.found.ratio

    def each(self) -> list[float]:
        return [self.found.low, self.found.high]


def ratios() -> list[StoredRatio]:
    study = pd.read_csv(STUDY)
    rows = []
    for name in sorted(name for name in set(study["technique"]) if not name.startswith("fixed")):
        full = int(study.loc[study["technique"] == name, "end"].iloc[0])
        epochs = EPOCHS[full]
        seeds = study[(study["technique"] == name) & (study["epochs"] == epochs)]["seed"].nunique()
        title = (f"{full} px, {name}: seconds to the accuracy of {epochs} epochs at {full} px / their "
                 f"seconds ({seeds} stored seeds)")
        rows.append(StoredRatio(title, cost_ratio(study, name, f"fixed_{full}", epochs,
                                                  cost="train_cpu_seconds")))
    return rows
