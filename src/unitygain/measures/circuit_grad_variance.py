"""circuit_grad_variance: the gradient of a quantum circuit's angles against the law of random circuits."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.circuit import Circuit, circuits, find_circuits
from unitygain.probe.record import Record
from unitygain.theory.circuits import two_design_variance

Array = NDArray[np.float64]
UNIT = "mean square of d(output)/d(angle) over the 2-design law of an output of this swing"
COLUMNS = (
    "qubits",
    "law",
    "redrawn",
    "redrawn_error",
    "redrawn_least",
    "redrawn_most",
    "swing",
    "angles",
    "felt",
    "layers",
    "axis",
    "nearby",
    "apart",
)
# Uniform redraws of all angles, angles that are turned by half a turn, steps up to where the output is large.
DRAWS, FLIPS, STEPS = 12, 16, 20
# Draws around the own angles, each angle by up to so much: far enough to leave a point without slope.
AROUND, TURN = 8, 0.5


@dataclass(frozen=True)
class _Output:
    """One output: mean square over the law at own, nearby and redrawn angles, swing, share of angles felt.

    And how far it is from its mean over the redraws, in their standard deviations.
    """

    own: float
    nearby: float
    redrawn: Array
    swing: float
    felt: float
    apart: float


@measure(unit=UNIT, passes="about 100 of a circuit, where there is one")
def circuit_grad_variance(case: Case, record: Record) -> Profile | None:
    """Mean square of ∂(output)/∂θ over a circuit's angles, over the variance inside a random circuit.

    A circuit is a module that is told to be one, and behaves so. Told: its qnode has a device with wires
    (PennyLane's TorchLayer); or an attribute names its qubits (n_qubits, num_qubits, qubits, n_wires, ...);
    or its name or class does (circuit, quantum, qnn, vqc, ansatz, qlayer) and tensors of 2^n numbers and
    length 1 run through it. Behaves: its output is a + b·cos θ + c·sin θ, so bounded and periodic, in
    entries of a parameter, which is fitted at five angles and checked at two more. Where the output is states
    (rows of 2^n numbers, each of length 1), their observable stands outside: then the loss is the output that
    must be such, as a function of the first state alone.

    The first and the last output count, each by the angles that it feels. The law is for an observable of
    two values, ±1; an output's scale is its swing: by how much it changes (rms) from where it is large, or
    from where it is small, when one angle makes half a turn, at most by half of its range. So a weight of
    the output cancels, and a mean of many local terms is not taken for a flat one.

    Cost: one forward pass, about 100 forward and 60 backward passes of the module. No side effects.

    Args:
        case: An isolated case.
        record: Its record.

    Returns:
        One value per circuit, at its own angles. Columns: ``qubits``, ``law`` (2-design variance), the same
        ratio over uniform redraws of all angles as ``redrawn`` (with ``_error``, ``_least`` and ``_most``
        of the draws), ``swing``, ``angles`` (their number), ``felt`` (fraction that the output feels),
        ``layers`` and ``axis`` (of a single tensor of layers × qubits; 0 layers where it is none), and the
        ratio ``nearby``, over draws within half a radian of the own angles, and ``apart``, how many
        standard deviations of the redrawn outputs the own one lies from their mean. Labels: what told the
        qubits. Facts: ``angles``, their names, and ``observed``, ``output`` or ``loss``, circuits apart by
        ``; ``. None where there is no circuit.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> class Turns(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.theta, self.n_qubits = nn.Parameter(torch.full((2,), torch.pi / 2)), 2
        ...     def forward(self, x):
        ...         return x * self.theta[0].cos()
        >>> case = Case(Turns(), loss=lambda m, x: m(x), data=[torch.ones(())])
        >>> profile = circuit_grad_variance(case, observe(case, []))
        >>> seen = dict(zip(profile.columns, profile.rows[0]))
        >>> round(profile.values[0] * seen["law"] * seen["swing"] ** 2, 3), seen["felt"], profile.labels
        (1.0, 0.5, ('n_qubits',))

    References:
        J. McClean et al., "Barren plateaus in quantum neural network training landscapes" (2018). M. Cerezo
        et al., "Cost function dependent barren plateaus in shallow parametrized quantum circuits" (2021).
    """
    if not find_circuits(case.model):
        return None
    seed = int(record.facts.get("seed", 0))
    kept: list[tuple[Circuit, float, tuple[float, ...]]] = []
    with circuits(case, record) as found:
        for circuit in found:
            seen = _outputs(circuit, seed)
            if seen:
                kept.append((circuit, float(np.mean([one.own for one in seen])), _row(circuit, seen)))
    if not kept:
        return None
    return Profile(
        "circuit_grad_variance",
        UNIT,
        sites=tuple(Site(circuit.path) for circuit, _, _ in kept),
        values=tuple(value for _, value, _ in kept),
        columns=COLUMNS,
        rows=tuple(row for _, _, row in kept),
        labels=tuple(circuit.sign for circuit, _, _ in kept),
        facts={
            "angles": "; ".join(", ".join(circuit.angles) for circuit, _, _ in kept),
            "observed": "; ".join(circuit.observed for circuit, _, _ in kept),
        },
        note="at the inputs of the module's first call",
    )


def _outputs(circuit: Circuit, seed: int) -> list[_Output]:
    """Measure the first and the last output that feel an angle."""
    source, own = np.random.default_rng(seed), circuit.own
    draws = source.uniform(0, 2 * math.pi, (DRAWS, len(own)))
    turns = source.uniform(-TURN, TURN, (AROUND, len(own)))
    seen: list[_Output] = []
    for entry in sorted({0, len(circuit.outputs(own)) - 1}):
        values, slopes = zip(*(circuit.slope(theta, entry) for theta in draws), strict=True)
        squares, levels = np.square(slopes), np.array(values)
        # Beyond rounding of float32 in any draw.
        felt = np.max(squares, axis=0) > (1e-5 * np.max(np.abs(levels))) ** 2
        if not felt.any():
            continue
        chosen = source.permutation(np.flatnonzero(felt))[:FLIPS]
        swing = _swing(circuit, entry, draws, levels, chosen)
        unit = two_design_variance(circuit.qubits) * swing**2
        level, slope = circuit.slope(own, entry)
        here, spread = np.square(slope), float(np.std(levels, ddof=1))
        around = [np.square(circuit.slope(own + turn, entry)[1][felt]) for turn in turns]
        seen.append(
            _Output(
                float(np.mean(here[felt])) / unit,
                float(np.mean(around)) / unit,
                np.mean(squares[:, felt], axis=1) / unit,
                swing,
                float(np.mean(felt)),
                abs(level - float(np.mean(levels))) / spread if spread else 0.0,
            )
        )
    return seen


def _swing(circuit: Circuit, entry: int, draws: Array, levels: Array, chosen: NDArray[np.intp]) -> float:
    """Return how far half a turn takes an output from where it is large, or from where it is small."""
    return max(_fall(circuit, entry, draws, levels, chosen, sign) for sign in (1.0, -1.0))


def _fall(
    circuit: Circuit, entry: int, draws: Array, levels: Array, chosen: NDArray[np.intp], sign: float
) -> float:
    """Return the rms fall of sign times the output from a large value, half a turn of an angle each time."""
    signed, spread = sign * levels, float(np.std(levels)) or float(np.max(np.abs(levels)))

    def lower(theta: Array) -> tuple[float, Array]:
        value, slope = circuit.slope(theta, entry)
        return -sign * value / spread, -sign * slope / spread

    start = draws[int(np.argmax(signed))]
    best = minimize(lower, start, jac=True, method="L-BFGS-B", options={"maxfun": STEPS})
    top, falls = -float(best.fun) * spread, []
    for index in chosen:
        theta = best.x.copy()
        theta[index] += math.pi
        falls.append(top - sign * circuit.outputs(theta)[entry])
    return min(math.sqrt(float(np.mean(np.square(falls)))), top - float(np.mean(signed)))


def _row(circuit: Circuit, seen: list[_Output]) -> tuple[float, ...]:
    each = np.mean([one.redrawn for one in seen], axis=0)
    return (
        float(circuit.qubits),
        two_design_variance(circuit.qubits),
        float(np.mean(each)),
        float(np.std(each, ddof=1)) / math.sqrt(len(each)),
        float(np.min(each)),
        float(np.max(each)),
        float(np.mean([one.swing for one in seen])),
        float(len(circuit.own)),
        float(np.mean([one.felt for one in seen])),
        *layers_of([tuple(angle.shape) for angle in circuit.angles.values()], circuit.qubits),
        float(np.mean([one.nearby for one in seen])),
        float(np.mean([one.apart for one in seen])),
    )


def layers_of(shapes: list[tuple[int, ...]], qubits: int) -> tuple[float, float]:
    """Return number and axis of the layers where one tensor has one angle per layer and qubit; else zeros.

    Example:
        >>> layers_of([(15, 6)], 6), layers_of([(6, 15)], 6), layers_of([(15, 6, 3)], 6)
        ((15.0, 0.0), (15.0, 1.0), (0.0, 0.0))
    """
    if len(shapes) != 1 or len(shapes[0]) != 2 or qubits not in shapes[0]:
        return 0.0, 0.0
    axis = 0 if shapes[0][1] == qubits else 1
    return float(shapes[0][axis]), float(axis)
