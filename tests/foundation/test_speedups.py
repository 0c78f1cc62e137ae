"""bfloat16 and Muon: beside PyTorch's own, and what is left when training is interrupted."""

import fastai.callback.progress  # noqa: F401  adds no_bar to Learner
import numpy as np
import pytest
import torch
from fastai.callback.core import (
    Callback, CancelBatchException, CancelEpochException, CancelFitException, CancelTrainException,
)
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from torch import nn

from lessonkit.foundation import speedups
from lessonkit.foundation.models import small_resnet
from lessonkit.foundation.speedups import BFloat16, Muon, UseMuon, bfloat16_is_quicker, orthogonal


class Looked(nn.Module):
    """A network that notes in which numbers it computes."""

    def __init__(self):
        super().__init__()
        self.layer, self.types = nn.Linear(6, 2), []

    def forward(self, x):
        out = self.layer(x)
        self.types.append((self.training, out.dtype))
        return out


class Stop(Callback):
    def __init__(self, error, event):
        self.error = error
        setattr(self, event, self.stop)

    def stop(self):
        if self.training and self.iter == 1:
            raise self.error


def learner(model, n=24):
    torch.manual_seed(0)
    data = list(zip(torch.randn(n, 6), torch.randint(2, (n,))))
    learn = Learner(DataLoaders(DataLoader(data, bs=8), DataLoader(data, bs=8)), model,
                    nn.CrossEntropyLoss())
    learn.logger = lambda *_: None
    return learn


def test_training_is_half_and_everything_else_is_not():
    learn = learner(Looked())
    with learn.no_bar():
        learn.fit(2, 0.01, cbs=BFloat16())
        learn.get_preds()
    assert {dtype for training, dtype in learn.model.types if training} == {torch.bfloat16}
    assert {dtype for training, dtype in learn.model.types if not training} == {torch.float32}
    assert ({weights.dtype for weights in learn.model.parameters()} == {torch.float32} == {
        learn.pred.dtype, learn.loss.dtype
    })


def test_half_numbers_train_nearly_the_same():
    ends = []
    for callbacks in ([], [BFloat16()]):
        torch.manual_seed(1)
        learn = learner(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)))
        with learn.no_bar():
            learn.fit(5, 0.01, cbs=callbacks)
        ends.append(torch.cat([weights.detach().flatten() for weights in learn.model.parameters()]))
    assert 0 < (ends[0] - ends[1]).norm() < 0.02 * ends[0].norm()


@pytest.mark.parametrize("side, half", [(8, False), (16, False), (32, True)])
def test_fault_gradients_of_tiny_pictures_are_not_uninitialized_memory(side, half):
    """Where a stride is larger than what is left of a picture, weights became NaN, or others in each
    run."""
    data = list(zip(torch.rand(16, 3, side, side, generator=torch.Generator().manual_seed(0)),
                    torch.arange(16) % 3))
    ends = []
    for callbacks in ([], [BFloat16()], [BFloat16()]):
        torch.manual_seed(1)
        loader = DataLoader(data, bs=8)
        learn = Learner(DataLoaders(loader, loader), small_resnet(3, 8), nn.CrossEntropyLoss())
        learn.logger = lambda *_: None
        # what it would find there
        memory = [torch.full((10_000,), 1e10 * (1 + len(ends))) for _ in range(20)]
        del memory
        with learn.no_bar():
            learn.fit(2, 0.01, cbs=callbacks)
        ends.append(torch.cat([weights.detach().flatten() for weights in learn.model.parameters()]))
    assert (ends[2].isfinite().all() and torch.equal(ends[1], ends[2])
            and torch.equal(ends[0], ends[1]) != half)


