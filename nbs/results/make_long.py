"""Made long.csv and long_correct.npz: python make_long.py FOLDER [SEEDS] [EPOCHS] [MORE_SEEDS]

Do techniques that fight memorizing win where training is long? Small pictures of 32 pixels, 80 epochs,
at equal pixels. Learning rate and crops of each arm are those that `make_main.py` chose for it at 20
epochs (main_choice.json), so that run comes first. Label smoothing's rate is six times the baseline's,
so the baseline is trained with that rate, too. It came out better, and five seeds couldn't tell whether
CutMix and label smoothing beat it: these three have more seeds, added after that look. The photos of the
stored table: Imagenette (fast.ai), a copy of 224 x 224 pixels.
"""

import json
import sys

from make_main import CUTMIX
from resume import HERE, Arm, run

from lessonkit.ablation import TECHNIQUES
from lessonkit.study.settings import Settings

ARMS = [TECHNIQUES["baseline"], TECHNIQUES["mixup"], CUTMIX, TECHNIQUES["label_smoothing"]]


def main(folder: str, seeds: int = 5, epochs: int = 80, more_seeds: int = 5) -> None:
    chosen = json.loads((HERE / "main_choice.json").read_text(encoding="utf-8"))["20 epochs"]
    arms = [Arm(one, Settings(32, epochs, lr=chosen[one.name]["lr"]),
                min_area=chosen[one.name]["min_area"]) for one in ARMS]
    rate = chosen["label_smoothing"]["lr"]
    arms.append(Arm(ARMS[0], Settings(32, epochs, lr=rate), f"baseline, lr {rate:g}", arms[0].min_area))
    run("long", folder, arms, range(seeds))
    open_still = "cutmix", "label_smoothing", arms[-1].name
    run("long", folder, [arm for arm in arms if arm.name in open_still], range(seeds + more_seeds))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
