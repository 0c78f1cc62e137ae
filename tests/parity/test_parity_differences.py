"""Where we differ on purpose from PyTorch, torchvision, timm and fastai: the other library's answer
beside ours. The marks are the rows of the site's table; tools/differences.py collects them."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import v2

from lessonkit.label_smoothing import LabelSmoothingCrossEntropy
from lessonkit.mixup import MixUpCollate, cutmix, mixed_loss, mixup

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import differences  # noqa: E402

PRED, Y = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(3, dtype=torch.long)
X = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.differs(
    library="PyTorch",
    there="the mean of a loss is NaN where all items are ignored, or all right classes weigh 0",
    here="0",
    why="a batch of nothing must not turn the network into NaN",
)
@pytest.mark.parametrize("options, y", [({}, Y - 100), ({"weight": torch.tensor([0.0, 1])}, Y)])
def test_a_mean_of_nothing(options, y):
    assert F.cross_entropy(PRED, y, label_smoothing=0.1, **options).isnan()
    assert LabelSmoothingCrossEntropy(0.1, **options)(PRED, y) == 0
    assert mixed_loss(nn.CrossEntropyLoss(**options), PRED, y, 0.3) == 0


@pytest.mark.differs(
    library="PyTorch",
    there="class weights below 0 and soft labels that don't sum to 1 are computed with", here="an error",
    why="they are almost always class counts, logits or several labels by mistake",
)
def test_weights_and_labels_that_are_none():
    rows = torch.tensor([[3.0, -1], [0, 2], [1, 1]])
    assert (F.cross_entropy(PRED, rows).isfinite()
            and F.cross_entropy(PRED, Y, torch.tensor([-1.0, 2])).isfinite())
    with pytest.raises(ValueError, match="sum to 1"):
        LabelSmoothingCrossEntropy()(PRED, rows)
    with pytest.raises(ValueError, match="0 or more"):
        LabelSmoothingCrossEntropy(weight=[-1, 2])


@pytest.mark.differs(
    library="PyTorch", there="one logit with labels in floating point has the loss 0, whatever it is",
    here="an error that names BCEWithLogitsLoss",
    why="the softmax of a single number is 1, so nothing would be learned",
)
def test_one_logit():
    assert F.cross_entropy(PRED[:, :1], torch.ones(3, 1)) == 0
    with pytest.raises(ValueError, match="BCEWithLogitsLoss"):
        LabelSmoothingCrossEntropy()(PRED[:, :1], torch.ones(3, 1))


@pytest.mark.differs(
    library="PyTorch",
    there="label smoothing adds up in half precision, and becomes infinite for many classes",
    here="computed in float32, rounded once",
    why="float16 ends at 65,504",
)
def test_half_precision_overflows():
    pred, y = torch.zeros(2, 1000).half(), torch.tensor([0, 1])
    pred[:, 0] = 200
    exact = F.cross_entropy(pred.double(), y, label_smoothing=0.1)
    assert F.cross_entropy(pred, y, label_smoothing=0.1).isinf()
    assert float(LabelSmoothingCrossEntropy(0.1)(pred, y)) == pytest.approx(float(exact), rel=1e-3)


@pytest.mark.differs(
    library="torchvision", there="MixUp draws one λ for the whole batch",
    here="one for each photo (`per_item=False`: one for all)",
    why="a batch holds easy and hard mixtures at once; timm and fastai do so too",
)
def test_one_share_for_each_photo():
    photos, labels = torch.eye(4)[:, None, None].expand(4, 3, 6, 4), torch.arange(4)
    theirs = v2.MixUp(num_classes=4, alpha=1.0)(photos, labels)[1]
    mine = MixUpCollate(4, alpha=1.0)(list(zip(photos, labels)))[1]
    assert len(theirs[theirs > 0].unique()) <= 2 < len(mine[mine > 0].unique())


@pytest.mark.differs(
    library="torchvision", there="CutMix pastes the same box into all photos of a batch",
    here="a box of its own into each",
    why="as for λ: more different pictures from the same photos",
)
def test_a_box_for_each_photo():
    photos = torch.arange(8.0)[:, None, None, None].expand(8, 3, 16, 16)
    theirs, mine = (
        v2.CutMix(num_classes=8)(photos, torch.arange(8))[0], cutmix(photos, torch.full((8,), 0.5))[0]
    )
    boxes = [{tuple(box.flatten().tolist()) for box in (mixed != photos)[:, 0]}
             for mixed in (theirs, mine)]
    assert len(boxes[0]) == 1 < len(boxes[1])


@pytest.mark.differs(
    library="timm", here="a new batch",
    there="photos are mixed in place: the batch that was given is another one afterwards",
    why="who keeps the batch for a look, or mixes twice, would get something else",
)
def test_timm_changes_the_batch_that_it_was_given():
    timm = pytest.importorskip("timm.data.mixup")
    given, kept = X.clone(), X.clone()
    timm.Mixup(mixup_alpha=1.0, num_classes=4, label_smoothing=0)(given, torch.arange(4))
    assert not torch.equal(given, kept)
    mixup(kept, 0.3), cutmix(kept, 0.3)
    assert torch.equal(kept, X)


def test_the_table_has_a_row_for_each_library():
    rows = differences.differences()
    assert ({row["library"] for row in rows} >= {"PyTorch", "torchvision", "timm", "fastai"}
            and len(rows) >= 12)
    for row in rows:
        assert set(row) == {"library", "there", "here", "why", "file", "test"} and all(
            value.strip() and "|" not in value for value in row.values()
        )
    lines = differences.page().splitlines()
    assert (len([line for line in lines if line.startswith("| ") and line.count(" | ") == 4])
            == len(rows) + 1)
