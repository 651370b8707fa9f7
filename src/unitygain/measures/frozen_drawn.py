"""frozen_drawn: whether frozen weights look as if they were never trained."""

import math
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.record import Record
from unitygain.probe.redraw import TABLES, looks_random
from unitygain.probe.trace import entering
from unitygain.stats import absmax, mean, rms

UNIT = "1 if the frozen weight looks like a random draw, else 0"
# Numbers below which a weight tells nothing, and how far a draw's largest lies above its rms: a uniform one's
# is sqrt(3) times it.
LEAST, FLAT = 64, 2.0
# Batches that a diagnosis itself may have shown to a batch normalisation in training mode.
OURS = 8


@measure(unit=UNIT, needs=("output.rms", "input.rms"), passes="0; 1 forward where weights are frozen")
def frozen_drawn(case: Case, record: Record) -> Profile | None:
    """Whether each frozen weight may be a random draw, and what the trained part reads of the frozen one.

    Training leaves a mean, a fourth moment or a largest singular value that no draw of independent symmetric
    entries has (see `looks_random`); running statistics of a batch normalisation that have seen batches, and
    biases that are neither constant nor as flat as a uniform draw, tell it as well, and then no weight counts
    as drawn. Embeddings and weights of fewer than 64 entries are left out.

    Cost: a few products with every frozen weight, and a forward pass. No side effects.

    Args:
        case: An isolated case.
        record: A record with `output.rms` and `input.rms`; tells which modules ran, in which order.

    Returns:
        1 or 0 per frozen weight. Facts: ``share``, entries of the drawn ones over those of all parameters;
        ``features``, how many numbers of the batch enter the first module that trains, and ``inputs``, how
        many enter the model, both NaN where a frozen weight runs behind that module or the input is not of
        floating numbers. None where no weight is frozen.

    Example:
        >>> import torch
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(32, 4), nn.Linear(4, 2))
        >>> _ = model[0].requires_grad_(False)
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 32)])
        >>> profile = frozen_drawn(case, observe(case, ["output.rms", "input.rms"]))
        >>> profile.values, profile.facts["features"], profile.facts["inputs"]
        ((1.0,), 8.0, 64.0)
    """
    frozen = dict(_frozen_weights(case.model))
    if not frozen:
        return None
    touched = _touched(case.model)
    drawn = {name: not touched and looks_random(weight.detach()) for name, weight in frozen.items()}
    numbers = sum(p.numel() for p in case.model.parameters() if not is_lazy(p))
    features, inputs = _narrowing(case, record, frozen) if all(drawn.values()) else (math.nan, math.nan)
    return Profile(
        "frozen_drawn",
        UNIT,
        tuple(Site(name) for name in frozen),
        tuple(float(one) for one in drawn.values()),
        facts={
            "share": sum(w.numel() for name, w in frozen.items() if drawn[name]) / numbers,
            "features": features,
            "inputs": inputs,
        },
    )


def _frozen_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            still = not (parameter.requires_grad or is_lazy(parameter) or parameter.is_meta)
            large = still and parameter.is_floating_point() and parameter.numel() >= LEAST
            table = isinstance(module, TABLES)
            if large and parameter.ndim > 1 and not table and isinstance(parameter, nn.Parameter):
                yield (f"{path}.{name}" if path else name), parameter


def _touched(model: nn.Module) -> bool:
    """Whether anything else that is frozen tells of training: running statistics, scales and offsets."""
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if not own or any(p.requires_grad or is_lazy(p) for p in own):
            continue
        seen = getattr(module, "num_batches_tracked", None)
        if isinstance(seen, Tensor) and int(seen) > OURS:
            return True
        if any(p.is_floating_point() and p.ndim == 1 and not _is_start(p.detach()) for p in own):
            return True
    return False


def _is_start(offset: Tensor) -> bool:
    """Whether a bias or scale is constant, or may be a uniform draw about zero."""
    middle, size = float(mean(offset)), float(rms(offset))
    if float(absmax(offset - middle)) <= 1e-6 * size:
        return True
    return float(absmax(offset)) <= FLAT * size and abs(middle) <= 5 / math.sqrt(offset.numel()) * size


def _narrowing(case: Case, record: Record, frozen: dict[str, nn.Parameter]) -> tuple[float, float]:
    """How many numbers enter the first module that trains, and the model; NaN where that says nothing."""
    modules, ran = dict(case.model.named_modules()), [place.site.path for place in record.of("output")]
    trains = [any(p.requires_grad for p in modules[path].parameters(recurse=False)) for path in ran]
    shapes = [place.shape for place in record.of("input")]
    if True not in trains or not shapes:
        return math.nan, math.nan
    first = trains.index(True)
    if {name.rpartition(".")[0] for name in frozen} & set(ran[first:]):
        return math.nan, math.nan
    entered = entering(case, record, [ran[first]]).get(ran[first])
    if entered is None:
        return math.nan, math.nan
    return float(math.prod(entered)), float(sum(math.prod(shape) for shape in shapes))
