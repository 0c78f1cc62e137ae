"""Made clothing.csv and its tuning: python make_clothing.py FOLDER [SEEDS | again] [EPOCHS ...]

Does what `make_main.py` finds hold on other photos? The same arms, tuned in the same way; but for the
stored 20 epochs both learning rate and crops were chosen in trainings of 10, so the baseline's other
settings were added with `again`, which chooses no setting anew. The photos of the stored table: the
clothing dataset (small) by Alexey Grigorev and contributors, its ten most frequent classes, 160 pixels
on the shortest side.
"""

import sys

from make_main import choose_again, main

if __name__ == "__main__":
    lengths, asked = [int(epochs) for epochs in sys.argv[3:]] or [5, 20], (sys.argv[2:] or ["10"])[0]
    if asked == "again":
        choose_again(sys.argv[1], 10, lengths, "clothing")
    else:
        main(sys.argv[1], int(asked), lengths, "clothing")
