"""jacobian_sigma_max: by how much each block amplifies the gradient in the worst direction."""

import math

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.few import trace_few
from unitygain.probe.golub_kahan import affordable_steps, golub_kahan
from unitygain.probe.golub_kahan_by_sample import golub_kahan_by_sample
from unitygain.probe.one_sided import dense_values, lower_bounds
from unitygain.probe.operators import JacobianOperator
from unitygain.probe.record import Record

UNIT = "largest norm of J v over norm of v"
TOP = 5
# The matrix itself is made, where nothing else works, up to this many rows: one backward pass each.
DENSE_SIDE = 512
# So few rows are had in one batched backward pass, which costs less than a step or two of Golub-Kahan.
EXACT_ROWS = 64


@measure(unit=UNIT, passes="2 x steps x blocks, steps at most 18 on large blocks")
def jacobian_sigma_max(case: Case, record: Record) -> Profile | None:
    """Largest singular values of every block's Jacobian, by Golub-Kahan bidiagonalisation.

    The batch is taken as one vector, or its first samples where it is large and they do not mix (the
    note then says how many). Each step is one J·v and one Jᵀ·u; it stops when the error bars of
    the first five are below 1e-6 of their values, or after 18 steps on Jacobians with more than 4096 rows
    and columns (300 on smaller ones). Samples that do not mix have a basis each, in the same products. A
    singular value that occurs several times in one basis is counted once there. A Jacobian of at most 64
    rows is computed whole, in one batched backward pass.

    Where an operation has no double backward pass, J·v cannot be had: then a Jacobian of up to 512 rows is
    computed whole, and a larger one gets lower bounds from backward passes alone. Labels say which.

    Cost: one forward pass (four on a large batch); 2 products per step and block, 3 to 11 more to set up and
    test J·v and the samples. No side effects.

    Args:
        case: An isolated case.
        record: A record with blocks.

    Returns:
        The largest singular value per block; rows hold the first five. `error` is the distance within which
        a singular value lies (NaN beside a lower bound). None where the model has no blocks.

    Raises:
        RuntimeError: If no block has a graph, as under reentrant checkpointing.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(3)))
        >>> for layer in model:
        ...     layer.weight.data = torch.diag(torch.tensor([3.0, 0.5]))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> [round(value, 5) for value in jacobian_sigma_max(case, observe(case, [])).values]
        [3.0, 3.0, 3.0]

    References:
        See `unitygain.probe.golub_kahan`.
    """
    if not record.blocks:
        return None
    seed = int(record.facts.get("seed", 0))
    with trace_few(case, record) as live:
        blocks = live.require_blocks()
        found = [_top(block.jacobian(), seed + index) for index, block in enumerate(blocks)]
        notes = [blocks[0].jacobian().batch_note, live.note]
        sites = tuple(block.site for block in blocks)
    if any(label.startswith("lower bound") for _, _, label in found):
        notes.append("the labels say where only a lower bound was possible, without an error bar")
    width = min(len(values) for values, _, _ in found)
    return Profile(
        "jacobian_sigma_max",
        UNIT,
        sites=sites,
        values=tuple(values[0] for values, _, _ in found),
        error=tuple(error for _, error, _ in found),
        columns=tuple(f"sigma_{index + 1}" for index in range(width)),
        rows=tuple(values[:width] for values, _, _ in found),
        labels=tuple(label for _, _, label in found),
        note="; ".join(filter(None, notes)),
    )


def _top(jacobian: JacobianOperator, seed: int) -> tuple[tuple[float, ...], float, str]:
    """The largest singular values, the error of the first, and how they were found."""
    if jacobian.shape[0] <= EXACT_ROWS:
        values, error = dense_values(jacobian, TOP)
        return values, error, "from the whole matrix"
    if jacobian.double_backward:
        find = golub_kahan_by_sample if jacobian.samples() > 1 else golub_kahan
        found = find(jacobian, TOP, steps=affordable_steps(jacobian), seed=seed)
        return found.values, found.errors[0], f"Golub-Kahan, {found.steps} steps"
    if min(jacobian.shape) <= DENSE_SIDE and jacobian.shape[0] <= 4 * DENSE_SIDE:
        values, error = dense_values(jacobian, TOP)
        return values, error, "from the whole matrix: no double backward pass"
    return lower_bounds(jacobian, TOP, seed), math.nan, "lower bound: no double backward pass"
