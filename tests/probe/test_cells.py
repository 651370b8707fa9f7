"""The explicit cells against PyTorch's fused recurrent modules."""

import itertools

import pytest
import torch
from torch import nn

from unitygain.probe.cells import GATES, cells, unroll

# Both sides add the same products in float64, in another order: at most features + hidden + 4 additions per
# step, each off by 2^-53, carried on over 6 steps with factors of order one. 1e-12 is 9000 ulp.
RTOL = 1e-12


def _modules() -> list[nn.RNNBase]:
    torch.manual_seed(1)
    shapes = [
        {"num_layers": layers, "bidirectional": both, "batch_first": first}
        for layers, both, first in itertools.product((1, 2), (False, True), (False, True))
    ]
    made: list[nn.RNNBase] = []
    for shape in shapes:
        made += [nn.RNN(3, 5, **shape), nn.RNN(3, 5, nonlinearity="relu", **shape), nn.GRU(3, 5, **shape)]
        made += [
            nn.LSTM(3, 5, **shape),
            nn.LSTM(3, 5, proj_size=2, **shape),
            nn.LSTM(3, 5, bias=False, **shape),
        ]
    return [module.double() for module in made]


@pytest.mark.parametrize("module", _modules(), ids=str)
def test_unrolled_module_equals_the_module(module: nn.RNNBase) -> None:
    x = torch.randn(4, 6, 3, dtype=torch.float64)
    output, state = module(x)
    state = state if isinstance(state, tuple) else (state,)
    own, final = unroll(module, x)
    _assert_equal(own, output)
    for mine, theirs in zip(final, state, strict=True):
        _assert_equal(mine, theirs)


@pytest.mark.parametrize("module", _modules()[:6], ids=str)
def test_an_initial_state_and_a_missing_batch_dimension_are_taken(module: nn.RNNBase) -> None:
    x = torch.randn(6, 3, dtype=torch.float64)
    start = tuple(torch.randn(1, w, dtype=torch.float64) for w in _widths(module))
    output, _ = module(x, start if isinstance(module, nn.LSTM) else start[0])
    own, final = unroll(module, x, start if isinstance(module, nn.LSTM) else start[0])
    _assert_equal(own, output)
    assert final[0].shape == start[0].shape


@pytest.mark.parametrize("module", _modules()[:6], ids=str)
def test_gradients_of_the_unrolled_module_are_the_module_s(module: nn.RNNBase) -> None:
    x = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    theirs = torch.autograd.grad(module(x)[0].square().sum(), [x, *module.parameters()])
    mine = torch.autograd.grad(unroll(module, x)[0].square().sum(), [x, *module.parameters()])
    for own, other in zip(mine, theirs, strict=True):
        _assert_equal(own, other)


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_single_cells_equal_the_module(kind: type[nn.RNNCellBase]) -> None:
    module = kind(3, 5).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    cell = cells(module)[0][0]
    state = tuple(torch.randn(4, 5, dtype=torch.float64) for _ in cell.start(4, x))
    theirs = module(x, state if len(state) == 2 else state[0])
    mine, parts = cell.step(x, state)
    for own, other in zip(mine, theirs if isinstance(theirs, tuple) else (theirs,), strict=True):
        _assert_equal(own, other)
    assert set(parts) == {*GATES[cell.kind], "candidate"}


def test_visits_name_the_position_in_the_sequence_for_both_directions() -> None:
    module = nn.GRU(3, 5, bidirectional=True)
    seen: list[tuple[str, int]] = []
    unroll(
        module, torch.randn(3, 1, 3), visit=lambda cell, time, state, parts: seen.append((cell.name, time))
    )
    assert seen == [("l0", 0), ("l0", 1), ("l0", 2), ("l0_reverse", 2), ("l0_reverse", 1), ("l0_reverse", 0)]


def test_an_unknown_module_is_refused() -> None:
    with pytest.raises(TypeError, match="Linear has no known cell"):
        cells(nn.Linear(2, 2))  # pyright: ignore[reportArgumentType]


def _assert_equal(own: torch.Tensor, other: torch.Tensor) -> None:
    """Equal to round-off of the largest entry: small entries are differences of large ones."""
    assert own.shape == other.shape
    assert (own - other).abs().max() <= RTOL * other.abs().max()


def _widths(module: nn.RNNBase) -> tuple[int, ...]:
    cell = cells(module)[0][0]
    return (cell.width, cell.hidden_size) if cell.kind == "lstm" else (cell.width,)
