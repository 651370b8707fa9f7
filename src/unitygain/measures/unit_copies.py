"""unit_copies: how many units of every weight are equal to another unit of it."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.linear_maps import Weight, find_weights
from unitygain.probe.record import Record
from unitygain.probe.redraw import TABLES
from unitygain.stats import absmax
from unitygain.stats.copies import frac_copies, may_copy

UNIT = "fraction of units that equal another one, with the same gradient"
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
GATES = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3}
# Of the largest entry of all gradients: what float32 sums leave of terms that cancel.
ROUNDING = 1e-6
Pick = Callable[[nn.Parameter], Tensor | None]


@measure(unit=UNIT, needs=("parameter.rms", "parameter_grad.rms"))
def unit_copies(case: Case, record: Record) -> Profile | None:
    """Fraction of the units of every weight that have the same weights as another one, and the same gradient.

    A unit is a row of the weight (an output channel of a convolution) with its bias; one of a recurrent
    module is its row of every gate, from input and state; queries, keys and values are looked at apart. Units
    that are equal bit for bit, and whose gradients are equal to rounding, take the same steps and stay equal.
    Rows of zeros do not count.

    Cost: a sort of the first entries of every unit. No side effects.

    Args:
        case: Its model holds the gradients of the pass.
        record: Not used.

    Returns:
        One value per trainable weight of a linear map with two or more units that has a gradient, in the
        model's order, then per embedding; at its module, or at its parameter's name where that has several.
        Column ``equal``: the fraction of units that are equal to another one, whatever their gradients.
        Labels: the module's type. None where there is no such weight.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
        >>> for parameter in model.parameters():
        ...     _ = nn.init.constant_(parameter, 0.5)
        >>> case = Case(model, loss=lambda m, x: m(x).mean(), data=[torch.ones(2, 2)])
        >>> unit_copies(case, observe(case, ["parameter.rms"])).values
        (1.0,)

    References:
        Goodfellow, Bengio and Courville, "Deep Learning" (2016), section 8.4, on breaking symmetry.
    """
    found: dict[Site, tuple[float, float, str]] = {}
    for weight in (*find_weights(case.model), *_tables(case.model)):
        rows = list(_rows(weight, _value))
        if not rows or len(rows[0]) < 2 or weight.parameter.grad is None:
            continue
        counted = [(0.0, 0.0)]
        # Gradients and biases are read only where it may come to that: most weights have no copies.
        if all(map(may_copy, rows)):
            counted = _count(case.model, weight)
        several = isinstance(weight.module, (*RECURRENT, nn.MultiheadAttention))
        path = ".".join(filter(None, (weight.path, weight.name))) if several else weight.path
        # Of queries, keys and values the least is told.
        found[Site(path)] = (
            min(same for _, same in counted),
            min(equal for equal, _ in counted),
            type(weight.module).__name__,
        )
    if not found:
        return None
    return Profile(
        "unit_copies",
        UNIT,
        tuple(found),
        tuple(same for same, _, _ in found.values()),
        columns=("equal",),
        rows=tuple((equal,) for _, equal, _ in found.values()),
        labels=tuple(label for _, _, label in found.values()),
    )


def _count(model: nn.Module, weight: Weight) -> list[tuple[float, float]]:
    """Return the fractions of units that are equal, and of those that stay so, for each part of a weight."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    entries = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    floor = ROUNDING * max(float(absmax(part)) for part in entries)
    own = _gradient(weight.parameter)
    if isinstance(weight.module, TABLES) and (own is None or float(absmax(own)) <= floor):
        return [(0.0, 0.0)]
    parts = zip(_units(weight, _value), _units(weight, _gradient), strict=False)
    return [frac_copies(units, gradient, floor) for units, gradient in parts] or [(0.0, 0.0)]


def _tables(model: nn.Module) -> Iterator[Weight]:
    """Yield the weights of embeddings that no linear map shares; each output reads one entry of a column."""
    shared = {id(weight.parameter) for weight in find_weights(model)}
    for path, module in model.named_modules():
        table = getattr(module, "weight", None) if isinstance(module, TABLES) else None
        if isinstance(table, nn.Parameter) and id(table) not in shared:
            shared.add(id(table))
            yield Weight(path, "weight", module, table, 1.0)


def _value(parameter: nn.Parameter) -> Tensor | None:
    plain = type(parameter.data) is Tensor and parameter.layout is torch.strided
    trains = parameter.requires_grad and parameter.is_floating_point() and parameter.numel() > 0
    return parameter.detach() if plain and trains else None


def _gradient(parameter: nn.Parameter) -> Tensor | None:
    gradient = parameter.grad
    return gradient.to_dense() if gradient is not None and gradient.is_sparse else gradient


def _rows(weight: Weight, pick: Pick) -> Iterator[Tensor]:
    """Yield (units, entries) of what `pick` takes of the weight; nothing where it takes none."""
    module, taken = weight.module, pick(weight.parameter)
    if taken is None:
        return
    if isinstance(module, RECURRENT):
        yield from _recurrent(weight, pick)
        return
    if isinstance(module, _ConvTransposeNd) and module.groups > 1:
        return
    across = isinstance(module, (_ConvTransposeNd, *TABLES)) or type(module).__name__ == "Conv1D"
    rows = taken.movedim(1, 0).flatten(1) if across else taken.flatten(1)
    yield from rows.chunk(3) if weight.name == "in_proj_weight" else (rows,)


def _units(weight: Weight, pick: Pick) -> Iterator[Tensor]:
    """Yield the rows, each with its bias where there is one."""
    module, parts = weight.module, list(_rows(weight, pick))
    bias = getattr(module, "in_proj_bias" if weight.name == "in_proj_weight" else "bias", None)
    offset = pick(bias) if isinstance(bias, nn.Parameter) else None
    if isinstance(module, RECURRENT) or offset is None or len(offset) != sum(map(len, parts)):
        yield from parts
        return
    for rows, own in zip(parts, offset.chunk(len(parts)), strict=True):
        # A row of zeros with a bias is a gate that is held open: it stays a row of zeros, and no copy.
        yield torch.cat([rows, (own * rows.ne(0).any(1))[:, None]], 1)


def _recurrent(weight: Weight, pick: Pick) -> Iterator[Tensor]:
    """Yield the units of one layer and direction, once: at its weight from the input."""
    module = weight.module
    layer = weight.name.removeprefix("weight_ih")
    size = module.hidden_size
    if layer == weight.name or getattr(module, "proj_size", 0) or not isinstance(size, int):
        return
    gates = GATES.get(type(module).__name__, 1)
    names = (f"{kind}{layer}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    taken = [pick(parameter) for name in names if (parameter := getattr(module, name, None)) is not None]
    rows = [part.reshape(gates, size, -1).movedim(0, 1).flatten(1) for part in taken if part is not None]
    if len(rows) == len(taken):
        yield torch.cat(rows, 1)
