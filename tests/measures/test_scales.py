"""Scales of outputs, gradients, inputs and parameters against plain autograd, and how they must move."""

import copy

import pytest
import torch
from contracts.small_cases import HEALTHY
from hypothesis import given, settings
from hypothesis import strategies as st
from measures.reading import by_name, doubled, gradients, measured, rms, squares
from torch import Tensor, nn

from unitygain._case import Case

# Both sides run the same float64 kernels; the twin adds zeros and reduces in another order: a few roundings
# of 2^-53 on sums of at most 1e3 terms.
RTOL = 1e-10
SCALES = ("act_rms", "act_absmax", "grad_rms", "param_rms", "param_grad_rms", "input_rms", "input_mean")


def is_leaf(name: str, module: nn.Module) -> bool:
    return not any(True for _ in module.children()) or isinstance(module, nn.MultiheadAttention)


@pytest.mark.parametrize("family", HEALTHY)
def test_outputs_and_their_gradients_equal_the_twin(family: str) -> None:
    case = doubled(family)
    seen = measured(case, "act_rms", "act_absmax", "grad_rms")
    twin = gradients(case, is_leaf)
    acts, tops, grads = (by_name(seen[name]) for name in ("act_rms", "act_absmax", "grad_rms"))
    compared = [name for name in twin if name in acts]
    assert len(compared) >= 2
    for name in compared:
        output, gradient = twin[name]
        assert acts[name] == pytest.approx(rms(output), rel=RTOL, abs=0)
        assert tops[name] == float(output.abs().max())
        assert grads[name] == pytest.approx(rms(gradient), rel=RTOL, abs=0)


@pytest.mark.parametrize("family", HEALTHY)
def test_parameters_and_their_gradients_equal_the_twin(family: str) -> None:
    case = doubled(family)
    seen = measured(case, "param_rms", "param_grad_rms", "param_grad_frac_zero")
    torch.manual_seed(0)
    twins = torch.autograd.grad(case.compute_loss(case.batches[0]), list(case.model.parameters()))
    sizes, grads = by_name(seen["param_rms"]), by_name(seen["param_grad_rms"])
    for (name, parameter), gradient in zip(case.model.named_parameters(), twins, strict=True):
        assert sizes[name] == pytest.approx(rms(parameter), rel=RTOL, abs=0)
        assert grads[name] == pytest.approx(rms(gradient), rel=RTOL, abs=0)
        zero = float((gradient == 0).double().mean())
        assert by_name(seen["param_grad_frac_zero"])[name] == zero
    assert set(seen["param_rms"].labels) == {"float64"}


def test_inputs_and_their_gradient_equal_the_twin() -> None:
    case = squares(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)), 4, 5)
    seen = measured(case, "input_rms", "input_mean", "input_grad_rms")
    x = case.batches[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(case.loss(case.model, x), x)
    assert seen["input_rms"].values == pytest.approx((rms(x),), rel=RTOL, abs=0)
    assert seen["input_mean"].values == pytest.approx((float(x.detach().mean()),), rel=RTOL, abs=1e-15)
    assert seen["input_grad_rms"].values == pytest.approx((rms(gradient),), rel=RTOL, abs=0)


@settings(max_examples=10, deadline=None)
@given(st.integers(-40, 40))
def test_a_scaled_loss_scales_every_gradient_and_nothing_else(power: int) -> None:
    case = doubled("attention")
    scaled = copy.copy(case)
    scaled.loss = lambda model, batch: case.loss(model, batch) * 2.0**power
    names = (*SCALES, "backward_gain", "forward_gain", "gain_parts", "entry_grad_rms")
    before, after = measured(case, *names), measured(scaled, *names)
    for name, profile in before.items():
        factor = 2.0**power if "grad" in name else 1.0
        # Powers of two scale exactly as long as nothing leaves the range of float64.
        assert after[name].values == tuple(value * factor for value in profile.values), name


def test_an_identity_changes_no_neighbour() -> None:
    layers = [nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)]
    plain = squares(nn.Sequential(*layers), 4, 6)
    parted = squares(nn.Sequential(*layers[:2], nn.Identity(), *layers[2:]), 4, 6)
    for name in ("act_rms", "grad_rms"):
        few, many = (list(measured(case, name)[name].values) for case in (plain, parted))
        assert many == [*few[:2], few[1], *few[2:]]
    for name in ("backward_gain", "forward_gain", "act_frac_saturated"):
        assert measured(plain, name)[name].values == measured(parted, name)[name].values


def test_the_order_of_hidden_units_does_not_matter() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    case = squares(model, 6, 5)
    order = torch.randperm(8)
    shuffled = copy.deepcopy(model)
    with torch.no_grad():
        shuffled[0].weight.copy_(model[0].weight[order])
        shuffled[0].bias.copy_(model[0].bias[order])
        shuffled[2].weight.copy_(model[2].weight[:, order])
    other = Case(shuffled, loss=case.loss, data=case.batches)
    for name in ("act_rms", "grad_rms", "param_grad_rms", "act_frac_dead", "backward_gain", "weight_gain"):
        before, after = measured(case, name)[name], measured(other, name)[name]
        assert after.values == pytest.approx(before.values, rel=RTOL, abs=0), name


@pytest.mark.parametrize("family", HEALTHY)
def test_float32_agrees_with_float64(family: str) -> None:
    exact = measured(doubled(family), "act_rms", "grad_rms")
    torch.manual_seed(3)
    rounded = measured(HEALTHY[family](), "act_rms", "grad_rms")
    for name, profile in exact.items():
        # Sums of at most 100 products in float32: 100·2^-24 = 6e-6 per layer, over ten layers.
        assert rounded[name].values == pytest.approx(profile.values, rel=6e-5, abs=0), name


def test_what_is_not_finite_is_counted() -> None:
    class Poison(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.clone()
            x[0, 0] = torch.inf
            return x

    model = nn.Sequential(nn.Linear(4, 4), Poison())
    seen = measured(squares(model, 2, 4), "act_frac_nonfinite", "grad_frac_nonfinite")
    assert seen["act_frac_nonfinite"].values == (0.0, 1 / 8)
    assert by_name(seen["grad_frac_nonfinite"])["1"] == 1 / 8


def test_token_cosine_and_rank_are_those_of_the_block_exit() -> None:
    case = doubled("attention")
    seen = measured(case, "token_cosine", "effective_rank")
    outputs = {name: o for name, (o, _) in gradients(case, lambda n, m: n in BLOCKS).items()}
    for index, name in enumerate(BLOCKS):
        units = torch.nn.functional.normalize(outputs[name], dim=-1)
        table = units @ units.transpose(1, 2)
        tokens = table.shape[-1]
        cosine = (table.sum((1, 2)) - tokens).mean() / (tokens * (tokens - 1))
        assert seen["token_cosine"].values[index] == pytest.approx(float(cosine), rel=1e-9, abs=1e-12)
        sigma = torch.linalg.svdvals(outputs[name].flatten(0, 1))
        share = sigma / sigma.sum()
        rank = float(torch.exp(-(share * share.log()).sum())) / min(outputs[name].flatten(0, 1).shape)
        # From squared singular values: right to 4e-7 of the largest each.
        assert seen["effective_rank"].values[index] == pytest.approx(rank, rel=1e-5)


BLOCKS = ("blocks.0", "blocks.1", "blocks.2")
