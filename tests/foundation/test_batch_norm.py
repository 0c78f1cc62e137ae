"""Batch norm's statistics, counted again: equal to PyTorch's `update_bn`, and nothing else changes."""


import pytest
import torch
from fastai.callback.schedule import lr_find  # noqa: F401  gives Learner its lr_find, fine_tune and fit_one_cycle
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

from lessonkit.foundation.models import refresh_batch_norm


def noisy_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4, momentum=0.3),
                        nn.Linear(4, 2))
    net[6].eval()
    return net


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_refreshed_statistics_equal_pytorch_s_update_bn():
    batches = list(torch.rand(5, 6, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    ours, theirs = noisy_net(), noisy_net()
    ours[3], theirs[3] = nn.Identity(), nn.Identity()  # update_bn leaves dropout on
    refresh_batch_norm(ours, batches)
    update_bn(batches, theirs)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    assert ours[1].num_batches_tracked == 5


def test_a_first_layer_s_statistics_are_those_of_all_pixels():
    net = nn.Sequential(nn.BatchNorm2d(3))
    x = torch.rand(6, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    refresh_batch_norm(net, x)
    torch.testing.assert_close(net[0].running_mean, x.mean((0, 1, 3, 4)))
    torch.testing.assert_close(net[0].running_var, x.transpose(1, 2).flatten(2).var(2).mean(0))


def test_refreshing_changes_statistics_alone_and_is_not_random():
    net, batches = noisy_net(), list(torch.rand(3, 6, 3, 8, 8))
    before, modes = state(net), [layer.training for layer in net.modules()]
    refresh_batch_norm(net, ((x,) for x in batches))
    after = state(net)
    refresh_batch_norm(net, batches)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{layer}.{name}" for layer in (1, 6) for name in (
        "running_mean", "running_var", "num_batches_tracked"
    )}
    assert all(torch.equal(after[name], value) for name, value in state(net).items())
    assert (modes == [layer.training for layer in net.modules()] and net[1].momentum == 0.1
            and net[6].momentum == 0.3)
    assert all(weight.grad is None for weight in net.parameters())


def test_an_error_while_refreshing_brings_the_old_statistics_back():
    def broken():
        yield torch.rand(4, 3, 8, 8)
        raise KeyboardInterrupt

    for batches, error in ((broken(), KeyboardInterrupt), ([], ValueError)):
        net = noisy_net()
        before, modes = state(net), [layer.training for layer in net.modules()]
        with pytest.raises(error):
            refresh_batch_norm(net, batches)
        assert all(torch.equal(before[name], value) for name, value in state(net).items())
        assert modes == [layer.training for layer in net.modules()] and net[6].momentum == 0.3


def test_without_batch_norm_there_is_nothing_to_do():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    refresh_batch_norm(net, iter(lambda: pytest.fail("no batch is needed"), None))


@pytest.mark.parametrize("kind", [list, tuple])
def test_loaders_batches_of_photos_and_labels_count(kind):
    """Fault: a batch [x, y], as PyTorch's loader gives it, was taken for one input."""
    x, y = torch.rand(5, 6, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.zeros(5, 6)
    ours, theirs = noisy_net(), noisy_net()
    refresh_batch_norm(ours, [kind(batch) for batch in zip(x, y)])
    refresh_batch_norm(theirs, list(x))
    assert all(torch.equal(value, theirs.state_dict()[name])
               for name, value in ours.state_dict().items())


def test_a_loader_can_be_given():
    x = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ours, theirs = noisy_net(), noisy_net()
    refresh_batch_norm(ours, DataLoader(TensorDataset(x, torch.zeros(12)), 4))
    refresh_batch_norm(theirs, x.split(4))
    assert all(torch.equal(value, theirs.state_dict()[name])
               for name, value in ours.state_dict().items())


def test_networks_with_several_inputs():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x, other):
            return self.norm(x + other)

    x, other = torch.rand(2, 4, 6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    ours, theirs = Sum(), nn.Sequential(nn.BatchNorm2d(3))
    refresh_batch_norm(ours, zip(x, other), n_inputs=None)
    refresh_batch_norm(theirs, x + other)
    torch.testing.assert_close(ours.norm.running_mean, theirs[0].running_mean)
