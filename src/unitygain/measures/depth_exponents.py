"""depth_exponents: depth taken as time, at what rate a gradient grows or shrinks per block."""

from collections.abc import Callable

import numpy as np
import torch

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.chain import chain_of
from unitygain.probe.columns import Matrix, apply_columns
from unitygain.probe.few import trace_few
from unitygain.probe.operators import JacobianOperator
from unitygain.probe.record import Record
from unitygain.probe.trace import NoGraph
from unitygain.theory.lyapunov import LyapunovSpectrum, NotFinite, lyapunov_spectrum

UNIT = "largest exponent, nat per block"
SITE = Site("", leaf=".(trunk)")
LEADING, FEWEST = 8, 4
NOTE = (
    "exponents tell what further blocks of the same kind would do; the singular values of those that are "
    "there are log_spectrum's"
)


@measure(unit=UNIT, passes="8 passes of the trunk, and 2 to test")
def depth_exponents(case: Case, record: Record) -> Profile | None:
    """Leading Lyapunov exponents of a trunk whose blocks keep the size of a sample, with an interval.

    Depth is taken as time: eight orthogonal directions go back through the transposed Jacobians of the
    blocks, from the last to the first, for the first sample (the whole batch where samples mix).

    Cost: one forward pass, and eight backward passes of the trunk. No side effects.

    Args:
        case: An isolated case.
        record: A record with blocks.

    Returns:
        One value for the trunk; `error` is the half width of its 95 % interval, which takes parts of the
        trunk as independent, NaN below five blocks. Rows: the leading exponents, descending. Facts:
        ``blocks``, ``transient`` (blocks that only aligned the directions), ``start_loss``, the
        finite-length correction. None where there are fewer than four blocks, where they change their size,
        or where something passes around them.

    Raises:
        NoGraph: If no block has a graph, as under reentrant checkpointing, or a Jacobian is not finite.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(50)))
        >>> for layer in model:
        ...     layer.weight.data = torch.diag(torch.tensor([1.0, 0.1]))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> profile = depth_exponents(case, observe(case, []))
        >>> [abs(round(value, 4)) for value in profile.values], round(profile.rows[0][1], 4)
        ([0.0], -2.3026)

    References:
        See `unitygain.theory.lyapunov`.
    """
    if len(record.blocks) < FEWEST:
        return None
    seed = int(record.facts.get("seed", 0))
    with trace_few(case, record) as live:
        blocks = live.require_blocks()
        parts = chain_of(blocks, seed).factors
        if len(parts) < FEWEST or {side for part in parts for side in part.shape} != {parts[0].shape[0]}:
            return None
        try:
            found, who = _spectrum(parts, seed)
        except NotFinite as reason:
            raise NoGraph(f"the trunk's Jacobian is not finite (UG901): {reason}") from reason
    return Profile(
        "depth_exponents",
        UNIT,
        sites=(SITE,),
        values=(float(found.exponents[0]),),
        error=(float(found.half_widths[0]),),
        rows=(tuple(map(float, found.exponents)),),
        facts={
            "blocks": float(len(parts)),
            "transient": float(found.transient),
            "start_loss": found.start_loss,
        },
        note="; ".join(filter(None, [NOTE, who, live.note])),
    )


def _spectrum(parts: tuple[JacobianOperator, ...], seed: int) -> tuple[LyapunovSpectrum, str]:
    coupled = any(part.coupled for part in parts)
    maps = [apply_columns(p, transposed=True) if coupled else _of_first_sample(p) for p in reversed(parts)]
    size = parts[0].shape[0] if coupled else len(parts[0].sample(0)[0])
    start = np.random.default_rng(seed).standard_normal((size, min(LEADING, size)))
    precision = max(torch.finfo(part.dtype).eps for part in parts)
    found = lyapunov_spectrum(maps, start, precision=precision, tolerance=max(1e-6, 10 * precision))
    return found, parts[0].batch_note if coupled else "first sample"


def _of_first_sample(part: JacobianOperator) -> Callable[[Matrix], Matrix]:
    """Return Jᵀ of the first sample: cotangents of the others are zero, and theirs are not read."""
    whole, (rows, columns) = apply_columns(part, transposed=True), part.sample(0)

    def apply(cotangents: Matrix) -> Matrix:
        padded = np.zeros((part.shape[0], cotangents.shape[1]))
        padded[rows.numpy()] = cotangents
        return whole(padded)[columns.numpy()]

    return apply
