"""Made bundled_difficulty.csv: python nbs/results/make_bundled_difficulty.py

The lessons' small network, trained from scratch on the bundled pictures at three sizes: the same seeds,
epochs and learning rate for all. The last epoch's weights are judged. `pair_accuracy` also counts the
other picture of a pair of look-alikes as right: what the network knows before it sees the details.
Starting again continues where it stopped.
"""

import time
from pathlib import Path

import pandas as pd
import torch
from fastai.callback import progress, schedule  # noqa: F401  (they give Learner its no_bar and fit_one_cycle)
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat

from lessonkit.foundation.files import write_atomic
from lessonkit.foundation.calibration import score
from lessonkit.foundation.models import small_resnet
from lessonkit.images import bundled_images, image_dataloaders
from lessonkit.normalization import Normalize, channel_stats
from lessonkit.photos.drawings import CLASSES, LOOK_ALIKES

SIZES, EPOCHS, SEEDS, RATE = (32, 64, 96), 8, range(3), 3e-3
TABLE = Path(__file__).with_name("bundled_difficulty.csv")

images = bundled_images()
assert list(images.classes) == list(CLASSES)
family = torch.arange(len(CLASSES))
for one, other in LOOK_ALIKES:
    family[CLASSES.index(other)] = CLASSES.index(one)

stats = channel_stats(images)
rows = pd.read_csv(TABLE).to_dict("records") if TABLE.exists() else []
for seed in SEEDS:
    for size in SIZES:
        if any((row["seed"], row["size"]) == (seed, size) for row in rows):
            continue
        dls = image_dataloaders(images, size=size, normalize=Normalize(stats.mean, stats.std), seed=seed)
        torch.manual_seed(seed)
        model = small_resnet(len(CLASSES)).to(memory_format=torch.channels_last)
        learn = Learner(dls, model, loss_func=CrossEntropyLossFlat(), path="/tmp")
        with learn.no_bar(), learn.no_logging():
            start = time.perf_counter()
            learn.fit_one_cycle(EPOCHS, RATE)
            seconds = time.perf_counter() - start
            probs, targets = learn.get_preds(dl=dls.valid)
        scores = {name: round(value, 4) for name, value in score(probs, targets).items()}
        in_pair = (family[probs.argmax(1)] == family[targets]).float().mean().item()
        rows.append({"technique": "baseline", "seed": seed, "size": size, "epochs": EPOCHS, **scores,
                     "pair_accuracy": round(in_pair, 4), "train_seconds": round(seconds, 1),
                     "pixels": EPOCHS * len(dls.train.dataset) * size**2})
        print(rows[-1], flush=True)
        write_atomic(TABLE, pd.DataFrame(rows).to_csv(index=False))
