"""Made ladder.csv and ladder_seconds.csv: python make_ladder.py FOLDER [SEEDS | seconds]

How good can the small network get on small photos in a minute or two of one core? A ladder from the
recipe of fastai's chapter 7, rung by rung. On the first part each rung changes the one before; the rungs
after `twice_as_long` each add to that one, at equal pixels. What else changes with a rung stands in the
columns: stronger crops come with a higher learning rate, bfloat16 with more epochs, since it is quicker,
and Muon with fewer, since its steps take longer. Settings were chosen on photos set aside from the
training part. The last epoch's weights are judged, none are chosen; each rung is predicted with the
mirrored view, too. What a rung costs is taken from one more run of it, on a machine that does nothing
else (`seconds`). The photos of the stored table: the clothing dataset (small) by Alexey Grigorev and
contributors, its ten most frequent classes, 160 pixels on the shortest side.
"""

import sys
from functools import partial

from make_main import mirrored
from resume import Arm, run

from lessonkit.ablation import Technique, TECHNIQUES
from lessonkit.progressive_resizing import pixel_share, ProgressiveResize, size_schedule
from lessonkit.study.settings import Settings
from lessonkit.study.techniques import combine, EXTRAS

SIZE, QUICK, LONG = 64, 19, 38
SMALL, LAST = 48, 0.2  # pixels of the smaller size, and the share of the steps after it
BASE, MUON, GROWING = TECHNIQUES["baseline"], EXTRAS["muon"], TECHNIQUES["progressive_resizing"]


class TwoSizes(ProgressiveResize):
    """Small images, and full size in the last stretch only."""

    def plan_sizes(self, steps: int, full: int) -> list[int]:
        last = max(1, round(LAST * steps))
        return [SMALL] * (steps - last) + [full] * last


NEARLY_FULL = Technique("from_48_px", callbacks=lambda: [ProgressiveResize(start=SMALL, kind="steps")],
                        train_cost=pixel_share(size_schedule(100, SMALL, SIZE, kind="steps")))
TWO_SIZES = Technique("48_then_64_px", callbacks=lambda: [TwoSizes(start=SMALL)],
                      train_cost=(1 - LAST) * (SMALL / SIZE) ** 2 + LAST)


def rung(name: str, technique: Technique, epochs: int, lr: float = 5e-3, min_area: float = 0.35,
         precision: str = "bfloat16") -> Arm:
    """One recipe, and the same predicted with the mirrored view."""
    return Arm(technique, Settings(SIZE, epochs, lr=lr), name, min_area, precision,
               views={f"{name}, mirrored": mirrored})


longer = partial(rung, epochs=LONG)
RUNGS = [
    rung("chapter", BASE, 5, 3e-3, 0.75, "float32"),
    rung("longer", BASE, QUICK, 3e-3, 0.75, "float32"),
    rung("stronger_crops", BASE, QUICK, precision="float32"),
    rung("bfloat16", BASE, 25),
    rung("muon", MUON, QUICK),
    longer("twice_as_long", MUON),
    longer("growing", combine(MUON, GROWING)),
    longer("from_48_px", combine(MUON, NEARLY_FULL)),
    longer("48_then_64_px", combine(MUON, TWO_SIZES)),
    longer("label_smoothing", combine(MUON, TECHNIQUES["label_smoothing"])),
    longer("growing+label_smoothing", combine(MUON, GROWING, TECHNIQUES["label_smoothing"])),
]


if __name__ == "__main__":
    if sys.argv[2:] == ["seconds"]:
        run("ladder_seconds", sys.argv[1], RUNGS, [0], jobs=1)
    else:
        run("ladder", sys.argv[1], RUNGS, range(*map(int, sys.argv[2:3] or [10])))
