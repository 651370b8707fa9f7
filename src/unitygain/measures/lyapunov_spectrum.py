"""lyapunov_spectrum: at what rate recurrent modules forget, or amplify, a small change of their state."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.measures._cell_theory import expected_exponent
from unitygain.probe.record import Record
from unitygain.probe.steps import Walk, walk
from unitygain.probe.trace import NoGraph
from unitygain.theory.lyapunov import LyapunovSpectrum, NotFinite
from unitygain.theory.lyapunov import lyapunov_spectrum as find_spectrum

UNIT = "largest exponent, nat per step"
# All exponents up to this many numbers in the state, which is an LSTM of 256 units; else the leading ones.
WHOLE = 512
LEADING = 16
NOTE = (
    "exponents along the first sample, backward in time, with 95 % intervals over batches of steps; "
    "spectral_radius is of eigenvalues of the last step's Jacobian, which bound neither norm nor exponents; "
    "expected is mean-field theory's, for random weights of the same variance and inputs fresh at every step"
)
NAMED = ("steps", "horizon", "sum", "dimension", "spectral_radius", "start_loss")


@dataclass(frozen=True)
class Followed:
    """A walk and the exponents along it."""

    walk: Walk
    spectrum: LyapunovSpectrum

    @property
    def largest(self) -> float:
        """The largest exponent."""
        return float(self.spectrum.exponents[0])

    @property
    def horizon(self) -> float:
        """Steps back to where a gradient has shrunk to the rounding of the module's own dtype."""
        return math.log(1 / self.walk.eps) / -self.largest if self.largest < 0 else math.inf

    @property
    def numbers(self) -> tuple[float, ...]:
        """What stands before the exponents in a row."""
        found = self.spectrum
        last = self.walk.jacobian(len(self.walk) - 1) if self.walk.size <= WHOLE else None
        radius = math.nan if last is None else float(np.abs(np.linalg.eigvals(last)).max())
        return (
            float(self.walk.total),
            self.horizon,
            found.total,
            found.dimension,
            radius,
            found.start_loss,
        )


@measure(unit=UNIT, passes="one Jᵀ·u per number in the state and step, batched; 16 above 512 numbers")
def lyapunov_spectrum(case: Case, record: Record) -> Profile | None:
    """Lyapunov exponents of every recurrent module along the data's own way through it.

    A small change of the state, or a gradient on its way back, grows or shrinks like exp(λ·steps). The
    modules' own cells are unrolled for the first sample of the first batch, and so is a module of any other
    class that a loop hands what it returned before; the transposed Jacobians of the state (h, and c of an
    LSTM) are applied to orthogonal directions from the last step to the first. A layer or direction of a
    module is a site of its own: what a layer gets from the one below is input.

    Cost: one forward pass of the model, one unrolled one, and one batched backward pass of as many rows as
    the state has numbers per step; at most the last 1000 steps. Computed in float64. No side effects.

    Args:
        case: An isolated case.
        record: Its record.

    Returns:
        The largest exponent per cell; `error` is the half width of its 95 % interval, which knows nothing of
        other samples. `expected` and `interval` are what theory expects of random weights of the same
        variance, at one draw; NaN where it has no formula. Rows: ``steps`` of the sequence; ``horizon``,
        steps back to where exp(λ·steps) falls below the dtype's rounding, infinite without a decay; ``sum``
        of all exponents; Kaplan-Yorke ``dimension``; ``spectral_radius``, the largest eigenvalue's modulus
        of the last step's Jacobian (no singular value); ``start_loss``, the finite-length correction; then
        the exponents, descending. Labels are kinds of cells, or the class of one written by hand. None where
        none runs four steps.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> rnn = nn.RNN(2, 2, nonlinearity="relu", bias=False)
        >>> _ = rnn.weight_hh_l0.data.copy_(torch.eye(2) / 2), rnn.weight_ih_l0.data.copy_(torch.eye(2))
        >>> case = Case(rnn, loss=lambda m, x: m(x)[0].sum(), data=[torch.ones(40, 1, 2)])
        >>> profile = lyapunov_spectrum(case, observe(case, []))
        >>> [round(value / 0.6931471805599453, 6) for value in profile.values], round(profile.rows[0][1], 6)
        ([-1.0], 23.0)

    References:
        See `unitygain.theory.lyapunov`.
    """
    walks = walk(case, record)
    if not walks.walks:
        return None
    seed = int(record.facts.get("seed", 0))
    followed = [Followed(one, _spectrum(one, seed)) for one in walks.walks]
    longest = max(len(one.spectrum.exponents) for one in followed)
    theory = [expected_exponent(one.walk) for one in followed]
    return Profile(
        "lyapunov_spectrum",
        UNIT,
        sites=tuple(one.walk.site for one in followed),
        values=tuple(one.largest for one in followed),
        error=tuple(float(one.spectrum.half_widths[0]) for one in followed),
        expected=tuple(exponent for exponent, _ in theory),
        interval=tuple(interval for _, interval in theory),
        columns=(*NAMED, *(f"exponent_{index + 1}" for index in range(longest))),
        rows=tuple((*one.numbers, *map(float, one.spectrum.exponents)) for one in followed),
        labels=tuple(one.walk.cell.kind for one in followed),
        facts=_facts(followed),
        note="; ".join(filter(None, [NOTE, walks.note])),
    )


def _spectrum(walked: Walk, seed: int) -> LyapunovSpectrum:
    size = walked.size
    count = size if size <= WHOLE else LEADING
    start = np.random.default_rng(seed).standard_normal((size, count))
    try:
        return find_spectrum(walked.backward(), start)
    except NotFinite as reason:
        raise NoGraph(f"a step's Jacobian is not finite (UG901): {reason}") from reason


def _facts(followed: Sequence[Followed]) -> dict[str, float | str]:
    """Of the cell with the largest exponent."""
    top = max(followed, key=lambda one: one.largest)
    return {
        "module": str(top.walk.site),
        "transient": float(top.spectrum.transient),
        "interval": float(top.spectrum.interval),
        "batches": float(top.spectrum.batches),
        "horizon": top.horizon,
    }
