"""param_grad_delay: after how many steps of what starts at zero a parameter gets its first gradient."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.record import Record
from unitygain.probe.trace import trace
from unitygain.stats import rms

UNIT = "steps of the parameters of zeros until the gradient is no longer zero"
# A head, the scales behind it and the maps that make those scales may all start at zero: three steps.
STEPS = 4
# The rms of a step, in the middle of what weights have. Its size does not matter, as long as it is not lost.
SIZE = 0.01
COLUMNS = ("rms", "dimensions")
NEVER = "infinite: what starts at zero and gets a gradient was moved, and this got none"


@measure(
    unit=UNIT, needs=("parameter.rms", "parameter_grad.rms"), passes="0; 1 to 4 where a gradient is zero"
)
def param_grad_delay(case: Case, record: Record) -> Profile | None:
    """Steps after which a parameter whose gradient is exactly zero gets one, by trying.

    Behind a weight of zeros (a zeroed head, a residual branch scaled by zero, the B matrix of LoRA) nothing
    has a gradient at first. Each step moves the parameters that are all zero and get a gradient themselves
    along it, and takes the gradients again: by design, what is behind them then wakes. What does not is cut
    off for good, as by two weights of zeros in a row.

    Cost: none where every parameter has a gradient; else a forward and backward pass per step, 4 at most. No
    side effects: what moves is given other tensors meanwhile.

    Args:
        case: An isolated case; its model holds the gradients of the pass.
        record: A record with `parameter.rms` and `parameter_grad.rms`.

    Returns:
        1 to 4 per trainable parameter whose gradient is zero, in the model's order; infinite where it stays
        zero. Columns: ``rms`` of the parameter, its number of ``dimensions``. None where no gradient is zero.

    Example:
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
        >>> _ = nn.init.zeros_(model[1].weight)
        >>> case = Case(model, loss=lambda m, x: (m(x) - x).square().mean(), data=[torch.ones(4, 2)])
        >>> profile = param_grad_delay(case, observe(case, ["parameter.rms", "parameter_grad.rms"]))
        >>> [str(site) for site in profile.sites], profile.values
        (['0.weight', '0.bias'], (1.0, 1.0))

    References:
        Zhang, Dauphin and Ma, "Fixup Initialization" (2019), section 3, and Hu et al., "LoRA" (2021), section
        4.1, on weights that start at zero by design.
    """
    named = {name: p for name, p in case.model.named_parameters() if p.requires_grad and not is_lazy(p)}
    sizes = {name: numbers[0] for name, numbers in _by_path(record, "parameter.rms")}
    gradients = {name: numbers[0] for name, numbers in _by_path(record, "parameter_grad.rms")}
    still = [name for name in named if gradients.get(name) == 0]
    if not still:
        return None
    blank = [name for name in named if sizes.get(name) == 0 and gradients.get(name, 0.0) > 0]
    first = {name: _dense(gradient) for name in blank if (gradient := named[name].grad) is not None}
    woken = _wake(case, record, named, still, first, sizes) if first else {}
    delays = tuple(float(woken.get(name, math.inf)) for name in still)
    return Profile(
        "param_grad_delay",
        UNIT,
        tuple(Site(name) for name in still),
        delays,
        columns=COLUMNS,
        rows=tuple((sizes.get(name, math.nan), float(named[name].ndim)) for name in still),
        note=NEVER if math.inf in delays else "",
    )


def _by_path(record: Record, key: str) -> Iterator[tuple[str, Sequence[float]]]:
    return ((site.path, numbers) for site, numbers in record.values.get(key, {}).items())


def _wake(
    case: Case,
    record: Record,
    named: dict[str, nn.Parameter],
    still: list[str],
    first: dict[str, Tensor],
    sizes: dict[str, float],
) -> dict[str, int]:
    """Return the step at which each of `still` got a gradient; those that never did are absent."""
    woken: dict[str, int] = {}
    found, moved = first, set[str]()
    with _put_back(named[name] for name in named if sizes.get(name) == 0):
        for step in range(1, STEPS + 1):
            movable = {n: g for n, g in found.items() if n not in moved and sizes.get(n) == 0}
            asleep = [name for name in still if name not in woken]
            if not movable or not asleep:
                break
            for name, gradient in movable.items():
                named[name].data = (-SIZE / rms(gradient)).to(gradient) * gradient.detach()
            moved |= movable.keys()
            found = _gradients(case, record, {name: named[name] for name in asleep})
            woken |= dict.fromkeys(found, step)
    return woken


def _gradients(case: Case, record: Record, wanted: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the gradients that are not zero."""
    with trace(case, record) as live:
        found = torch.autograd.grad(live.loss, list(wanted.values()), allow_unused=True)
    dense = ((n, _dense(g)) for n, g in zip(wanted, found, strict=True) if g is not None)
    return {n: g for n, g in dense if float(rms(g)) > 0}


def _dense(gradient: Tensor) -> Tensor:
    """A step along a sparse gradient, of a lookup, is a table like the others."""
    return gradient.to_dense() if gradient.is_sparse else gradient


@contextmanager
def _put_back(parameters: Iterator[nn.Parameter]) -> Iterator[None]:
    kept = [(parameter, parameter.data) for parameter in parameters]
    try:
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data
