"""Loaders: the same batches for the same seed, every photo once an epoch, and fastai's own calls."""

import io
import os
import random

import fastai.callback.schedule  # noqa: F401  adds fit_one_cycle to Learner
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.progress import ProgressCallback
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from noise import save_noise
from PIL import Image

from lessonkit.foundation.batch_transforms import Augment, crops_of_batches, random_crops
from lessonkit.foundation.models import small_resnet
from lessonkit.images import ImageSet, decode, image_dataloaders
from lessonkit.photos import loaders as loaders_module
from lessonkit.photos.photo_cache import DamagedPhoto, read_photo


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LESSONKIT_CACHE", str(tmp_path_factory.mktemp("cache")))


def batches(loader) -> list[torch.Tensor]:
    return [x.clone() for x, *_ in loader]


def test_items_of_a_batch_batches_and_epochs_draw_different_crops(tmp_path):
    photo = save_noise(tmp_path / "a" / "0.png", size=(64, 64))
    for number in range(1, 40):
        os.link(photo, tmp_path / "a" / f"{number}.png")
    save_noise(tmp_path / "b" / "1.png"), save_noise(tmp_path / "b" / "2.png")
    train = image_dataloaders(ImageSet.from_folder(tmp_path), size=16, batch_size=8).train
    crops = torch.cat(batches(train) + batches(train))
    assert len({crop.numpy().tobytes() for crop in crops}) > 60  # of 66, two photos among them


