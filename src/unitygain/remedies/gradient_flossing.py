"""gradient_flossing: turn recurrent weights until their leading Lyapunov exponents are near zero.

The sum of the squared exponents is differentiated through the QR decompositions that compute them, along the
data's own way through the cell, and descended with Adam. The states are followed anew for every step of the
descent and count as given within one.

What it changes:
    The matrices from state to state, once, before training.

Why it helps:
    A gradient on its way back through time grows or shrinks like exp(exponent · steps). At an exponent of 0
    it does neither, in as many directions as there are exponents near zero; the other directions stay free to
    forget. It acts on what passes the activations and gates, where a scale of the matrix alone does not.

When it does not help:
    It is for networks that forget. In a strongly chaotic one the exponents depend on the weights so wildly
    that the descent gets nowhere: rescale_weights or orthogonal_weights first. A step of the descent can
    switch units of a ReLU off, which then pass nothing; the best weights that were seen are kept, and they
    may be the first. It sets the start, and training moves the exponents again. It knows the first sample of
    the first batch, over a stretch of its steps.

What it costs:
    Per iteration one step forward, as many products with its Jacobian as exponents, and one QR per step in
    time, and the same backward: seconds for a hundred units.

References:
    Engelken, "Gradient Flossing: Improving Gradient Descent through Dynamic Control of Jacobians" (NeurIPS
    2023), sections 2 and 3.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.cells import Cell, State
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe
from unitygain.probe.sites import Select, selects
from unitygain.probe.steps import Walk, walk
from unitygain.remedies._snapshot import Undo, keep
from unitygain.stats import rms

# Part of the steps that the directions are given to turn into place before the exponents are read.
TURNING = 0.2


@remedy(treats=("UG401", "UG404"), changes="initial weights", instead_of=("rescale_weights", "open_gates"))
def gradient_flossing(
    case: Case,
    *,
    sites: Select = None,
    exponents: int = 8,
    iterations: int = 30,
    steps: int = 40,
    rate: float = 0.1,
) -> Undo:
    """Descend the sum of squared exponents on the recurrent weights.

    Args:
        case: The case; its model's recurrent matrices are changed in place.
        sites: Which recurrent modules, by path.
        exponents: How many of the largest, at most the numbers in the state.
        iterations: Steps of the descent.
        steps: Steps in time over which the exponents are taken: the last ones.
        rate: Learning rate of the descent, in parts of the matrix's rms.

    Returns:
        What puts the weights back, bit for bit.

    Raises:
        ValueError: If a number is below 1, no recurrent module of torch takes four steps, its weight is made
            by a parametrisation, or its exponents are not finite.

    Side effects:
        The matrices from state to state. Runs the loss once on a copy.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.RNN(2, 4)
        >>> case = Case(model, loss=lambda m, x: m(x)[0].sum(), data=[torch.ones(12, 1, 2)])
        >>> undo = gradient_flossing(case, exponents=2, iterations=3)
        >>> undo()
    """
    if min(exponents, iterations, steps) < 1 or not 0 < rate < math.inf:
        raise ValueError(
            f"exponents, iterations, steps and rate are {exponents}, {iterations}, {steps} and {rate}; "
            "all must be above 0"
        )
    with isolated(case, case.seed) as (twin, _):
        walks = walk(twin, observe(twin, [])).walks
    modules = dict(case.model.named_modules())
    chosen = [
        (one, one.cell)
        for one in walks
        if isinstance(one.cell, Cell) and selects(sites, one.site.path, modules[one.site.path])
    ]
    if not chosen:
        raise ValueError(
            f"no nn.RNN, nn.LSTM, nn.GRU or cell of one chosen by sites={sites!r} takes four steps through "
            "the first batch; a loop over other layers is not known"
        )
    targets = [_parameter(modules[one.site.path], cell) for one, cell in chosen]
    found = [_descend(one, cell, exponents, iterations, steps, rate, case.seed) for one, cell in chosen]
    undo = keep(targets)
    with torch.no_grad():
        for parameter, weight in zip(targets, found, strict=True):
            parameter.copy_(weight)
    return undo


def _parameter(module: nn.Module, cell: Cell) -> nn.Parameter:
    name = "weight_hh" if isinstance(module, nn.RNNCellBase) else f"weight_hh_{cell.name}"
    if name not in module._parameters:
        raise ValueError(
            f"{name} of this {type(module).__name__} is made by a parametrisation; remove it first"
        )
    return module.get_parameter(name)


def _descend(
    walked: Walk, known: Cell, count: int, iterations: int, steps: int, rate: float, seed: int
) -> Tensor:
    """Return the matrix from state to state after the descent."""
    weight = known.state_weight.clone().requires_grad_()
    cell = dataclasses.replace(known, state_weight=weight)
    source = torch.Generator().manual_seed(seed)
    shape = (walked.size, min(count, walked.size))
    start = torch.linalg.qr(torch.randn(shape, dtype=torch.float64, generator=source)).Q
    optimizer = torch.optim.Adam([weight], rate * float(rms(weight.detach())))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, iterations)
    best, lowest = weight.detach().clone(), math.inf
    with torch.enable_grad():
        for _ in range(iterations):
            found = leading_exponents(cell, walked.inputs[-steps:], walked.states[-steps:][0], start)
            loss = torch.dot(found, found)
            if not math.isfinite(float(loss.detach())):
                raise ValueError(
                    f"an exponent at {walked.site} is not finite: some directions pass nothing; "
                    "take fewer with exponents="
                )
            if float(loss.detach()) < lowest:
                best, lowest = weight.detach().clone(), float(loss.detach())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return best


def leading_exponents(cell: Cell, inputs: Sequence[Tensor], state: State, start: Tensor) -> Tensor:
    """Return exponents in nat per step, with the graph to the cell's weights.

    The directions are those of a gradient, which runs from the last step to the first; their exponents are
    those of a change of the state on its way forward.

    Args:
        cell: The cell, in float64.
        inputs: Input of every step, shape (1, features) each.
        state: The state before the first.
        start: Orthonormal directions, shape (numbers in the state, exponents).
    """
    widths = [part.shape[-1] for part in state]
    here = torch.cat([part.reshape(-1) for part in state])
    steps: list[tuple[Tensor, Tensor]] = []
    for x in inputs:
        before = here.detach().requires_grad_()
        here = torch.cat([
            p.reshape(-1) for p in cell.step(x, tuple(q[None] for q in before.split(widths)))[0]
        ])
        steps.append((here, before))
    turning, directions = int(TURNING * len(inputs)), start
    total = start.new_zeros(start.shape[1])
    for number, (after, before) in enumerate(reversed(steps)):
        (rows,) = torch.autograd.grad(after, before, directions.T, create_graph=True, is_grads_batched=True)
        directions, stretched = torch.linalg.qr(rows.T)
        if number >= turning:
            total = total + stretched.diagonal().abs().log()
    return total / (len(inputs) - turning)
