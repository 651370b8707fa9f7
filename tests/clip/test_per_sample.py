"""Clipping every sample, against a loop over samples; norms of linear layers without their gradients."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain import clip
from unitygain.stats.samples import linear_sample_norms, sample_norms


def squares(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]).flatten(1) - batch[1]).square().mean(1).mean()


def summed(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]).flatten(1) - batch[1]).square().mean(1).sum()


class Twice(nn.Module):
    """One layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


class Beside(nn.Module):
    """A layer whose weight is used a second time, past the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.layer(x), self.layer.weight)


def half_frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False))
    model[0].weight.requires_grad_(False)
    model[1].bias.requires_grad_(False)
    return model


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4)), (4,), "linear"),
    "positions": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), (3, 4), "linear"),
    "long": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), (40, 4), "linear"),
    "half frozen": (half_frozen, (4,), "linear"),
    "conv": (lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(9, 4)), (2, 4), "vmap"),
    "called twice": (Twice, (4,), "vmap"),
    "used past its layer": (Beside, (4,), "vmap"),
}


def by_loop(model: nn.Module, batch: tuple[Tensor, Tensor], c: float) -> tuple[list[float], list[Tensor]]:
    """Return the norm of every sample's gradient, and the mean of the clipped ones."""
    trained = [p for p in model.parameters() if p.requires_grad]
    norms, total = [], [torch.zeros_like(p) for p in trained]
    count = len(batch[0])
    for i in range(count):
        gradients = torch.autograd.grad(squares(model, (batch[0][i : i + 1], batch[1][i : i + 1])), trained)
        norms.append(math.sqrt(sum(g.square().sum().item() for g in gradients)))
        for sums, gradient in zip(total, gradients, strict=True):
            sums += gradient * min(1.0, c / norms[-1]) / count
    return norms, total


@pytest.mark.parametrize("loss", [squares, summed])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_loop_over_samples(name, loss):
    make, shape, method = MODELS[name]
    model = make().double()
    x = torch.randn(7, *shape, dtype=torch.float64) * torch.logspace(-1, 1, 7).reshape(-1, *[1] * len(shape))
    batch = (x, torch.zeros(7, model(x).flatten(1).shape[1], dtype=torch.float64))
    norms, expected = by_loop(model, batch, c=0.5)
    reduction = "mean" if loss is squares else "sum"
    report = clip.per_sample(model, loss, batch, c=0.5, reduction=reduction, chunk=3)
    assert report.method == method
    assert report.norms.tolist() == pytest.approx(norms, rel=1e-9)
    assert report.loss.item() == pytest.approx(loss(model, batch).item(), rel=1e-9)
    assert report.frac_clipped == sum(norm > 0.5 for norm in norms) / 7
    assert 0 < report.frac_clipped < 1
    for parameter, gradient in zip([p for p in model.parameters() if p.requires_grad], expected, strict=True):
        times = 1 if loss is squares else 7
        torch.testing.assert_close(parameter.grad, gradient * times, rtol=1e-9, atol=1e-12)


def test_an_outlier_does_not_set_the_direction():
    layer = nn.Linear(2, 1, bias=False)
    batch = torch.tensor([[0.1, 0.1]] * 9 + [[100.0, 0.0]])
    good = torch.tensor([[1.0, 1.0]])

    def mean_output(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).mean()

    report = clip.per_sample(layer, mean_output, batch, c=1.0)
    assert F.cosine_similarity(layer.weight.grad, good).item() == pytest.approx(0.942, abs=5e-4)
    layer.zero_grad()
    mean_output(layer, batch).backward()
    clip.by_global_norm(1.0)(layer)
    assert F.cosine_similarity(layer.weight.grad, good).item() == pytest.approx(0.713, abs=5e-4)
    assert report.cosine < 0.95
    assert report.frac_clipped == pytest.approx(0.1)


def test_every_sample_may_have_its_own_threshold():
    layer = nn.Linear(1, 1, bias=False)
    thresholds = clip.mirrored_thresholds(1.0, [1.0, 4.0], reference=1.0)[torch.tensor([1, 0])]

    def mean_output(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).mean()

    clip.per_sample(layer, mean_output, torch.tensor([[8.0], [8.0]]), thresholds)
    assert layer.weight.grad.item() == pytest.approx((0.25 + 1.0) / 2)
    with pytest.raises(ValueError, match=r"c has shape \(3,\); give a number, or one for each of 2 samples"):
        clip.per_sample(layer, mean_output, torch.ones(2, 1), torch.ones(3))


