"""Made clothing.csv and clothing_tuning.csv: python make_clothing.py FOLDER [SEEDS] [EPOCHS ...]

Does what `make_main.py` finds hold on other photos? The same arms, tuned in the same way; but for the
stored 20 epochs both learning rate and crops were chosen in trainings of 10. The photos of the stored
table: the clothing dataset (small) by Alexey Grigorev and contributors, its ten most frequent
classes, 160 pixels on the shortest side.
"""

import sys

from make_main import main

if __name__ == "__main__":
    lengths = [int(epochs) for epochs in sys.argv[3:]] or [5, 20]
    main(sys.argv[1], int(sys.argv[2]) if sys.argv[2:] else 10, lengths, "clothing")
