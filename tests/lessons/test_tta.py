"""Test-time augmentation: predictions of networks and Learners, equal to fastai's; each known fault by
name."""


import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.progress import no_bar  # noqa: F401  gives Learner its no_bar
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader as FastaiLoader
from fastai.data.transforms import get_image_files, parent_label
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, FocalLossFlat, MSELossFlat
from fastai.vision.augment import RandomResizedCrop, RandTransform, Resize, aug_transforms
from fastai.vision.core import TensorImage
from fastai.vision.data import ImageBlock
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tta_helpers import ALL_VIEWS, by_hand, labelled, network, photos

from lessonkit.foundation.batch_transforms import Augment
from lessonkit.foundation.models import small_resnet
from lessonkit.images import ImageSet, image_dataloaders
from lessonkit.label_smoothing import LabelSmoothingCrossEntropy
from lessonkit.mixup import MixUp
from lessonkit.normalization import Normalize
from lessonkit.tta import (
    MERGES, TTA, TTAModel, View, five_crop, flip, merge_views, product, quarter_turns, random_views,
    scales, show_views, tta, vertical_flip, view_spread,
)


# --- tta of a plain module

@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("beta", [None, 0.25])
def test_tta_is_predicting_each_view_and_merging(merge, beta):
    model, x = network(), photos(11)
    result = tta(model, x, five_crop, merge=merge, beta=beta, keep_views=True, batch_size=4)
    each = torch.stack([by_hand(model, x), *(by_hand(model, view(x)) for view in five_crop)])
    torch.testing.assert_close(result.views, each)
    torch.testing.assert_close(result.probs, merge_views(each, merge, beta))
    torch.testing.assert_close(result.spread, view_spread(each))
    torch.testing.assert_close(result.probs.sum(1), torch.ones(11))
    assert result.targets is None and isinstance(result, TTA)


def test_the_plain_result_stands_beside_it():
    """Fault: TTA makes it worse, and nobody notices."""
    result = tta(network(), photos())
    torch.testing.assert_close(result.plain, by_hand(network(), photos()))
    assert (not torch.allclose(result.plain, result.probs) and result.views is None
            and result.spread is None)


@pytest.mark.parametrize("how", [{"n": 0}, {"views": ()}])
def test_no_views_is_the_plain_prediction(how):
    """Fault: fails with n = 0."""
    for merge in MERGES:
        for beta in (None, 0, 0.25):
            result = tta(network(), photos(), **how, merge=merge, beta=beta, keep_views=True)
            torch.testing.assert_close(result.probs, by_hand(network(), photos()))
            assert result.views.shape == (1, 5, 4) and not result.spread.any()


def test_the_default_is_the_mirror_image_and_n_asks_for_random_views():
    """The default is what the lesson recommends: there, four random views make predictions worse."""
    assert torch.equal(tta(network(), photos()).probs, tta(network(), photos(), flip).probs)
    result = tta(network(), photos(), n=4, keep_views=True)
    assert len(result.views) == 5
    assert torch.equal(result.probs, tta(network(), photos(), random_views(4)).probs)
    assert not torch.equal(result.probs, tta(network(), photos(), n=4, seed=1).probs)


@pytest.mark.parametrize("n", [0, 4])
def test_views_and_n_together_are_refused(n):
    with pytest.raises(ValueError, match=f"views or n={n}"):
        tta(network(), photos(), flip, n=n)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_size_of_batches_does_not_count(batch_size):
    torch.testing.assert_close(tta(network(), photos(7), batch_size=batch_size),
                               tta(network(), photos(7)))


@pytest.mark.parametrize("views, same", [
    ([flip, five_crop], (*flip, *five_crop)),
    ([[flip], [[five_crop[0]], quarter_turns]], (*flip, five_crop[0], *quarter_turns)),
    (flip[0], flip), ([(), [[]]], ()), ((*flip, vertical_flip), (*flip, *vertical_flip)),
], ids=["sets", "deep", "one view", "none", "mixed"])
def test_views_may_be_lists_of_lists(views, same):
    for one, other in zip(tta(network(), photos(), views, keep_views=True)[:1],
                          tta(network(), photos(), same, keep_views=True)):
        assert torch.equal(one, other)


