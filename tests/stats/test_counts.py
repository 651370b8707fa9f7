"""Zeros, non-finite entries, underflow and exponents, against naive counting and torch's own casts."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stats.twins import FLOATS, LAYOUTS, make, samples_of
from torch import Tensor

from unitygain.stats import (
    EXPONENT_HIGH,
    EXPONENT_LOW,
    NUMBER_RANGES,
    UNDERFLOW_DTYPES,
    exponents,
    frac_nonfinite,
    frac_underflow,
    frac_zero,
)

SHAPES = ((), (0,), (1,), (6,), (5, 3), (2, 3, 4), (4, 5, 6, 2), (67, 71))


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    tensor = make(
        draw(st.sampled_from(FLOATS)),
        draw(st.sampled_from(SHAPES)),
        draw(st.sampled_from(LAYOUTS)),
        0.0,
        draw(st.floats(0, 1)),
        draw(st.sampled_from((0.0, 0.5, 1.0))),
        draw(st.integers(0, 2**32)),
    )
    assume(tensor is not None)
    return tensor


def same(value: Tensor, expected: float) -> None:
    assert value.dtype is torch.float64
    assert value.shape == ()
    torch.testing.assert_close(value.item(), expected, rtol=1e-15, atol=0.0, equal_nan=True)


@settings(max_examples=200, deadline=None)
@given(tensors())
def test_frac_zero_counts_every_layout(tensor: Tensor) -> None:
    numbers = samples_of(tensor)
    same(frac_zero(tensor), numbers.count(0) / len(numbers) if numbers else math.nan)


@settings(max_examples=200, deadline=None)
@given(tensors())
def test_exponents_counts_every_layout(tensor: Tensor) -> None:
    expected = torch.zeros(EXPONENT_HIGH - EXPONENT_LOW + 1, dtype=torch.float64)
    for number in samples_of(tensor):
        if number:
            exponent = math.frexp(math.hypot(complex(number).real, complex(number).imag))[1] - 1
            expected[min(max(exponent, EXPONENT_LOW), EXPONENT_HIGH) - EXPONENT_LOW] += 1
    assert torch.equal(exponents(tensor), expected)


@settings(max_examples=200, deadline=None)
@given(tensors())
def test_frac_underflow_counts_every_layout(tensor: Tensor) -> None:
    sizes = [abs(number) for number in samples_of(tensor) if number]
    for name, value in zip(UNDERFLOW_DTYPES, frac_underflow(tensor), strict=True):
        lost = sum(size <= NUMBER_RANGES[name].smallest_subnormal / 2 for size in sizes)
        same(value, lost / len(sizes) if sizes else math.nan)


@pytest.mark.parametrize("name", UNDERFLOW_DTYPES)
def test_frac_underflow_agrees_with_the_cast_around_the_tie(name: str) -> None:
    tie = torch.tensor(NUMBER_RANGES[name].smallest_subnormal / 2, dtype=torch.float64)
    above, below = torch.nextafter(tie, tie * 2), torch.nextafter(tie, tie / 2)
    lost = {size: frac_underflow(-size)[UNDERFLOW_DTYPES.index(name)].item() for size in (below, tie, above)}
    assert list(lost.values()) == [1.0, 1.0, 0.0]
    # torch casts float64 by way of float32, so it is asked about float32's neighbours of the tie.
    for factor in (1 - 2**-20, 1.0, 1 + 2**-10, 2.0, 3.0):
        size = (tie * factor).float()
        lost_here = frac_underflow(size)[UNDERFLOW_DTYPES.index(name)].item()
        assert lost_here == float(size.to(getattr(torch, name)).double() == 0)


@pytest.mark.parametrize("dtype", [*FLOATS[:4], *FLOATS[6:]])
@pytest.mark.parametrize("size", [20, 200_000])
def test_frac_nonfinite_counts_infinities_and_nan(dtype: torch.dtype, size: int) -> None:
    tensor = torch.ones(size).to(dtype)
    same(frac_nonfinite(tensor), 0.0)
    tensor[0], tensor[-1], tensor[size // 2] = math.inf, -math.inf, math.nan
    same(frac_nonfinite(tensor), 3 / size)
    same(frac_nonfinite(tensor.view(2, -1).t()), 3 / size)


def test_opposite_infinities_do_not_cancel() -> None:
    same(frac_nonfinite(torch.tensor([math.inf, -math.inf])), 1.0)


def test_a_sum_that_overflows_is_not_a_non_finite_entry() -> None:
    same(frac_nonfinite(torch.full((1000,), 3e38)), 0.0)
    same(frac_nonfinite(torch.full((1000,), 6e4, dtype=torch.float16)), 0.0)
    same(frac_nonfinite(torch.full((1000,), 1.7e308 + 1.7e308j, dtype=torch.complex128)), 0.0)


def test_eight_bit_floats_that_are_not_numbers() -> None:
    same(frac_nonfinite(torch.tensor([math.nan, 1.0]).to(torch.float8_e4m3fn)), 0.5)
    same(frac_nonfinite(torch.tensor([math.inf, 1.0, math.nan, 0.0]).to(torch.float8_e5m2)), 0.5)


def test_non_finite_entries_have_no_exponent_and_do_not_underflow() -> None:
    tensor = torch.tensor([math.inf, math.nan, -math.inf, 1.0, 1e-30])
    assert exponents(tensor).sum() == 2
    assert frac_underflow(tensor).tolist() == [0.2, 0.0, 0.2, 0.2]


def test_integers_have_no_special_numbers() -> None:
    same(frac_zero(torch.tensor([0, 3, 0, 5])), 0.5)
    same(frac_zero(torch.tensor([True, False])), 0.5)
    same(frac_nonfinite(torch.tensor([0, 3])), 0.0)


def test_nothing_has_no_fraction() -> None:
    empty = torch.empty(3, 0)
    same(frac_zero(empty), math.nan)
    same(frac_nonfinite(empty), math.nan)
    assert frac_underflow(empty).isnan().all()
    assert exponents(empty).sum() == 0


def test_expanded_entries_count_as_often_as_they_stand() -> None:
    tensor = torch.tensor([1.0, 0.0, 4.0]).unsqueeze(1).expand(3, 5)
    same(frac_zero(tensor), 1 / 3)
    assert exponents(tensor)[-EXPONENT_LOW] == 5
    assert exponents(tensor)[2 - EXPONENT_LOW] == 5


def test_a_large_tensor_is_sampled_evenly_over_its_columns() -> None:
    # 1024 columns, each of its own power of two: a step of 4 would see every fourth column alone.
    tensor = torch.exp2(torch.arange(1024) % 32 - 16.0).expand(4099, 1024).contiguous()
    counts = exponents(tensor)[-16 - EXPONENT_LOW : 16 - EXPONENT_LOW]
    # Entries k·5 mod n run through the columns in turn, so bins differ by a few counts of weight 5.
    torch.testing.assert_close(counts, torch.full_like(counts, tensor.numel() / 32), rtol=1e-3, atol=0.0)
    torch.testing.assert_close(exponents(tensor).sum().item(), float(tensor.numel()), rtol=1e-12, atol=0.0)
