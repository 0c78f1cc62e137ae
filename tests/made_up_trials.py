"""Tables of made-up trials, for the tests of comparisons and rankings."""

import numpy as np
import pandas as pd


def table(accuracies: dict, size: int = 64, epochs: int = 5) -> pd.DataFrame:
    """A table of trials from `{technique: {seed: accuracy}}`."""
    return pd.DataFrame(
        [
            {"technique": name, "seed": seed, "size": size, "epochs": epochs, "accuracy": accuracy,
             "train_seconds": 10.0, "predict_seconds": 1.0, "pixels": 100}
            for name, seeds in accuracies.items()
            for seed, accuracy in seeds.items()
        ]
    )


def with_photos(right: dict[str, np.ndarray]) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Trials and their correctness from `{technique: (n_seeds, n_photos)}`."""
    correct = {f"{name}-{seed}": row for name, rows in right.items() for seed, row in enumerate(rows)}
    trials = table({name: dict(enumerate(rows.mean(1))) for name, rows in right.items()})
    return trials.assign(id=trials.technique + "-" + trials.seed.astype(str)), correct
