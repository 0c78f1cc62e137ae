"""Made main.csv and main_tuning.csv: python make_main.py FOLDER [SEEDS] [EPOCHS ...]

What is each technique worth where every arm has its own learning rate and crops? At 64 pixels, 5 and 20
epochs, at equal pixels, progressive resizing at equal epochs too. The photos of the stored table:
Imagenette (fast.ai), a copy of 224 x 224 pixels.
1. Learning rate and crops are chosen for each arm on set-aside training photos, with one seed (for 20
   epochs the rate in trainings of 10, on the stronger crops, and then the crops in trainings of 20).
2. The best combination is formed by a rule from these results alone: all techniques that beat the
   baseline there; of two that can't go together (progressive_resizing and smaller_pictures, mixup and
   cutmix) the better. It is then tuned like an arm. main_choice.json holds what was chosen, before the
   first seed.
3. Then the seeds, trained on all training photos and judged on the validation photos, which choose
   nothing.
4. And the question that a winner must stand: did the baseline only choose badly? It is trained with the
   learning rates that it didn't choose and on the other crops, with up to five seeds each, and with the
   better of these rates with all seeds.
Predicted with the weights of an arm, and not trained for: its mirrored views (tta); for the baseline,
on both kinds of crops, larger pictures (batch norm counted anew on training photos of that size) and a
zoom on the centre.
"""

import copy
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

import pandas as pd
from fastai.learner import Learner
from resume import HERE, Arm, place, Predict, run, tune
from torch import nn, Tensor

from lessonkit.ablation import Technique, TECHNIQUES
from lessonkit.foundation.files import write_atomic
from lessonkit.foundation.models import refresh_batch_norm
from lessonkit.mixup import CutMix
from lessonkit.study.techniques import combine
from lessonkit.study.settings import Settings
from lessonkit.tta import corner_crops, flip, tta

SIZE, PRECISION = 64, "bfloat16"
RATES, AREAS = (2e-3, 5e-3, 1.2e-2), (0.35, 0.75)
CUTMIX = Technique("cutmix", callbacks=lambda: [CutMix()], settings={"alpha": 1.0})
CANDIDATES = {name: TECHNIQUES[name] for name in ("progressive_resizing", "smaller_pictures", "mixup")}
CANDIDATES |= {"cutmix": CUTMIX, "label_smoothing": TECHNIQUES["label_smoothing"]}
RIVALS = ("progressive_resizing", "smaller_pictures"), ("mixup", "cutmix")


def mirrored(learn: Learner) -> Tensor:
    """The photos as they are and mirrored."""
    return tta(learn, views=flip).probs


def zoomed(learn: Learner) -> Tensor:
    """The centre of the photos, seven eighths of their sides, alone."""
    return tta(learn, views=corner_crops()[:1], beta=0).probs


def larger(size: int, change: nn.Module | None = None) -> Predict:
    """Pictures of another size, perhaps changed on the device; batch norm's statistics from 32 batches.

    Accuracy falls by many points, and not for want of statistics: on one network of three epochs, 68.8%
    at 64 px, it was 54.4, 58.1 and 63.8% at 72, 80 and 96 px with the old ones, and 55.5, 59.9 and 66.2%
    with new ones, which at 64 px changed nothing (69.2%). `make_map_size.py` asks what it is.
    """

    def predict(learn: Learner) -> Tensor:
        network = nn.Sequential(change or nn.Identity(), copy.deepcopy(learn.model))
        train = learn.dls.train.new(size=size, augment=None)
        refresh_batch_norm(network, (x.as_subclass(Tensor) for x, _ in islice(train, 32)))
        return tta(network, learn.dls.valid.new(size=size), n=0).plain

    return predict


def regime(name: str) -> dict[str, Predict]:
    """The ways to predict that are compared for the baseline."""
    found = {"tta" if name == "baseline" else f"{name}+tta": mirrored, f"{name} zoomed": zoomed}
    return found | {f"{name} at {size} px": larger(size) for size in (72, 80)}


def arms(epochs: int) -> list[Arm]:
    """All that are trained, but for the combination."""
    settings = Settings(SIZE, epochs)
    found = [Arm(TECHNIQUES["baseline"], settings, views=regime("baseline")),
             Arm(TECHNIQUES["normalization"], settings)]
    found += [Arm(technique, settings) for technique in CANDIDATES.values()]
    equal = replace(settings, cost="epochs")
    found.append(Arm(TECHNIQUES["progressive_resizing"], equal, "progressive_resizing at equal epochs"))
    grown = {"progressive_resizing+tta": mirrored}
    found = [replace(arm, views=grown) if arm.name == "progressive_resizing" else arm for arm in found]
    return [replace(arm, precision=PRECISION) for arm in found]


