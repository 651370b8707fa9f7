"""rms, norm, absmax and mean against naive float64 twins over every dtype, layout and magnitude."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stats.twins import FLOATS, LAYOUTS, make, samples_of, twin_norm, twin_rms
from torch import Tensor

from unitygain.stats import absmax, mean, norm, rms

# (67, 71) has more than 4096 entries and is no multiple of the row length, so that the quick way is taken.
SHAPES = ((), (0,), (3, 0, 2), (1,), (7,), (5, 3), (2, 3, 4), (4, 5, 6, 2), (67, 71), (3, 5, 17, 19))


@st.composite
def tensors(draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = FLOATS) -> Tensor:
    """Entries from a window of the dtype's exponents, so both uniform and wildly mixed magnitudes occur."""
    low, high = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    tensor = make(
        draw(st.sampled_from(dtypes)),
        draw(st.sampled_from(SHAPES)),
        draw(st.sampled_from(LAYOUTS)),
        low,
        high,
        draw(st.sampled_from((0.0, 0.0, 0.3, 1.0))),
        draw(st.integers(0, 2**32)),
    )
    assume(tensor is not None)
    return tensor


def close(value: Tensor, expected: float, rtol: float) -> None:
    assert value.dtype is torch.float64
    assert value.shape == ()
    torch.testing.assert_close(value.item(), expected, rtol=rtol, atol=0.0, equal_nan=True)


@settings(max_examples=400, deadline=None)
@given(tensors())
def test_rms_and_norm_are_right_to_a_millionth_for_every_normal_number(tensor: Tensor) -> None:
    numbers = samples_of(tensor)
    length, scale = twin_norm(numbers)
    close(rms(tensor), twin_rms(numbers), 1e-6)
    close(norm(tensor), length * scale, 1e-6)


@settings(max_examples=200, deadline=None)
@given(tensors())
def test_absmax_is_exact_and_mean_is_right(tensor: Tensor) -> None:
    numbers = samples_of(tensor)
    # hypot of a complex number may differ by a last place between two libraries: 2^-52 is two roundings.
    sizes = [math.hypot(number.real, number.imag) for number in numbers]
    close(absmax(tensor), max(sizes, default=math.nan), 2**-52 if tensor.is_complex() else 0.0)
    if not numbers:
        assert mean(tensor).isnan()
        return
    terms = sizes if tensor.is_complex() else [number / len(numbers) for number in numbers]
    if math.inf in map(abs, terms):
        assert mean(tensor).isinf()
        return
    divide = len(numbers) if tensor.is_complex() else 1
    largest = max(map(abs, terms)) / divide
    expected = math.fsum(term / divide for term in terms)
    # Each of n additions errs by 2^-53 of a partial sum, itself at most n times the largest term.
    assert abs(mean(tensor).item() - expected) <= len(numbers) ** 2 * 2**-53 * largest + 5e-324 * len(numbers)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("layout", ["strided", "sliced", "transposed"])
def test_a_million_entries_at_both_ends_of_the_range(dtype: torch.dtype, place: float, layout: str) -> None:
    tensor = make(dtype, (1000, 1000), layout, place, place, 0.0, 3)
    parts = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    wide = parts.double()
    scale = wide.abs().max()
    # numpy-style pairwise sums of 1e6 numbers in float64 err by about 20·2^-53.
    expected = (wide / scale).square().sum().div(tensor.numel()).sqrt() * scale
    close(rms(tensor), expected.item(), 1e-6)


@pytest.mark.parametrize("entries", [100, 5000, 300_000])
@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (torch.float32, 1e-45),
        (torch.float32, 1e-38),
        (torch.float32, 1e-25),
        (torch.float32, 1e-19),
        (torch.float32, 1e20),
        (torch.float32, 3e38),
        (torch.bfloat16, 1e-38),
        (torch.bfloat16, 3e38),
        (torch.float16, 6e4),
        (torch.float64, 1e-300),
        (torch.float64, 1e-160),
        (torch.float64, 1e160),
        (torch.float64, 1.7e308),
        (torch.complex64, 1e-30 + 1e-30j),
        (torch.complex64, 1e38 + 1e38j),
        (torch.complex128, 1e-300 - 1e-300j),
    ],
)
def test_squares_and_sums_beyond_the_range_of_the_dtype(
    entries: int, dtype: torch.dtype, size: complex
) -> None:
    tensor = torch.full((entries,), size, dtype=dtype)
    stored = abs(tensor[0].item())
    close(rms(tensor), stored, 1e-6)
    close(absmax(tensor), stored, 2**-52)
    expected = stored * math.sqrt(entries) if stored < 1e300 else math.inf
    close(norm(tensor), expected, 1e-6)


def test_mean_of_numbers_whose_sum_overflows() -> None:
    # 1000 additions in float64.
    close(mean(torch.full((1000,), 1.5e308, dtype=torch.float64)), 1.5e308, 1e-12)
    close(mean(torch.full((1000,), 3e38)), torch.tensor(3e38).item(), 1e-12)


def test_a_large_entry_does_not_hide_the_many_that_outweigh_it() -> None:
    # Squares at half a rounding step of the running sum are lost one by one in a long float32 sum.
    tensor = torch.full((1 << 20,), 2.0**-12)
    tensor.view(-1, 1024)[:, :16] = 1.0
    close(rms(tensor), math.sqrt(16 / 1024 + 2**-24 * (1 - 16 / 1024)), 1e-6)


