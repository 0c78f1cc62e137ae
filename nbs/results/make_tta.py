"""Made tta.csv and tta_correct.npz: python make_tta.py FOLDER_WITH_PHOTOS [SEEDS] [EPOCHS]

Trains the baseline once a seed (the last epoch's weights; none are chosen) and predicts the validation
photos in many ways: each row of the table is a set of views and a rule for merging. Nothing is trained
twice, so rows of one seed differ in the prediction alone. "random 4" are the first 4 of 16 random views
of the picture that validation sees. "training_style" are passes over the loader with training's own
crops, cut from the whole photo: what fastai's `learn.tta` does. tta_correct.npz: right or not, for each
row and photo. `predict_seconds` stands where a whole set was timed. Starting again continues where it
stopped. The photos of the stored table: the clothing dataset (small) by Alexey Grigorev and
contributors, its ten most frequent classes, 160 pixels on the shortest side. The seconds were taken on a
busy machine (two trainings side by side, and crops were slower then): compare passes, or run
`benchmarks/run.py`.
"""

import sys
import time
from dataclasses import replace

import torch
from joblib import Parallel, delayed
from sklearn.metrics import roc_auc_score
from resume import Rows

from lessonkit.ablation import TECHNIQUES
from lessonkit.foundation.batch_transforms import Augment
from lessonkit.foundation.calibration import score
from lessonkit.images import load_images
from lessonkit.normalization import channel_stats
from lessonkit.study.settings import Settings
from lessonkit.study.trainer import train_trial
from lessonkit.tta import (
    View, five_crop, flip, merge_views, product, random_views, scales, tta, view_spread,
)

SIZE = 64
MILD = Augment(min_area=0.7, max_ratio=8 / 7)
VIEWS = {"flip": flip, "five_crop": five_crop, "five_crop*flip": product(five_crop, flip),
         "scales 48, 80": scales(48, 80), "scales 80, 96": scales(80, 96), "random": random_views(16),
         "random_mild": random_views(4, augment=MILD),
         "upside_down": (View("upside down", lambda x: x.flip(-2)),),
         "rotations": tuple(View(f"{90 * turns}°", lambda x, turns=turns: x.rot90(turns, (-2, -1)))
                            for turns in (1, 2, 3))}
# how many of the views make a row each
FIRST = {"random": (1, 2, 4, 8, 16), "training_style": (1, 2, 4, 8)}
MERGES = {"mean": {}, "gmean": {"merge": "gmean"}, "max": {"merge": "max"}, "beta .25": {"beta": 0.25},
          "views alone": {"beta": 0}}


def predictions(learn):
    """Yield the name of each set of views, the predictions, plain first (1 + V, N, C), and the seconds
    they took."""
    tta(learn, n=0)  # the first one is slower
    start = time.perf_counter()
    plain = tta(learn, n=0).plain
    yield "plain", plain[None], time.perf_counter() - start
    for name, views in VIEWS.items():
        start = time.perf_counter()
        probs = tta(learn, views=views, keep_views=True).views
        yield name, probs, time.perf_counter() - start
    passes, start = [plain], time.perf_counter()
    for seed in range(max(FIRST["training_style"])):
        loader = learn.dls.valid.new(augment=learn.dls.train.augment, seed=seed)
        passes.append(tta(learn, [(x,) for x, _ in loader], n=0).plain)
    yield "training_style", torch.stack(passes), time.perf_counter() - start


def doubt(probs, merged, targets):
    """How well three signals find the photos that plain prediction gets wrong: area under the ROC
    curve."""
    wrong = probs[0].argmax(1).numpy() != targets
    signals = {"auc_plain": 1 - probs[0].amax(1), "auc_merged": 1 - merged.amax(1),
               "auc_spread": view_spread(probs)}
    return {name: round(roc_auc_score(wrong, signal.numpy()), 4) for name, signal in signals.items()}


def run(images, stats, seed, epochs):
    """Train once; return the rows of the table, and which photos were right in each."""
    torch.set_num_threads(1)  # two trainings side by side
    kept = []

    def predict(learn):
        kept.extend(predictions(learn))
        return kept[0][1][0]

    recipe, baseline = Settings(size=SIZE, epochs=epochs), replace(
        TECHNIQUES["baseline"], predict=predict
    )
    trained, _ = train_trial(images, baseline, seed, recipe, stats)
    targets, rows, correct = images.labels[images.indices("valid")], [], {}
    for name, every, seconds in kept:
        for n in FIRST.get(name, (len(every) - 1,)):
            probs = every[: n + 1]
            for merge, rule in MERGES.items() if n else [("mean", {})]:
                merged = merge_views(probs, **rule)
                technique = f"{name} {n}" if name in FIRST else name
                row = {"id": f"{technique}-{merge}-seed{seed}", "technique": technique, "merge": merge,
                       "seed": seed}
                row |= {"size": SIZE, "epochs": epochs, "n_views": n, "passes": n + 1,
                        **score(merged, targets)}
                # of all at once
                row |= {"predict_seconds": round(seconds, 3) if len(probs) == len(every) else None}
                row |= {"train_seconds": trained["train_seconds"], "pixels": trained["pixels"],
                        **doubt(probs, merged, targets)}
                rows.append(row)
                correct[row["id"]] = merged.argmax(1).numpy() == targets
    return rows, correct


def main(folder, seeds=5, epochs=10):
    images = load_images(folder)
    stats = channel_stats(images, SIZE)
    table = Rows("tta")
    wanted = [seed for seed in range(seeds) if seed not in {row["seed"] for row in table.rows}]
    trials = (delayed(run)(images, stats, seed, epochs) for seed in wanted)
    for new, right in Parallel(n_jobs=2, return_as="generator")(trials):
        table.add((row, right[row["id"]]) for row in new)
        print(f"seed {new[0]['seed']}: plain {new[0]['accuracy']:.3f}, "
              f"five_crop {new[6]['accuracy']:.3f}, {new[0]['train_seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