def test_photos_of_any_shape():
    model = small_resnet(3, width=4)
    for shape in ((13, 9), (8, 8), (1, 1), (32, 17)):
        result = tta(model, photos(3, *shape),
                     [*product(five_crop, flip), *scales(7, 16), *random_views(2)])
        torch.testing.assert_close(result.probs.sum(1), torch.ones(3))


def test_what_is_no_model_and_what_are_no_views():
    with pytest.raises(TypeError, match="torch.nn.Module or a fastai Learner"):
        tta(lambda x: x, photos())
    for views in ("flip", ["flip"], [lambda x: x], [flip, [None]], {"flip": flip}, photos()):
        with pytest.raises(TypeError, match="must be Views"):
            tta(network(), photos(), views)
    for size, error in ((0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="batch_size"):
            tta(network(), photos(), batch_size=size)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_and_photos_of_other_precision(dtype):
    model = network().to(dtype)
    views = [*five_crop, *random_views(2)]
    exact = tta(network(), photos(), views).probs
    for x in (photos(), photos().to(dtype)):
        result = tta(model, x, views, keep_views=True)
        assert result.probs.dtype == result.views.dtype == (
            torch.float64 if dtype == torch.float64 else torch.float32
        )
        torch.testing.assert_close(result.probs.float(), exact, atol=0.02, rtol=0)
        torch.testing.assert_close(result.probs.sum(1), torch.ones(5, dtype=result.probs.dtype))
    assert next(model.parameters()).dtype == dtype
    torch.testing.assert_close(tta(network(), photos().to(dtype)).probs, tta(network(), photos()).probs,
                               atol=0.02, rtol=0)


@pytest.mark.filterwarnings("ignore")
def test_an_exported_network_predicts():
    """It refuses `eval()`: it has the one mode that it was exported in."""
    model, x = network().eval(), photos(4)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(tta(exported, x, flip).probs, tta(model, x, flip).probs)


def test_half_precision_is_merged_in_float32():
    class Certain(nn.Module):
        def forward(self, x):
            # 6e-6 is no number in float16 to count on
            return torch.tensor([[0.0, 12.0]]).half().expand(len(x), 2)

    probs = tta(Certain(), photos()).probs
    torch.testing.assert_close(probs[:, 0], torch.full((5,), 1 / (1 + np.exp(12.0))), rtol=1e-5, atol=0)


def test_a_network_with_no_weights():
    class Colours(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    torch.testing.assert_close(tta(Colours(), photos(), flip).probs, photos().mean((2, 3)).softmax(1))


@pytest.mark.parametrize("out, words",
                         [(lambda x: x.mean((1, 2, 3)), "row of classes"),
                          (lambda x: x, "row of classes"), (lambda x: (x, x), "tuple"),
                          (lambda x: x.mean((1, 2, 3))[:, None], "torch.sigmoid")])
def test_outputs_that_are_no_classes_are_refused(out, words):
    class Other(nn.Module):
        def forward(self, x):
            return out(x)

    with pytest.raises(ValueError, match=words):
        tta(Other(), photos())


def test_one_output_with_sigmoid():
    model = nn.Sequential(network(1))
    with torch.no_grad():
        exact = model.eval()(photos()).sigmoid()
    torch.testing.assert_close(tta(model.train(), photos(), n=0, activation=torch.sigmoid).probs, exact)


def test_activation_is_softmax_unless_said_otherwise():
    model, x = network(), photos()
    with torch.no_grad():
        out = model.eval()(x)
    torch.testing.assert_close(tta(model, x, n=0).probs, out.softmax(1))
    torch.testing.assert_close(tta(model, x, n=0, activation=torch.sigmoid).probs, out.sigmoid())
    torch.testing.assert_close(tta(model, x, n=0, activation=lambda out: out).probs, out)


# --- a network around another

@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("beta", [None, 0.25])
def test_the_wrapper_predicts_what_tta_predicts(merge, beta):
    model, views = network(), [flip, five_crop]
    wrapped = TTAModel(model, views, merge, beta).eval()
    with torch.no_grad():
        torch.testing.assert_close(wrapped(photos(11)),
                                   tta(model.train(), photos(11), views, merge=merge, beta=beta).probs)


def test_the_wrapper_is_a_module_like_any_other(tmp_path):
    model, x = network(), photos()
    wrapped = TTAModel(model, flip)
    assert ([*wrapped.parameters()] == [*model.parameters()]
            and {name.split(".")[0] for name in wrapped.state_dict()} == {"model"})
    assert all(modes(wrapped)) and not any(modes(wrapped.eval())) and not any(modes(model))
    expected = wrapped(x)
    torch.save(wrapped, tmp_path / "model.pt")
    assert torch.equal(torch.load(tmp_path / "model.pt", weights_only=False)(x), expected)
    other = TTAModel(network(seed=1), flip).eval()
    other.load_state_dict(wrapped.state_dict())
    assert torch.equal(other(x), expected)
    half = wrapped.to(torch.bfloat16)
    assert half(x).dtype == torch.float32  # merged in float32, as everywhere
    torch.testing.assert_close(half(x), expected, atol=0.02, rtol=0)


def test_gradients_flow_through_the_wrapper():
    model, x = network(), photos().requires_grad_()
    TTAModel(model, flip, "gmean").eval()(x)[:, 0].sum().backward()
    assert x.grad.abs().sum() > 0 and model[-1].weight.grad.abs().sum() > 0


def test_the_wrapper_of_a_learner_knows_what_its_outputs_mean(photo_set):
    learn = learner(photo_set, BCEWithLogitsLossFlat())
    x = torch.cat([x for x, _ in learn.dls.valid]).as_subclass(torch.Tensor)
    with torch.no_grad():
        torch.testing.assert_close(TTAModel(learn, flip).eval()(x), tta(learn, views=flip).probs)
        assert torch.equal(TTAModel(learn.model, (), activation=lambda out: out).eval()(x),
                           learn.model(x))


@pytest.mark.parametrize("merge", MERGES)
def test_the_wrapper_is_exported_and_compiled_whole(merge):
    model, x = TTAModel(small_resnet(3, width=4), [flip, quarter_turns], merge).eval(), photos()
    expected = model(x)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(x), expected)


def test_the_wrapper_refuses_what_tta_refuses():
    with pytest.raises(TypeError, match="torch.nn.Module or a fastai Learner"):
        TTAModel(lambda x: x, flip)
    with pytest.raises(TypeError, match="must be Views"):
        TTAModel(network(), ["flip"])
    with pytest.raises(ValueError, match="'tsharpen'"):
        TTAModel(network(), flip, "average").eval()(photos())
    with pytest.raises(ValueError, match=r"x\[None\]"):
        TTAModel(network(), flip).eval()(photos()[0])


# --- the state of the model

def modes(model):
    return [part.training for part in model.modules()]


class Breaks(nn.Module):
    """Raises at the n-th call."""

    def __init__(self, error, calls):
        super().__init__()
        self.inner, self.error, self.left = network(), error, calls
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        self.left -= 1
        if not self.left:
            raise self.error
        return self.inner(x)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, None])
