"""loss_value: which terms of a loss have lost their gradient, and which have none on purpose."""

from collections.abc import Callable

import pytest
import torch
from measures.reading import measured
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case

Loss = Callable[[nn.Module, Tensor], Tensor]


def mlp(width: int) -> nn.Module:
    """A map of four numbers to one."""
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))


def cut(loss: Loss, model: nn.Module | None = None) -> tuple[float, str]:
    """Return the share of the loss that has lost its gradient, and how."""
    torch.manual_seed(3)
    case = Case(model or mlp(8), loss, data=[torch.randn(16, 4)])
    facts = measured(case, "loss_value")["loss_value"].facts
    return float(facts["cut_share"]), str(facts["cut_by"])


def far(model: nn.Module, x: Tensor) -> Tensor:
    """Nearly all of the loss."""
    return (model(x) - 3).square().mean()


def small(model: nn.Module, x: Tensor) -> Tensor:
    """Next to nothing of the loss."""
    return 0.01 * model(x).square().mean()


def slope(model: nn.Module, x: Tensor, *, create: bool) -> Tensor:
    """Derivative of the output by the input."""
    return torch.autograd.grad(model(x).sum(), x, create_graph=create, retain_graph=True)[0]


def of_forces(create: bool, add: Callable[[Tensor, Tensor], Tensor] = torch.add) -> Loss:
    """A loss of forces, as interatomic potentials have."""

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        force = -slope(model, x.requires_grad_(), create=create)
        return add((force - 3).square().mean(), small(model, x))

    return loss


class Potential(nn.Module):
    """Puts out energies and forces, as their derivative."""

    def __init__(self, create: bool) -> None:
        super().__init__()
        self.net, self.create = mlp(12), create

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = x.detach().requires_grad_()
        energy = self.net(x)
        force = torch.autograd.grad(energy.sum(), x, create_graph=self.create, retain_graph=True)[0]
        return {"energy": energy, "force": -force}


def of_potential(model: nn.Module, x: Tensor) -> Tensor:
    """Energies and forces of one model."""
    out = model(x)
    return 0.01 * F.mse_loss(out["energy"], x[:, :1]) + F.l1_loss(out["force"], x + 3)


def penalty(create: bool) -> Loss:
    """A critic with a gradient penalty."""

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        length = slope(model, (x + 1).requires_grad_(), create=create).norm(2, 1)
        return model(x).mean() - model(x + 2).mean() + 10 * (length - 1).square().mean()

    return loss


def without_grad(model: nn.Module, x: Tensor) -> Tensor:
    """A term that was computed as in an evaluation."""
    with torch.no_grad():
        term = far(model, x)
    return small(model, x) + 10 * term


def in_place(model: nn.Module, x: Tensor) -> Tensor:
    """A total that is written into."""
    total = torch.zeros(())
    total += far(model, x).detach()
    total += small(model, x)
    return total / 2