@pytest.mark.parametrize("transposed", [False, True])
def test_an_embedding_of_38_million_entries(transposed: bool) -> None:
    weight = torch.randn(50257, 768) * 1e-3
    squares = torch.stack([part.double().square().sum() for part in weight.split(512)])
    expected = (squares.sum() / weight.numel()).sqrt().item()
    close(rms(weight.t() if transposed else weight), expected, 1e-6)
    # The plain norm is what this guards against: its error here is 2.7e-3.
    assert abs(weight.norm().item() / math.sqrt(weight.numel()) / expected - 1) > 1e-3


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.int32, torch.bool])
def test_integers_and_bool(dtype: torch.dtype) -> None:
    tensor = torch.tensor([0, 1, 100, 3, 7]).to(dtype)
    numbers = samples_of(tensor)
    close(rms(tensor), twin_rms(numbers), 1e-15)
    close(mean(tensor), math.fsum(numbers) / 5, 1e-15)
    close(absmax(tensor), max(numbers), 0.0)


def test_the_most_negative_integer_has_a_magnitude() -> None:
    close(absmax(torch.tensor([-(2**63), 5])), 2.0**63, 0.0)


@pytest.mark.parametrize("entries", [3, 10_000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_nan_gives_nan_and_infinity_infinity(entries: int, dtype: torch.dtype) -> None:
    tensor = torch.ones(entries, dtype=dtype)
    tensor[1] = -math.inf
    for statistic in (rms, norm, absmax):
        close(statistic(tensor), math.inf, 0.0)
    close(mean(tensor), -math.inf, 0.0)
    tensor[2] = math.nan
    for statistic in (rms, norm, absmax, mean):
        close(statistic(tensor), math.nan, 0.0)


def test_infinite_and_nan_parts_of_complex_numbers() -> None:
    infinite = torch.tensor([1 + 1j, complex(math.inf, 0)])
    close(rms(infinite), math.inf, 0.0)
    close(absmax(infinite), math.inf, 0.0)
    close(rms(torch.tensor([1 + 1j, complex(0, math.nan)])), math.nan, 0.0)


def test_nothing_has_no_rms_and_a_norm_of_zero() -> None:
    for empty in (torch.empty(0), torch.empty(3, 0, dtype=torch.float64), torch.empty(0, dtype=torch.int64)):
        for statistic in (rms, absmax, mean):
            close(statistic(empty), math.nan, 0.0)
        close(norm(empty), 0.0, 0.0)


def test_duplicate_entries_of_a_sparse_tensor_are_added_first() -> None:
    sparse = torch.sparse_coo_tensor([[0, 0, 1]], [3.0, -3.0, 4.0], (16,), check_invariants=True)
    close(rms(sparse), 1.0, 1e-15)
    assert not sparse.is_coalesced()


def test_a_sparse_embedding_gradient_counts_its_implicit_zeros() -> None:
    layer = torch.nn.Embedding(100, 8, sparse=True)
    layer(torch.tensor([1, 2, 2, 50])).square().sum().backward()
    gradient = layer.weight.grad
    assert gradient.is_sparse
    close(rms(gradient), twin_rms(samples_of(gradient.to_dense())), 1e-6)


def test_conjugated_and_negated_views() -> None:
    tensor = torch.complex(torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 4.0]))
    close(rms(tensor.conj()), math.sqrt(15.0), 1e-7)
    close(mean(tensor.conj().imag), -0.5, 0.0)


@settings(max_examples=100, deadline=None)
@given(tensors((torch.float64, torch.float32, torch.complex64)), st.integers(-60, 60))
def test_scaling_by_a_power_of_two_scales_rms(tensor: Tensor, exponent: int) -> None:
    wide = torch.tensor(samples_of(tensor), dtype=torch.promote_types(tensor.dtype, torch.float64))
    size = absmax(wide)
    assume(wide.numel() > 0 and 1e-200 < size < 1e200)
    # The same sums in another order of scales: two float64 evaluations of at most 5 000 terms.
    close(rms(wide * 2.0**exponent), rms(wide).item() * 2.0**exponent, 1e-12)


@settings(max_examples=100, deadline=None)
@given(tensors((torch.float32, torch.bfloat16)), st.integers(0, 2**32))
def test_order_does_not_matter(tensor: Tensor, seed: int) -> None:
    dense = tensor.values() if tensor.is_nested else tensor.to_dense()
    flat = dense.reshape(-1)
    order = torch.randperm(flat.numel(), generator=torch.Generator().manual_seed(seed))
    for statistic in (rms, norm):
        close(statistic(flat[order]), statistic(flat).item(), 2e-6)
    close(absmax(flat[order]), absmax(flat).item(), 0.0)


@settings(max_examples=100, deadline=None)
@given(tensors((torch.float32, torch.float16)), st.floats(0, 1))
def test_two_parts_make_the_whole(tensor: Tensor, where: float) -> None:
    dense = tensor.values() if tensor.is_nested else tensor.to_dense()
    flat = dense.reshape(-1)
    cut = int(where * flat.numel())
    # Three values, each right to 1e-6.
    close(norm(flat), math.hypot(norm(flat[:cut]).item(), norm(flat[cut:]).item()), 2e-6)
