"""Dead units, cosine of tokens, effective rank and rms by time against naive twins and closed forms."""

import math
import warnings

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stats.twins import FLOATS, listed, make, quietly_csr, twin_effective_rank, twin_rms, twin_token_cosine
from torch import Tensor

from unitygain.stats import constant_tail, effective_rank, frac_dead, rms_by_time, token_cosine

WITHOUT_EIGHT_BIT = tuple(dtype for dtype in FLOATS if dtype.itemsize > 1)


def same(value: Tensor, expected: float, rtol: float, atol: float = 0.0) -> None:
    assert value.dtype is torch.float64
    assert value.shape == ()
    torch.testing.assert_close(value.item(), expected, rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("shape", "unit"), [((6,), 0), ((4, 6), 1), ((2, 3, 6), 2), ((2, 6, 3, 4), 1), ((2, 6, 2, 3, 2), 1)]
)
def test_frac_dead_finds_the_units(dtype: torch.dtype, shape: tuple[int, ...], unit: int) -> None:
    values = torch.ones(shape)
    values.movedim(unit, 0)[1:3] = 0.0
    same(frac_dead(values.to(dtype)), 2 / 6, 1e-15)
    first = tuple(1 if axis == unit else 0 for axis in range(len(shape)))
    values[first] = -0.5
    same(frac_dead(values.to(dtype)), 1 / 6, 1e-15)


def test_frac_dead_of_a_relu_layer_that_was_born_dead() -> None:
    layer = torch.nn.Linear(8, 5)
    with torch.no_grad():
        layer.bias[:3] = -100.0
        layer.bias[3:] = 100.0
    same(frac_dead(torch.relu(layer(torch.randn(16, 8)))), 0.6, 1e-15)


def test_frac_dead_takes_nan_for_alive_and_nothing_for_nan() -> None:
    same(frac_dead(torch.tensor([[math.nan, 0.0]])), 0.5, 0.0)
    for empty in (torch.tensor(1.0), torch.empty(0, 3), torch.empty(3, 0)):
        same(frac_dead(empty), math.nan, 0.0)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FLOATS[:6]),
    st.sampled_from([(2, 5, 3), (1, 2, 7), (3, 4, 1), (2, 1, 3), (3, 3, 130)]),
    st.floats(0, 0.999),
    st.sampled_from((0.0, 0.4)),
    st.integers(0, 2**32),
)
def test_token_cosine_is_the_mean_over_pairs(
    dtype: torch.dtype, shape: tuple[int, ...], low: float, zeros: float, seed: int
) -> None:
    tensor = make(dtype, shape, "strided", low, low + 0.001, zeros, seed)
    assert tensor is not None
    wide = tensor.double() / tensor.double().abs().max().clamp(min=torch.finfo(torch.float64).smallest_normal)
    # Cosines are at most 1; a sum over at most 130 features and 20 pairs errs by well below 1e-13.
    same(token_cosine(tensor), twin_token_cosine(wide.tolist()), 0.0, 1e-13)


def test_token_cosine_of_known_tokens() -> None:
    same(token_cosine(torch.randn(1, 1, 8).expand(3, 6, 8)), 1.0, 1e-14)
    same(token_cosine(torch.eye(5)[None]), 0.0, 0.0, 1e-15)
    same(token_cosine(torch.tensor([[1.0, 2.0], [-1.0, -2.0]])), -1.0, 1e-14)
    # A third direction in the plane: three unit vectors that add to zero have cosine -1/2.
    angles = torch.arange(3, dtype=torch.float64) * 2 * math.pi / 3
    same(token_cosine(torch.stack([angles.cos(), angles.sin()], 1)), -0.5, 1e-14)


def test_token_cosine_does_not_depend_on_the_length_of_tokens() -> None:
    tokens = torch.randn(2, 4, 6, dtype=torch.float64)
    lengths = torch.tensor([1e-300, 1e-20, 1.0, 1e300], dtype=torch.float64)[:, None]
    # Two evaluations of the same cosines, whose terms are at most 1.
    same(token_cosine(tokens * lengths), token_cosine(tokens).item(), 0.0, 1e-14)


