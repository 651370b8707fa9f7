"""What the weights of a model on the meta device would be: the draws of its modules' own initialisation."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from unitygain._case import random_states, reseed
from unitygain.stats import mean, rms

RESETS = ("reset_parameters", "_reset_parameters")
# Entries up to which a module that draws for its parts is given them as well; its own are always drawn.
PARTS = 1 << 26


@dataclass
class Draws:
    """Moments of the parameters and buffers of a model, by name.

    Args:
        moments: Mean square and mean; of what has numbers as it stands, of what is on meta as it is drawn.
        missing: Names that nothing draws, with the reason.
    """

    moments: dict[str, tuple[float, float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def on_meta(model: nn.Module) -> bool:
    """Whether a model has parameters without numbers, and a shape."""
    return any(parameter.is_meta and not is_lazy(parameter) for parameter in model.parameters())


def draw(model: nn.Module, seed: int = 0) -> Draws:
    """Return what every weight of a model would be on average, without ever holding the model.

    One module at a time is given memory on the CPU and asked for its own initialisation: `reset_parameters`
    (or `_reset_parameters`), then `_init_weights(module)` of the nearest module above that has it, as is the
    custom of many transformers. The numbers are reduced and dropped. Modules of torch that say the same of
    themselves are drawn once. What a constructor draws beyond these two is not known.

    Args:
        model: Any model; tensors that are not on meta are read as they stand.
        seed: Seed of the draws.

    Side effects:
        None on tensors: copies are drawn, and the random states are put back. What an `_init_weights` writes
        into its own module stays written; give an isolated model. Memory: one module.

    Example:
        >>> layer = nn.Linear(48, 1000, device="meta")
        >>> square, mean = draw(layer).moments["weight"]
        >>> bool(abs(48 * square - 1 / 3) < 0.01)
        True
    """
    found = Draws()
    for name, tensor in _named(model):
        if not (tensor.is_meta or is_lazy(tensor)) and tensor.is_floating_point() and tensor.numel():
            found.moments[name] = _moments(tensor)
    alike: dict[object, dict[str, tuple[float, float]]] = {}
    with random_states(), torch.no_grad():
        reseed(seed)
        for path, module in _from_the_leaves(model):
            _draw_one(model, path, module, found, alike)
    return found


def _draw_one(
    model: nn.Module,
    path: str,
    module: nn.Module,
    found: Draws,
    alike: dict[object, dict[str, tuple[float, float]]],
) -> None:
    reset, owner = _reset(module), _above(model, path)
    own = {name for name, tensor in _named(module, recurse=False) if _blank_on_meta(tensor)}
    size = sum(parameter.numel() for parameter in module.parameters())
    inside = {name for name, tensor in _named(module) if _blank_on_meta(tensor)} if size <= PARTS else own
    if reset is None and owner is None:
        found.missing.update({_join(path, name): _lacks(module, name) for name in own})
        return
    if not inside:
        if reset is not None and size > PARTS:
            why = f"{path or 'the model'} draws {size:,} entries at once, more than are given memory"
            found.missing.update({_join(path, name): why for name, _ in _named(module)})
        return
    kind = _kind(module) if owner is None else None
    drawn = None if kind is None else alike.get(kind)
    if drawn is None:
        try:
            drawn = _materialise(module, inside, reset, owner)
        except Exception as error:
            why = f"{type(module).__name__}.{reset or '_init_weights'} raised {type(error).__name__}: {error}"
            found.missing.update({_join(path, name): why for name in own})
            return
        alike |= {} if kind is None else {kind: drawn}
    _enter(module, path, found, {name: drawn[name] for name in inside}, own)


def _enter(
    module: nn.Module, path: str, found: Draws, drawn: dict[str, tuple[float, float]], own: set[str]
) -> None:
    """Note what a module drew; what it left as it was is another's, or nobody's."""
    for name, moments in drawn.items():
        whole = _join(path, name)
        if math.isfinite(moments[0]):
            found.moments[whole] = moments
            found.missing.pop(whole, None)
        elif name in own:
            found.missing[whole] = _lacks(module, name)


def _materialise(
    module: nn.Module, names: set[str], reset: str | None, owner: nn.Module | None
) -> dict[str, tuple[float, float]]:
    """Give memory to these tensors of a copy, ask for its initialisation, and reduce what it drew."""
    twin = copy.deepcopy(module)
    for name in names:
        holder, _, last = name.rpartition(".")
        part = twin.get_submodule(holder)
        tensor = getattr(part, last)
        blank = torch.full(tensor.shape, math.nan, dtype=tensor.dtype, device="cpu")
        if isinstance(tensor, nn.Parameter):
            part._parameters[last] = nn.Parameter(blank, tensor.requires_grad)
        else:
            part._buffers[last] = blank
    if reset is not None:
        getattr(twin, reset)()
    if owner is not None:
        init: Callable[[nn.Module], object] = owner._init_weights  # type: ignore[assignment]
        init(twin)
    tensors = dict(_named(twin))
    return {name: _moments(tensors[name]) for name in names}


def _blank_on_meta(tensor: Tensor) -> bool:
    return tensor.is_meta and tensor.is_floating_point() and not is_lazy(tensor)


def _moments(tensor: Tensor) -> tuple[float, float]:
    return float(rms(tensor)) ** 2, float(mean(tensor))


def _named(module: nn.Module, *, recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=recurse)
    yield from module.named_buffers(recurse=recurse)


def _from_the_leaves(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules after their parts, as constructors run."""
    return list(reversed(list(model.named_modules())))


def _reset(module: nn.Module) -> str | None:
    return next((name for name in RESETS if callable(getattr(module, name, None))), None)


def _above(model: nn.Module, path: str) -> nn.Module | None:
    """The nearest module, from this one upwards, that initialises the modules below it one by one."""
    parts = path.split(".") if path else []
    for length in range(len(parts), -1, -1):
        module = model.get_submodule(".".join(parts[:length]))
        if callable(getattr(module, "_init_weights", None)):
            return module
    return None


def _kind(module: nn.Module) -> object | None:
    """What two modules of torch have in common that draw alike; None for any other's."""
    if not type(module).__module__.startswith("torch.nn."):
        return None
    shapes = tuple((name, tuple(t.shape), t.dtype) for name, t in _named(module))
    return type(module), repr(module), shapes


def _lacks(module: nn.Module, name: str) -> str:
    has = _reset(module)
    kind = type(module).__name__
    return f"{kind}.{has} does not draw {name}" if has else f"{kind} has no reset_parameters"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
