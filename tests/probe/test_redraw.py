"""The redrawn trunk: exchangeable with the network, leaves no trace, and refuses what is no random draw."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import unitygain.measures
from unitygain._case import Case
from unitygain._registry import MEASURES
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe
from unitygain.probe.record import Record
from unitygain.probe.redraw import LEAST, looks_random, redraw
from unitygain.theory.null import relu_log_moments

assert unitygain.measures
NEEDS = ("entry.rms", "exit.rms", "entry_grad.rms", "exit_grad.rms")


def relu_case(width: int, depth: int, seed: int = 0, samples: int = 1, gain: float = math.sqrt(2)) -> Case:
    """Return a plain ReLU network with Gaussian weights without biases."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [part for _ in range(depth) for part in (nn.Linear(width, width, bias=False), nn.ReLU())]
        model = nn.Sequential(*layers, nn.Linear(width, 1))
        for layer in layers[::2]:
            nn.init.normal_(layer.weight, std=gain * width**-0.5)
        return Case(model, lambda m, x: m(x).square().mean(), [torch.randn(samples, width)])


def drawn(case: Case, **options) -> Record:
    """Return the record of a case with its draws."""
    with isolated(case) as (subject, _):
        return redraw(subject, observe(subject, NEEDS), **options)


def logs(record: Record, signal: str) -> np.ndarray:
    """Log squared gains, shape (draws, blocks)."""
    return 2 * np.log(np.array(list(record.values[signal].values()))).T


@pytest.mark.parametrize("gain", [math.sqrt(2), 0.3])
def test_draws_scatter_as_the_exact_law_says(gain):
    """Forward, one vector: the log squared gain of a layer has the exact moments at any scale."""
    width, depth = 32, 12
    found = logs(drawn(relu_case(width, depth, gain=gain)), "redrawn.forward")[:, 1:]
    mean, variance = relu_log_moments(width)
    count = found.size
    assert count > 500
    # The singular values stay: the squared scale of each matrix, 2/n² of it, is the network's own.
    slack = 4 * math.sqrt(variance / count) + 4 * math.sqrt(2 / width**2 / depth)
    assert abs(found.mean() - mean - math.log(gain**2 / 2)) < slack
    assert found.var() == pytest.approx(variance, rel=4 * math.sqrt(3 / count) + 2 / width)


@pytest.mark.slow
def test_network_is_one_more_draw(monkeypatch):
    """Over 40 networks the rank of the trunk's own gain among its draws is uniform, both ways."""
    monkeypatch.setattr("unitygain.probe.redraw.DRAWS", LEAST)
    ranks = []
    for seed in range(40):
        case = relu_case(16, 4, seed, samples=4)
        record = drawn(case)
        own = observe_loop(case)
        for signal, loop in own.items():
            draws = logs(record, signal).sum(axis=1)
            ranks.append(((draws < loop).sum() + 0.5) / (len(draws) + 1))
    assert stats.kstest(ranks, "uniform").pvalue > 1e-3


def observe_loop(case: Case) -> dict[str, float]:
    """Log squared gain over the whole trunk, forward and backward, as the measures see it."""
    with isolated(case) as (subject, _):
        record = observe(subject, NEEDS)
        loops = {}
        for name in ("forward", "backward"):
            profile = MEASURES[f"{name}_gain"].compute(subject, record)
            assert profile is not None
            loops[f"redrawn.{name}"] = 2 * sum(map(math.log, profile.values))
        return loops


def test_same_seed_same_draws_and_nothing_is_left():
    case = relu_case(16, 4)
    before = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    with isolated(case) as (subject, _):
        record = observe(subject, NEEDS)
        held = [(p, p.data_ptr()) for p in subject.model.parameters()]
        torch.manual_seed(5)
        first = redraw(subject, record)
        after = torch.rand(1)
        torch.manual_seed(5)
        second = redraw(subject, record)
        assert all(p.data_ptr() == place for p, place in held)
        assert torch.equal(torch.rand(1), after)
    assert first.values["redrawn.backward"] == second.values["redrawn.backward"]
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after), "the draws took random numbers of the user"
    assert all(torch.equal(tensor, before[name]) for name, tensor in case.model.state_dict().items())


def test_weights_are_put_back_where_a_draw_fails():
    case = relu_case(16, 4)
    calls = []

    def break_down(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 5:
            raise RuntimeError("out of luck")
        return model(x).sum()

    with isolated(Case(case.model, break_down, case.batches)) as (subject, _):
        record = observe(subject, NEEDS)
        before = [p.detach().clone() for p in subject.model.parameters()]
        found = redraw(subject, record)
        assert all(torch.equal(p, b) for p, b in zip(subject.model.parameters(), before, strict=True))
    assert found.facts["redraws"] == 0
    assert "out of luck" in str(found.facts["redraws_note"])


@pytest.mark.parametrize(
    "fill",
    [nn.init.normal_, nn.init.uniform_, nn.init.orthogonal_, nn.init.trunc_normal_],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("shape", [(8, 8), (64, 64), (96, 24), (16, 256)])
def test_every_usual_initialiser_looks_random(fill, shape):
    with torch.random.fork_rng():
        for seed in range(20):
            torch.manual_seed(seed)
            weight = torch.empty(shape)
            fill(weight, -1, 1) if fill is nn.init.uniform_ else fill(weight)
            assert looks_random(weight)
            assert looks_random(weight.view(*shape, 1, 1))


def test_what_is_no_draw_is_told():
    torch_source = torch.Generator().manual_seed(0)
    noise = torch.randn(64, 64, generator=torch_source)
    assert not looks_random(torch.eye(64))
    assert not looks_random(noise + 0.5)
    assert not looks_random(noise + 3 * torch.outer(noise[0], noise[1]) / 8)
    assert not looks_random(noise.abs())
    assert not looks_random(torch.full((4, 4), math.nan))
    # A branch that starts at zero is the same in every arrangement.
    assert looks_random(torch.zeros(4, 4))


def test_no_draws_where_a_weight_has_been_learnt_or_is_made_from_others():
    case = relu_case(32, 4)
    with torch.no_grad():
        case.model[2].weight += 2 * torch.outer(torch.ones(32), torch.ones(32)) / 32
    record = drawn(case)
    assert record.facts["redraws"] == 0
    assert str(record.facts["redraws_note"]).startswith("1 of the trunk's 4 weights do not look like")
    made = relu_case(32, 4)
    nn.utils.parametrizations.weight_norm(made.model[2])
    assert "parametrisation" in str(drawn(made).facts["redraws_note"])


def test_a_large_model_is_not_drawn_but_its_width_is_told(monkeypatch):
    monkeypatch.setattr("unitygain.probe.redraw.BUDGET", 1e5)
    record = drawn(relu_case(64, 8))
    assert record.facts["redraws"] == 0
    assert record.facts["wide_variance"] == pytest.approx(8 * 5 / 64)


def test_gain_over_random_directions_is_drawn_where_asked():
    record = drawn(relu_case(16, 4), random_gains=True)
    draws = [len(numbers) for numbers in record.values["redrawn.random"].values()]
    assert draws == [LEAST] * 4
    assert all(n == record.facts["redraws"] for n in map(len, record.values["redrawn.forward"].values()))
