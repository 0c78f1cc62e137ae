"""Made-up logits and labels, and a loss with its gradient, for the tests of label smoothing."""

import torch


def logits(*shape, seed=0, kind=torch.float32):
    random = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(*(shape or (6, 5)), generator=random, dtype=torch.float64).to(kind)


def labels(*shape, n_classes=5, seed=0):
    return torch.randint(0, n_classes, shape or (6,), generator=torch.Generator().manual_seed(seed))


def value_and_gradient(loss_func, pred, target, **kwargs):
    """The loss, and its gradient when each item's loss counts differently."""
    pred = pred.detach().clone().requires_grad_()
    loss = loss_func(pred, target, **kwargs)
    loss.backward(torch.arange(1, 1 + loss.numel(), dtype=loss.dtype).view(loss.shape))
    return loss.detach(), pred.grad
