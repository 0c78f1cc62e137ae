"""Made precision.csv and precision_correct.npz: python make_precision.py FOLDER [SEEDS]

Does training in bfloat16 cost accuracy? The baseline of main.csv at five epochs once more, computed in
float32; all else is the same. The photos of the stored table: Imagenette (fast.ai), a copy of 224 x 224
pixels.
"""

import json
import sys

from make_main import SIZE
from resume import HERE, Arm, run

from lessonkit.ablation import TECHNIQUES
from lessonkit.study.settings import Settings

if __name__ == "__main__":
    chosen = json.loads((HERE / "main_choice.json").read_text(encoding="utf-8"))["5 epochs"]["baseline"]
    settings = Settings(SIZE, 5, lr=chosen["lr"])
    arm = Arm(TECHNIQUES["baseline"], settings, min_area=chosen["min_area"], precision="float32")
    run("precision", sys.argv[1], [arm], range(int(sys.argv[2]) if sys.argv[2:] else 10))