def combination(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """All techniques that beat the baseline on the set-aside photos; of rivals the better."""
    gains = [name for name in CANDIDATES if found[name]["accuracy"] > found["baseline"]["accuracy"]]
    beaten = {min(pair, key=lambda name: found[name]["accuracy"])
              for pair in RIVALS if {*pair} <= {*gains}}
    return [name for name in gains if name not in beaten]


def tuned(name: str, folder: str, epochs: int) -> list[Arm]:
    """All arms with their own settings, the combination among them; the choice is stored."""
    share = 1 if epochs <= 5 else 0.5
    chosen, found = tune(f"{name}_tuning", folder, arms(epochs), RATES, AREAS, share)
    names = combination(found)
    together = "+".join(names) or "baseline"
    merged = {f"{together}+tta": mirrored}
    if len(names) == 1:
        chosen = [replace(arm, views=merged) if arm.name == together else arm for arm in chosen]
    elif names:
        technique = combine(*(CANDIDATES[one] for one in names))
        arm = Arm(technique, Settings(SIZE, epochs), together, precision=PRECISION, views=merged)
        rates, areas = found["grid"]["lr"], found["grid"]["min_area"]
        areas = sorted(areas, key=AREAS[0].__ne__)  # the rate is chosen on the same crops as the others'
        best, about = tune(f"{name}_tuning", folder, [arm], rates, areas, share)
        chosen, found = chosen + best, about | found
    path = HERE / f"{name}_choice.json"
    choices = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    choices[f"{epochs} epochs"] = {"combination": together, **found}
    write_atomic(path, json.dumps(choices, indent=1) + "\n")
    return chosen


def chosen_for(name: str, epochs: int) -> dict[str, dict]:
    """What the tuning chose, from main_choice.json."""
    return json.loads((HERE / f"{name}_choice.json").read_text(encoding="utf-8"))[f"{epochs} epochs"]


def other_rates(name: str, epochs: int) -> list[Arm]:
    """The baseline on its crops, with each learning rate of the grid that it didn't choose."""
    chosen = chosen_for(name, epochs)
    own = chosen["baseline"]
    return [Arm(TECHNIQUES["baseline"], Settings(SIZE, epochs, lr=lr), f"baseline, lr {lr:g}",
                own["min_area"], PRECISION) for lr in chosen["grid"]["lr"] if lr != own["lr"]]


def other_crops(name: str, epochs: int) -> Arm:
    """The baseline on other crops than the chosen, with the best of the rates tried on them."""
    rows, area = pd.read_csv(place(f"{name}_tuning")), chosen_for(name, epochs)["baseline"]["min_area"]
    others = rows[(rows["technique"] == "baseline") & (rows["min_area"] != area)]
    others = others[others["epochs"] == others["epochs"][others["epochs"] <= epochs].max()]
    best = others.sort_values(["accuracy", "nll"], ascending=[False, True]).iloc[0]
    called = f"baseline, {'weak' if best['min_area'] > area else 'strong'} crops"
    settings, views = Settings(SIZE, epochs, lr=float(best["lr"])), regime(called)
    return Arm(TECHNIQUES["baseline"], settings, called, float(best["min_area"]), PRECISION, views=views)


def choose_again(folder: str, seeds: int, lengths: Sequence[int], name: str) -> None:
    """Step 4: the baseline with the settings that it didn't choose."""
    for epochs in lengths:
        rates, few = other_rates(name, epochs), range(min(seeds, 5))
        best = run(name, folder, rates, few).groupby("technique")["accuracy"].mean().idxmax()
        run(name, folder, [arm for arm in rates if arm.name == best], range(seeds))
        run(name, folder, [other_crops(name, epochs)], few)


def main(folder: str, seeds: int = 10, lengths: Sequence[int] = (5, 20), name: str = "main") -> None:
    for epochs in lengths:
        run(name, folder, tuned(name, folder, epochs), range(seeds))
    choose_again(folder, seeds, lengths, name)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]),
         *([list(map(int, sys.argv[3:]))] if sys.argv[3:] else []))
