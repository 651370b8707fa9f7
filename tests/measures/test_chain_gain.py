"""chain_gain: bound, typical and worst gain against dense products; the known three numbers of He-ReLU."""

import math

import pytest
import torch
from probe.trunks import Cube, Once, Residual, Trunk, naive_jacobian, naive_jacobians, recorded
from torch import Tensor, nn

from unitygain._types import Profile
from unitygain.measures.chain_gain import chain_gain
from unitygain.probe.observe import observe


def measured(model: nn.Module, x: Tensor, **facts: float) -> Profile:
    case, _ = recorded(model, x)
    profile = chain_gain(case, observe(case, [], **({"seed": 0, "probes": 8} | facts)))
    assert profile is not None
    assert [str(site) for site in profile.sites] == [
        "(model).(bound)",
        "(model).(typical)",
        "(model).(worst)",
    ]
    return profile


def dense_product(model: Trunk, x: Tensor) -> Tensor:
    product = torch.eye(x.numel(), dtype=torch.float64)
    for factor in naive_jacobians(recorded(model, x)[0]):
        product = factor @ product
    return product


def he_relu(width: int, depth: int) -> Trunk:
    blocks: list[nn.Module] = []
    for _ in range(depth):
        layer = nn.Linear(width, width, bias=False)
        nn.init.normal_(layer.weight, std=(2 / width) ** 0.5)
        blocks.append(nn.Sequential(layer, nn.ReLU()))
    return Trunk(blocks).double()


def test_three_numbers_of_he_relu():
    torch.manual_seed(0)
    model = he_relu(256, 50)
    x = torch.randn(1, 256).double()
    profile = measured(model, x, probes=64)
    assert profile.error is not None
    dense = dense_product(model, x)
    norms = [torch.linalg.svdvals(block[0].weight.detach())[0] for block in model.blocks]  # pyright: ignore
    expected = (
        float(torch.stack(norms).log10().sum()),
        math.log10(float(dense.square().sum() / 256) ** 0.5),
        math.log10(float(torch.linalg.svdvals(dense)[0])),
    )
    bound, typical, worst = profile.values
    assert abs(bound - expected[0]) <= profile.error[0] + 1e-10
    assert abs(typical - expected[1]) <= 3 * profile.error[1]
    assert abs(worst - expected[2]) <= profile.error[2] + 1e-10
    # Norms tend to 2·√2 each, 22.6 together. The log of the squared typical gain has mean 0 to -1/5·(5/n)·L
    # and variance 5·L/n: it is 10^(0 ± 0.2). The worst is about √(e·(L + 1/2)) times it at this width.
    assert bound == pytest.approx(22.4, abs=0.2)
    assert typical == pytest.approx(0, abs=0.6)
    assert worst == pytest.approx(1.1, abs=0.6)
    assert profile.labels[0] == "product of the weights' norms"


def test_orthogonal_chain_has_one_number():
    layers = [nn.Linear(12, 12, bias=False) for _ in range(30)]
    for layer in layers:
        layer.weight.data = 0.8 * torch.linalg.qr(torch.randn(12, 12).double()).Q
    profile = measured(Trunk(list(layers)).double(), torch.randn(2, 12).double())
    assert profile.values == pytest.approx([30 * math.log10(0.8)] * 3, rel=1e-12)


@pytest.mark.parametrize("gain", [1e-4, 1e4])
def test_numbers_beyond_the_range_of_float32(gain):
    layers = [nn.Linear(6, 6, bias=False) for _ in range(30)]
    for layer in layers:
        layer.weight.data = gain * torch.linalg.qr(torch.randn(6, 6)).Q
    # A zero input, so that the forward pass stays finite.
    profile = measured(Trunk(list(layers)), torch.zeros(2, 6))
    assert profile.values == pytest.approx([30 * math.log10(gain)] * 3, rel=1e-5)


def test_residual_trunk_is_bounded_by_its_blocks_not_its_weights():
    torch.manual_seed(1)
    model = Trunk([Residual() for _ in range(6)]).double()
    for parameter in model.parameters():
        parameter.data.mul_(0.3)
    x = torch.randn(2, 9).double()
    profile = measured(model, x, probes=64)
    assert profile.error is not None
    dense = dense_product(model, x)
    blocks = [float(torch.linalg.svdvals(j)[0].log10()) for j in naive_jacobians(recorded(model, x)[0])]
    assert profile.labels[0].startswith("product of the blocks' norms")
    assert abs(profile.values[0] - sum(blocks)) <= profile.error[0]
    assert (
        abs(profile.values[1] - math.log10(float(dense.square().sum() / 18) ** 0.5)) <= 3 * profile.error[1]
    )
    assert abs(profile.values[2] - float(torch.linalg.svdvals(dense)[0].log10())) <= profile.error[2]
    assert float(profile.facts["log10_weight_norms"]) < 0 < profile.values[0]


def test_convolutions_enter_the_bound_as_operators():
    torch.manual_seed(2)
    convolution = [nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular", bias=False) for _ in range(3)]
    model = Trunk([nn.Sequential(c, nn.ReLU()) for c in convolution]).double()
    profile = measured(model, torch.randn(1, 2, 5, 5).double())
    expected = 0.0
    for c in convolution:
        matrix = naive_jacobian(c, torch.zeros(1, 2, 5, 5).double())
        expected += float(torch.linalg.svdvals(matrix)[0].log10())
    assert profile.values[0] == pytest.approx(expected, rel=1e-12)


def test_bound_typical_and_worst_are_ordered():
    for seed in range(5):
        torch.manual_seed(seed)
        profile = measured(he_relu(12, 6), torch.randn(3, 12).double())
        assert profile.error is not None
        bound, typical, worst = profile.values
        assert typical - 3 * profile.error[1] <= worst <= bound + profile.error[0]


def test_dead_trunk_has_a_gain_of_zero():
    model = he_relu(6, 3)
    model.blocks[1][0].weight.data.zero_()  # pyright: ignore
    profile = measured(model, torch.randn(2, 6).double())
    assert profile.values == (-math.inf, -math.inf, -math.inf)
    assert "a gain of exactly zero" in profile.note


def test_without_double_backward_the_worst_is_a_lower_bound():
    torch.manual_seed(3)
    profile = measured(Trunk([Cube(Once), Cube(Once)]).double(), torch.randn(2, 9).double())
    assert profile.error is not None
    assert profile.labels[2].startswith("lower bound")
    assert math.isnan(profile.error[2])
    assert profile.note


def test_model_without_blocks_has_no_profile():
    case, record = recorded(nn.Linear(3, 3), torch.randn(2, 3))
    assert chain_gain(case, record) is None
