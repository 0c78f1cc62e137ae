"""Made pretrained.csv and pretrained_tuning.csv: python make_pretrained.py FOLDER [SEEDS] [MORE_SEEDS]

What is each technique worth where a pretrained network is trained further? EfficientNet-Lite0, trained
on ImageNet, at 96 pixels, for four epochs (in the first the last layer alone) or what costs as many
pixels. One learning rate for all, the baseline's best on set-aside training photos, one seed. It is the
largest of the three; two larger ones, tried while the study ran, came out within a point of it.
For the pixels of four epochs there are 5.99 of growing, and rounding down leaves five, with 83% of the
pixels. So growing is trained for six as well, with 100.1% of them, as `lessonkit ablate` does.
And what do wrong statistics cost it? With each of MORE_SEEDS seeds all weights are trained, and the last
layer alone with the body as it is, on pictures normalized with the network's own statistics, ImageNet's,
none (pixels from 0 to 1) and none with pixels from 0 to 255. With all weights, the first is the row
"baseline" and the third "no_normalization".
The photos of the stored table: the clothing dataset (small) by Alexey Grigorev and contributors, its ten
most frequent classes, 160 pixels on the shortest side. Not Imagenette's: they are ImageNet's own, so the
network has been trained on them.
"""

import sys
from dataclasses import replace

from fastai.callback.core import Callback
from make_main import CUTMIX, mirrored
from resume import Arm, run, tune
from torchvision.models import ResNet18_Weights

from lessonkit.ablation import Technique, TECHNIQUES
from lessonkit.foundation.models import IN_A_WHEEL
from lessonkit.normalization import pretrained_stats, Stats
from lessonkit.study.settings import Settings
from lessonkit.study.trainer import head_and_body

RATES, LARGER_RATES = (1e-3, 2e-3, 5e-3), (8e-3, 1.2e-2)
SETTINGS = Settings(96, 4, model=IN_A_WHEEL, pretrained=True)
NAMES = "normalization", "progressive_resizing", "smaller_pictures", "mixup", "label_smoothing"
STATISTICS = {"its own": None, "ImageNet's": pretrained_stats(ResNet18_Weights.IMAGENET1K_V1),
              "none, 0 to 1": Stats((0.0,) * 3, (1.0,) * 3),
              "none, 0 to 255": Stats((0.0,) * 3, (1 / 255,) * 3)}


class Frozen(Callback):
    """Leaves the body as it is, the statistics of its batch norms too."""

    order = 1  # after the callback that trains the body from the second epoch on

    def before_epoch(self):
        for weights in head_and_body(self.learn.model)[0]:
            weights.requires_grad_(False)

    def before_train(self):
        self.learn.model.eval()


def arms(settings: Settings) -> list[Arm]:
    """The techniques, with the ways to predict that cost no training."""
    views = {"baseline": {"tta": mirrored},
             "progressive_resizing": {"progressive_resizing+tta": mirrored}}
    techniques = [TECHNIQUES[name] for name in ("baseline", *NAMES)] + [CUTMIX]
    found = [Arm(one, settings, views=views.get(one.variant, {})) for one in techniques]
    six = replace(settings, epochs=6, cost="epochs")
    name = "progressive_resizing, 6 epochs"
    return [*found, Arm(TECHNIQUES["progressive_resizing"], six, name, views={f"{name}+tta": mirrored})]


def of_statistics(settings: Settings) -> list[Arm]:
    """The baseline on pictures normalized in these ways; with a trained body, two are there already."""
    found = []
    for body, callbacks in (("trained", None), ("frozen", lambda: [Frozen()])):
        for name, stats in STATISTICS.items():
            technique = Technique("statistics", callbacks=callbacks)
            if body == "frozen" or name not in ("its own", "none, 0 to 1"):
                found.append(Arm(technique, settings, f"{name}, body {body}", stats=stats))
    return found


def main(folder: str, seeds: int = 10, more_seeds: int = 5) -> None:
    baseline = Arm(TECHNIQUES["baseline"], SETTINGS)
    (chosen,), _ = tune("pretrained_tuning", folder, [baseline], RATES, [baseline.min_area])
    larger = [replace(baseline, settings=replace(SETTINGS, lr=lr), inner=True) for lr in LARGER_RATES]
    run("pretrained_tuning", folder, larger, [0])
    settings = replace(SETTINGS, lr=chosen.settings.lr)
    run("pretrained", folder, arms(settings), range(seeds))
    run("pretrained", folder, of_statistics(settings), range(more_seeds))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
