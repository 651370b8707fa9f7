"""chain_gain: bound, typical gain and worst gain of the whole trunk, three different numbers."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.chain import Chain, chain_of
from unitygain.probe.few import trace_few
from unitygain.probe.golub_kahan import affordable_steps, golub_kahan
from unitygain.probe.hutchinson import rms_gain_of
from unitygain.probe.one_sided import lower_bounds
from unitygain.probe.operators import JacobianOperator, LinearOperator
from unitygain.probe.record import Record
from unitygain.probe.trace import TracedBlock, buffers_kept, entering
from unitygain.probe.weights import OperatorNorm, convolution_norm, convolutions, matrices, matrix_norm

UNIT = "log10 of norm out over norm in, whole trunk"
SITES = tuple(Site("", leaf=f".({name})") for name in ("bound", "typical", "worst"))
# One percent moves log10 by 0.004. The blocks' norms are multiplied and only bound: eight steps find a norm
# that stands out, and one that does not to a few percent.
TOLERANCE = 1e-2
FEW = 8
Log = tuple[float, float]


@measure(unit=UNIT, passes="(probes + 2 x steps + 20) x blocks, steps at most 18 on large blocks")
def chain_gain(case: Case, record: Record) -> Profile | None:
    """Gain of the trunk as the product of its layers' norms, over random directions, and at its largest.

    The bound is the product of the operator norms of the weights in the blocks; it is a bound where blocks
    are plain layers with activations of slope at most 1. Where it lies below the product of the norms of
    the blocks' Jacobians (skip paths, normalisation, attention), that product is shown instead, and the label
    says so. The typical gain is ‖J‖_F/√rows, the worst one ‖J‖ of the true chain. The three differ by
    orders of magnitude: a product of norms says little about the chain.

    Of a large batch whose samples do not mix the first are taken, and the note says how many. Products of
    Jacobians are taken block by block, each at its own scale, so that no gain is too small or
    too large for the dtype.

    Cost: one forward pass (two with convolutions); probes + 2·steps backward passes through the trunk, 16
    for the blocks' norms and 4 to set up; the norms of the blocks' weights. No side effects.

    Args:
        case: An isolated case.
        record: A record with blocks.

    Returns:
        Three values with errors (log10). Facts: ``log10_weight_norms`` and ``log10_block_norms``, the two
        products; ``blocks``; ``participation``, the directions that carry the typical gain. None where the
        model has no blocks.

    Raises:
        RuntimeError: If no block has a graph, as under reentrant checkpointing.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(4)))
        >>> for layer in model:
        ...     layer.weight.data = torch.diag(torch.tensor([10.0, 0.0]))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> profile = chain_gain(case, observe(case, []))
        >>> [round(value, 1) for value in (profile.values[0], profile.values[2])]
        [4.0, 4.0]
    """
    if not record.blocks:
        return None
    seed = int(record.facts.get("seed", 0))
    by_weights = _weight_logs(case, record, seed)
    with trace_few(case, record) as live:
        blocks = live.require_blocks()
        chain = chain_of(blocks, seed)
        factors = chain.factors or tuple(block.jacobian() for block in blocks)
        by_blocks = {
            block.site: _norm_log(factor, FEW, seed, [factor])
            for block, factor in zip(blocks, factors, strict=True)
        }
        typical = rms_gain_of(chain.operator, int(record.facts.get("probes", 8)), seed)
        worst, label = _worst(chain, seed)
        notes = [chain.note, live.note, blocks[0].jacobian().batch_note]
    bound, bound_label = _bound(blocks, by_weights, by_blocks, chain)
    entries = (bound, _shift(_log(typical.value, typical.error), chain.log10_scale), worst)
    if not all(math.isfinite(value) for entry in entries for value in entry):
        notes.append("minus infinity: a gain of exactly zero; NaN: no finite Jacobian, or no error bar")
    return Profile(
        "chain_gain",
        UNIT,
        sites=SITES,
        values=tuple(value for value, _ in entries),
        error=tuple(error for _, error in entries),
        labels=(bound_label, "rms gain over random directions", label),
        facts={
            "log10_weight_norms": _total(by_weights.values())[0],
            "log10_block_norms": _total(by_blocks.values())[0],
            "participation": typical.participation,
            "blocks": float(len(blocks)),
        },
        note="; ".join(filter(None, notes)),
    )


def _bound(
    blocks: Sequence[TracedBlock], by_weights: dict[Site, Log], by_blocks: dict[Site, Log], chain: Chain
) -> tuple[Log, str]:
    if not chain.factors:
        return _total(by_weights.values()), "product of the weights' norms; no bound: paths around the blocks"
    # A weight's norm is a lower estimate within its error, and so is a block's.
    holds = all(
        sum(by_weights[b.site]) >= by_blocks[b.site][0] or math.isnan(by_blocks[b.site][0]) for b in blocks
    )
    if holds:
        return _total(by_weights.values()), "product of the weights' norms"
    return _total(by_blocks.values()), "product of the blocks' norms: those of the weights bound nothing here"


def _worst(chain: Chain, seed: int) -> tuple[Log, str]:
    steps = affordable_steps(chain.operator)
    found = _norm_log(chain.operator, steps, seed, chain.parts)
    bounded = math.isnan(found[1]) and not math.isnan(found[0])
    label = "lower bound: no double backward pass" if bounded else "norm of the chain"
    return _shift(found, chain.log10_scale), label


def _norm_log(operator: LinearOperator, steps: int, seed: int, parts: Sequence[JacobianOperator]) -> Log:
    """log10 of the norm and its error; a lower bound with error NaN where J·v cannot be had."""
    if all(part.double_backward for part in parts):
        found = golub_kahan(operator, 1, steps=steps, tolerance=TOLERANCE, seed=seed)
        return _log(found.values[0], found.errors[0])
    return _log(lower_bounds(operator, 1, seed)[0], math.nan)


def _weight_logs(case: Case, record: Record, seed: int) -> dict[Site, Log]:
    """Sum of log10 of the norms of the weights in every block."""
    norms: dict[str, OperatorNorm] = {}
    inside = {site.path for site in record.blocks}
    chosen = {
        path: module for path, module in convolutions(case.model).items() if _within(path, inside) is not None
    }
    shapes = entering(case, record, chosen) if chosen else {}
    with buffers_kept(case.model):
        for site, _, weight in matrices(case.model):
            if _within(site.path, inside) is not None:
                norms[site.path] = matrix_norm(weight, seed)
        for path, module in chosen.items():
            if path in shapes:
                norms[path] = convolution_norm(module, shapes[path], seed)
    logs: dict[str, list[Log]] = defaultdict(list)
    for path, norm in norms.items():
        logs[str(_within(path, inside))].append(_log(norm.value, norm.error))
    return {site: _total(logs[site.path]) for site in record.blocks}


def _within(path: str, blocks: Set[str]) -> str | None:
    """Return the block that a module is in, from the names of those that it is in."""
    parts = path.split(".")
    names = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return next((name for name in names if name in blocks), None)


def _log(value: float, error: float) -> Log:
    if value == 0:
        return -math.inf, math.inf if error else 0.0
    return (math.log10(value), error / (value * math.log(10))) if value > 0 else (math.nan, math.nan)


def _shift(log: Log, by: float) -> Log:
    return log[0] + by, log[1]


def _total(logs: Iterable[Log]) -> Log:
    pairs = list(logs)
    return math.fsum(value for value, _ in pairs), math.fsum(error for _, error in pairs)