@pytest.mark.parametrize("calls", [1, 3, 6])
def test_every_part_is_in_its_own_mode_again_after_any_exit(error, calls):
    model = Breaks(error, calls if error else -1)
    model.train()
    model.inner[1].eval()  # a frozen batch norm in a network that trains
    before, gradients = modes(model), torch.is_grad_enabled()
    if error:
        with pytest.raises(error):
            tta(model, photos(), batch_size=2)
    else:
        tta(model, photos(), batch_size=2)
    assert modes(model) == before and len(set(before)) == 2 and torch.is_grad_enabled() == gradients


def test_nothing_of_the_model_changes_and_nothing_is_random():
    model = network().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = tta(model, photos()), tta(model, photos())  # dropout and batch norm would show
    assert torch.equal(first.probs, second.probs)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_loader_s_error_comes_through_and_modes_are_restored():
    def batches():
        yield photos()
        raise OSError("unreadable photo")

    model = network().train()
    with pytest.raises(OSError, match="unreadable"):
        tta(model, batches())
    assert all(modes(model))


def test_probabilities_can_teach_another_network_and_inference_mode_is_fine():
    model = network()
    probs = tta(model, photos()).probs
    assert not probs.requires_grad
    F.cross_entropy(model(photos()), probs).backward()  # an inference tensor would refuse
    with torch.inference_mode():
        assert torch.equal(tta(model.eval(), photos()).plain, by_hand(model, photos()))


# --- a fastai Learner

