"""Made progressive_resizing.csv, _sizes.csv, _leak.csv.

    python make_progressive_resizing.py FOLDER_WITH_PHOTOS [PART ...]

Parts, in the order in which they run when none is named:
- leak: two stages, 32 and then 64 px, on the training photos alone, which are split anew for it.
  "new_split" draws another split for the second stage, as the chapter does; "same_split" keeps the
  second stage's from the start. Both are judged on the second split's validation photos (`accuracy`) and
  on the set's own validation photos, which neither ever saw (`untouched`).
- curves: a fixed size throughout, and growing from half of a full size (64 or 128 px) to it, over
  trainings of several lengths; one cycle each, the same seeds, first weights, order and crops for all of
  them, judged at the size they end with (`size`). Growing is "linear" or in "steps", as in
  `size_schedule`, or in "halves": the first half of the batches small, the second at full size.
_sizes.csv holds, for each training of the curves, the accuracy at several other sizes. Photos right or
wrong are in progressive_resizing_correct.npz. The last epoch's weights are judged, none are chosen.
Starting again continues where it stopped. The photos of the stored tables: the clothing dataset (small)
by Alexey Grigorev and contributors, its ten most frequent classes, 160 pixels on the shortest side. The
trainings ran on a machine that others used as well: `train_seconds` says nothing, `train_cpu_seconds`
(seconds in which a core worked for it, loaders included) is rough, `pixels` is exact.
"""

import sys
import time

import numpy as np
import torch
from joblib import Parallel, delayed
from resume import Rows

from lessonkit.ablation import Technique
from lessonkit.foundation.calibration import score
from lessonkit.images import ImageSet, load_images
from lessonkit.normalization import channel_stats
from lessonkit.photos.image_set import split_rows
from lessonkit.progressive_resizing import ProgressiveResize, fit_stages
from lessonkit.study.settings import Settings
from lessonkit.study.trainer import make_learner, predict_plain, train_trial

# also small ones: the best fixed size at a cost may be small
FIXED = {64: (32, 48, 64), 128: (64, 96, 128)}
# (full size, epochs, seeds) of all ways to come to a full size, the most telling first
WAVES = ((64, (5, 10), range(3)), (128, (5,), range(3)), (64, (20,), range(2)),
         (64, (5, 10), range(3, 5)), (128, (5,), range(3, 5)), (128, (10,), range(3)),
         (64, (20,), range(2, 5)), (128, (10,), range(3, 5)))
# (full size, size, epochs): what else the cost of growing would buy
MORE = (64, 64, 3), (64, 48, 40), (64, 32, 40), (128, 128, 3)
MORE_SEEDS = range(3)
LOOK_AT = {64: (32, 40, 48, 64, 72, 80, 96, 112), 128: (64, 96, 128, 144, 160)}
# photos and epochs of each of both stages; few photos and many epochs are learnt by heart
LEAKS, LEAK_SEEDS = ((3068, 5), (3068, 10), (600, 20)), 5


def fixed(size):
    """All of the training at one size."""
    return f"fixed_{size}", Technique("baseline"), size


def growing(name, size, **how):
    """From half to full size."""
    start = size // 2
    change = Technique("progressive_resizing", callbacks=lambda: [ProgressiveResize(start, size, **how)])
    return f"{name}_{start}_{size}", change, size


