"""Variational quantum circuits inside a model: found by two signs, and run at other angles than their own."""

import math
from collections.abc import Callable, Iterable, Iterator
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
from unitygain.probe.states import are_states, loss_of_one, qubits_of_state
from unitygain.probe.trace import buffers_kept, glance

Array = NDArray[np.float64]
WORDS = ("circuit", "quantum", "qnn", "vqc", "ansatz", "qlayer")
COUNTS = ("n_qubits", "num_qubits", "nqubits", "qubits", "n_wires", "num_wires", "wires")
MOST_QUBITS = 40
# Tensors of parameters that are tried, and entries of each.
TENSORS, ENTRIES = 16, 3
# Five points fix a + b·cos + c·sin with two to spare; the others lie outside of the first turn, too.
FITTED = np.arange(5) * (2 * math.pi / 5)
FURTHER = np.array([1.0, 9.1])


@dataclass
class Circuit:
    """A module whose output is a + b·cos θ + c·sin θ in each of its angles, at the inputs of its first call.

    Of a module that gives states the output is the loss, as a function of the first state.

    Args:
        path: The module.
        qubits: How many it has.
        sign: What told so.
        observed: What is its output: ``output``, or ``loss`` where the module gives states.
        angles: Its angles, by the name that they have in the model.
    """

    path: str
    qubits: int
    sign: str
    observed: str
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

    Cost: one forward pass, and 7 of the module per entry that is tried, 48 entries at most; of the whole loss
    where the module gives states.
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
            made = None if inside else _recognise(case, path, told[path], calls[path], record)
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


def _recognise(case: Case, path: str, told: tuple[int, str], given: Any, record: Record) -> Circuit | None:
    module, seed = case.model.get_submodule(path), int(record.facts.get("seed", 0))

    def run() -> Tensor:
        reseed(seed)
        made = first_floating(unwrap(module(*given[0], **given[1])))
        return torch.empty(0) if made is None else made

    qubits, made = told[0] or qubits_of_state(run, given), run()
    if not qubits or not made.numel() or not made.requires_grad:
        return None
    angles = {
        f"{path}.{name}" if path else name: parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.is_floating_point() and parameter.numel()
    }
    states = all(are_states(each, qubits) for each in (made, _elsewhere(run, angles.values())))
    call = loss_of_one(case, module, made.detach(), qubits, seed) if states else run
    if not _readable(call()):
        return None
    tried = list(angles)[:: max(1, math.ceil(len(angles) / TENSORS))]
    turning = [name for name in tried if _turns(call, angles[name])]
    if not turning:
        return None
    # Where every tensor that was tried is one of angles, those between them are taken for such.
    chosen = list(angles) if turning == tried else turning
    observed = "loss" if states else "output"
    held = {name: angles[name] for name in chosen}
    return Circuit(path, qubits, told[1], observed, held, call)


def _readable(made: Tensor) -> bool:
    return not made.is_complex() and bool(np.isfinite(_numbers(made)).all())


def _elsewhere(run: Callable[[], Tensor], angles: Iterable[nn.Parameter]) -> Tensor:
    """Return what the module gives at other angles: probabilities are of length one where one is 1."""
    before = [(angle, angle.detach().clone()) for angle in angles]
    with torch.no_grad():
        for angle, value in before:
            angle.copy_(value + 1)
        made = run()
        for angle, value in before:
            angle.copy_(value)
    return made


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
            rounding = torch.finfo(angle.dtype).eps * scale
            if not miss <= max(200 * rounding, 1e-4 * swing):
                return False
            # On a barren plateau a swing is small, and still far above what it misses the harmonic by.
            changes = changes or swing > 100 * max(miss, rounding)
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


def _most(values: Array) -> float:
    return float(np.max(np.abs(values)))


def _numbers(tensor: Tensor) -> Array:
    return tensor.detach().double().cpu().reshape(-1).numpy().copy()
