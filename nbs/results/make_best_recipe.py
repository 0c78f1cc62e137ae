"""Made best_recipe.csv: python make_best_recipe.py FOLDER_WITH_PHOTOS [SEEDS]

A ladder from the recipe of fastai's chapter 7 to a good one for small photos on a small computer: one
change at a time, the same network. The first step has the chapter's five epochs; all others but the last
take about the same time on one core, the last twice that (core_seconds says what each took). fastai's
own augmentation is stood in for by weak crops; benchmarks/recipe.py runs the chapter's recipe with
fastai's own loading, which needs most of its time for that. Settings were chosen on photos set aside
from the training part, never on the validation photos. The last epoch's weights are judged, none are
chosen. Starting again continues where it stopped. The photos of the stored table: the clothing dataset
(small) by Alexey Grigorev and contributors, its ten most frequent classes, 160 pixels on the shortest
side.
"""

import sys
from dataclasses import replace

import torch
from fastai.learner import Learner
from torch import Tensor
from resume import Rows

from lessonkit.ablation import Technique
from lessonkit.foundation.batch_transforms import Augment
from lessonkit.foundation.calibration import score
from lessonkit.foundation.speedups import BFloat16, UseMuon
from lessonkit.images import image_dataloaders, load_images
from lessonkit.normalization import channel_stats
from lessonkit.study.settings import Settings
from lessonkit.study.trainer import train_trial
from lessonkit.tta import flip, tta

SIZE = 64
STEPS = {  # name -> smallest share of the photo that a crop keeps, learning rate, epochs, callbacks
    "chapter": (0.75, 3e-3, 5, ()),
    "quick_loading": (0.75, 3e-3, 19, ()),
    "stronger_crops": (0.35, 5e-3, 19, ()),
    "bfloat16": (0.35, 5e-3, 25, (BFloat16,)),
    "muon": (0.35, 5e-3, 19, (BFloat16, UseMuon)),
    "twice_as_long": (0.35, 5e-3, 38, (BFloat16, UseMuon)),
}


def run(images, stats, name: str, seed: int) -> list[dict]:
    """Train once; a row for the photos as they are, and one for the mean with the mirrored ones."""
    min_area, lr, epochs, callbacks = STEPS[name]
    mirrored = []

    def predict(learn: Learner) -> Tensor:
        result = tta(learn, views=flip)
        mirrored.append(result.probs)
        return result.plain

    technique = Technique(name, data={"augment": Augment(min_area)},
                          callbacks=lambda: [make() for make in callbacks])
    row, _ = train_trial(images, replace(technique, predict=predict), seed,
                         Settings(SIZE, epochs, lr=lr), stats)
    first = {"id": f"{name}-seed{seed}", "technique": name, "mirrored": False, "seed": seed, **row,
             "lr": lr, "min_area": min_area}
    targets = images.labels[images.indices("valid")]
    return [first, first | {"id": f"{name}-seed{seed}-mirrored", "mirrored": True,
                            **score(mirrored[0], targets)}]


def main(folder: str, seeds: int = 3) -> None:
    torch.set_num_threads(1)
    images = load_images(folder)
    stats = channel_stats(images, SIZE)
    for loader in image_dataloaders(images, SIZE, 64).loaders:
        loader.prepare()  # decodes
    table = Rows("best_recipe")
    for seed in range(seeds):
        for name in STEPS:
            if f"{name}-seed{seed}" not in table.done:
                plain, mirrored = run(images, stats, name, seed)
                table.add([(plain, None), (mirrored, None)])
                right = f"{plain['accuracy']:.3f} mirrored {mirrored['accuracy']:.3f}"
                print(plain["id"], right, f"{plain['core_seconds']:.0f} core seconds", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