def all_ways(full):
    """All that is compared at one full size."""
    return [
        growing("linear", full, kind="linear"),
        *(fixed(size) for size in FIXED[full][::-1]),
        # half of the batches small, the others large
        growing("halves", full, multiple_of=full // 2, finetune_fraction=0),
        growing("steps", full, kind="steps"),
    ]


def curve_trials():
    """What to train, the most telling first; a fixed size belongs to several full ones."""
    waves = [[(full, way, seed, n) for n in epochs for seed in seeds for way in all_ways(full)]
             for full, epochs, seeds in WAVES]
    more = [(full, fixed(size), seed, epochs) for full, size, epochs in MORE for seed in MORE_SEEDS]
    trials = [trial for wave in waves[:2] for trial in wave] + more + [
        trial for wave in waves[2:] for trial in wave
    ]
    return list({name_of(trial): trial for trial in trials}.values())


def name_of(trial):
    full, (name, _, _), seed, epochs = trial
    return f"{name}-epochs{epochs}-seed{seed}"


def warm_up():
    """What a process is slow at the first time isn't a training's."""
    images = load_images("bundled")
    train_trial(images.take(np.arange(0, len(images), 10)), Technique("baseline"), 0,
                Settings(size=32, epochs=1))


def run_curve(images, stats, trial):
    """Train once; the row of the table, which photos were right, and rows of the accuracy at other
    sizes."""
    torch.set_num_threads(1)  # two trainings side by side
    full, (name, change, size), seed, epochs = trial
    warm_up()
    kept, cpu = [], [time.process_time()]

    def predict(learn):
        kept.append(learn)
        cpu.append(time.process_time())
        return predict_plain(learn)

    change = Technique(change.name, callbacks=change.callbacks, predict=predict)
    row, right = train_trial(images, change, seed, Settings(size=size, epochs=epochs), stats)
    start = int(name.split("_")[1])
    head = {"id": name_of(trial), "technique": name, "seed": seed, "start": start, "end": size}
    row["train_cpu_seconds"] = round(cpu[1] - cpu[0], 3)
    targets, others = images.labels[images.indices("valid")], []
    for look_at in LOOK_AT[full]:
        kept[0].dls.valid.size = look_at
        probs = predict_plain(kept[0])
        others.append({**head, "epochs": epochs, "evaluated_at": look_at,
                       "accuracy": score(probs, targets)["accuracy"]})
    return {**head, **row}, right, others


def leak_name(way, seed, photos, epochs):
    return f"{way}-photos{photos}-epochs{epochs}-seed{seed}"


def run_leak(images, stats, way, seed, photos, epochs):
    """Two stages, judged on the second split and on photos that neither stage ever saw."""
    torch.set_num_threads(1)
    train = np.random.default_rng(0).permutation(images.indices("train"))[:photos]
    images = images.take(np.sort(np.concatenate([train, images.indices("valid")])))
    train = images.indices("train")
    names = [path.name for path in images.paths]
    first, second = (np.array(images.split, dtype="<U5") for _ in range(2))
    for split, number in ((first, 2 * seed), (second, 2 * seed + 1)):
        split[images.split == "valid"] = "test"
        split[train] = split_rows([names[row] for row in train], images.labels[train], 0.2, number)
    used = first if way == "new_split" else second
    recipe = Settings(size=32, epochs=epochs)
    torch.manual_seed(seed)
    learn, later = (make_learner(ImageSet(images.paths, images.labels, images.classes, split),
                                 Technique("baseline"), seed, settings, stats)
                    for split, settings in ((used, recipe), (second, Settings(size=64))))
    with learn.no_bar():
        fit_stages(learn, [(32, epochs)], recipe.lr)
        learn.dls = later.dls
        fit_stages(learn, [(64, epochs)], recipe.lr)
    seen = np.isin(np.flatnonzero(second == "valid"), np.flatnonzero(used == "train"))
    probs = predict_plain(learn)
    right = probs.argmax(1).numpy() == images.labels[second == "valid"]
    row = {"id": leak_name(way, seed, photos, epochs), "technique": way, "seed": seed, "size": 64,
           "epochs": 2 * epochs}
    row |= {"photos": len(train)}
    row |= score(probs, images.labels[second == "valid"])
    row |= {"validation_photos": len(seen), "trained_on": int(seen.sum())}
    row |= {"right_trained_on": right[seen].mean() if seen.any() else np.nan,
            "right_new": right[~seen].mean()}
    untouched = later.dls.valid.new(dataset=images.take(images.indices("valid")))
    learn.dls.loaders[1] = untouched
    row["untouched"] = score(predict_plain(learn), images.labels[images.indices("valid")])["accuracy"]
    return row


def curves(images):
    table, others = Rows("progressive_resizing"), Rows("progressive_resizing_sizes")
    stats = channel_stats(images, 64)  # one for all, so that nothing but the size differs
    trials = (delayed(run_curve)(images, stats, trial)
              for trial in curve_trials() if name_of(trial) not in table.done)
    for row, right, looks in Parallel(n_jobs=2, return_as="generator")(trials):
        others.rows += looks  # several of one trial
        others.write()
        table.add([(row, right)])
        cost = f"{row['train_cpu_seconds']:.0f} CPU s, {row['pixels'] / 1e6:.0f} million pixels"
        print(row["id"], f"{row['accuracy']:.3f}", cost, flush=True)


def leak(images):
    table = Rows("progressive_resizing_leak")
    stats = channel_stats(images, 64)
    ways = "new_split", "same_split"
    trials = [(way, seed, *size) for size in LEAKS for seed in range(LEAK_SEEDS) for way in ways]
    wanted = [trial for trial in trials if leak_name(*trial) not in table.done]
    for row in Parallel(n_jobs=2, return_as="generator")(delayed(run_leak)(images, stats, *trial)
                                                         for trial in wanted):
        table.add([(row, None)])
        print(row["id"], f"{row['accuracy']:.3f} untouched {row['untouched']:.3f}", flush=True)


def main(folder, *parts):
    images = load_images(folder)
    for part in parts or ("leak", "curves"):
        {"leak": leak, "curves": curves}[part](images)


if __name__ == "__main__":
    main(*sys.argv[1:])
