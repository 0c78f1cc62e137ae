"""Features: the network's own, whatever its layout, precision and head; a file that belongs to these
photos and continues."""

import contextlib
import os

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lessonkit.foundation.statistics import Stats
from lessonkit.images import ImageSet, decode
from lessonkit.selection.features import quick_features
from lessonkit.subset_selection import embed


def same(x):
    return x


def tiny_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Dropout(0.5), nn.Linear(4, 2))


def pixels(images, size):
    return torch.from_numpy(np.array(decode(images, size))) / 255


def test_embed_gives_what_enters_the_last_linear(photos):
    model = tiny_network()
    model[1].eval()
    modes = [part.training for part in model.modules()]
    x = embed(photos, model, size=8, batch_size=3, normalize=same, progress=False)
    assert [part.training for part in model.modules()] == modes and not any(
        part._forward_hooks for part in model.modules()
    )
    model.eval()
    with torch.no_grad():
        assert (x == pytest.approx(model[:4](pixels(photos, 8)).numpy(), abs=1e-5)
                and x.dtype == np.float32)
        named = embed(photos, model, size=8, layer="0", normalize=same, progress=False)
        assert named == pytest.approx(model[0](pixels(photos, 8)).mean((2, 3)).numpy(), abs=1e-5)
    with pytest.raises(ValueError, match="no layer 'head'"):
        embed(photos, model, size=8, layer="head")
    with pytest.raises(ValueError, match="doesn't end in a Linear"):
        embed(photos, model[:4], size=8)


def test_embed_of_its_own_network_repeats_itself_and_leaves_chance_alone(photos, monkeypatch):
    monkeypatch.setattr("lessonkit.selection.features.STEPS", 3)
    state = torch.get_rng_state()
    first = embed(photos, size=16, progress=False)
    assert first.shape == (len(photos), 128) and torch.equal(state, torch.get_rng_state())
    assert (embed(photos, size=16, progress=False) == first).all()
    assert not (embed(photos, size=16, progress=False, seed=1) == first).all()


def test_a_small_set_is_gone_through_twenty_times_at_most(photos, monkeypatch):
    steps = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, closure=None: steps.append(1))
    embed(photos, size=8, progress=False)
    assert len(steps) == 20  # one batch each


def test_quick_features_need_no_training_where_weights_are_at_hand(photos, monkeypatch, capsys):
    monkeypatch.setattr("lessonkit.selection.features.pretrained_at_hand",
                        lambda: ("tiny", tiny_network()))
    monkeypatch.setattr("lessonkit.selection.features.pretrained_stats",
                        lambda _: Stats((0.5,) * 3, (0.5,) * 3))
    monkeypatch.setattr("lessonkit.selection.features.small_resnet", lambda *_: pytest.fail("trained"))
    features, network = quick_features(photos, 8)
    assert features.shape == (len(photos), 4) and network == "tiny, pretrained, at 64 px"
    assert "Describing 16 photos with tiny, pretrained, at 64 px: about 1 s." in capsys.readouterr().out


def test_without_weights_at_hand_a_network_is_trained(photos, monkeypatch):
    monkeypatch.setattr("lessonkit.selection.features.pretrained_at_hand", lambda: None)
    monkeypatch.setattr("lessonkit.selection.features.STEPS", 2)
    features, network = quick_features(photos, 8, seed=3, progress=False)
    assert network == "small_resnet, trained for it, at 8 px"
    assert (features == embed(photos, size=8, seed=3, progress=False)).all()


def test_photos_of_one_colour_have_features(tmp_path, monkeypatch):
    monkeypatch.setattr("lessonkit.selection.features.STEPS", 2)
    for label in "ab":
        for number in range(3):
            path = tmp_path / "train" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), "grey").save(path)
    assert np.isfinite(embed(ImageSet.from_folder(tmp_path), size=8, progress=False)).all()


# --- which numbers (known faults)

# maps with the channels first and last, tokens with and without a class token, two heads, layers after
# the pool
FAMILIES = ["resnet18", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224",
            "swin_tiny_patch4_window7_224", "convnext_atto", "mobilenetv3_small_100", "regnetx_002",
            "mixer_s32_224", "poolformer_s12", "xcit_nano_12_p16_224", "focalnet_tiny_srf", "levit_128s",
            "crossvit_tiny_240", "vgg11", "edgenext_xx_small"]