class Deterministic(RandTransform):
    """Mirrors every training photo: an augmentation of which we know what it does."""

    split_idx, order = 0, 10

    def __init__(self):
        super().__init__(p=1.0)

    def encodes(self, x: TensorImage):
        return x.flip(-1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for part, n in (("train", 27), ("val", 14)):
        for i in range(n):
            (place / part / "abc"[i % 3]).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 255, (5, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((40 + 3 * (i % 4), 40)).save(
                place / part / "abc"[i % 3] / f"{i:02}.png"
            )
    return place


@pytest.fixture(scope="module")
def photo_set(folder):
    return ImageSet.from_folder(folder)


def learner(photo_set, loss=None, cbs=None, **options):
    options = {"size": 16, "batch_size": 5,
               "normalize": Normalize([0.5, 0.4, 0.3], [0.3, 0.2, 0.25])} | options
    learn = Learner(image_dataloaders(photo_set, **options), network(3),
                    loss_func=loss or nn.CrossEntropyLoss(), cbs=cbs)
    learn.logger = lambda *args: None
    return learn


def fastai_learner(folder, item_tfms, batch_tfms, **loaders):
    from fastai.data.transforms import GrandparentSplitter

    block = DataBlock((ImageBlock, CategoryBlock), get_items=lambda path: sorted(get_image_files(path)),
                      splitter=GrandparentSplitter(valid_name="val"),
                      get_y=parent_label, item_tfms=item_tfms, batch_tfms=batch_tfms)
    dls = block.dataloaders(folder, bs=5, num_workers=0, device=torch.device("cpu"), **loaders)
    learn = Learner(dls, network(3), loss_func=CrossEntropyLossFlat())
    learn.logger = lambda *args: None
    return learn


def test_works_before_the_first_fit_and_predicts_the_validation_photos(photo_set):
    """Fault: fails before the first fit."""
    learn = learner(photo_set)
    result = tta(learn, n=4)
    x, y = (torch.cat(parts) for parts in zip(*learn.dls.valid))
    x = x.as_subclass(torch.Tensor)
    torch.testing.assert_close(result.plain, by_hand(learn.model, x))
    # random views by a photo's place
    torch.testing.assert_close(result.probs, tta(learn.model, x, n=4).probs)
    assert torch.equal(result.targets, torch.as_tensor(photo_set.labels[photo_set.indices("valid")]))


def test_training_photos_come_in_order_whole_and_not_augmented(photo_set):
    """Faults: the training set shuffled, or its last batch dropped."""
    learn = learner(photo_set)
    result = tta(learn, learn.dls.train, flip)
    rows = photo_set.indices("train")
    as_validation = learn.dls.valid.new(photo_set.take(rows))
    x = torch.cat([x for x, _ in as_validation]).as_subclass(torch.Tensor)
    torch.testing.assert_close(result.plain, by_hand(learn.model, x))
    assert torch.equal(result.targets, torch.as_tensor(photo_set.labels[rows]))
    assert (learn.dls.train.augment is not None and learn.dls.train.shuffle
            and learn.dls.train.epoch == learn.dls.valid.epoch == 0)


def test_random_views_are_in_the_style_of_training(photo_set):
    augment = Augment(min_area=0.8, flip=0)
    learn = learner(photo_set, augment=augment)
    assert torch.equal(tta(learn, n=4).probs, tta(learn, views=random_views(4, augment=augment)).probs)
    assert torch.equal(tta(learner(photo_set, augment=False), n=4).probs,
                       tta(learn, views=random_views(4)).probs)


def test_files_without_labels(photo_set):
    learn = learner(photo_set)
    files = [photo_set.paths[row] for row in photo_set.indices("valid")]
    order = [3, 0, 7, 1]
    result = tta(learn, learn.dls.test_dl([files[i] for i in order]), flip)
    torch.testing.assert_close(result.probs, tta(learn, views=flip).probs[order])
    assert result.targets is None


def test_views_come_after_everything_else_the_loader_does(photo_set):
    """Fault: a passed transform replaces the whole pipeline, so sizes no longer match."""
    learn, seen = learner(photo_set), []
    tta(learn, views=[View("spy", lambda x: seen.append(x) or x.flip(-1))])
    assert {tuple(x.shape[1:]) for x in seen} == {(3, 16, 16)}
    assert torch.cat(seen).min() < -0.2  # normalized


def test_geometric_views_and_normalization_change_places(photo_set):
    raw = learner(photo_set, normalize=None)
    normalize = Normalize([0.5, 0.4, 0.3], [0.3, 0.2, 0.25])
    x = torch.cat([x for x, _ in raw.dls.valid]).as_subclass(torch.Tensor)
    for view in ALL_VIEWS:
        first = normalize((TensorImage(view(x)),))[0].as_subclass(torch.Tensor)
        torch.testing.assert_close(
            first, view(normalize((TensorImage(x),))[0].as_subclass(torch.Tensor)), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("loss, activation",
                         [(CrossEntropyLossFlat(), "softmax"), (FocalLossFlat(), "softmax"),
                          (LabelSmoothingCrossEntropy(), "softmax"), (F.cross_entropy, "softmax"),
                          (nn.NLLLoss(), "softmax"), (BCEWithLogitsLossFlat(), "sigmoid"),
                          (MSELossFlat(), "none")],
                         ids=lambda value: value if isinstance(value, str)
                         else getattr(value, "__name__", type(value).__name__))
def test_the_loss_says_what_the_outputs_mean(photo_set, loss, activation):
    learn = learner(photo_set, loss)
    x = torch.cat([x for x, _ in learn.dls.valid]).as_subclass(torch.Tensor)
    with torch.no_grad():
        out = learn.model.eval()(x)
    exact = {"softmax": out.softmax(1), "sigmoid": out.sigmoid(), "none": out}[activation]
    torch.testing.assert_close(tta(learn).plain, exact)
    assert type(tta(learn).probs) is torch.Tensor


class Events(Callback):
    def __init__(self):
        self.seen = []

    def __call__(self, event_name):
        self.seen.append(event_name)


def test_the_learner_stays_as_it_was(photo_set):
    events = Events()
    learn = learner(photo_set, cbs=[MixUp(), events])
    learn.fit(1)

    def state():
        return (list(learn.cbs), learn.loss_func, learn.dls, len(learn.recorder.values), learn.epoch,
                modes(learn.model))

    before = state()
    handles = [len(part._forward_hooks) for part in learn.model.modules()]
    events.seen.clear()
    for data in (None, learn.dls.train):
        tta(learn, data)
    assert not events.seen and [len(part._forward_hooks) for part in learn.model.modules()] == handles
    assert state() == before


@pytest.mark.parametrize("between", [tta, lambda learn: tta(learn, learn.dls.train)],
                         ids=["valid", "train"])
def test_training_goes_on_as_if_nothing_had_been(photo_set, between):
    def trained(between):
        learn = learner(photo_set, cbs=[MixUp()])
        torch.manual_seed(0)
        learn.fit(1)
        state = torch.get_rng_state()
        between(learn)
        torch.set_rng_state(state)
        learn.fit(1)
        return torch.cat([value.flatten().double() for value in learn.model.state_dict().values()])

    assert torch.equal(trained(between), trained(lambda learn: None))


@pytest.mark.parametrize("beta", [0.25, 0.5])
def test_equal_to_fastai_s_tta(folder, beta):
    learn = fastai_learner(folder, Resize(16, method="squish"), [Deterministic()])
    with learn.no_bar():
        theirs, labels = learn.tta(n=3, beta=beta)
    ours = tta(learn, views=flip, beta=beta)
    torch.testing.assert_close(ours.probs, theirs.as_subclass(torch.Tensor))
    assert torch.equal(ours.targets, labels.as_subclass(torch.Tensor)) and not torch.allclose(
        ours.plain, ours.probs
    )


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("augment", [Augment(), Augment(1, 1, 1), False])
def test_fastai_s_own_tta_of_our_loaders(photo_set, part, augment):
    """Fault: `learn.tta()` stops with "no setting shuffled"."""
    learn, sizes = learner(photo_set, CrossEntropyLossFlat(), augment=augment), []
    before = learn.dls[part].augment
    learn.model[0].register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape[1:])))
    with learn.no_bar():
        theirs, labels = learn.tta(ds_idx=part, n=2, beta=0.25)
    plain = tta(learn, learn.dls[part], n=0)
    assert torch.equal(plain.targets, labels.as_subclass(torch.Tensor))
    if augment is False:  # nothing to vary: the plain prediction
        torch.testing.assert_close(plain.probs, theirs.as_subclass(torch.Tensor))
    elif augment.flip == 1:  # whole photos, mirrored; validation cuts a square, which this can't
        assert not torch.allclose(plain.probs, theirs.as_subclass(torch.Tensor))
    else:  # two views that differ, as training varies them; the same in another call
        with learn.no_bar():
            assert torch.equal(theirs, learn.tta(ds_idx=part, n=2, beta=0.25)[0])
            assert not torch.allclose(theirs, learn.tta(ds_idx=part, n=1, beta=0.25)[0])
    assert set(sizes) == {(3, 16, 16)} and learn.dls[part].augment is before
    assert learn.dls[part].dataset.split_idx == part and learn.dls[part].dataset.told is None
    x = torch.cat([x for x, _ in learn.dls.valid]).as_subclass(torch.Tensor)
    torch.testing.assert_close(tta(learn, n=0).probs, by_hand(learn.model, x))  # validation is as it was


