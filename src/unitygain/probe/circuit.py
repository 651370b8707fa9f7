"""Variational quantum circuits inside a model: found by two signs, and run at other angles than their own."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unitygain._case import Case, random_states, reseed
from unitygain.probe.hooks import Hooks
from unitygain.probe.junctions import first_floating
from unitygain.probe.leaves import in_backward, unwrap
from unitygain.probe.record import Record
from unitygain.probe.trace import buffers_kept, glance
from unitygain.stats import norm

Array = NDArray[np.float64]
WORDS = ("circuit", "quantum", "qnn", "vqc", "ansatz", "qlayer")
COUNTS = ("n_qubits", "num_qubits", "nqubits", "qubits", "n_wires", "num_wires", "wires")
MOST_QUBITS = 40
# Tensors of parameters that are tried, entries of each, and the fewest states of one size that count.
TENSORS, ENTRIES, STATES = 16, 3, 2
# Five points fix a + b·cos + c·sin with two to spare; the others lie outside of the first turn, too.
FITTED = np.arange(5) * (2 * math.pi / 5)
FURTHER = np.array([1.0, 9.1])


@dataclass
class Circuit:
    """A module whose output is a + b·cos θ + c·sin θ in each of its angles, at the inputs of its first call.

    Args:
        path: The module.
        qubits: How many it has.
        sign: What told so.
        angles: Its angles, by the name that they have in the model.
    """

    path: str
    qubits: int
    sign: str
    angles: dict[str, nn.Parameter]
    _call: Callable[[], Tensor]

    @property
    def own(self) -> Array:
        """All angles as they are now, one after the other."""
        return np.concatenate([_numbers(angle) for angle in self.angles.values()])

    def outputs(self, theta: Array) -> Array:
        """Return all outputs at other angles."""
        self.turn(theta)
        with torch.no_grad():
            return _numbers(self._call())

    def slope(self, theta: Array, entry: int) -> tuple[float, Array]:
        """Return one output at other angles, and its derivatives by all of them."""
        self.turn(theta)
        angles = list(self.angles.values())
        one = self._call().reshape(-1)[entry]
        found = torch.autograd.grad(one, angles, allow_unused=True)
        parts = [torch.zeros_like(a) if g is None else g for g, a in zip(found, angles, strict=True)]
        return float(one.detach()), np.concatenate([_numbers(part) for part in parts])

    def turn(self, theta: Array) -> None:
        """Write the angles."""
        start = 0
        with torch.no_grad():
            for angle in self.angles.values():
                part = torch.from_numpy(theta[start : start + angle.numel()])
                angle.copy_(part.reshape(angle.shape))
                start += angle.numel()


def find_circuits(model: nn.Module) -> dict[str, tuple[int, str]]:
    """Return what may be circuits, the innermost first: the qubits (0: not told) and what tells so, by path.

    Example:
        >>> class Layers(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.angles, self.n_qubits = nn.Parameter(torch.zeros(4, 6)), 6
        >>> find_circuits(nn.Sequential(nn.Linear(2, 2), Layers()))
        {'1': (6, 'n_qubits')}
    """
    found = {path: _told(path, module) for path, module in model.named_modules()}
    return {path: told for path, told in reversed(found.items()) if told is not None}


def _told(path: str, module: nn.Module) -> tuple[int, str] | None:
    if next(module.parameters(), None) is None:
        return None
    # A TorchLayer of PennyLane, known without it: its qnode has a device, which has wires.
    count = _count(getattr(getattr(getattr(module, "qnode", None), "device", None), "wires", None))
    if count:
        return count, "the wires of its device"
    for name in COUNTS:
        count = _count(vars(module).get(name))
        if count:
            return count, name
    texts = path.lower().rpartition(".")[2], type(module).__name__.lower()
    return (0, "its name, and its state") if any(word in text for word in WORDS for text in texts) else None


def _count(value: Any) -> int:
    if isinstance(value, (list, tuple, range)) or type(value).__name__ == "Wires":
        value = len(value)
    return value if isinstance(value, int) and 1 < value <= MOST_QUBITS and value is not True else 0


@contextmanager
def circuits(case: Case, record: Record) -> Iterator[list[Circuit]]:
    """Yield the circuits of an isolated case; parameters, buffers and random states are put back.

    Args:
        case: An isolated case.
        record: Its record, which names the seed.

    Raises:
        CaseFailure: If the model or loss raises.

    Side effects:
        Hooks during one forward pass; the angles are written while the context is open.

    Cost: one forward pass, and 7 of the module per entry that is tried, 48 entries at most.
    """
    modules, calls = dict(case.model.named_modules()), {}
    told = find_circuits(case.model)

    def watch(hooks: Hooks) -> None:
        for path in told:
            hooks.on_call(modules[path], _keep(calls, path), lambda *_: None)

    if told:
        glance(case, record, watch)
    found: list[Circuit] = []
    with random_states(), torch.enable_grad(), buffers_kept(case.model), parameters_kept(case.model):
        for path in filter(calls.__contains__, told):
            inside = any(circuit.path.startswith(f"{path}." if path else "") for circuit in found)
            made = None if inside else _recognise(case.model, path, told[path], calls[path], record)
            found += [made] if made else []
        yield found


@contextmanager
def parameters_kept(model: nn.Module) -> Iterator[None]:
    """Put the parameters back at the end."""
    values = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in values:
                parameter.copy_(value)


def _keep(calls: dict[str, Any], path: str) -> Callable[..., None]:
    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not in_backward():
            calls.setdefault(path, pytree.tree_map_only(Tensor, lambda t: t.detach().clone(), (args, kwargs)))

    return enter


def _recognise(
    model: nn.Module, path: str, told: tuple[int, str], given: Any, record: Record
) -> Circuit | None:
    module, seed = model.get_submodule(path), int(record.facts.get("seed", 0))

    def call() -> Tensor:
        reseed(seed)
        made = first_floating(unwrap(module(*given[0], **given[1])))
        return torch.empty(0) if made is None or made.is_complex() else made

    made = call()
    if not made.numel() or not made.requires_grad or not np.isfinite(_numbers(made)).all():
        return None
    angles = {
        f"{path}.{name}" if path else name: parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.is_floating_point() and parameter.numel()
    }
    tried = list(angles)[:: max(1, math.ceil(len(angles) / TENSORS))]
    turning = [name for name in tried if _turns(call, angles[name])]
    if not turning:
        return None
    # Where every tensor that was tried is one of angles, those between them are taken for such.
    chosen = list(angles) if turning == tried else turning
    qubits = told[0] or _qubits_of_state(call, given)
    return Circuit(path, qubits, told[1], {name: angles[name] for name in chosen}, call) if qubits else None


def _turns(call: Callable[[], Tensor], angle: nn.Parameter) -> bool:
    """Whether the output is a first harmonic in entries of a parameter, and changes with one of them.

    Tried at numbers drawn anew: a circuit that starts as the identity does not feel most of its own.
    """
    before, size, changes = angle.detach().clone(), angle.numel(), False
    drawn = np.random.default_rng(size).uniform(0, 2 * math.pi, size)
    try:
        with torch.no_grad():
            angle.copy_(torch.from_numpy(drawn).reshape(angle.shape))
        for entry in sorted({size * (2 * k + 1) // (2 * ENTRIES) for k in range(ENTRIES)}):
            swing, miss, scale = _harmonic(call, angle, entry)
            rounding = 200 * torch.finfo(angle.dtype).eps * scale
            if not miss <= max(rounding, 1e-4 * swing):
                return False
            changes = changes or swing > 10 * rounding
        return changes
    finally:
        with torch.no_grad():
            angle.copy_(before)


def _harmonic(call: Callable[[], Tensor], angle: nn.Parameter, entry: int) -> tuple[float, float, float]:
    """Return the largest change of the outputs with one entry, the misfit, and the size of the outputs."""
    place, rows = np.unravel_index(entry, angle.shape), []
    turns = np.concatenate([FITTED, FURTHER])
    with torch.no_grad():
        before = angle[place].clone()
        for turn in turns:
            angle[place] = float(turn)
            rows.append(_numbers(call()))
        angle[place] = before
    seen = np.stack(rows)
    basis = np.stack([np.ones_like(turns), np.cos(turns), np.sin(turns)], 1)
    fit = np.linalg.lstsq(basis[: len(FITTED)], seen[: len(FITTED)], rcond=None)[0]
    return float(np.max(np.hypot(fit[1], fit[2]))), _most(seen - basis @ fit), _most(seen)


def _qubits_of_state(call: Callable[[], Tensor], given: Any) -> int:
    """Return n where tensors of 2^n numbers and of length 1 run through the module; 0 where none do."""
    first = first_floating(given)
    samples = {1} if first is None or not first.ndim else {1, first.shape[0]}
    sizes: Counter[int] = Counter()

    def see(tensor: Tensor) -> Tensor:
        for count in samples if tensor.is_floating_point() or tensor.is_complex() else ():
            size = tensor.numel() // count
            plain = torch.view_as_real(tensor.detach().resolve_conj()) if tensor.is_complex() else tensor
            if size * count == tensor.numel() and size >= 4 and not size & (size - 1):
                sizes[size] += abs(float(norm(plain)) ** 2 / count - 1) < 1e-3
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        call()
    often = [(number, size) for size, number in sizes.items() if number >= STATES]
    return max(often)[1].bit_length() - 1 if often else 0


def _most(values: Array) -> float:
    return float(np.max(np.abs(values)))


def _numbers(tensor: Tensor) -> Array:
    return tensor.detach().double().cpu().reshape(-1).numpy().copy()