def test_token_cosine_of_images_compares_samples() -> None:
    images = torch.randn(4, 3, 5, 5)
    same(token_cosine(images), token_cosine(images.flatten(1)).item(), 0.0)


def test_token_cosine_of_complex_tokens() -> None:
    tokens = torch.randn(3, 4, dtype=torch.complex128)
    unit = tokens / torch.linalg.vector_norm(tokens, dim=1, keepdim=True)
    pairs = (unit @ unit.mH).real
    same(token_cosine(tokens), ((pairs.sum() - 3) / 6).item(), 0.0, 1e-14)


def test_token_cosine_needs_two_directions() -> None:
    for lonely in (
        torch.ones(1, 1, 4),
        torch.zeros(2, 5, 4),
        torch.ones(4),
        torch.tensor(2.0),
        torch.empty(2, 0, 3),
        torch.randn(8, 1),
        torch.randn(2, 8, 1),
    ):
        same(token_cosine(lonely), math.nan, 0.0)
    for bad in (math.nan, math.inf):
        tokens = torch.ones(2, 3, 4)
        tokens[1, 1, 1] = bad
        same(token_cosine(tokens), math.nan, 0.0)


def test_a_nan_token_is_not_left_out_with_its_sample() -> None:
    tokens = torch.ones(2, 2, 4)
    tokens[0, 0, 0] = math.nan
    same(token_cosine(tokens), math.nan, 0.0)


def test_token_cosine_in_blocks_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randn(5, 7, 3)
    whole = token_cosine(tokens).item()
    monkeypatch.setattr("unitygain.stats.axes._BLOCK", 10)
    same(token_cosine(tokens), whole, 0.0, 1e-14)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(WITHOUT_EIGHT_BIT[:4]),
    st.sampled_from([(5, 3), (3, 5), (1, 4), (20, 20)]),
    st.floats(0.1, 0.9),
    st.integers(0, 2**32),
)
def test_effective_rank_matches_the_singular_values(
    dtype: torch.dtype, shape: tuple[int, int], place: float, seed: int
) -> None:
    tensor = make(dtype, shape, "strided", place, place + 0.01, 0.0, seed)
    assert tensor is not None
    wide = tensor.double() / tensor.double().abs().max()
    sigma = torch.linalg.svdvals(wide)
    assume(sigma[-1] > 1e-5 * sigma[0])
    # Eigenvalues of the Gram matrix err by 20·2^-52 of the largest, singular values above 1e-5 of it by
    # 20·2^-52/1e-5 at most: 5e-10 each, times 20 of them and a slope of log at 1e-5.
    same(effective_rank(tensor), twin_effective_rank(wide), 2e-7)


def test_effective_rank_of_known_matrices() -> None:
    basis = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64)).Q
    same(effective_rank(basis), 1.0, 1e-12)
    # Rank k with equal singular values is exp(ln k)/40.
    same(effective_rank(basis[:, :10] @ basis[:10]), 0.25, 1e-12)
    same(effective_rank(torch.outer(torch.randn(30), torch.randn(50))), 1 / 30, 1e-5)


@pytest.mark.parametrize("size", [1e-35, 1e35])
def test_effective_rank_has_no_scale(size: float) -> None:
    matrix = torch.randn(12, 7)
    # Rounding the product to float32 moves singular values by 2^-24 of the largest.
    same(effective_rank(matrix * size), effective_rank(matrix).item(), 1e-5)


def test_effective_rank_reads_images_by_channel_and_sequences_by_feature() -> None:
    images = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    rows = images.permute(0, 2, 3, 1).reshape(-1, 6)
    same(effective_rank(images), twin_effective_rank(rows), 1e-12)
    tokens = torch.randn(2, 5, 4, dtype=torch.complex128)
    sigma = torch.linalg.svdvals(tokens.reshape(10, 4))
    entropy = torch.special.entr(sigma / sigma.sum()).sum()
    same(effective_rank(tokens), (entropy.exp() / 4).item(), 1e-12)