@pytest.mark.parametrize("part", [0, 1])
def test_fastai_s_loaders_give_their_photos_in_order_and_not_augmented(folder, part):
    learn = fastai_learner(folder, RandomResizedCrop(16, min_scale=0.3), aug_transforms(), shuffle=True)
    data = learn.dls.loaders[part]
    result = tta(learn, data, keep_views=True)
    with learn.no_bar():
        exact, labels = learn.get_preds(dl=learn.dls.test_dl(data.dataset.items, with_labels=True))
    torch.testing.assert_close(result.plain, exact.as_subclass(torch.Tensor))
    assert (torch.equal(result.targets, labels.as_subclass(torch.Tensor))
            and len(result.targets) == (27, 14)[part])
    twice = [learn.dls.train.one_batch()[0] for _ in range(2)]
    assert not torch.equal(*twice)  # training photos are augmented again


def test_fastai_s_test_loader_has_no_labels(folder, photo_set):
    learn = fastai_learner(folder, RandomResizedCrop(16), aug_transforms())
    files = [photo_set.paths[row] for row in photo_set.indices("valid")][:6]
    result = tta(learn, learn.dls.test_dl(files))
    assert result.targets is None and result.probs.shape == (6, 3)


def test_loaders_of_pytorch_in_a_learner():
    x, y = labelled()
    train, valid = (DataLoader(TensorDataset(x, y), 4, shuffle=True) for _ in range(2))
    learn = Learner(DataLoaders(train, valid), network(4), loss_func=F.cross_entropy)
    for data in (None, learn.dls.train):
        assert torch.equal(tta(learn, data).targets, y)
    with pytest.raises(ValueError, match="no validation loader"):
        tta(Learner(DataLoaders(train), network(4), loss_func=F.cross_entropy))


