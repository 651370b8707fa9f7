"""jacobian_log_det: by how much the blocks of a flow change a volume, and by how much one direction."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.chain import chain_of
from unitygain.probe.claims import claimed_jacobian
from unitygain.probe.columns import Matrix, factor_of_sample
from unitygain.probe.few import trace_few
from unitygain.probe.invertible import declares_inverse, is_monomial, is_triangular
from unitygain.probe.record import Record
from unitygain.probe.trace import NoGraph, TracedBlock
from unitygain.theory.products import log_singular_values
from unitygain.theory.volumes import least_condition

UNIT = "ln |det J| of one sample"
COLUMNS = ("sigma_max", "sigma_min")
DECLARED, TRIANGULAR, VOLUME, PLAIN = "has an inverse", "triangular", "keeps volume", ""
CLAIMED = "tells its volume"
DENSE_SIDE = 512
# Blocks that are looked at before a trunk without any evidence is left alone.
GLANCE = 4
# ln|det| over ln σ_max below which a block keeps its volume by design, and not by chance.
KEPT = 0.01
SWEEPS = 64


@measure(unit=UNIT, passes="one per number in a sample and block, batched; 4 blocks where it is no flow")
def jacobian_log_det(case: Case, record: Record) -> Profile | None:
    """Ln |det J| of every block of a flow, beside its largest and smallest singular values.

    A trunk counts as a flow where every block keeps the size of a sample and at least half of the blocks,
    scales and permutations left out, show that they can be inverted: their class, or the model's, has an
    inverse (a method, or an argument of forward); their Jacobian is triangular but for the order of its rows
    and columns, as that of a coupling or an autoregressive layer is; or its determinant is 1 although its
    singular values are not.
    Where the trunk is none, the model as a whole counts as one block if it returns, beside a tensor of its
    input's shape, what is ln |det J| in truth.

    The Jacobians are those of the first sample, of the whole batch where samples mix.

    Cost: one forward pass, and per block as many batched backward passes as a sample has numbers (at most
    512); four blocks where the trunk is no flow, and another forward pass. No side effects.

    Args:
        case: An isolated case.
        record: A record with blocks.

    Returns:
        One value per block. Columns: ``sigma_max``, ``sigma_min``. Labels: the evidence for each block. Facts
        of the trunk: ``dimension`` n, ``log_det``, ``log10_sigma_max``, ``stretch`` (σ_max over |det|^(1/n),
        the geometric mean of all singular values), ``least_condition`` (of maps with that volume and σ_max).
        None where the trunk is no flow.

    Raises:
        NoGraph: If a flow has no graph, more than 512 numbers in a sample, or a Jacobian that is not finite.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> class Shear(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.slope = nn.Parameter(torch.tensor(1.5))
        ...     def forward(self, x):
        ...         kept, moved = x.chunk(2, -1)
        ...         return torch.cat([moved + self.slope * kept, kept], -1)
        >>> model = nn.Sequential(Shear(), Shear(), Shear())
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> profile = jacobian_log_det(case, observe(case, []))
        >>> [abs(round(value, 6)) for value in profile.values], [round(row[0], 3) for row in profile.rows]
        ([0.0, 0.0, 0.0], [2.0, 2.0, 2.0])

    References:
        J. Behrmann, P. Vicol, K.-C. Wang, R. Grosse and J.-H. Jacobsen on the inverses of invertible networks
        (AISTATS 2021), section 3.
    """
    if not record.blocks:
        return _as_a_whole(case, record)
    with trace_few(case, record) as live:
        found = _factors(case.model, live.blocks) if live.blocks else None
        if found is None:
            return _as_a_whole(case, record)
        blocks = live.blocks
        factors, labels, who = found
        stretched = _trunk(blocks, factors, int(record.facts.get("seed", 0)))
        sites, notes = tuple(block.site for block in blocks), [who, live.note]
    volumes = tuple(map(log_det, factors))
    if -math.inf in volumes:
        notes.append("minus infinity: the Jacobian is singular, and no inverse is there")
    rows = [np.linalg.svd(factor, compute_uv=False)[[0, -1]] for factor in factors]
    return Profile(
        "jacobian_log_det",
        UNIT,
        sites=sites,
        values=volumes,
        columns=COLUMNS,
        rows=tuple((float(high), float(low)) for high, low in rows),
        labels=tuple(labels),
        facts={"dimension": float(len(factors[0])), **stretched},
        note="; ".join(filter(None, notes)),
    )


def _as_a_whole(case: Case, record: Record) -> Profile | None:
    """The profile of a model whose blocks are no flow, but which tells its volume, as one block."""
    factor = claimed_jacobian(case, record, DENSE_SIDE)
    if factor is None:
        return None
    volume, n = log_det(factor), len(factor)
    high, *_, low = map(float, np.linalg.svd(factor, compute_uv=False))
    return Profile(
        "jacobian_log_det",
        UNIT,
        sites=(Site(""),),
        values=(volume,),
        columns=COLUMNS,
        rows=((high, low),),
        labels=(CLAIMED,),
        facts={"dimension": float(n), **_stretch(math.log(high), volume, n)},
        note="first sample, through the whole model",
    )


def log_det(factor: Matrix) -> float:
    """Return ln |det| of a square matrix; minus infinity where it is singular."""
    return float(np.linalg.slogdet(factor)[1])


def _factors(model: nn.Module, blocks: Sequence[TracedBlock]) -> tuple[list[Matrix], list[str], str] | None:
    """The blocks' Jacobians with the evidence for each, and a sentence; None where the trunk is no flow."""
    modules = dict(model.named_modules())
    said = [declares_inverse(model) or declares_inverse(modules[block.site.path]) for block in blocks]
    operators = [block.jacobian() for block in blocks]
    if len({side for operator in operators for side in operator.shape}) != 1:
        return None
    coupled = any(operator.coupled for operator in operators)
    side = operators[0].shape[0] // (1 if coupled else operators[0].samples())
    if not 2 <= side <= DENSE_SIDE:
        if side > DENSE_SIDE and any(said):
            raise NoGraph(
                f"a sample of the flow has {side} numbers; determinants are taken up to {DENSE_SIDE}"
            )
        return None
    factors: list[Matrix] = []
    labels: list[str] = []
    for block, operator, declared in zip(blocks, operators, said, strict=True):
        factors.append(factor_of_sample(operator, None if coupled else 0))
        if not np.isfinite(factors[-1]).all():
            if not any(said):
                return None
            raise NoGraph(f"the Jacobian of {block.site} is not finite (UG901)")
        labels.append(DECLARED if declared else _evidence(factors[-1]))
        if len(labels) == GLANCE and not any(labels):
            return None
    # A scale or a permutation speaks neither for a flow nor against it. What passes on what enters as it is,
    # as the first of two branches does, is one.
    asked = [
        label
        for label, factor, own in zip(labels, factors, said, strict=True)
        if own or not is_monomial(factor)
    ]
    shown = sum(label != PLAIN for label in asked)
    if not asked or 2 * shown < len(asked):
        return None
    return factors, labels, operators[0].batch_note if coupled else "first sample"


def _evidence(factor: Matrix) -> str:
    if is_triangular(factor):
        return TRIANGULAR
    # A branch that is added by chance keeps the volume as well as it keeps everything else.
    stretch = math.log(float(np.linalg.svd(factor, compute_uv=False)[0]) or 1.0)
    return VOLUME if abs(log_det(factor)) < KEPT * stretch else PLAIN


def _trunk(blocks: Sequence[TracedBlock], factors: list[Matrix], seed: int) -> dict[str, float]:
    """What the flow as a whole does to volumes and to the worst direction."""
    chain = chain_of(blocks, seed)
    if not chain.factors:
        coupled = chain.parts[0].coupled
        factors = [factor_of_sample(part, None if coupled else 0) for part in chain.parts]
    precision = max(torch.finfo(part.dtype).eps for part in chain.parts)
    spectrum = log_singular_values(factors, sweeps=SWEEPS, precision=precision)
    volume, n = math.fsum(map(log_det, factors)), len(factors[0])
    return _stretch(float(spectrum.logs[0]), volume, n)


def _stretch(largest: float, volume: float, n: int) -> dict[str, float]:
    """The facts of a flow with that ln σ_max and ln |det J|."""
    excess = largest - volume / n
    return {
        "log_det": volume,
        "log10_sigma_max": largest / math.log(10),
        "stretch": math.exp(excess) if excess < 700 else math.inf,
        "least_condition": math.inf if volume == -math.inf else least_condition(largest, volume, n),
    }
