"""Pictures, statistics and a loader of one batch, for the tests of normalization."""

import torch
from fastai.data.core import TfmdDL
from fastai.torch_core import TensorCategory, TensorImage

MEAN, STD = [0.1, 0.5, 0.7], [0.2, 0.3, 0.4]


def pictures(*shape, seed=0):
    """Floats from 0 to 1."""
    return torch.rand(*(shape or (4, 3, 8, 8)), generator=torch.Generator().manual_seed(seed))


def loader(*transforms, x=None, labels=None, **kwargs):
    """A fastai loader of one batch with these batch transforms."""
    x = pictures() if x is None else x
    labels = [TensorCategory(i % 2) for i in range(len(x))] if labels is None else labels
    pairs = [(TensorImage(picture), label) for picture, label in zip(x, labels)]
    return TfmdDL(pairs, bs=len(x), num_workers=0, after_batch=list(transforms), **kwargs)