def test_it_adds_to_the_gradient_as_backward_does():
    model, batch = nn.Linear(3, 2), (torch.randn(4, 3), torch.randn(4, 2))
    clip.per_sample(model, squares, batch, c=1e9)
    once = model.weight.grad.clone()
    clip.per_sample(model, squares, batch, c=1e9)
    torch.testing.assert_close(model.weight.grad, 2 * once)
    model.zero_grad()
    squares(model, batch).backward()
    torch.testing.assert_close(model.weight.grad, once, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(3, 2), lambda: nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))]
)
def test_a_sample_that_is_not_finite_is_reported(make):
    x = torch.ones(4, 3)
    x[2, 1] = math.inf
    report = clip.per_sample(make(), squares, (x, torch.zeros(4, 2)), c=1.0)
    assert not report.finite


def test_hooks_are_gone_afterwards():
    model = nn.Linear(3, 2)
    clip.per_sample(model, squares, (torch.ones(4, 3), torch.zeros(4, 2)), c=1.0)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_that_were_made_elsewhere_give_the_same(reduction):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    batch = (torch.randn(5, 3), torch.randn(5, 2))
    loss = squares if reduction == "mean" else summed
    expected = clip.per_sample(model, loss, batch, c=0.5, reduction=reduction)
    came = [p.grad.clone() for p in model.parameters()]
    for i in range(5):
        alone = (batch[0][i : i + 1], batch[1][i : i + 1])
        for parameter, gradient in zip(
            model.parameters(), torch.autograd.grad(loss(model, alone), list(model.parameters())), strict=True
        ):
            made = [] if i == 0 else [parameter.grad_sample]
            parameter.grad_sample = torch.cat([*made, gradient[None]])
    report = clip.grad_samples(model, c=0.5, reduction=reduction)
    torch.testing.assert_close(report.norms, expected.norms, rtol=1e-5, atol=0)
    assert report.cosine == pytest.approx(expected.cosine, rel=1e-5)
    for parameter, gradient in zip(model.parameters(), came, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-7)
        assert parameter.grad_sample is None


def test_gradients_of_samples_that_are_missing_are_asked_for():
    model = nn.Linear(2, 1)
    with pytest.raises(ValueError, match=r"no parameter has a grad_sample; wrap the model"):
        clip.grad_samples(model, c=1.0)
    model.weight.grad_sample = [torch.ones(1, 1, 2)]
    with pytest.raises(ValueError, match="several backward passes"):
        clip.grad_samples(model, c=1.0)


def test_what_it_cannot_do_it_says():
    mixed = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    batch = (torch.ones(4, 3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="1 is a BatchNorm1d in training mode, which mixes samples"):
        clip.per_sample(mixed, squares, batch, c=1.0)
    with pytest.raises(ValueError, match=r"first dimensions \[3, 4\]"):
        clip.per_sample(nn.Linear(3, 2), squares, (torch.ones(4, 3), torch.zeros(3, 2)), c=1.0)
    with pytest.raises(ValueError, match="c is 0; give a number above 0"):
        clip.per_sample(nn.Linear(3, 2), squares, batch, c=0)
    with pytest.raises(ValueError, match="reduction is 'none'"):
        clip.per_sample(nn.Linear(3, 2), squares, batch, c=1.0, reduction="none")  # pyright: ignore
    with pytest.raises(ValueError, match="no trained parameter"):
        clip.per_sample(nn.Linear(3, 2).requires_grad_(False), squares, batch, c=1.0)
    assert clip.per_sample(mixed.eval(), squares, batch, c=1.0).method == "vmap"


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e18])
@pytest.mark.parametrize("positions", [1, 3, 60])
def test_norms_of_linear_layers_are_those_of_the_gradients(size, positions):
    a, b = torch.randn(5, positions, 7) * size, torch.randn(5, positions, 4) * size
    weights = torch.einsum("sto,sti->soi", b.double(), a.double())
    expected = weights.flatten(1).norm(dim=1)
    torch.testing.assert_close(linear_sample_norms(a, b, bias=False), expected, rtol=1e-9, atol=0)
    expected = torch.hypot(expected, b.double().sum(1).norm(dim=1))
    torch.testing.assert_close(linear_sample_norms(a, b, bias=True), expected, rtol=1e-9, atol=0)
    assert sample_norms([torch.zeros(2, 0), torch.ones(2, 4)]).tolist() == [2.0, 2.0]
