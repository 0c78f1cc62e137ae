"""Made mixup_long.csv, mixup_longer.csv and the tuning: python make_mixup_long.py FOLDER [SEEDS]

Does MixUp win on few photos where training is long and both sides are tuned? 160 epochs at 32 pixels,
with a small alpha and fastai's, and CutMix beside them. Each arm has its own learning rate, chosen in
trainings of a quarter of the length, and then its own crops, at the whole length, both on set-aside
training photos with one seed. Then twice as long with the same settings and half the seeds, as very
long training with MixUp may hurt (Liu et al. 2023, Over-Training with Mixup May Hurt Generalization).
The photos of the stored tables: the clothing dataset (small) by Alexey Grigorev and contributors, its
ten most frequent classes, 160 pixels on the shortest side.
"""

import json
import sys
from dataclasses import replace

from make_main import AREAS, CUTMIX, RATES
from resume import HERE, Arm, run, tune

from lessonkit.ablation import Technique, TECHNIQUES
from lessonkit.foundation.files import write_atomic
from lessonkit.mixup import MixUp
from lessonkit.study.settings import Settings

EPOCHS = 160
GENTLE = Technique("mixup", callbacks=lambda: [MixUp(alpha=0.1)], settings={"alpha": 0.1})
ARMS = {"baseline": TECHNIQUES["baseline"], "mixup": TECHNIQUES["mixup"], "mixup, alpha 0.1": GENTLE,
        "cutmix": CUTMIX}


def main(folder: str, seeds: int = 10) -> None:
    arms = [Arm(technique, Settings(32, EPOCHS), name) for name, technique in ARMS.items()]
    chosen, found = tune("mixup_long_tuning", folder, arms, RATES, AREAS, share=0.25)
    write_atomic(HERE / "mixup_long_choice.json", json.dumps(found, indent=1) + "\n")
    run("mixup_long", folder, chosen, range(seeds))
    run("mixup_longer", folder, [twice_as_long(arm) for arm in chosen[:2]], range(seeds // 2))


def twice_as_long(arm: Arm) -> Arm:
    """The same way to train, and its settings, for twice the epochs."""
    epochs = 2 * arm.settings.epochs
    settings = replace(arm.settings, epochs=epochs)
    return replace(arm, name=f"{arm.name}, {epochs} epochs", settings=settings)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
