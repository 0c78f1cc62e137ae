"""Made growing.csv, growing_tuning.csv and growing_choice.json: python make_growing.py FOLDER [SEEDS]

Where is growing worth it? From 64 to 128 pixels, against 64, 96 and 128 pixels throughout, each for the
pixels of five epochs at 128, which are those of twenty at 64. Each is judged at the size at which it
ends, and has the learning rate and crops that were best for it on set-aside training photos, one seed.
The photos of the stored table: Imagenette (fast.ai), a copy of 224 x 224 pixels.
"""

import json
import sys

from make_main import AREAS, PRECISION, RATES
from resume import HERE, Arm, run, tune

from lessonkit.ablation import Technique, TECHNIQUES
from lessonkit.foundation.files import write_atomic
from lessonkit.study.settings import Settings

HALF = Technique("half_size", data={"size_share": 0.5}, train_cost=0.25)
ARMS = [TECHNIQUES[name] for name in ("baseline", "progressive_resizing", "smaller_pictures")] + [HALF]


def main(folder: str, seeds: int = 10) -> None:
    arms = [Arm(technique, Settings(128, 5), precision=PRECISION) for technique in ARMS]
    chosen, found = tune("growing_tuning", folder, arms, RATES, AREAS)
    write_atomic(HERE / "growing_choice.json", json.dumps(found, indent=1) + "\n")
    run("growing", folder, chosen, range(seeds))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
