"""The initialisations that draw every weight, against what they promise of the drawn map."""

import math

import pytest
import torch
from torch import Tensor, nn

from unitygain import theory
from unitygain._case import Case
from unitygain.remedies import activation_init, critical_init, delta_orthogonal_init, orthogonal_init


def plain(*layers: nn.Module, shape: tuple[int, ...] = (2, 8)) -> Case:
    return Case(nn.Sequential(*layers), lambda m, x: m(x).square().mean(), [torch.randn(shape)])


def gain_of(layer: nn.Module) -> float:
    weight = layer.weight.detach().double()  # type: ignore[union-attr, operator]
    return math.sqrt(weight[0].numel() * weight.square().mean().item())


@pytest.mark.parametrize(
    ("activation", "gain"),
    [
        (nn.ReLU(), math.sqrt(2)),
        (nn.Tanh(), 1.0),
        (nn.LeakyReLU(0.2), math.sqrt(2 / 1.04)),
        (nn.SELU(), 1.0),
        # 1/sqrt(E φ(z)²) by sampling below.
        (nn.GELU(), None),
        (nn.SiLU(), None),
    ],
)
def test_the_gain_is_that_of_the_activation_which_follows(activation, gain):
    case = plain(nn.Linear(300, 300), activation, nn.Linear(300, 300), shape=(4, 300))
    activation_init(case)
    if gain is None:
        z = torch.randn(2_000_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        gain = 1 / activation(z).square().mean().sqrt().item()
    # 90000 numbers: the standard error of their rms is 1/sqrt(180000).
    assert gain_of(case.model[0]) == pytest.approx(gain, rel=0.01)
    assert gain_of(case.model[2]) == pytest.approx(1.0, rel=0.01)
    assert not case.model[0].bias.any()


def test_a_function_in_the_forward_is_seen_as_well():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.second(torch.relu(self.first(x))))

    case = Case(Net(), lambda m, x: m(x).sum(), [torch.randn(2, 3, 8, 8)])
    activation_init(case, distribution="uniform")
    assert gain_of(case.model.first) == pytest.approx(math.sqrt(2), rel=0.06)
    assert gain_of(case.model.second) == pytest.approx(1.0, rel=0.02)
    # A uniform distribution of rms s ends at sqrt(3)·s.
    assert case.model.second.weight.abs().max().item() <= math.sqrt(3 / 288)


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (4, 9), (9, 4)])
def test_matrices_are_orthogonal(rows, columns):
    case = plain(nn.Linear(columns, rows).double(), nn.ReLU())
    case._batches = (torch.randn(3, columns, dtype=torch.float64),)
    orthogonal_init(case)
    w = case.model[0].weight
    product = w @ w.T if rows <= columns else w.T @ w
    expected = 2 * max(1.0, rows / columns) * torch.eye(min(rows, columns), dtype=torch.float64)
    torch.testing.assert_close(product, expected, atol=1e-13, rtol=0)