LISTS = (lambda a, b: torch.stack([b, a]).sum(), lambda a, b: sum([b, a]), lambda a, b: (b + a + 5.0) / 2)
DERIVATIVES = {
    "forces": (of_forces(create=False), None),
    **{f"forces-{k}": (of_forces(create=False, add=add), None) for k, add in enumerate(LISTS)},
    "forces of the model": (of_potential, Potential(create=False)),
    "gradient penalty": (penalty(create=False), None),
}
VALUES: dict[str, Loss] = {
    "detach": lambda m, x: far(m, x).detach() + small(m, x),
    "data": lambda m, x: far(m, x).data + small(m, x),
    "item": lambda m, x: small(m, x) + far(m, x).item(),
    "item before": lambda m, x: far(m, x).item() + small(m, x),
    "new tensor": lambda m, x: torch.tensor(far(m, x).item()) + small(m, x),
    "no_grad": without_grad,
    "in place": in_place,
    "by sample": lambda m, x: ((m(x) - 3).square().detach() + 0.01 * m(x).square()).squeeze(1).sum(),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_a_derivative_without_a_graph_is_a_cut_term(name):
    share, by = cut(*DERIVATIVES[name])
    assert (share > 0.9, by) == (True, "derivative")


@pytest.mark.parametrize("name", VALUES)
def test_a_detached_term_is_a_cut_term(name):
    share, by = cut(VALUES[name])
    assert (share > 0.99, by) == (True, "value")


def test_the_share_is_that_of_the_sizes():
    share, _ = cut(lambda m, x: 3 * m(x).square().mean() - m(x).square().mean().detach() + 7)
    assert share == pytest.approx(0.25, rel=1e-5)


def log_sum_exp(model: nn.Module, x: Tensor) -> Tensor:
    """A cross-entropy by hand, whose largest logit is taken out and added again."""
    logits = torch.cat([model(x) + 50, 2 * model(x) + 51], 1)
    largest = logits.max(1, keepdim=True).values.detach()
    return (largest.squeeze(1) + (logits - largest).exp().sum(1).log() - logits[:, 0]).mean()


def surrogate(model: nn.Module, x: Tensor) -> Tensor:
    """The value of one function and the gradient of another."""
    other = model(x).mean()
    return far(model, x).detach() + other - other.detach()


def temporal_difference(model: nn.Module, x: Tensor) -> Tensor:
    """A Q-function against its own later value."""
    with torch.no_grad():
        target = 1 + 0.9 * model(x + 1)
    return F.smooth_l1_loss(model(x), target)


def quantised(model: nn.Module, x: Tensor) -> Tensor:
    """A straight-through code with its codebook and commitment terms."""
    assert isinstance(model, nn.Sequential)
    z = model[:2](x)
    code = z.round()
    out = model[2](z + (code - z).detach())
    return (out - 1).square().mean() + F.mse_loss(z, code.detach()) + F.mse_loss(code, z.detach())


def siamese(model: nn.Module, x: Tensor) -> Tensor:
    """Two views, each against the other that is held still."""
    one, other = model(x), model(x + 0.1)
    return -F.cosine_similarity(one, other.detach()).mean() - F.cosine_similarity(other, one.detach()).mean()


def importance(model: nn.Module, x: Tensor) -> Tensor:
    """A policy gradient with weights of importance and a baseline, beside a loss of values."""
    log_p = -(model(x) - 1).square()
    ratio = (log_p - log_p.detach()).exp()
    return -(ratio * (log_p - log_p.mean()).detach()).mean() + 0.5 * far(model, x)


def divergence(model: nn.Module, x: Tensor) -> Tensor:
    """A divergence from a copy's own prediction: its entropy is taken off a cross-entropy."""
    with torch.no_grad():
        p = torch.cat([5 * model(x), 0 * model(x)], 1).softmax(1)
        entropy = -(p * p.log()).sum(1).mean()
    logits = torch.cat([model(x + 0.1), 0 * model(x)], 1)
    return -(p * logits.log_softmax(1)).sum(1).mean() - entropy


def adversarial(model: nn.Module, x: Tensor) -> Tensor:
    """Examples that are moved by the sign of a gradient without a graph."""
    moved = x.detach().requires_grad_()
    sign = torch.autograd.grad(far(model, moved), moved)[0].sign()
    return far(model, x + 0.1 * sign) + small(model, x)


def first_order(model: nn.Module, x: Tensor) -> Tensor:
    """A step of the inner loop of a meta-learner whose gradient is held still."""
    step = torch.autograd.grad(small(model, x), list(model.parameters()))
    fast = {name: p - 0.1 * g for (name, p), g in zip(model.named_parameters(), step, strict=True)}
    return (torch.func.functional_call(model, fast, (x,)) - 1).square().mean()


def logged(model: nn.Module, x: Tensor) -> Tensor:
    """Numbers that are read off for a log."""
    a, b = far(model, x), small(model, x)
    _ = {"a": a.item(), "b": b.detach(), "total": (a.detach() + b)}
    return a + b


def learned_weight(model: nn.Module, x: Tensor) -> Tensor:
    """A weight that is learnt from a loss that is held still."""
    assert isinstance(model, nn.Sequential)
    s = model[2].bias
    return (-s).exp().mean() * far(model, x).detach() + s.mean() + small(model, x)


def functional(model: nn.Module, x: Tensor) -> Tensor:
    """A derivative by `torch.func`, which has a graph."""
    force = torch.func.grad(lambda z: model(z).sum())(x)
    return (force - 3).square().mean() + small(model, x)


ON_PURPOSE: tuple[Loss, ...] = (
    *(log_sum_exp, surrogate, temporal_difference, quantised, siamese, importance, adversarial, first_order),
    *(logged, learned_weight, functional, of_forces(create=True), penalty(create=True)),
    lambda m, x: small(m, x) + 100,
    lambda m, x: small(m, x) + x.square().mean() + torch.tensor(7.123456),
)


@pytest.mark.parametrize("number", range(len(ON_PURPOSE)))
def test_constants_and_gradients_stopped_on_purpose_are_no_cut_terms(number):
    assert cut(ON_PURPOSE[number]) == (0.0, "")


def test_a_model_that_keeps_the_graph_of_its_forces_has_lost_nothing():
    assert cut(of_potential, Potential(create=True)) == (0.0, "")


def test_the_entropy_of_targets_is_at_most_half():
    share, by = cut(divergence)
    assert share <= 0.5 + 1e-6
    assert by in {"", "value"}