def test_seed_repeats_everything_and_other_seeds_do_not(folder):
    found = ImageSet.from_folder(folder)
    first, again, other = (batches(image_dataloaders(found, 16, 4, seed=seed).train)
                           for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not all(torch.equal(a, b) for a, b in zip(first, other))


def test_the_global_random_state_is_neither_used_nor_changed(folder):
    found = ImageSet.from_folder(folder)
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = batches(image_dataloaders(found, 16, 4).train)
    assert (torch.equal(before[0], torch.get_rng_state())
            and (before[1] == np.random.get_state()[1]).all())
    torch.rand(5), np.random.rand(5), random.random()
    assert all(torch.equal(a, b) for a, b in zip(first, batches(image_dataloaders(found, 16, 4).train)))


def test_looking_at_a_batch_does_not_use_up_an_epoch(folder):
    loaders = image_dataloaders(ImageSet.from_folder(folder), 16, 4)
    untouched = batches(image_dataloaders(ImageSet.from_folder(folder), 16, 4).train)
    loaders.one_batch()
    assert all(torch.equal(a, b) for a, b in zip(untouched, batches(loaders.train)))


@pytest.mark.parametrize("augment", [True, False, Augment(flip=0)])
def test_every_photo_once_an_epoch(folder, augment):
    found = ImageSet.from_folder(folder)
    train = image_dataloaders(found, 16, 5, augment=augment).train
    for _ in range(2):
        seen = []
        for _ in train:
            seen += train.last_indices.tolist()
        assert sorted(seen) == found.indices("train").tolist()


def test_how_many_batches_are_drawn_at_once_changes_nothing(folder, monkeypatch):
    found = ImageSet.from_folder(folder)
    together = batches(image_dataloaders(found, 16, 2).train)
    monkeypatch.setattr(loaders_module, "DRAWN_AT_ONCE", 1)
    alone = batches(image_dataloaders(found, 16, 2).train)
    assert len(alone) > 2 and all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("sizes", [[], [1], [5, 5, 2], [1, 0, 7]])
def test_crops_of_several_batches_are_those_of_one_after_the_other(sizes):
    proportions = [torch.rand(n, generator=torch.Generator().manual_seed(n)) * 3 + 0.1 for n in sizes]
    one_by_one, together = torch.Generator().manual_seed(4), torch.Generator().manual_seed(4)
    expected = [random_crops(batch, Augment(), one_by_one) for batch in proportions]
    for mine, theirs in zip(crops_of_batches(proportions, Augment(), together), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert torch.equal(one_by_one.get_state(), together.get_state())


def test_labels_belong_to_their_photos(folder):
    found = ImageSet.from_folder(folder)
    train = image_dataloaders(found, 24, 4, augment=False).train
    whole = decode(found, 24)
    for x, y in train:
        assert y.tolist() == found.labels[train.last_indices].tolist()
        assert np.allclose(np.asarray(x) * 255, whole[train.last_indices], atol=1e-3)


def test_borders_are_in_reach_of_the_crops(tmp_path):
    """A wide photo with a red left and a blue right end: centre crops never see them, random crops
    do."""
    for label in ("a", "b"):
        for number in range(20):
            picture = Image.new("RGB", (300, 100), "grey")
            picture.paste("red", (0, 0, 20, 100)), picture.paste("blue", (280, 0, 300, 100))
            (tmp_path / label).mkdir(exist_ok=True)
            picture.putpixel((150, number), (0, 0, 0))
            picture.save(tmp_path / label / f"{number}.png")
    loaders = image_dataloaders(ImageSet.from_folder(tmp_path), 32, 32)
    train = torch.cat(batches(loaders.train))
    valid = torch.cat(batches(loaders.valid))
    reaches = ((train[:, 0] - train[:, 2]).abs().amax((1, 2)) > 0.5).float().mean()
    assert reaches > 0.1 and (valid[:, 0] - valid[:, 2]).abs().max() < 0.1


def test_a_learner_takes_the_loaders_as_they_are(folder):
    found = ImageSet.from_folder(folder)
    learn = Learner(image_dataloaders(found, 16, 5), small_resnet(2, width=8), CrossEntropyLossFlat())
    learn.remove_cb(ProgressCallback)
    learn.logger = lambda *_: None
    learn.fit_one_cycle(1)
    with learn.no_bar():
        for part, ds_idx in (("train", 0), ("valid", 1)):
            probs, targets = learn.get_preds(ds_idx=ds_idx)
            assert targets.tolist() == found.labels[found.indices(part)].tolist()
        name, number, probs = learn.predict(found.paths[0])
        assert found.classes[int(number)] == name
        probs, targets = learn.get_preds(dl=learn.dls.test_dl(found.paths[:3]))
        assert probs.shape == (3, 2) and targets is None


def test_a_learner_survives_a_last_batch_of_one(folder):
    found = ImageSet.from_folder(folder)
    assert len(found.indices("train")) == 16
    learn = Learner(image_dataloaders(found, 1, 5), small_resnet(2, width=8), CrossEntropyLossFlat())
    learn.remove_cb(ProgressCallback)
    learn.logger = lambda *_: None
    learn.fit(1)


@pytest.mark.parametrize("loss_func",
                         [torch.nn.functional.cross_entropy, torch.nn.CrossEntropyLoss(),
                          CrossEntropyLossFlat()])
def test_a_plain_pytorch_loop_takes_the_batches_as_they_are(folder, loss_func):
    model = small_resnet(2, width=8)
    for x, y in image_dataloaders(ImageSet.from_folder(folder), 16, 5).train:
        loss_func(model(x), y).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_show_batch_and_show_results_work(folder):
    import matplotlib.pyplot as plt

    found = ImageSet.from_folder(folder)
    learn = Learner(image_dataloaders(found, 16, 4), small_resnet(2, width=8), CrossEntropyLossFlat())
    plt.close("all")
    learn.dls.train.show_batch(max_n=4)
    assert len(plt.get_fignums()) == 1 and len(plt.gcf().axes) == 4
    titles = {axis.get_title() for axis in plt.gcf().axes}
    assert titles <= {"cat", "dog"} and titles
    with learn.no_bar():
        learn.show_results(max_n=4)
    assert all(set(axis.get_title().split()) <= {"cat", "dog"} for axis in plt.gcf().axes)
    plt.close("all")


def test_no_worker_processes(folder):
    assert image_dataloaders(ImageSet.from_folder(folder), 16, 4).train.fake_l.num_workers == 0


@pytest.mark.parametrize("settings",
                         [{"size": 0}, {"batch_size": 0}, {"seed": -1}, {"augment": Augment(min_area=2)},
                          {"augment": Augment(max_ratio=0.5)}, {"augment": Augment(flip=3)}])
def test_settings_out_of_range(folder, settings):
    with pytest.raises(ValueError, match=f"(?i){next(iter(settings))}"):
        image_dataloaders(ImageSet.from_folder(folder), **settings)


@pytest.mark.parametrize("settings",
                         [{"size": 2.5}, {"size": "64"}, {"batch_size": True}, {"seed": None},
                          {"normalize": "yes"}])
def test_settings_of_a_wrong_kind(folder, settings):
    with pytest.raises(TypeError, match=f"{next(iter(settings))}="):
        image_dataloaders(ImageSet.from_folder(folder), **settings)


def test_photos_of_other_classes_are_refused(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for label in ("dog", "fox"):
        for number in range(2):
            save_noise(other / label / f"{number}.png", seed=number)
    loaders = image_dataloaders(ImageSet.from_folder(folder), 16, 4)
    with pytest.raises(ValueError, match="other classes"):
        loaders.test_dl(ImageSet.from_folder(other))
    with pytest.raises(TypeError, match="list of files"):
        loaders.test_dl("cat/0.png")
    with pytest.raises(TypeError, match="sizee"):
        loaders.train.new(sizee=40)


def test_fastais_interpretation_sees_all_classes(folder):
    from fastai.interpret import ClassificationInterpretation

    learn = Learner(image_dataloaders(ImageSet.from_folder(folder), 16, 4), small_resnet(2, width=8),
                    CrossEntropyLossFlat())
    with learn.no_bar():
        seen = ClassificationInterpretation.from_learner(learn)
        assert seen.confusion_matrix().shape == (2, 2) and seen.confusion_matrix().sum() == 4


def test_a_loader_survives_show_batch_of_one_photo(folder):
    train = image_dataloaders(ImageSet.from_folder(folder), 16, 4).train
    train.show_batch(unique=True, max_n=2)
    assert sum(len(y) for _, y in train) == 16


# --- fastai's own calls

@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat
    from tiny_photos import draw

    images = draw(tmp_path_factory.mktemp("tiny"))
    loaders = image_dataloaders(images, size=16, batch_size=8)
    learn = Learner(loaders, small_resnet(2, 4), loss_func=CrossEntropyLossFlat())
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    return learn, images


def test_fastai_interprets_what_it_trained(trained):
    import matplotlib.pyplot as plt
    from fastai.vision.all import ClassificationInterpretation  # chapter 2 of the book imports all of it

    learn, images = trained
    with learn.no_bar():
        interpretation = ClassificationInterpretation.from_learner(learn)
        interpretation.plot_top_losses(3)
        interpretation.show_results([0, 1])
        plt.close("all")
        photos, probs, labels, _, losses = interpretation[[2, 5]]
    assert labels.tolist() == images.labels[images.indices("valid")][[2, 5]].tolist()
    assert photos.shape == (2, 3, 16, 16) and probs.shape == (2, 2) and losses.shape == (2,)


@pytest.mark.parametrize("kind",
                         ["path", "text", "Pillow", "array", "tensor", "bytes", "upload", "open file"])
def test_fastai_predicts_one_photo_however_it_comes(trained, kind):
    learn, images = trained
    row = images.indices("valid")[0]
    path = images.paths[row]
    picture, content = read_photo(path), path.read_bytes()
    array = np.asarray(picture)
    item = {
        "path": path, "text": str(path), "Pillow": picture, "array": array,
        "tensor": torch.tensor(array).permute(2, 0, 1),
        # as ipywidgets uploads it
        "bytes": content, "upload": memoryview(content), "open file": io.BytesIO(content),
    }[kind]
    with learn.no_bar():
        name, label, probs = learn.predict(item)
        expected = learn.get_preds()[0][0]
    torch.testing.assert_close(probs, expected)
    assert name == images.classes[int(label)] and int(label) == int(expected.argmax())


def test_a_photo_in_memory_is_turned_and_lit_like_its_file(trained, tmp_path):
    learn, _ = trained
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 32, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    pixels.save(tmp_path / "turned.png", exif=turned)
    pixels.convert("LA").save(tmp_path / "grey.png")
    Image.fromarray(np.arange(640, dtype=np.uint16).reshape(20, 32) * 100).save(tmp_path / "deep.png")
    files = sorted(tmp_path.iterdir())
    batches = [learn.dls.test_dl(items).one_batch()[0]
               for items in (files, map(Image.open, files), [files[0], *map(Image.open, files[1:])])]
    assert all(torch.equal(batch, batches[0]) for batch in batches[1:])
    with pytest.raises(DamagedPhoto, match="7 bytes can't be decoded"):
        learn.dls.test_dl([b"nothing"])


def test_fastai_is_told_what_cannot_be_predicted(trained):
    learn, images = trained
    make = learn.dls.test_dl
    for nothing in ([], images.take([])):
        with pytest.raises(ValueError, match="no photos to predict"):
            make(nothing)
    with pytest.raises(ValueError, match="a batch of 2"):
        make([torch.zeros(2, 3, 8, 8)])
    for wrong in (str(images.paths[0]), {"a": 1}, pd.DataFrame({"a": [1]}), 3):
        with pytest.raises(TypeError, match="list of files or images"):
            make(wrong)
    with pytest.raises(ValueError, match="no labels to show"):
        learn.show_results(dl=make(images.paths[:2]))
    assert make(pd.Series(images.paths[:3])).n == make(np.zeros((8, 8, 3))).n + 2 == 3


def test_fastai_finds_the_loss_and_shows_an_item(trained):
    import matplotlib.pyplot as plt
    from fastai.vision.all import Learner, resnet18, show_at, vision_learner

    learn, images = trained
    assert type(Learner(learn.dls, small_resnet(2, 4)).loss_func).__name__ == "CrossEntropyLossFlat"
    assert np.isfinite(vision_learner(learn.dls, resnet18, pretrained=False).validate()[0])
    axes = show_at(learn.dls.valid_ds, 0)
    assert axes.get_title() == images.classes[learn.dls.valid_ds[0][1]]
    plt.close("all")


def test_fastai_test_time_augmentation_varies_the_validation_photos(trained):
    learn, _ = trained
    with learn.no_bar():
        plain, labels = learn.get_preds()
        (varied, same), targets = learn.tta(n=2, beta=None)
    assert not torch.allclose(varied, plain, atol=1e-6) and varied.shape == plain.shape
    torch.testing.assert_close(same, plain)
    assert targets.tolist() == labels.tolist()
    assert learn.dls.valid.dataset.split_idx == 1 and labels.tolist() == learn.get_preds()[1].tolist()


def test_labels_that_are_not_known_are_asked_for_in_vain(trained, tmp_path):
    learn, images = trained
    known = learn.dls.test_dl(images.paths[:2], with_labels=True)
    assert next(iter(known))[1].tolist() == images.labels[:2].tolist()
    relative = learn.dls.test_dl([os.path.relpath(images.paths[1])], with_labels=True)
    assert next(iter(relative))[1].tolist() == [images.labels[1]]
    with pytest.raises(ValueError, match="No labels are known for .*new.png"):
        learn.dls.test_dl([images.paths[0], tmp_path / "new.png"], with_labels=True)