def test_effective_rank_of_a_large_matrix_reads_every_kth_row_and_feature() -> None:
    matrix = torch.randn(1021, 2048)
    # 1021 is prime: a step of 2; 2048 needs an odd step of at least 2: 3.
    same(effective_rank(matrix), effective_rank(matrix[::2, ::3]).item(), 0.0)


def test_effective_rank_of_what_has_none() -> None:
    for bad in (torch.zeros(4, 4), torch.ones(4), torch.tensor(1.0), torch.empty(0, 4)):
        same(effective_rank(bad), math.nan, 0.0)
    for number in (math.nan, math.inf):
        matrix = torch.eye(3)
        matrix[0, 0] = number
        same(effective_rank(matrix), math.nan, 0.0)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FLOATS),
    st.sampled_from([(4,), (3, 5), (2, 3, 4), (1, 2, 2, 2), ()]),
    st.floats(0, 1),
    st.integers(0, 2**32),
)
def test_rms_by_time_is_the_rms_of_each_step(
    dtype: torch.dtype, shape: tuple[int, ...], high: float, seed: int
) -> None:
    tensor = make(dtype, shape, "strided", 0.0, high, 0.2, seed)
    assert tensor is not None
    steps = tensor.unbind() if tensor.ndim else [tensor]
    expected = [twin_rms(listed(step)) for step in steps]
    assert rms_by_time(tensor).dtype is torch.float64
    # Float64 sums of at most 12 squares.
    torch.testing.assert_close(rms_by_time(tensor).tolist(), expected, rtol=1e-14, atol=0.0, equal_nan=True)


def test_rms_by_time_in_blocks_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = torch.randn(9, 2, 3).transpose(0, 1).transpose(0, 1)
    whole = rms_by_time(sequence)
    monkeypatch.setattr("unitygain.stats.axes._BLOCK", 10)
    assert torch.equal(rms_by_time(sequence), whole)


def test_rms_by_time_of_empty_sequences() -> None:
    assert rms_by_time(torch.empty(0, 3)).shape == (0,)
    assert rms_by_time(torch.empty(3, 0)).isnan().all()


def test_nested_and_sparse_tensors() -> None:
    parts = [torch.randn(2, 3), torch.randn(4, 3)]
    parts[0][:, 0], parts[1][:, 0] = 0.0, 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ragged = [
            torch.nested.nested_tensor(parts, layout=layout) for layout in (torch.strided, torch.jagged)
        ]
    cosine = sum(token_cosine(part[None]).item() for part in parts) / 2
    for tensor in ragged:
        same(frac_dead(tensor), 1 / 3, 1e-15)
        same(token_cosine(tensor), cosine, 0.0, 1e-14)
        same(effective_rank(tensor), effective_rank(torch.cat(parts)).item(), 0.0)
        expected = [twin_rms(listed(part)) for part in parts]
        torch.testing.assert_close(rms_by_time(tensor).tolist(), expected, rtol=1e-14, atol=0.0)
    matrix = torch.cat(parts)
    for sparse in (matrix.to_sparse(), quietly_csr(matrix)):
        for statistic in (frac_dead, token_cosine, effective_rank, rms_by_time):
            assert torch.equal(statistic(sparse), statistic(matrix))


@pytest.mark.parametrize("features", [(), (3,), (2, 2)])
def test_a_constant_tail_is_counted_in_the_median_sample(features: tuple[int, ...]) -> None:
    steps = torch.randn(9, 5, *features)
    for sample, length in enumerate((1, 3, 4, 6, 9)):
        steps[9 - length :, sample] = 0.25
    same(constant_tail(steps), 4.0, 0.0)
    same(constant_tail(steps[:, :2]), 1.0, 0.0)
    for none in (torch.ones(4), torch.tensor(1.0), torch.empty(0, 3, 2)):
        same(constant_tail(none), math.nan, 0.0)
