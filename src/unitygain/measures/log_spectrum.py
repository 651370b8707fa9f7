"""log_spectrum: all singular values of the trunk's Jacobian in logarithms, and its condition number."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.chain import chain_of
from unitygain.probe.columns import Matrix, apply_columns, factor_of_sample
from unitygain.probe.few import trace_few
from unitygain.probe.operators import JacobianOperator
from unitygain.probe.record import Record
from unitygain.theory.products import ProductSpectrum, leading_log_singular_values, log_singular_values

UNIT = "log10 of largest over smallest singular value"
SITE = Site("", leaf=".(trunk)")
DENSE_SIDE = 512
LEADING = 8
# Decades below the largest within which a direction counts as open.
OPEN = 3.0
# Multiplications that the sweeps over dense factors may take (seconds), and bounds on their number: a short
# chain has close singular values, which take many sweeps, and its sweeps cost little.
WORK = 1e10
FEWEST, MOST = 6, 500
# Sweeps along the leading directions, each 8 products with every block.
LEADING_SWEEPS = 2


@measure(unit=UNIT, passes="up to 512 passes of the trunk, batched; 18 where a sample is larger")
def log_spectrum(case: Case, record: Record) -> Profile | None:
    """Singular values of the trunk's Jacobian by repeated QR sweeps over its blocks, never of their product.

    Where a sample has at most 512 numbers between all blocks, the blocks' Jacobians of the first sample
    are computed whole, and the spectrum is complete, however far it spreads. Otherwise the 8 leading
    directions of the batch are followed (of its first samples where it is large and they do not mix), and
    there is no condition number. With a coupled batch the whole batch is one sample.

    Cost: one forward pass and as many batched backward passes as a sample has numbers, and memory for one
    float64 matrix of a sample's size per block; otherwise 8 J·v, 8 Jᵀ·u of the trunk and 2 to test. No side
    effects.

    Args:
        case: An isolated case.
        record: A record with blocks.

    Returns:
        One value for the trunk: log10 of its condition number over the singular values that are not zero;
        NaN where only leading ones are known. The row holds log10 of those singular values, descending.
        Facts: ``dimension``, ``rank`` (zeros are reported by it alone), ``blocks``, ``change`` (nat, in
        the last sweep), ``sweeps``. None where the model has no blocks.

    Raises:
        RuntimeError: If no block has a graph, as under reentrant checkpointing.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(50)))
        >>> for layer in model:
        ...     layer.weight.data = torch.diag(torch.tensor([1.0, 0.1]))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> [round(value) for value in log_spectrum(case, observe(case, [])).values]
        [50]

    References:
        See `unitygain.theory.products`.
    """
    if not record.blocks:
        return None
    seed = int(record.facts.get("seed", 0))
    with trace_few(case, record) as live:
        blocks = live.require_blocks()
        chain = chain_of(blocks, seed)
        spectrum, dimension, note = _spectrum(chain.parts, seed)
        count, notes = len(blocks), [note, chain.note, live.note]
    if np.isnan(spectrum.logs).any():
        return _unknown(count, notes)
    logs = tuple(float(log) / math.log(10) for log in spectrum.logs if math.isfinite(log))
    complete = dimension == len(spectrum.logs)
    if not logs:
        notes.append("NaN: every singular value is zero")
    elif spectrum.rank < len(spectrum.logs):
        zeros = len(spectrum.logs) - spectrum.rank
        notes.append(f"{zeros} of {len(spectrum.logs)} singular values are zero and left out")
    return Profile(
        "log_spectrum",
        UNIT,
        sites=(SITE,),
        values=(logs[0] - logs[-1] if logs and complete else math.nan,),
        rows=(logs,),
        facts={
            "dimension": float(dimension),
            "rank": float(spectrum.rank) if complete else math.nan,
            "blocks": float(count),
            "change": spectrum.change,
            "sweeps": float(spectrum.sweeps),
            "open_directions": float(sum(log > logs[0] - OPEN for log in logs)),
        },
        note="; ".join(filter(None, notes)),
    )


def _unknown(blocks: int, notes: list[str]) -> Profile:
    text = "; ".join(filter(None, ["NaN: a Jacobian holds NaN or infinity", *notes]))
    return Profile("log_spectrum", UNIT, (SITE,), (math.nan,), facts={"blocks": float(blocks)}, note=text)


def _spectrum(parts: Sequence[JacobianOperator], seed: int) -> tuple[ProductSpectrum, int, str]:
    """The spectrum, the number of singular values that there are, and a sentence."""
    coupled = any(part.coupled for part in parts)
    samples = 1 if coupled else parts[0].samples()
    sides = [side // samples for part in parts for side in part.shape]
    who = parts[0].batch_note if coupled else f"first of {samples} samples"
    if max(sides) <= DENSE_SIDE:
        sweeps = int(np.clip(WORK / (5 * len(parts) * float(max(sides)) ** 3), FEWEST, MOST))
        precision = max(torch.finfo(part.dtype).eps for part in parts)
        factors = _finite_factors(parts, None if coupled else 0)
        try:
            found = log_singular_values(factors, sweeps=sweeps, precision=precision)
        except _NotFinite:
            return ProductSpectrum(np.full(1, np.nan), 0, math.nan, 0), min(sides), ""
        return found, min(sides), f"complete, {who}"
    dimension = min(side for part in parts for side in part.shape)
    found, how = _leading(parts, seed)
    return found, dimension, f"NaN as condition number: a sample has up to {max(sides)} numbers; {how}"


class _NotFinite(Exception):
    pass


def _finite_factors(parts: Sequence[JacobianOperator], sample: int | None) -> Iterator[Matrix]:
    for part in parts:
        factor = factor_of_sample(part, sample)
        if not np.isfinite(factor).all():
            raise _NotFinite
        yield factor


def _leading(parts: Sequence[JacobianOperator], seed: int) -> tuple[ProductSpectrum, str]:
    source = np.random.default_rng(seed)
    back = [apply_columns(part, transposed=True) for part in parts]
    if all(part.double_backward for part in parts):
        there = [apply_columns(part, transposed=False) for part in parts]
        start = source.standard_normal((parts[0].shape[1], LEADING))
        return leading_log_singular_values(
            there, back, start, sweeps=LEADING_SWEEPS
        ), f"the leading {LEADING} are estimates"
    start = source.standard_normal((parts[-1].shape[0], LEADING))
    found = leading_log_singular_values([], back, start)
    return found, "no double backward pass: exponents from one sweep of backward passes"