def test_a_plain_fastai_loader():
    x, y = labelled()
    loader = FastaiLoader(list(zip(x, y)), bs=4, shuffle=True, drop_last=True, num_workers=0)
    result = tta(network(), loader, flip)
    assert torch.equal(result.targets, y)
    torch.testing.assert_close(result.probs, tta(network(), x, flip).probs)


# --- pictures

@pytest.mark.parametrize("views, axes",
                         [(flip, 3), (five_crop, 7), (product(five_crop, flip), 14), ((), 2)])
def test_pictures_are_drawn(views, axes):
    figure = show_views(network(3), photos()[0], views, list("abc"), normalize=lambda x: x * 2 - 1)
    assert len(figure.axes) == 2 * axes
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert sorted(titles) == sorted(["as it is", *(view.name for view in views)])
    assert [text.get_text() for axis in figure.axes for text in axis.texts].count("merged") == 1


def test_pictures_show_what_the_network_says(photo_set):
    learn = learner(photo_set)
    x = learn.dls.valid.dataset[0][0]
    image = torch.from_numpy(np.array(x.convert("RGB").crop((0, 0, 40, 40)))).permute(2, 0,
                                                                                      1).float() / 255
    normalized = Normalize([0.5, 0.4, 0.3],
                           [0.3, 0.2, 0.25])((TensorImage(image[None]),))[0].as_subclass(torch.Tensor)
    expected = tta(learn, normalized, flip).probs[0]
    figure = show_views(learn, image, flip, photo_set.classes, top=3)
    bars = sorted(bar.get_width() for bar in figure.axes[-1].patches)
    assert bars == pytest.approx(sorted(expected.tolist()), abs=1e-5)

