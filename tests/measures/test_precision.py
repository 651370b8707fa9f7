"""grad_rescaled and act_headroom against naive twins: a float64 model, and the definition of rounding."""

import copy
import math

import pytest
import torch
from torch import nn
from zoo import PATIENTS

from unitygain._case import Case
from unitygain._types import Profile
from unitygain.measures import act_headroom, grad_rescaled
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe

PATIENT = {patient.name: patient for patient in PATIENTS}
LN10_2 = math.log10(2)


def rescaled(case: Case) -> Profile | None:
    with isolated(case) as (twin, _):
        return grad_rescaled(twin, observe(twin, ["grad.rms"]))


def headroom(case: Case) -> Profile:
    with isolated(case) as (twin, _):
        profile = act_headroom(twin, observe(twin, ["output.absmax"]))
    assert profile is not None
    return profile


def naive_gradients(case: Case) -> dict[str, torch.Tensor]:
    """∂L/∂output of every module in a sequence, in float64 by retain_grad."""
    model = copy.deepcopy(case.model).double()
    x, y = case.batches[0]
    outputs = {}
    h = x.double()
    for name, part in model.named_children():
        h = part(h)
        h.retain_grad()
        outputs[name] = h
    case.loss(lambda _: h, (x, y)).backward()  # pyright: ignore[reportArgumentType]
    return {name: output.grad for name, output in outputs.items()}


@pytest.mark.parametrize("name", ["float16-small-loss", "float16-scaled-loss", "float32-sigmoids-23"])
def test_rescaled_gradient_is_that_of_a_float64_model(name):
    case = PATIENT[name].make_case()
    profile = rescaled(case)
    assert profile is not None
    naive = naive_gradients(case)
    assert len(profile) == len(naive)
    for site, value in profile.items():
        assert value == pytest.approx(math.log10(naive[site.path].square().mean().sqrt()), rel=1e-9)


@pytest.mark.parametrize("name", ["float16-small-loss", "float16-scaled-loss", "float16-near-the-end"])
def test_what_is_lost_is_what_rounding_takes(name):
    case = PATIENT[name].make_case()
    profile = rescaled(case)
    assert profile is not None
    for site, gradient in naive_gradients(case).items():
        index = [place.path for place in profile.sites].index(site)
        _, entries, energy = profile.rows[index]
        there = gradient[gradient != 0]
        gone = there[there.half() == 0]
        assert entries == pytest.approx(len(gone) / len(there), abs=1e-12)
        share = float(gone.square().sum() / there.square().sum())
        # Within a power of two the histogram takes x² as even: 7/3·4^k for a sum between 4^k and 4·4^k.
        assert share / 2.4 <= energy <= share * 2.4


@pytest.mark.parametrize("power", [-1100, -600, -160])
def test_nothing_underflows_up_to_the_second_try(power):
    """A loss that is tiny by a product of factors which float64 itself cannot hold below 2^-1074."""

    def loss(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = model(x).sum()
        for _ in range(-power // 20):
            y = y * 2.0**-20
        return y

    model = nn.Linear(2, 1, bias=False)
    profile = rescaled(Case(model, loss, [torch.ones(1, 2)]))
    assert profile is not None
    assert profile.values[0] == pytest.approx(power * LN10_2, rel=1e-12)


def test_a_true_zero_stays_zero():
    case = Case(
        nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), lambda m, x: 0.0 * m(x).sum(), [torch.ones(1, 2)]
    )
    profile = rescaled(case)
    assert profile is not None
    assert set(profile.values) == {-math.inf}


def test_costs_nothing_where_the_dtype_shows_all():
    passes = []

    def loss(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        passes.append(1)
        return model(x).square().mean()

    assert rescaled(Case(nn.Linear(4, 4), loss, [torch.ones(2, 4)])) is None
    assert len(passes) == 1


def test_code_that_insists_on_float32_is_run_in_float32():
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.table = torch.randn(2, 2)  # no buffer, so that double() leaves it

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) @ self.table

    case = Case(Stubborn(), lambda m, x: m(x).sum() * 1e-25 * 1e-25, [torch.ones(1, 2)])
    profile = rescaled(case)
    assert profile is not None
    # float32 reaches 2^64 further down than 1e-45, not further.
    assert profile.values[0] == pytest.approx(math.log10(float(_table_rms(case))) - 50, abs=1e-3)


def _table_rms(case: Case) -> torch.Tensor:
    return case.model.table.sum(1).square().mean().sqrt()  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]


@pytest.mark.parametrize(("value", "bits"), [(1.0, 128.0), (2.0**127, 1.0), (0.0, math.inf)])
def test_headroom_counts_powers_of_two(value, bits):
    layer = nn.Linear(1, 1)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, value)
    profile = headroom(Case(layer, lambda m, x: m(x).sum(), [torch.ones(1, 1)]))
    # The largest float32 is 2^128·(1 - 2^-24).
    assert profile.values[0] == pytest.approx(bits, abs=1e-6)
    assert profile.labels == ("float32",)


@pytest.mark.parametrize("name", ["nan-float16-overflow", "float16-near-the-end"])
def test_headroom_of_an_overflow_is_known_from_float64(name):
    case = PATIENT[name].make_case()
    profile = headroom(case)
    h = case.batches[0][0].double()
    for (site, bits), part in zip(profile.items(), copy.deepcopy(case.model).double(), strict=True):
        h = part(h)
        if profile.labels[profile.sites.index(site)] == "float16":
            # float16 rounds what the run saw to 11 bits on the way.
            assert bits == pytest.approx(math.log2(65504 / float(h.detach().abs().max())), abs=0.01)


def test_what_no_dtype_holds_has_no_headroom():
    case = PATIENT["nan-log-of-zero"].make_case()
    case.precision = "float16"
    assert headroom(case).values[-1] == -math.inf
