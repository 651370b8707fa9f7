"""sample_mixing on norms by hand over the batch: which are known for a slip, and which are meant."""

import pytest
import torch
from measures.reading import measured
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import standards
from zoo.mixed import Dependent, vectors
from zoo.patient import classify

from unitygain._case import Case
from unitygain.probe.standards import layer_norm_runs_over, versions


def kind(between, rows: int = 10) -> str:
    """Return what brings the samples together."""
    torch.manual_seed(0)
    case = Case(Dependent(between), classify, vectors(rows))
    return measured(case, "sample_mixing")["sample_mixing"].labels[0]


def by_moments(h: Tensor) -> Tensor:
    mean = h.mean(0)
    return (h - mean) / ((h * h).mean(0) - mean * mean + 1e-5).sqrt()


def by_length(h: Tensor) -> Tensor:
    return h * h.square().mean(0, keepdim=True).add(1e-5).pow(-0.5)


@pytest.mark.parametrize(
    "norm",
    [
        standards.by_batch,
        standards.by_batch_rooted,
        standards.by_whole,
        by_moments,
        lambda h: (h - h.mean(0)) / ((h - h.mean(0)) ** 2).mean(0).add(1e-5) ** 0.5,
        lambda h: (h - h.mean(0).expand_as(h)).div_(h.std(0).expand_as(h)),
        by_length,
        lambda h: (h - h.mean(0)) / h.std(0, keepdim=True).clamp_min(1e-3),
    ],
)
def test_a_spread_over_the_samples_that_divides_them_is_known(norm):
    assert kind(norm) == "statistics"


@pytest.mark.parametrize(
    "norm",
    [lambda h: F.layer_norm(h.T, (len(h),)).T, standards.Flipped(10), lambda h: F.layer_norm(h, h.shape)],
)
def test_a_layer_norm_over_the_batch_is_known(norm):
    assert kind(norm) == "layer norm"


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        (standards.with_spread, "pooled"),
        (lambda h: h - h.mean(0), "pooled"),
        (lambda h: h / h.std(0), "pooled"),
        (lambda h: standards.by_batch(h) + h.mean(0), "pooled"),
        (standards.Running(), "kept"),
        (standards.by_features, ""),
        (nn.LayerNorm(32), ""),
    ],
)
def test_what_is_meant_or_stays_apart_is_left_alone(between, expected):
    assert kind(between) == expected


def test_what_is_put_out_at_unit_scale_is_left_alone():
    case = Case(standards.Twins(), standards.decorrelated, vectors(24))
    assert measured(case, "sample_mixing")["sample_mixing"].labels == ("kept",)


@pytest.mark.parametrize(
    ("shape", "normalised", "over"),
    [
        ((8, 32), (32,), True),
        ((32, 8), (8,), False),
        ((32, 8), (32, 8), True),
        ((32, 32), (32,), False),
        ((4, 8, 32), (8, 32), True),
    ],
)
def test_a_layer_norm_runs_over_the_batch_where_no_other_dimension_is_it(shape, normalised, over):
    assert layer_norm_runs_over(32, shape, normalised) is over


def test_a_buffer_that_is_written_or_replaced_is_seen():
    module = standards.Running(4)
    before = versions(module)
    assert before == versions(module)
    module.mean.add_(1)
    written = versions(module)
    assert written != before
    module.var = module.var.clone()
    assert versions(module) != written
