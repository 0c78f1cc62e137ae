"""Made crops.csv and crops_correct.npz: python make_crops.py FOLDER_WITH_PHOTOS [SEEDS]
[SEEDS_OF_LONG_ONES]

How much the main study's baseline owes to its crops, and what of the main study's answers is left on
other ones. At 64 pixels: 1. why lesson 8's first step is better than the baseline at the same cost: they
differ in the crops and in the learning rate, so here are all four combinations of the two, five epochs;
2. some of its techniques on top of weak crops, five epochs; 3. strong and weak crops once more, twenty
epochs. The same seed means the same first weights and batches. Beside the table lies, for each trial,
which validation photos it got right. The last epoch's weights are judged, none are chosen. Starting
again continues where it stopped. The photos of the stored table: the clothing dataset (small) by Alexey
Grigorev and contributors, its ten most frequent classes, 160 pixels on the shortest side. The machine
did other work too: seconds are rough, pixels exact.
"""

import sys
from dataclasses import replace

import numpy as np
import torch
from resume import Rows

from lessonkit.foundation.batch_transforms import Augment
from lessonkit.images import load_images
from lessonkit.normalization import channel_stats
from lessonkit.study.techniques import choose_techniques
from lessonkit.study.settings import Settings
from lessonkit.study.trainer import epochs_at_cost, train_trial

SIZE, WIDTH = 64, 32
# name -> smallest share of the photo that a crop keeps
CROPS = {"strong crops": 0.35, "weak crops": 0.75}
RATES = 5e-3, 3e-3
ON_WEAK = ["smaller_pictures", "progressive_resizing", "progressive_resizing+tta", "tta", "mixup",
           "label_smoothing"]


def cases(long: bool) -> dict[str, tuple[str, str, float, int]]:
    """Name -> technique, crops, learning rate, epochs."""
    if long:
        return {f"{crops}, 20 epochs": ("baseline", crops, RATES[0], 20) for crops in CROPS}
    found = {f"{crops}, lr {lr:g}": ("baseline", crops, lr, 5) for crops in CROPS for lr in RATES}
    return found | {f"weak crops, {name}": (name, "weak crops", RATES[0], 5) for name in ON_WEAK}


def main(folder: str, seeds: int = 10, long_seeds: int = 10) -> None:
    torch.set_num_threads(1)
    images = load_images(folder)
    stats = channel_stats(images, SIZE)
    table = Rows("crops")
    trials = [(seed, case) for long, n in ((False, seeds), (True, long_seeds)) for seed in range(n)
              for case in cases(long).items()]
    for seed, (name, (recipe_name, crops, lr, epochs)) in trials:
        key = f"{name}, seed {seed}"
        if key in table.done:
            continue
        recipe = Settings(SIZE, epochs, width=WIDTH, lr=lr)
        technique = choose_techniques([recipe_name])[-1]
        technique = replace(technique, data={"augment": Augment(CROPS[crops])} | dict(technique.data))
        row, right = train_trial(images, technique, seed, recipe, stats,
                                 epochs=epochs_at_cost(technique, recipe))
        about = {"id": key, "technique": name, "seed": seed, "lr": lr, "min_area": CROPS[crops]}
        table.add([(about | {"width": WIDTH} | row, right.astype(np.uint8))])
        print(key, f"{row['accuracy']:.3f} {row['core_seconds']:.0f} core seconds", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
