"""The drop-in against float64, against torch where torch is right, and where torch's function fails."""

import math
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from clip import drop_in_ranks
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from stats.twins import make, samples_of
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_ as torch_clip

from unitygain.clip import clip_grad_norm_
from unitygain.stats import native

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128)
LAYOUTS = ("strided", "strided", "transposed", "sliced", "channels last", "coo")
SHAPES = ((), (0,), (1,), (7,), (5, 3), (4, 5, 6, 2), (1023,), (67, 71))


@pytest.fixture(autouse=True, params=["native", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "native" and not native.LIBRARY.exists():
        pytest.skip("the kernel was not built here")
    monkeypatch.setenv("UNITYGAIN_STATS", request.param)
    return request.param


def holding(*gradients: Tensor | None) -> list[Tensor]:
    """Parameters with these gradients."""
    parameters = [torch.zeros(()) if g is None else torch.zeros(g.shape, dtype=g.dtype) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else gradient.clone()
    return parameters


def norm_in_float64(gradients: list[Tensor], p: float) -> float:
    """p-norm of all entries, of numbers divided by the largest, in Python."""
    sizes = [math.hypot(n.real, n.imag) for gradient in gradients for n in samples_of(gradient)]
    largest = max(sizes, default=0.0)
    if math.isinf(p) or largest == 0:
        return largest
    return math.fsum((size / largest) ** p for size in sizes) ** (1 / p) * largest


@st.composite
def steps(draw: st.DrawFn) -> tuple[list[Tensor | None], list[int]]:
    """Gradients of one step, and the order in which the parameters are named, some of them twice."""
    low, high = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    one = st.builds(
        make,
        st.sampled_from(DTYPES),
        st.sampled_from(SHAPES),
        st.sampled_from(LAYOUTS),
        st.just(low),
        st.just(high),
        st.sampled_from((0.0, 0.0, 0.3, 1.0)),
        st.integers(0, 2**32),
    )
    gradients = draw(st.lists(st.one_of(one, one, one, st.none()), min_size=1, max_size=5))
    named = draw(st.lists(st.integers(0, len(gradients) - 1), max_size=3))
    return gradients, [*range(len(gradients)), *named]


def assert_scaled(before: Tensor, after: Tensor, factor: float, rtol: float) -> None:
    """Each entry is the old one times the factor, but for rounding to the dtype."""
    real = before.dtype.to_real() if before.is_complex() else before.dtype
    info = torch.finfo(real)
    wide = torch.complex128 if before.is_complex() else torch.float64
    expected, seen = (t.to_dense() if t.layout is not torch.strided else t for t in (before, after))
    # Half a unit in the last place; in float32 arithmetic the factor is rounded, too. Subnormals: one unit.
    torch.testing.assert_close(
        seen.to(wide), expected.to(wide) * factor, rtol=rtol + info.eps, atol=info.smallest_normal * info.eps
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps(), st.sampled_from((2.0, 2.0, 2.0, math.inf, 1.0, 3.0)), st.floats(1e-3, 2.0))
def test_parity_with_float64(step: tuple[list[Tensor | None], list[int]], p: float, share: float) -> None:
    gradients, named = step
    parameters = holding(*gradients)
    held = [gradient for gradient in gradients if gradient is not None]
    exact = norm_in_float64(held, p)
    assume(exact < 1e300)
    max_norm = share * exact
    norm = clip_grad_norm_([parameters[i] for i in named], max_norm, p)
    assert norm.dtype is torch.float64
    assert norm.item() == pytest.approx(exact, rel=1e-6, abs=0.0)
    factor = max_norm / (norm.item() + 1e-6)
    for before, parameter in zip(gradients, parameters, strict=True):
        after = parameter.grad
        assert (before is None) == (after is None)
        if before is None or after is None:
            continue
        if factor >= 1:
            assert after.to_dense().equal(before.to_dense()) if before.is_sparse else after.equal(before)
        else:
            assert_scaled(before, after, factor, rtol=1e-12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.builds(torch.Size, st.lists(st.integers(0, 9), max_size=3)), min_size=1, max_size=6),
    st.sampled_from((2.0, math.inf, 1.0, 3.0, 0.5)),
    st.floats(-6, 6),
    st.floats(-7, 2),
    st.sampled_from((torch.float32, torch.float64)),
)
def test_the_same_as_torch_where_torch_is_right(
    shapes: list[torch.Size], p: float, size: float, bound: float, dtype: torch.dtype
) -> None:
    gradients = [torch.randn(shape, dtype=dtype) * 10**size for shape in shapes if 0 not in shape]
    assume(gradients)
    exact = norm_in_float64(gradients, p)
    ours, theirs = holding(*gradients), holding(*gradients)
    torchs = torch_clip(theirs, 10**bound, p).item()
    assume(abs(torchs - exact) <= 1e-6 * exact)
    assert clip_grad_norm_(ours, 10**bound, p).item() == pytest.approx(torchs, rel=2e-6)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, other.grad, rtol=2e-6, atol=0.0)


# What follows: torch's function fails, ours does not.


def test_finite_gradients_of_1e20_become_zeros_in_torch() -> None:
    ours, theirs = (holding(torch.tensor([3e20, 4e20]), torch.tensor([1.0])) for _ in range(2))
    assert torch_clip(theirs, 1.0).isinf()
    assert theirs[0].grad is not None
    assert theirs[0].grad.tolist() == [0.0, 0.0]
    assert clip_grad_norm_(ours, 1.0).item() == pytest.approx(5e20)
    assert ours[0].grad is not None
    assert ours[0].grad.tolist() == pytest.approx([0.6, 0.8])


def test_a_float16_norm_beyond_65504_becomes_silent_zeros_in_torch() -> None:
    ours, theirs = (holding(torch.full((1_000_000,), 100.0, dtype=torch.float16)) for _ in range(2))
    torch_clip(theirs, 1000.0)
    assert theirs[0].grad is not None
    assert not theirs[0].grad.any()
    assert clip_grad_norm_(ours, 1000.0).item() == pytest.approx(1e5, rel=1e-6)
    assert ours[0].grad is not None
    assert ours[0].grad.unique().tolist() == [1.0]


@pytest.mark.parametrize("max_norm", [-1.0, -math.inf, math.nan])
def test_a_bound_that_is_no_bound_turns_descent_into_ascent_in_torch(max_norm: float) -> None:
    ours, theirs = (holding(torch.tensor([3.0, 4.0])) for _ in range(2))
    torch_clip(theirs, max_norm)
    assert theirs[0].grad is not None
    assert not (theirs[0].grad >= 0).all()
    with pytest.raises(ValueError, match=r"max_norm is (-1|-inf|nan); a negative one .* give 0 or more"):
        clip_grad_norm_(ours, max_norm)
    assert ours[0].grad is not None
    assert ours[0].grad.tolist() == [3.0, 4.0]


def test_a_repeated_parameter_counts_twice_in_torch() -> None:
    ours, theirs = (holding(torch.tensor([3.0, 4.0])) for _ in range(2))
    assert torch_clip(theirs * 2, 1.0).item() == pytest.approx(math.sqrt(50))
    assert theirs[0].grad is not None
    assert theirs[0].grad.norm().item() == pytest.approx(0.1)  # scaled twice, by 1/√50
    assert clip_grad_norm_(ours * 2, 1.0).item() == 5.0
    assert ours[0].grad is not None
    assert ours[0].grad.norm().item() == pytest.approx(1.0, rel=1e-6)


def test_the_gradient_of_two_parameters_is_scaled_twice_in_torch() -> None:
    def step() -> list[Tensor]:
        parameters = [torch.zeros(2, requires_grad=True) for _ in range(2)]
        loss = (sum(parameters) * torch.tensor([3.0, 4.0])).sum()
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        assert parameters[0].grad is parameters[1].grad
        return parameters

    ours, theirs = step(), step()
    # Both move by it, so that both count, and torch's norm is right.
    assert torch_clip(theirs, 1.0).item() == pytest.approx(math.sqrt(50))
    assert norm_in_float64([theirs[0].grad, theirs[1].grad], 2.0) == pytest.approx(
        1 / math.sqrt(50), rel=1e-5
    )
    assert clip_grad_norm_(ours, 1.0).item() == pytest.approx(math.sqrt(50))
    assert norm_in_float64([ours[0].grad, ours[1].grad], 2.0) == pytest.approx(1.0, rel=1e-6)


def test_sparse_gradients_are_refused_by_torch() -> None:
    def step() -> nn.Embedding:
        table = nn.Embedding(5, 2, sparse=True)
        table(torch.tensor([1, 1, 3])).sum().backward()
        return table

    with pytest.raises(NotImplementedError):
        torch_clip(step().parameters(), 1.0)
    table = step()
    # Row 1 was looked up twice: its two entries are (2, 2), not four of 1.
    assert clip_grad_norm_(table.parameters(), 1.0).item() == pytest.approx(math.sqrt(4 + 4 + 1 + 1))
    assert table.weight.grad is not None
    assert table.weight.grad.is_sparse
    assert table.weight.grad.to_dense().norm().item() == pytest.approx(1.0, rel=1e-6)


def test_the_norm_of_an_embedding_is_wrong_in_torch(backend: str) -> None:
    gradient = torch.randn(50257, 768).mul_(1e-3)
    exact = torch.linalg.vector_norm(gradient, dtype=torch.float64).item()
    parameter = torch.zeros(50257, 768)
    parameter.grad = gradient
    assert abs(torch_clip([parameter], math.inf).item() / exact - 1) > 1e-4
    assert clip_grad_norm_([parameter], math.inf).item() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_bad_number_reaches_every_gradient_in_torch(bad: float) -> None:
    ours, theirs = (holding(torch.tensor([3.0, 4.0]), torch.tensor([bad])) for _ in range(2))
    torch_clip(theirs, 1.0)
    assert theirs[0].grad is not None
    assert not theirs[0].grad.isfinite().all() or not theirs[0].grad.any()
    assert not clip_grad_norm_(ours, 1.0).isfinite()
    assert ours[0].grad is not None
    assert ours[0].grad.tolist() == [3.0, 4.0]


def test_an_unclipped_step_writes_in_torch_alone() -> None:
    ours, theirs = (holding(torch.tensor([3.0, 4.0])) for _ in range(2))
    versions = []
    for parameters, function in ((ours, clip_grad_norm_), (theirs, torch_clip)):
        assert parameters[0].grad is not None
        before = parameters[0].grad._version
        function(parameters, 10.0)
        versions.append(parameters[0].grad._version - before)
    assert versions == [0, 1]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_two_meshes_beside_a_plain_tensor_are_refused_by_torch(tmp_path: Path, backend: str) -> None:
    if backend == "torch" and native.LIBRARY.exists():
        pytest.skip("starting ranks takes long; the kernel's run is enough")
    torch.multiprocessing.spawn(drop_in_ranks.run, args=(2, str(tmp_path)), nprocs=2)
    expected = holding(*drop_in_ranks.whole())
    norm = clip_grad_norm_(expected, drop_in_ranks.MAX_NORM)
    for rank in range(2):
        refusal, found, gradients = torch.load(tmp_path / f"rank{rank}.pt")
        assert "DTensor" in refusal or "mesh" in refusal, refusal
        assert found.item() == pytest.approx(norm.item(), rel=1e-12)
        for gradient, parameter in zip(gradients, expected, strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-6, atol=0.0)


# The rest of the contract.


def test_an_error_on_request_leaves_the_gradients() -> None:
    parameters = holding(torch.tensor([3.0, math.nan]))
    with pytest.raises(
        RuntimeError, match=r"norm of order 2 is nan, so nothing was clipped; .* skip the step"
    ):
        clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
    assert parameters[0].grad is not None
    assert parameters[0].grad[0] == 3.0


@pytest.mark.parametrize("p", [0.0, -1.0, math.nan])
def test_what_is_no_norm_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"norm_type is .*, which gives no norm; use 2"):
        clip_grad_norm_(holding(torch.ones(2)), 1.0, p)


@pytest.mark.parametrize("p", [2.0, math.inf, 1.0])
def test_no_gradient_has_norm_zero(p: float) -> None:
    assert clip_grad_norm_(holding(None), 1.0, p).item() == 0.0
    assert clip_grad_norm_(iter(()), 1.0, p).item() == 0.0


def test_zero_bound_gives_zeros_and_a_single_tensor_is_taken() -> None:
    (parameter,) = holding(torch.tensor([3.0, 4.0]))
    clip_grad_norm_(parameter, 0.0)
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [0.0, 0.0]


def test_a_coefficient_below_the_range_of_float32_keeps_its_digits() -> None:
    parameters = holding(torch.full((4,), 1e38))
    clip_grad_norm_(parameters, 1e-4)
    assert parameters[0].grad is not None
    assert parameters[0].grad.tolist() == pytest.approx([5e-5] * 4, rel=1e-6)
