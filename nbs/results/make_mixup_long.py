"""Made mixup_long.csv and mixup_long_tuning.csv: python make_mixup_long.py FOLDER [SEEDS] [EPOCHS]

Does MixUp win on few photos where training is long and both sides are tuned? 160 epochs at 32 pixels,
with a small alpha and fastai's, and CutMix beside them. Each arm has its own learning rate, chosen in
trainings of a quarter of the length, and then its own crops, at the whole length, both on set-aside
training photos with one seed. The photos of the stored table: the clothing dataset (small) by Alexey
Grigorev and contributors, its ten most frequent classes, 160 pixels on the shortest side.
"""

import json
import sys

from make_main import AREAS, CUTMIX, RATES
from resume import HERE, Arm, run, tune

from lessonkit.ablation import Technique, TECHNIQUES
from lessonkit.foundation.files import write_atomic
from lessonkit.mixup import MixUp
from lessonkit.study.settings import Settings

GENTLE = Technique("mixup", callbacks=lambda: [MixUp(alpha=0.1)], settings={"alpha": 0.1})
ARMS = {"baseline": TECHNIQUES["baseline"], "mixup": TECHNIQUES["mixup"], "mixup, alpha 0.1": GENTLE,
        "cutmix": CUTMIX}


def main(folder: str, seeds: int = 10, epochs: int = 160) -> None:
    arms = [Arm(technique, Settings(32, epochs), name) for name, technique in ARMS.items()]
    chosen, found = tune("mixup_long_tuning", folder, arms, RATES, AREAS, share=0.25)
    write_atomic(HERE / "mixup_long_choice.json", json.dumps(found, indent=1) + "\n")
    run("mixup_long", folder, chosen, range(seeds))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