FIXED = ("vit", "deit", "swin", "mixer", "levit", "crossvit")  # these take photos of one size


@pytest.mark.parametrize("classes", [10, 0])
@pytest.mark.parametrize("family", FAMILIES)
def test_fault_timms_networks_give_their_own_pooled_features(photos, family, classes):
    """Swin's maps were averaged over the wrong axes, and without a head the width of the last MLP came
    out."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(family, pretrained=False, num_classes=classes)
    size = model.pretrained_cfg["input_size"][-1] if family.startswith(FIXED) else 64
    few = photos.take([0, 5, 9])
    features = embed(few, model, size=size, normalize=same, progress=False)
    model.eval()
    with torch.no_grad():
        own = model.forward_head(model.forward_features(pixels(few, size)), pre_logits=True)
    assert features.shape == own.shape == (3, own.shape[1]) and features == pytest.approx(
        own.numpy(), abs=1e-4
    )


def test_fault_a_named_layer_of_swin_is_averaged_over_its_pixels(photos):
    timm = pytest.importorskip("timm")
    model = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, num_classes=0)
    few = photos.take([0, 5])
    found = embed(few, model, size=224, layer="layers.3", normalize=same, progress=False)
    model.eval()
    with torch.no_grad():
        maps = model.layers(model.patch_embed(pixels(few, 224)))
    assert maps.shape == (2, 7, 7, 768) and found == pytest.approx(maps.mean((1, 2)).numpy(), abs=1e-4)


class Shaped(nn.Module):
    """Gives what it is told to, whatever comes in."""

    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def forward(self, x):
        return torch.arange(1.0, 1 + np.prod([len(x), *self.shape])).reshape(len(x), *self.shape)


@pytest.mark.parametrize("shape, axes",
                         [((5, 3, 3), (2, 3)), ((3, 3, 5), (1, 2)), ((5, 1, 1), (2, 3)),
                          ((1, 1, 5), (1, 2)), ((1, 3, 3), (2, 3))])
def test_the_odd_side_of_a_map_is_its_channels(photos, shape, axes):
    wanted = Shaped(*shape)(torch.zeros(len(photos))).mean(axes)
    assert (embed(photos, nn.Sequential(Shaped(*shape)), size=8, layer="0", normalize=same).tolist()
            == wanted.tolist())


@pytest.mark.parametrize("shape", [(4, 4, 4), (4, 7), (2, 3, 4), (4, 5, 5, 5)])
def test_fault_a_layout_that_cannot_be_known_is_an_error(photos, shape):
    with pytest.raises(ValueError, match="which of these are the channels can't be known") as caught:
        embed(photos, nn.Sequential(Shaped(*shape)), size=8, layer="0", normalize=same)
    assert "\n" not in str(caught.value)
    if shape == (4, 4, 4):  # of a convolution it is known
        assert (embed(photos, nn.Sequential(nn.Conv2d(3, 4, 5)), size=8, layer="0", normalize=same).shape
                == (16, 4))


def headless(kind):
    """Networks of other libraries whose head was taken away: no Linear, one in a block, one in a
    gate."""
    import torchvision

    if kind == "gate":
        class Gated(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.pool, self.gate = (
                    nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 4)
                )

            def forward(self, x):
                x = self.conv(x)
                return self.pool(x * self.gate(self.pool(x).flatten(1)).sigmoid()[:, :, None,
                                                                                  None]).flatten(1)

        return Gated()
    network = getattr(torchvision.models, kind)(weights=None)
    name = {"resnet18": "fc", "vit_b_32": "heads", "swin_t": "head", "convnext_tiny": "classifier"}[kind]
    setattr(network, name, nn.Identity())
    return network


@pytest.mark.parametrize("kind", ["gate", "resnet18", "vit_b_32", "swin_t", "convnext_tiny"])
def test_fault_without_a_head_nothing_is_guessed(photos, kind):
    size = 224 if kind == "vit_b_32" else 32
    with pytest.raises(ValueError, match="name the layer"):
        embed(photos.take([0, 1]), headless(kind), size=size, normalize=same, progress=False)


def test_fault_the_linear_that_runs_last_counts_not_the_one_defined_last(photos):
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.first = nn.Linear(5, 2), nn.Linear(192, 5)

        def forward(self, x):
            return self.head(input=self.first(input=x.flatten(1)))  # by keyword

    model = Backwards()
    found = embed(photos, model, size=8, normalize=same, progress=False)
    assert found == pytest.approx(model.first(pixels(photos, 8).flatten(1)).detach().numpy(), abs=1e-5)
    assert (found.tolist()
            == embed(photos, model, size=8, layer="first", normalize=same, progress=False).tolist())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_fault_networks_of_another_precision(photos, kind, tmp_path):
    exact = embed(photos, tiny_network(), size=8, progress=False)
    found = embed(photos, tiny_network().to(kind), size=8, progress=False, out=tmp_path / "x.npy")
    assert found.dtype == np.float32 and np.array(found) == pytest.approx(exact, abs=0.05)


# --- a file

def counted(model):
    """The network, and a list that grows with each batch that it sees."""
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    return model, seen


def older(images, seconds=3600):
    """Make the files an hour old in every respect that a program can set."""
    for path in images.paths:
        facts = path.stat()
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns - seconds * 10**9))


def test_embed_goes_on_after_an_interruption(photos, tmp_path):
    out, whole = tmp_path / "features.npy", embed(photos, tiny_network(), size=8, batch_size=4,
                                                  progress=False)
    model, seen = counted(tiny_network())
    stop = model[0].register_forward_pre_hook(
        lambda *_: (_ for _ in ()).throw(KeyboardInterrupt) if len(seen) == 3 else None
    )
    with pytest.raises(KeyboardInterrupt):
        embed(photos, model, size=8, batch_size=4, out=out, progress=False)
    stop.remove()
    seen.clear()
    assert (np.array(embed(photos, model, size=8, batch_size=4, out=out, progress=False))
            == pytest.approx(whole, abs=1e-6))
    assert seen == [4, 4]  # went on where it was
    embed(photos, model, size=8, batch_size=4, out=out, progress=False)
    assert seen == [4, 4]  # the finished file was only opened
    kept = out.read_bytes()
    with pytest.raises(
        ValueError, match=r"features.npy holds other features \(size was 8, now 10\): name another file"
    ):
        embed(photos, model, size=10, batch_size=4, out=out, progress=False)
    assert seen == [4, 4] and out.read_bytes() == kept  # features are never overwritten
    (tmp_path / "mine.npy").write_bytes(b"mine")
    with pytest.raises(ValueError, match="no record"):
        embed(photos, model, size=8, out=tmp_path / "mine.npy")


@pytest.mark.parametrize("backend", ["loky", "dask"])
def test_workers_describe_blocks_of_photos_as_one_process_does(photos, tmp_path, monkeypatch, backend):
    distributed = pytest.importorskip("distributed") if backend == "dask" else None
    monkeypatch.setattr("lessonkit.selection.features.BLOCK", 5)
    model = tiny_network()
    alone = embed(photos, model, size=8, batch_size=2, progress=False)
    with contextlib.ExitStack() as stack:
        if distributed:
            cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
            stack.enter_context(distributed.Client(stack.enter_context(cluster)))
        stack.enter_context(joblib.parallel_config(backend))
        out = tmp_path / "features.npy"
        shared = embed(photos, model, size=8, batch_size=2, progress=False, n_jobs=2, out=out)
    assert len(photos) > 10 and shared == pytest.approx(alone, abs=1e-5)


def test_its_own_network_is_trained_once_though_interrupted(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("lessonkit.selection.features.STEPS", 3)
    whole = embed(photos, size=16, batch_size=4, progress=False)
    monkeypatch.setattr("lessonkit.selection.features.write_json",
                        lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        embed(photos, size=16, batch_size=4, out=tmp_path / "x.npy", progress=False)
    monkeypatch.undo()
    monkeypatch.setattr("lessonkit.selection.features.STEPS", 3)
    assert np.array_equal(embed(photos, size=16, batch_size=4, out=tmp_path / "x.npy", progress=False),
                          whole)
    assert sorted(path.name for path in tmp_path.glob("x*")) == ["x.json", "x.npy"]


@pytest.mark.parametrize("change", ["one pixel", "swapped", "label", "order"])
def test_fault_features_of_other_photos_of_equal_names_and_sizes(photos, tmp_path, change):
    """The file was kept when names and sizes were the same."""
    out, (model, seen) = tmp_path / "features.npy", counted(tiny_network())
    images = ImageSet([tmp_path / f"{number}.bmp" for number in range(4)], [0, 1, 0, 1], ["a", "b"],
                      ["train"] * 4)
    for number, path in enumerate(images.paths):
        Image.new("RGB", (8, 8), (60 * number, 10, 10)).save(path)  # files of one size
    older(images)
    embed(images, model, size=8, out=out, progress=False)
    embed(images, model, size=8, out=out, progress=False)
    assert seen == [4]
    before = [path.stat() for path in images.paths]
    if change == "one pixel":
        content = bytearray(images.paths[2].read_bytes())
        content[-5] ^= 1
        images.paths[2].write_bytes(content)
    elif change == "swapped":
        a, b = (path.read_bytes() for path in images.paths[:2])
        images.paths[0].write_bytes(b), images.paths[1].write_bytes(a)
    elif change == "label":
        images = ImageSet(images.paths, [1, 0, 0, 1], ["a", "b"], images.split)
    else:
        images = images.take([1, 0, 2, 3])
    for path, facts in zip(images.paths, before):
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # and times of change set back
    with pytest.raises(ValueError, match=r"\(photos was 4 photos \w+, now 4 photos \w+\)"):
        embed(images, model, size=8, out=out, progress=False)


def test_photos_moved_or_touched_keep_their_features(photos, tmp_path):
    out, (model, seen) = tmp_path / "features.npy", counted(tiny_network())
    embed(photos, model, size=8, out=out, progress=False)
    older(photos)
    embed(photos, model, size=8, out=out, progress=False)
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    embed(ImageSet.from_folder(tmp_path / "elsewhere"), model, size=8, out=out, progress=False)
    assert seen == [16]


def test_fault_other_normalizations_of_one_name_are_told_apart(photos, tmp_path):
    out, (model, seen) = tmp_path / "features.npy", counted(tiny_network())
    for factor in (1, 1):  # functions of one name, and made anew each time
        embed(photos, model, size=8, out=out, progress=False, normalize=lambda x: factor * x)
    with pytest.raises(ValueError, match="normalize was"):
        embed(photos, model, size=8, out=out, progress=False, normalize=lambda x: 2 * x)
    assert seen == [16]


def test_fault_a_folder_that_is_not_there_is_told_before_the_network_trains(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setattr("lessonkit.selection.features.small_resnet", lambda *_: pytest.fail("trained"))
    for out, words in ((tmp_path / "no" / "x.npy", "is no folder, make it first"),
                       (tmp_path / "x.txt", "must be a .npy"),
                       (photos.paths[0] / "x.npy", "is no folder")):
        with pytest.raises(ValueError, match=words) as caught:
            embed(photos, out=out, progress=False)
        assert "\n" not in str(caught.value)


def test_fault_a_file_cut_short_is_made_again(photos, tmp_path):
    out, (model, seen) = tmp_path / "features.npy", counted(tiny_network())
    first = np.array(embed(photos, model, size=8, out=out, progress=False))
    out.write_bytes(out.read_bytes()[:-40])
    assert (np.array_equal(embed(photos, model, size=8, out=out, progress=False), first)
            and seen == [16, 16])


@pytest.mark.parametrize("setting, error",
                         [({"size": 0}, ValueError), ({"size": 2.5}, TypeError),
                          ({"batch_size": 0}, ValueError), ({"seed": -1}, ValueError),
                          ({"normalize": 3}, TypeError)])
def test_settings_that_make_no_sense(photos, setting, error):
    with pytest.raises(error, match=next(iter(setting))):
        embed(photos, **setting)
