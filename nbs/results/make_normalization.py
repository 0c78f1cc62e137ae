"""Made normalization.csv and normalization_correct.npz: python make_normalization.py FOLDER_WITH_PHOTOS

Three units for the pixels (normalized with the training photos' own statistics, 0 to 1, 0 to 255), three
networks (with batch normalization; without; without, but with the first weights of He et al. 2015),
three learning rates; the same seeds, first weights, batches, crops and number of steps for all of them.
The last epoch's weights are judged, none are chosen. Starting again continues where it stopped. The
photos of the stored table: the clothing dataset (small) by Alexey Grigorev and contributors, its ten
most frequent classes, 160 pixels on the shortest side. The seconds were taken on a busy machine and say
nothing.
"""

import sys
import time

import torch
from fastai.callback import progress, schedule  # noqa: F401  (they give Learner its no_bar and fit_one_cycle)
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from resume import Rows

from lessonkit.foundation.calibration import score
from lessonkit.foundation.models import small_resnet
from lessonkit.images import image_dataloaders, load_images
from lessonkit.normalization import Normalize, channel_stats

SIZE, EPOCHS, WIDTH, SEEDS = 32, 8, 16, range(4)
NETWORKS = "with batch norm", "no batch norm", "no batch norm, He start"
RATES = 3e-3, 1e-2, 1e-3


def network(n_classes, name, seed):
    """The small residual network of one of the three kinds."""
    torch.manual_seed(seed)
    model = small_resnet(n_classes, width=WIDTH, norm=name == "with batch norm")
    if name.endswith("He start"):
        for layer in model.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                torch.nn.init.zeros_(layer.bias)
    return model.to(memory_format=torch.channels_last)


def run(images, units, unit, kind, rate, seed):
    """Train once; return the row of the table and which validation photos were right."""
    dls = image_dataloaders(images, size=SIZE, normalize=units[unit], seed=seed)
    learn = Learner(dls, network(len(images.classes), kind, seed), loss_func=CrossEntropyLossFlat(),
                    path="/tmp")
    with learn.no_bar(), learn.no_logging():
        start = time.perf_counter()
        learn.fit_one_cycle(EPOCHS, rate)
        trained = time.perf_counter()
        probs, targets = learn.get_preds(dl=dls.valid)
        predicted = time.perf_counter()
    broken = not torch.isfinite(probs).all()  # training diverged: count it as knowing nothing
    probs = torch.full_like(probs, 1 / probs.shape[1]) if broken else probs
    row = {
        "technique": f"{unit}, {kind}",
        "seed": seed,
        "lr": rate,
        "size": SIZE,
        "epochs": EPOCHS,
        **score(probs, targets),
        "diverged": bool(broken),
        "unit": unit,
        "network": kind,
        "train_seconds": round(trained - start, 2),
        "predict_seconds": round(predicted - trained, 2),
        "pixels": EPOCHS * len(dls.train.dataset) * SIZE**2,
    }
    row = {"id": f"{row['technique']}, lr {rate:g}, seed {seed}", **row}
    return row, (probs.argmax(1) == targets).numpy()


def main(folder):
    images = load_images(folder)
    units = {"normalized": Normalize(channel_stats(images, size=SIZE)), "0 to 1": None,
             "0 to 255": Normalize([0.0] * 3, [1 / 255] * 3)}
    table = Rows("normalization")
    done = {(row["unit"], row["network"], row["lr"], row["seed"]) for row in table.rows}
    wanted = [(unit, kind, rate, seed)
              for seed in SEEDS for rate in RATES for kind in NETWORKS for unit in units]
    for trial in wanted:
        if trial in done:
            continue
        row, right = run(images, units, *trial)
        table.add([(row, right)])
        print(row["id"], f"{row['accuracy']:.3f}", f"{row['train_seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