@pytest.mark.parametrize(
    "event", ["before_batch", "after_pred", "after_loss", "after_step", "after_batch"]
)
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("boom"),
        KeyboardInterrupt(),
        CancelBatchException(),
        CancelEpochException(),
        CancelTrainException(),
        CancelFitException(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_after_any_exit_the_network_is_as_it_was(error, event):
    learn = learner(Looked())
    with learn.no_bar():
        try:
            learn.fit(1, 0.01, cbs=[BFloat16(), Stop(error, event)])
        except (
            RuntimeError,
            KeyboardInterrupt,
            CancelBatchException,
        ):  # fastai passes the last on from after_batch
            pass
        assert "forward" not in vars(learn.model)
        learn.model.types.clear()
        learn.get_preds()
    assert {dtype for _, dtype in learn.model.types} == {torch.float32}


def test_an_error_inside_the_network_leaves_it_as_it_was():
    class Broken(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    learn = learner(nn.Sequential(nn.Linear(6, 2), Broken()))
    with learn.no_bar(), pytest.raises(KeyboardInterrupt):
        learn.fit(1, 0.01, cbs=BFloat16())
    assert "forward" not in vars(learn.model)


def test_whether_half_is_quicker_is_measured_on_the_network_and_leaves_it_as_it_was():
    network, runs = small_resnet(3, width=4).eval(), []
    network.register_forward_hook(lambda module, args, out: runs.append((args[0].shape, out.dtype)))
    weights, before = [w.clone() for w in network.state_dict().values()], torch.get_rng_state()
    # what comes out is this machine's business
    assert isinstance(bfloat16_is_quicker(network, size=20, batch_size=6), bool)
    assert {shape for shape, _ in runs} == {(6, 3, 20, 20)} and {torch.bfloat16, torch.float32} == {
        dtype for _, dtype in runs
    }
    assert torch.equal(torch.get_rng_state(), before) and not network.training
    assert all(map(torch.equal, network.state_dict().values(), weights))


@pytest.mark.parametrize("half, whole, quicker",
                         [(0.5, 1.0, True), (0.89, 1.0, True), (0.91, 1.0, False), (2.0, 1.0, False)])
def test_half_is_quicker_where_it_saves_a_tenth(monkeypatch, half, whole, quicker):
    monkeypatch.setattr(speedups, "seconds_of", lambda step: half if step.args == (True,) else whole)
    assert bfloat16_is_quicker(nn.Conv2d(3, 1, 1)) is quicker


@pytest.mark.parametrize("shape", [(4, 4), (3, 20), (20, 3), (1, 7)])
def test_directions_stay_and_lengths_become_alike(shape):
    matrix = torch.from_numpy(np.random.default_rng(sum(shape)).normal(size=shape)).float()
    left, lengths, right = torch.linalg.svd(matrix, full_matrices=False)
    found = left.T @ orthogonal(matrix) @ right.T  # in the matrix's own directions
    assert (found - torch.diag(torch.diag(found))).abs().max() < 1e-3
    assert torch.diag(found).min() > 0.6 and torch.diag(found).max() < 1.25
    assert torch.allclose(orthogonal(1000 * matrix), orthogonal(matrix), atol=1e-3)


@pytest.mark.parametrize("shape", [(8, 8), (4, 24), (24, 4)])
def test_steps_are_those_of_pytorchs_muon(shape):
    """PyTorch's takes matrices only, and computes the directions in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(shape, generator=generator)
    ours, theirs = nn.Parameter(first.clone()[:, :, None, None]), nn.Parameter(first.clone())
    one = Muon([ours], lr=0.05, momentum=0.9, weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True,
                             adjust_lr_fn="original")
    for _ in range(5):
        theirs.grad = torch.randn(shape, generator=generator)
        ours.grad = theirs.grad[:, :, None, None].clone()
        one.step()
        other.step()
    moved = (theirs - first).norm()
    assert (ours[:, :, 0, 0] - theirs).norm() < 0.03 * moved


def test_all_other_weights_take_adams_steps_with_a_quarter_of_the_rate():
    generator = torch.Generator().manual_seed(0)
    shapes = [
        (5,),
        (4, 6),
        (8, 3, 3, 3),
    ]  # a bias, a linear layer, the convolution that looks at the pixels
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [nn.Parameter(weights.detach().clone()) for weights in ours]
    one = Muon(ours, lr=0.04, weight_decay=0.1, times=2)
    groups = [{"params": theirs[:1], "weight_decay": 0.0}, {"params": theirs[1:], "weight_decay": 0.1}]
    other = torch.optim.AdamW(groups, lr=0.04 * 2 / 4, betas=(0.95, 0.99), eps=1e-8)
    for _ in range(5):
        for mine, its in zip(ours, theirs):
            its.grad = torch.randn(its.shape, generator=generator)
            mine.grad = its.grad.clone()
        one.step()
        other.step()
    for mine, its in zip(ours, theirs):
        assert torch.allclose(mine, its, atol=1e-6)


def test_a_closure_is_called_and_weights_without_gradient_stay():
    still, moving = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Muon([still, moving], lr=0.1)

    def closure():
        loss = moving.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert torch.equal(still, torch.ones(2)) and (moving < 1).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": -1},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"weight_decay": -1},
        {"times": 0},
        {"lr": float("nan")},
    ],
)
def test_settings_that_make_no_sense(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Muon([nn.Parameter(torch.ones(2))], **settings)


def test_a_learner_trains_with_muon():
    torch.manual_seed(0)
    x = torch.randn(64, 3, 16, 16)
    y = (x.mean((1, 2, 3)) > 0).long()
    x += y[:, None, None, None]
    data = list(zip(x, y))
    learn = Learner(DataLoaders(DataLoader(data, bs=16), DataLoader(data, bs=16)),
                    small_resnet(2, width=8), nn.CrossEntropyLoss(), cbs=UseMuon(3))
    learn.logger = lambda *_: None
    with learn.no_bar():
        learn.fit(1, 0.003)
        before = learn.validate()[0]
        learn.fit(4, 0.003)
    assert isinstance(learn.opt.opt, Muon) and learn.opt.opt.param_groups[0]["times"] == 3
    assert learn.validate()[0] < before
