"""States of qubits that run through a module, or leave it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case, reseed
from unitygain.probe.hooks import Hooks
from unitygain.probe.junctions import first_floating
from unitygain.stats import norm
from unitygain.stats.moments import row_lengths

# The fewest states of one size that count, and how far from 1 the square of their length may be.
STATES, NEAR = 2, 1e-3


def qubits_of_state(call: Callable[[], Tensor], given: Any) -> int:
    """Return n where tensors of 2^n numbers and of length 1 run through the module; 0 where none do."""
    first = first_floating(given)
    samples = {1} if first is None or not first.ndim else {1, first.shape[0]}
    sizes: Counter[int] = Counter()

    def see(tensor: Tensor) -> Tensor:
        for count in samples if tensor.is_floating_point() or tensor.is_complex() else ():
            size = tensor.numel() // count
            plain = torch.view_as_real(tensor.detach().resolve_conj()) if tensor.is_complex() else tensor
            if size * count == tensor.numel() and size >= 4 and not size & (size - 1):
                sizes[size] += abs(float(norm(plain)) ** 2 / count - 1) < NEAR
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        call()
    often = [(number, size) for size, number in sizes.items() if number >= STATES]
    return max(often)[1].bit_length() - 1 if often else 0


def are_states(made: Tensor, qubits: int) -> bool:
    """Return whether a tensor holds states: rows of 2^n numbers, each of length one.

    Example:
        >>> are_states(torch.eye(8), 3), are_states(torch.ones(2, 8), 3), are_states(torch.ones(3), 3)
        (True, False, False)
    """
    if not made.numel() or made.numel() % 2**qubits:
        return False
    rows = made.detach().reshape(-1, 2**qubits)
    plain = torch.view_as_real(rows.resolve_conj()).flatten(1) if rows.is_complex() else rows
    mean_square = float(norm(plain)) ** 2 / len(plain)
    return abs(mean_square - 1) < NEAR and bool(((row_lengths(plain) - 1).abs() < NEAR).all())


def loss_of_one(case: Case, module: nn.Module, made: Tensor, qubits: int, seed: int) -> Callable[[], Tensor]:
    """Return what observes states outside of the module: the loss, as a function of the first state alone.

    The others stay as they are now, so that their slopes do not cancel the first one's.

    Args:
        case: An isolated case.
        module: What gives states.
        made: What it gives now.
        qubits: How many it has.
        seed: Seed of every pass.
    """
    rows = made.reshape(-1, 2**qubits)

    def call() -> Tensor:
        calls = 0

        def swap(_: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > 1 or not isinstance(output, Tensor) or output.shape != made.shape:
                return output
            return torch.cat([output.reshape(rows.shape)[:1], rows[1:]]).reshape(made.shape)

        reseed(seed)
        hooks = Hooks()
        hooks.change_output(module, swap)
        try:
            return case.compute_loss(case.batches[0])
        finally:
            hooks.remove()

    return call