def test_each_stacked_matrix_is_orthogonal():
    """Query, key, value; the gates of an LSTM; the groups of a convolution."""
    attention, lstm = nn.MultiheadAttention(6, 2), nn.LSTM(3, 5)
    grouped = nn.Conv2d(8, 8, 1, groups=2)
    for module, weight, count in (
        (attention, attention.in_proj_weight, 3),
        (lstm, lstm.weight_hh_l0, 4),
        (grouped, grouped.weight.flatten(1), 2),
    ):
        orthogonal_init(Case(module, lambda m, x: x.sum(), [torch.ones(1)]), gain=1.5)
        for part in weight.detach().chunk(count):
            torch.testing.assert_close(part @ part.T, 2.25 * torch.eye(len(part)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("outside", [5, 12])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_delta_orthogonal_convolution_keeps_norms_exactly(outside, dims):
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    layer = kind(5, outside, 3, padding=1, padding_mode="circular").double()
    case = Case(layer, lambda m, x: m(x).sum(), [torch.ones(1)])
    delta_orthogonal_init(case, gain=1.0)
    x = torch.randn(2, 5, *(6,) * dims, dtype=torch.float64)
    # The mean square is kept: with more outputs than inputs the norm grows with the root of their ratio.
    expected = x.norm() * math.sqrt(outside / 5)
    torch.testing.assert_close(layer(x).norm(), expected, atol=0, rtol=1e-13)


def test_grouped_delta_orthogonal_convolutions_keep_norms_too():
    layer = nn.Conv2d(8, 8, (1, 5), padding=(0, 2), groups=2)
    delta_orthogonal_init(Case(layer, lambda m, x: m(x).sum(), [torch.ones(1)]), gain=1.0)
    x = torch.randn(1, 8, 4, 4)
    torch.testing.assert_close(layer(x).norm(), x.norm(), atol=0, rtol=1e-5)


@pytest.mark.parametrize(("name", "module"), [("tanh", nn.Tanh), ("gelu", nn.GELU), ("relu", nn.ReLU)])
def test_at_the_critical_point_the_measured_chi_is_1(name, module):
    """The mean over layers of (E φ'(h)²)·sigma_w² on the network's own pre-activations."""
    width, depth = 400, 8
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), module())]
    bias = 0.05 if name == "tanh" else None
    point = theory.critical(name, bias)
    scale = math.sqrt(point.q_star) if point.q_star else 1.0
    case = plain(*layers, shape=(64, width))
    critical_init(case, bias_variance=bias)
    # Enters as the layer before would hand it on: φ of a Gaussian of the fixed variance.
    x = module()(scale * torch.randn(64, width, generator=torch.Generator().manual_seed(2)))
    chis = []
    for layer, activation in zip(case.model[::2], case.model[1::2], strict=True):
        h = layer(x).detach().requires_grad_()
        slopes = torch.autograd.grad(activation(h).sum(), h)[0]
        chis.append(gain_of(layer) ** 2 * slopes.double().square().mean().item())
        x = activation(h)
    values = torch.tensor(chis)
    # One network's chi scatters by about sqrt(2/width) per layer, and neighbours are alike.
    assert values.mean().item() == pytest.approx(1.0, abs=3 * math.sqrt(2 / width))


def test_critical_biases_have_the_variance_of_the_point():
    case = plain(nn.Linear(20, 5000), nn.GELU(), shape=(2, 20))
    critical_init(case)
    expected = theory.critical("gelu").sigma_b2
    assert case.model[0].bias.var().item() == pytest.approx(expected, rel=4 * math.sqrt(2 / 5000))


def test_what_is_frozen_shared_or_recurrent_stays():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight
            self.frozen, self.free = nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 4)
            self.lstm = nn.LSTM(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.frozen(self.free(self.lstm(self.embed(x))[0]))))

    case = Case(Net(), lambda m, x: m(x).sum(), [torch.tensor([[1, 2]])])
    before = {name: p.detach().clone() for name, p in case.model.named_parameters()}
    activation_init(case)
    changed = {n for n, p in case.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"free.weight", "free.bias"}


@pytest.mark.parametrize("apply", [activation_init, orthogonal_init, critical_init, delta_orthogonal_init])
def test_the_seed_draws_and_repeats(apply):
    def drawn(seed: int) -> Tensor:
        case = plain(nn.Conv2d(3, 4, 3), nn.ReLU(), shape=(1, 3, 5, 5))
        apply(case, seed=seed)
        return case.model[0].weight.detach().clone()

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize(
    ("apply", "given", "message"),
    [
        (activation_init, {"sites": "nowhere"}, "no trainable weight of a linear map is chosen by"),
        (activation_init, {"distribution": "cauchy"}, "'cauchy'; give 'normal' or 'uniform'"),
        (orthogonal_init, {"gain": -1.0}, "gain is -1.0; give a positive number"),
        (delta_orthogonal_init, {"gain": 0.0}, "gain is 0.0; give a positive number"),
        (delta_orthogonal_init, {}, "for linear maps use orthogonal_init"),
        (critical_init, {}, "sigmoid has no half-stable point"),
        (critical_init, {"sites": "2"}, "no activation that theory knows follows the maps"),
    ],
)
def test_what_cannot_be_done_says_so(apply, given, message):
    case = plain(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8))
    with pytest.raises(ValueError, match=message):
        apply(case, **given)
