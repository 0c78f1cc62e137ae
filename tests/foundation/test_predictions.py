"""Every photo, in order, whatever the data are; each known fault by name."""


import pytest
import torch
from fastai.callback.progress import no_bar  # noqa: F401  gives Learner its no_bar
from fastai.data.load import DataLoader as FastaiLoader
from torch.utils.data import (
    BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler, SubsetRandomSampler,
    TensorDataset, WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler
from tta_helpers import Rows, by_hand, labelled, network, photos

from lessonkit.images import image_dataloaders
from lessonkit.tta import (five_crop, flip, product, random_views, tta)


LOADERS = {
    "in order": dict(batch_size=4),
    "shuffled": dict(batch_size=4, shuffle=True),
    "last batch dropped": dict(batch_size=4, drop_last=True),
    "shuffled and dropped": dict(batch_size=4, shuffle=True, drop_last=True),
    "worker processes": dict(batch_size=4, shuffle=True, num_workers=2, prefetch_factor=3,
                             persistent_workers=True),
    "weighted": dict(batch_size=4, sampler=WeightedRandomSampler(torch.ones(23), 40)),
    "batches drawn": dict(batch_sampler=BatchSampler(RandomSampler(range(23)), 4, drop_last=True)),
    "one by one": dict(batch_size=1, shuffle=True),
    "one batch": dict(batch_size=100, shuffle=True),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_torch_loader_is_never_shuffled_or_cut(name):
    """Faults: another order than the data's; the training set shuffled or its last batch dropped."""
    data = Rows()
    result = tta(network(), DataLoader(data, **LOADERS[name]), flip)
    torch.testing.assert_close(result.probs, tta(network(), data.x, flip).probs)
    assert torch.equal(result.targets, data.y)


def test_each_photo_is_loaded_once():
    for views in ((), flip, product(five_crop, flip), random_views(9)):
        data = Rows()
        tta(network(), DataLoader(data, 4, shuffle=True), views)
        assert data.loaded == list(range(23))


def test_the_loader_keeps_what_puts_photos_together():
    def collate(items):
        return torch.stack([x for x, _ in items]) * 2, torch.stack([y for _, y in items]) + 10

    loader = DataLoader(Rows(), 4, shuffle=True, collate_fn=collate)
    result = tta(network(), loader, n=0)
    torch.testing.assert_close(result.probs, by_hand(network(), labelled()[0] * 2))
    assert torch.equal(result.targets, labelled()[1] + 10)


def test_a_given_order_is_the_data_s_order():
    loader = DataLoader(Rows(), batch_size=4, sampler=[5, 3, 22])
    assert torch.equal(tta(network(), loader).targets, labelled()[1][[5, 3, 22]])
    loader = DataLoader(Rows(), batch_size=2, sampler=[5, 3, 22], drop_last=True)
    assert torch.equal(tta(network(), loader).targets, labelled()[1][[5, 3, 22]])


def test_some_photos_in_random_order_are_refused():
    with pytest.raises(ValueError, match="Subset"):
        tta(network(), DataLoader(Rows(), 4, sampler=SubsetRandomSampler([1, 2, 3])))


def test_batches_without_labels_lists_and_generators():
    """Fault: fails with no labels."""
    x, y = labelled()
    exact = tta(network(), x, flip)
    for data in (DataLoader(x, 4), DataLoader(TensorDataset(x), 4), [x[:20], x[20:]], [(x,)],
                 ((part,) for part in x.split(5))):
        result = tta(network(), data, flip)
        torch.testing.assert_close(result.probs, exact.probs)
        assert result.targets is None
    assert torch.equal(tta(network(), [[x[:7], y[:7]], [x[7:], y[7:]]]).targets, y)
    assert torch.equal(tta(network(), [(x, y.tolist())]).targets, y)


@pytest.mark.parametrize("data, error, words",
                         [(None, ValueError, "plain module"), ([], ValueError, "no photos"),
                          (3, TypeError, "tensor of photos or a loader"),
                          ([(photos(), 1, 2)], ValueError, "3 parts"),
                          ([{"x": photos()}], TypeError, "not dict"),
                          ([((photos(), photos()), torch.zeros(5))], TypeError, "not tuple")])
def test_data_that_can_not_be_predicted_is_refused(data, error, words):
    with pytest.raises(error, match=words):
        tta(network(), data)


# --- what samplers and loaders of others do

class Normalizing(DataLoader):
    """Does something to each batch, and knows more than PyTorch's."""

    def __init__(self, *args, factor=3, **options):
        super().__init__(*args, **options)
        self.factor = factor

    def __iter__(self):
        return ((self.factor * x, y) for x, y in super().__iter__())


@pytest.mark.parametrize("name", LOADERS)
def test_a_subclass_of_pytorch_s_loader_keeps_what_it_does(name):
    """Fault: the subclass replaced by a plain loader, its `__iter__` lost, and with it the
    normalization."""
    data = Rows()
    loader = Normalizing(data, **LOADERS[name])
    before = dict(vars(loader))
    result = tta(network(), loader, flip)
    torch.testing.assert_close(result.probs, tta(network(), 3 * data.x, flip).probs)
    assert torch.equal(result.targets, data.y)
    assert vars(loader) == before and (type(loader) is Normalizing)
    assert sum(len(x) for x, _ in loader) in (20, 23, 40)  # it goes on as it was


class Share(SequentialSampler):
    """One process's share, by another library's name for it."""

    def __init__(self, data, **names):
        super().__init__(data)
        vars(self).update(names)


@pytest.mark.parametrize("sampler",
                         [lambda data: DistributedSampler(data, 2, 0),
                          lambda data: DistributedSampler(data, 3, 1, shuffle=False),
                          lambda data: Share(data, num_replicas=2),
                          lambda data: Share(data, num_processes=4)],
                         ids=["shuffled", "in order", "num_replicas", "num_processes"])
@pytest.mark.parametrize("as_batches", [True, False])
def test_one_process_s_share_is_refused(sampler, as_batches):
    """Fault: a half of the photos predicted, and nothing said."""
    data = Rows()
    sampler = sampler(data)
    loader = (DataLoader(data, batch_sampler=BatchSampler(sampler, 4, False)) if as_batches
              else DataLoader(data, 4, sampler=sampler))
    with pytest.raises(ValueError, match="one of [234] processes"):
        tta(network(), loader)


def test_the_only_process_s_share_is_everything():
    data = Rows()
    assert torch.equal(
        tta(network(), DataLoader(data, 4, sampler=DistributedSampler(data, 1, 0))).targets, data.y
    )


def test_fastai_s_share_of_one_process_is_refused(shard):
    x, y = labelled()
    loader = FastaiLoader(list(zip(x, y)), bs=4)
    with pytest.raises(ValueError, match="one of 2 processes"):
        tta(network(), shard(loader, 0))


class Stream(IterableDataset):
    """Photos without a length."""

    def __iter__(self):
        yield from zip(*labelled())


class Endless:
    """A sampler of batches without a length."""

    def __iter__(self):
        yield from ([0, 1, 2], [3, 4], list(range(5, 23)))


class Wrapped(BatchSampler):
    """A sampler of batches whose length is that of a sampler without one."""

    def __init__(self):
        super().__init__(iter(range(23)), 4, False)


@pytest.mark.parametrize("make", [
    lambda: DataLoader(Stream(), 4), lambda: DataLoader(Stream(), 4, drop_last=True),
    lambda: DataLoader(Rows(), batch_sampler=Endless()),
    lambda: DataLoader(Rows(), batch_sampler=Wrapped()), lambda: FastaiLoader(Stream(), bs=4),
    lambda: Normalizing(Stream(), 4, factor=1),
], ids=["stream", "stream, last batch dropped", "batches", "batches of a sampler", "fastai", "subclass"])
def test_data_and_samplers_without_length_are_predicted(make):
    """Fault: `len()` of what has none: TypeError."""
    x, y = labelled()
    result = tta(network(), make(), flip)
    torch.testing.assert_close(result.probs, tta(network(), x, flip).probs)
    assert torch.equal(result.targets, y)


def test_our_loaders_draw_on_the_cpu_whatever_the_default_device_is(random_photos, own_cache):
    def batches():
        return [x for x, _ in image_dataloaders(random_photos, 16, 8, seed=1).train]

    expected = batches()
    with torch.device("meta"):
        found = batches()
    assert all(torch.equal(one, other) for one, other in zip(found, expected))
