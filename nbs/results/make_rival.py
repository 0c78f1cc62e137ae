"""Made rival.csv and rival_correct.npz: python make_rival.py FOLDER [DRAWS]

What does the obvious rival reach? A small network that was pretrained on ImageNet (efficientnet-lite0)
looks at each photo once, and a logistic regression on its 1,280 features tells the classes; nothing else
is trained. At 96, 128 and 160 pixels, on all training photos and on some draws of 640 (each class with
its share). C is chosen by cross-validation within the photos trained on; the validation photos choose
nothing. One fit a row: `accuracy_low` and `accuracy_high` (Wilson, 95 %) tell chance in the validation
photos only. `seed` is the draw. `core_seconds` are those of the features of the photos trained on
(`feature_seconds`; for a draw its share of the whole set's) and of the fit with its cross-validation.
rival.json holds processor and commit, rival_correct.npz which validation photos were right, as bits.
The photos of the stored table: the clothing dataset (small) by Alexey Grigorev and contributors, its ten
most frequent classes, 160 pixels on the shortest side. Not on Imagenette, whose photos are ImageNet's:
the network has been trained on them. The machine did nothing else.
"""

import sys

import numpy as np
import torch
from resume import Table
from sklearn.model_selection import train_test_split

from lessonkit.foundation.models import pretrained_at_hand
from lessonkit.images import load_images
from lessonkit.study.rival import frozen_features, score_frozen
from lessonkit.study.trials import photos_identity

SIZES, FEW = (96, 128, 160), 640


def main(folder: str, draws: int = 5) -> None:
    torch.set_num_threads(1)
    images = load_images(folder)
    about = folder.rstrip("/").split("/")[-1]
    train, valid = images.indices("train"), images.indices("valid")
    table = Table("rival", photos_identity(images))
    picks = [(len(train), 0, train)]
    for draw in range(draws):
        few, _ = train_test_split(train, train_size=FEW, stratify=images.labels[train],
                                  random_state=draw)
        picks.append((FEW, draw, np.sort(few)))
    for size in SIZES:
        names = [f"frozen {n} photos draw={draw} size={size}" for n, draw, _ in picks]
        if {*names} <= table.done:
            continue
        features, wall, core = frozen_features(images, pretrained_at_hand()[1], size, progress=False)
        for name, (n, draw, rows) in zip(names, picks, strict=True):
            if name in table.done:
                continue
            found, right = score_frozen(images, features, rows)
            row = {"id": name, "images": about, "technique": "frozen", "seed": draw, "size": size,
                   "epochs": 1}
            row |= {"train_photos": n, "lr": None, "min_area": 1.0, "precision": "float32"}
            seconds, cores = found.pop("train_seconds"), found.pop("core_seconds")
            row |= found
            row |= {"train_seconds": round(wall * n + seconds, 3),
                    "core_seconds": round(core * n + cores, 3)}
            row |= {"feature_seconds": round(core * n, 3),
                    "predict_seconds": round(wall * len(valid), 3)}
            row |= {"pixels": n * size**2, "photos": len(valid)}
            table.add([(row, right)])
            print(f"{name}: {row['accuracy']:.4f}, C {row['C']:.1e}, {row['core_seconds']:.0f} core s")
    table.finish()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
