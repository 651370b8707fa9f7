"""What shows that a module can be inverted, and what only looks like it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unitygain.probe.invertible import declares_inverse, is_monomial, is_triangular


class Reversed(nn.Module):
    def forward(self, x: Tensor, reverse: bool = False) -> Tensor:
        return -x if reverse else x


class Inverted(nn.Module):
    def inverse(self, y: Tensor) -> Tensor:
        return y


class Named(nn.Module):
    """Holds an attribute of that name, which is no way back."""

    inverse = 1.0


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (Reversed(), True),
        (Inverted(), True),
        (Named(), False),
        (nn.Linear(2, 2), False),
        (nn.LSTM(2, 2), False),
        (nn.TransformerEncoderLayer(4, 2, 8), False),
        (nn.Sequential(Reversed()), False),
        (nn.MultiheadAttention(4, 2), False),
    ],
)
def test_an_inverse_is_a_method_or_an_argument(module: nn.Module, says: bool) -> None:
    assert declares_inverse(module) is says


def test_triangular_in_some_order_against_all_orders() -> None:
    """A naive twin: patterns of 4x4 are triangular where a pair of orders makes them so."""
    from itertools import permutations

    orders = [list(order) for order in permutations(range(4))]
    generator, seen = np.random.default_rng(0), set()
    below = np.tril(np.ones((4, 4), dtype=bool))
    for _ in range(150):
        pattern = generator.random((4, 4)) < generator.uniform(0.2, 0.7)
        if generator.random() < 0.5:
            pattern = ((pattern & below) | np.eye(4, dtype=bool))[generator.permutation(4)]
        expected = any(
            not (turned := pattern[rows][:, columns])[~below].any() and turned.diagonal().all()
            for rows in orders
            for columns in orders
        )
        assert is_triangular(pattern.astype(float)) is expected
        seen.add(expected)
    assert seen == {True, False}


def test_couplings_are_triangular_and_kept_halves_alone_are_not() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3))

    def coupling(x: Tensor) -> Tensor:
        kept, moved = x.chunk(2)
        return torch.cat([moved * net(kept).tanh().exp() + net(kept), kept])

    def shuffle(x: Tensor) -> Tensor:
        """Half of the channels pass, the other half goes through a branch that cannot be inverted."""
        kept, moved = x.chunk(2)
        return torch.cat([kept, net(moved)])

    def jacobian(function: object) -> np.ndarray:
        return torch.autograd.functional.jacobian(function, torch.randn(6)).double().numpy()  # type: ignore[arg-type]

    assert is_triangular(jacobian(coupling))
    assert not is_monomial(jacobian(coupling))
    assert not is_triangular(jacobian(shuffle))
    assert is_monomial(np.eye(5)[np.random.default_rng(0).permutation(5)] * 3.0)
    assert not is_triangular(np.ones((2, 3)))
    assert not is_triangular(np.zeros((2, 2)))
