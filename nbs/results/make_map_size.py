"""Made map_size.csv: python make_map_size.py FOLDER [SEEDS]

Why does a network that was trained at 64 px lose so much at 72 px? Two things change: what it sees is
larger, and the last of the small network's five halvings leaves 3 x 3 numbers a channel in place of
2 x 2. Each row but the first is predicted with the same weights and changes one of them, or both:
- "72 px" changes both;
- "middle of 72 px" shows the middle 64 px of that, so only what it sees is larger;
- "mirrored border" is the picture at 64 px with one row or column more on each side, mirrored: 66 px, so
  only the map is larger.
Batch norm's statistics are counted anew for each of the three. The baseline for five epochs, on strong
crops. The photos of the stored table: Imagenette (fast.ai), a copy of 224 x 224 pixels.
"""

import sys

from make_main import larger, PRECISION, SIZE
from resume import Arm, run
from torch import nn
from torchvision.transforms import CenterCrop

from lessonkit.ablation import TECHNIQUES
from lessonkit.study.settings import Settings

VIEWS = {
    "72 px": larger(72),
    "middle of 72 px": larger(72, CenterCrop(SIZE)),
    "mirrored border": larger(SIZE, nn.ReflectionPad2d(1)),
}


if __name__ == "__main__":
    arm = Arm(TECHNIQUES["baseline"], Settings(SIZE, 5), precision=PRECISION, views=VIEWS)
    run("map_size", sys.argv[1], [arm], range(*map(int, sys.argv[2:3] or [10])))
