"""rms_gain: by how much each block amplifies a random gradient on its way back."""

import math

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.measures._chance import beside
from unitygain.probe.hutchinson import rms_gain_of
from unitygain.probe.record import Record
from unitygain.probe.trace import trace

UNIT = "norm of J^T u over norm of u, random u"
COLUMNS = ("rms_gain", "participation", "frobenius")


@measure(unit=UNIT, passes="probes x blocks")
def rms_gain(case: Case, record: Record) -> Profile | None:
    """Root mean square gain of every block's Jacobian over random directions, ‖J‖_F/√rows.

    Squares are averaged over the probes before the root is taken. All blocks share one forward pass;
    the batch is taken as one vector.

    Cost: one forward pass, and ``record.facts["probes"]`` (8) backward passes through the blocks alone.
    No side effects.

    Args:
        case: An isolated case.
        record: A record with blocks.

    Returns:
        One gain per block (not squared) with its standard error, from the larger of the probes' spread
        and the participation: the number of directions that carry the gain. The rows add it, and ‖J‖_F,
        which no direction's gain exceeds. Where the record has draws, what chance gives stands beside it
        (`unitygain.measures._chance`). None where the model has no blocks.

    Raises:
        RuntimeError: If no block has a graph, as under reentrant checkpointing.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3)))
        >>> for layer in model:
        ...     _ = nn.init.eye_(layer.weight).data.mul_(0.5)
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(2, 4)])
        >>> rms_gain(case, observe(case, [])).values
        (0.5, 0.5, 0.5)

    References:
        Averaged partial Jacobian norm: D. Doshi, T. He, A. Gromov, arXiv 2111.12143 (squared
        there). Estimator: see `unitygain.probe.hutchinson`.
    """
    if not record.blocks:
        return None
    probes, seed = int(record.facts.get("probes", 8)), int(record.facts.get("seed", 0))
    with trace(case, record) as live:
        blocks = live.require_blocks()
        operators = [block.jacobian() for block in blocks]
        found = [rms_gain_of(operator, probes, seed + index) for index, operator in enumerate(operators)]
        notes = [operators[0].batch_note, live.note]
        profile = Profile(
            "rms_gain",
            UNIT,
            sites=tuple(block.site for block in blocks),
            values=tuple(gain.value for gain in found),
            error=tuple(gain.error for gain in found),
            columns=COLUMNS,
            rows=tuple(
                (gain.value, gain.participation, gain.value * math.sqrt(operator.shape[0]))
                for gain, operator in zip(found, operators, strict=True)
            ),
            facts={"probes": float(probes)},
            note="; ".join(filter(None, notes)),
        )
        return beside(profile, record, "redrawn.random")
