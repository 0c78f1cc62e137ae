"""Made growing.csv, its tuning and growing_seconds.csv: python make_growing.py FOLDER [SEEDS | seconds]

Where is growing worth it? From 64 to 128 pixels, against 64, 96 and 128 pixels throughout, each for the
pixels of five epochs at 128, which are those of twenty at 64. Each is judged at the size at which it
ends, and has the learning rate and crops that were best for it on set-aside training photos, one seed.
In one arm the crops grow stronger with the pictures, as in EfficientNetV2 (Tan & Le 2021, section 4):
from whole photos in the first epoch to its own crops in the last. What an arm costs is taken from one
more run of it, on a machine that does nothing else (`seconds`).
The photos of the stored table: Imagenette (fast.ai), a copy of 224 x 224 pixels.
"""

import json
import sys

from fastai.callback.core import Callback
from make_main import AREAS, PRECISION, RATES
from resume import HERE, Arm, run, tune

from lessonkit.ablation import Technique, TECHNIQUES
from lessonkit.foundation.files import write_atomic
from lessonkit.progressive_resizing import ProgressiveResize
from lessonkit.study.settings import Settings


class GrowingCrops(Callback):
    """Crops that grow stronger with each epoch, from whole photos to those that the loader was given."""

    def before_fit(self):
        self.last = self.dls.train.augment

    def before_train(self):
        share = self.epoch / max(1, self.n_epoch - 1)
        self.dls.train.augment = self.last._replace(min_area=1 - share * (1 - self.last.min_area))


GROWING = TECHNIQUES["progressive_resizing"]
BOTH = Technique("growing_crops", callbacks=lambda: [ProgressiveResize(), GrowingCrops()],
                 train_cost=GROWING.train_cost)
HALF = Technique("half_size", data={"size_share": 0.5}, train_cost=0.25)
ARMS = [TECHNIQUES["baseline"], GROWING, TECHNIQUES["smaller_pictures"], HALF, BOTH]


def main(folder: str, asked: str = "10") -> None:
    arms = [Arm(technique, Settings(128, 5), precision=PRECISION) for technique in ARMS]
    chosen, found = tune("growing_tuning", folder, arms, RATES, AREAS)
    write_atomic(HERE / "growing_choice.json", json.dumps(found, indent=1) + "\n")
    if asked == "seconds":
        run("growing_seconds", folder, chosen, [0], jobs=1)
    else:
        run("growing", folder, chosen, range(int(asked)))


if __name__ == "__main__":
    main(*sys.argv[1:])
