"""Made crops.csv and crops_correct.npz: python make_crops.py FOLDER_WITH_PHOTOS [SEEDS]

Why lesson 8's first step is better than lesson 7's baseline at the same cost: they differ in the crops and in the learning rate.
Here are all four combinations of the two, five epochs at 64 pixels, the same seeds, first weights and batches. Beside the table lies,
for each trial, which validation photos it got right. The last epoch's weights are judged, none are chosen. Starting again continues
where it stopped. The photos of the stored table: the clothing dataset (small) by Alexey Grigorev and contributors, its ten most
frequent classes, 160 pixels on the shortest side. The machine did other work too: seconds are rough, pixels exact.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lessonkit.ablation import Recipe, Technique, train_trial
from lessonkit.batch_transforms import Augment
from lessonkit.images import load_images
from lessonkit.normalization import channel_stats

HERE = Path(__file__).parent
TABLE, CORRECT = HERE / "crops.csv", HERE / "crops_correct.npz"
SIZE, EPOCHS, WIDTH = 64, 5, 32
CROPS = {"strong crops": 0.35, "weak crops": 0.75}  # name -> smallest share of the photo that a crop keeps
RATES = 5e-3, 3e-3


def main(folder: str, seeds: int = 5) -> None:
    torch.set_num_threads(1)
    images = load_images(folder)
    stats = channel_stats(images, SIZE)
    rows = pd.read_csv(TABLE).to_dict("records") if TABLE.exists() else []
    correct = dict(np.load(CORRECT)) if CORRECT.exists() else {}
    done = {row["id"] for row in rows}
    for seed in range(seeds):
        for crops, min_area in CROPS.items():
            for lr in RATES:
                name = f"{crops}, lr {lr:g}"
                if f"{name}, seed {seed}" in done:
                    continue
                technique = Technique("crops", data={"augment": Augment(min_area)})
                recipe = Recipe(SIZE, EPOCHS, width=WIDTH, lr=lr)
                row, right = train_trial(images, technique, seed, recipe, stats)
                about = {"id": f"{name}, seed {seed}", "technique": name, "seed": seed, "lr": lr, "min_area": min_area}
                rows.append(about | {"width": WIDTH} | row)
                correct[about["id"]] = right.astype(np.uint8)
                pd.DataFrame(rows).to_csv(TABLE, index=False, lineterminator="\n")
                np.savez_compressed(CORRECT, **correct)
                print(about["id"], f"{row['accuracy']:.3f} {row['core_seconds']:.0f} core seconds", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
