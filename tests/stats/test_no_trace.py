"""A statistic leaves no trace: not on its input, the random state, the graph, nor on memory."""

import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from unitygain.stats import STATISTICS

every = pytest.mark.parametrize("statistic", STATISTICS.values(), ids=STATISTICS)


@pytest.fixture(params=["small", "quick", "tiny numbers", "half", "wide", "complex"])
def tensor(request: pytest.FixtureRequest) -> Tensor:
    shapes = {"small": (2, 3, 4), "quick": (20, 30, 40), "tiny numbers": (20, 30, 40)}
    values = torch.randn(shapes.get(request.param, (8, 30, 40)), dtype=torch.float64)
    values[..., 0] = 0.0
    kinds = {"half": torch.bfloat16, "wide": torch.float64, "complex": torch.complex64}
    values = values * (1e-30 if request.param == "tiny numbers" else 1.0)
    return values.to(kinds.get(request.param, torch.float32))


@every
def test_input_random_state_and_graph_are_left_alone(
    statistic: Callable[[Tensor], Tensor], tensor: Tensor
) -> None:
    leaf = tensor.clone().requires_grad_()
    through = leaf * 1
    version, state = through._version, torch.get_rng_state()
    value = statistic(through)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(through, tensor)
    assert through._version == version
    assert not value.requires_grad
    assert value.grad_fn is None
    assert torch.is_grad_enabled()
    through.abs().sum().backward()


@every
def test_result_is_float64_of_one_dimension_at_most_and_keeps_no_input(
    statistic: Callable[[Tensor], Tensor], tensor: Tensor
) -> None:
    value = statistic(tensor)
    assert value.dtype is torch.float64
    assert value.ndim <= 1
    assert value.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr()
    assert value.untyped_storage().nbytes() <= 8 * 300


@every
def test_input_is_freed_though_the_result_lives(statistic: Callable[[Tensor], Tensor]) -> None:
    tensor = torch.randn(8, 30, 40)
    gone = weakref.ref(tensor.untyped_storage())
    seen = weakref.ref(tensor)
    value = statistic(tensor)
    del tensor
    assert seen() is None
    assert gone() is None
    assert value.dtype is torch.float64


@pytest.fixture(params=["autocast", "inference", "default dtype", "default device", "deterministic"])
def surroundings(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield
    elif request.param == "inference":
        with torch.inference_mode():
            yield
    elif request.param == "default dtype":
        torch.set_default_dtype(torch.float16)
        yield
        torch.set_default_dtype(torch.float32)
    elif request.param == "default device":
        torch.set_default_device("meta")
        yield
        torch.set_default_device(None)
    else:
        torch.use_deterministic_algorithms(True)
        yield
        torch.use_deterministic_algorithms(False)


@pytest.fixture
def plain(tensor: Tensor) -> dict[str, Tensor]:
    """The values before the surroundings change."""
    return {name: statistic(tensor) for name, statistic in STATISTICS.items()}


@pytest.mark.parametrize("name", STATISTICS)
def test_surroundings_change_no_bit(
    tensor: Tensor, plain: dict[str, Tensor], surroundings: None, name: str
) -> None:
    value = STATISTICS[name](tensor)
    assert value.device == tensor.device
    assert torch.equal(value.nan_to_num(-1.0), plain[name].nan_to_num(-1.0))


@every
def test_a_second_call_gives_the_same_bits(statistic: Callable[[Tensor], Tensor], tensor: Tensor) -> None:
    assert torch.equal(statistic(tensor).nan_to_num(-1.0), statistic(tensor).nan_to_num(-1.0))
