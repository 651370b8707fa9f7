"""unregistered_grad_rms: parameters that take part in the loss and that the model does not know of."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.record import Record
from unitygain.stats import rms

UNIT = "rms of dL/d(parameter)"
OWN = frozenset(vars(nn.Module()))


@measure(unit=UNIT, needs=("parameter.rms",))
def unregistered_grad_rms(case: Case, record: Record) -> Profile | None:
    """Root mean square of the gradient of parameters that a plain list, tuple or dict of the model hides.

    A module in a plain Python container is no submodule: ``model.parameters()`` leaves its parameters out,
    and so do ``state_dict()`` and ``.to()``. They are looked for in the attributes of all modules; those that
    the model registers in another place as well are no news, and those without a gradient play no part.

    Cost: a look at the attributes of every module. No side effects.

    Args:
        case: Its model is searched; the gradients are those of the pass.
        record: Not used.

    Returns:
        One value per such parameter, at the module that has the attribute, as ``(model).layers[0].weight``.
        Labels: ``in optimizer``, ``not in optimizer`` or ``no optimizer``. Facts: ``not_held``, how many no
        optimizer of the case holds; ``containers``, the attributes. None where there is none.

    Example:
        >>> import torch
        >>> from unitygain.probe.observe import observe
        >>> class Stack(nn.Linear):
        ...     def forward(self, x):
        ...         return self.more[0](super().forward(x))
        >>> model = Stack(2, 2)
        >>> model.more = [nn.Linear(2, 1, bias=False)]
        >>> case = Case(model, loss=lambda m, x: m(x).square().sum(), data=[torch.ones(3, 2)])
        >>> [str(site) for site in unregistered_grad_rms(case, observe(case, ["parameter.rms"])).sites]
        ['(model).more[0].weight']
    """
    known = {id(parameter) for parameter in case.model.parameters()}
    found: dict[int, tuple[Site, str, nn.Parameter]] = {}
    for path, module in case.model.named_modules():
        for attribute, leaf, parameter in _hidden(module, set()):
            trains = parameter.requires_grad and not is_lazy(parameter) and parameter.grad is not None
            if trains and id(parameter) not in known:
                name = f"{path}.{attribute}" if path else attribute
                found.setdefault(id(parameter), (Site(path, leaf=leaf), name, parameter))
    if not found:
        return None
    optimizer = case.build_optimizer()
    held = set() if optimizer is None else {id(p) for g in optimizer.param_groups for p in g["params"]}
    words = {True: "in optimizer", False: "not in optimizer"}
    hidden = found.values()
    return Profile(
        "unregistered_grad_rms",
        UNIT,
        tuple(site for site, _, _ in hidden),
        tuple(float(rms(p.grad)) for _, _, p in hidden if p.grad is not None),
        labels=tuple("no optimizer" if optimizer is None else words[key in held] for key in found),
        facts={
            "not_held": float(sum(key not in held for key in found)),
            "containers": ", ".join(
                dict.fromkeys(name for key, (_, name, _) in found.items() if key not in held)
            ),
        },
    )


def _hidden(module: nn.Module, seen: set[int]) -> Iterator[tuple[str, str, nn.Parameter]]:
    """Yield attribute, path from the module, and parameter, of all that its plain attributes hold."""
    for name, value in vars(module).items():
        if name not in OWN:
            for leaf, parameter in _inside(value, f".{name}", seen):
                yield name, leaf, parameter


def _inside(value: Any, leaf: str, seen: set[int]) -> Iterator[tuple[str, nn.Parameter]]:
    if isinstance(value, nn.Parameter):
        yield leaf, value
        return
    if not isinstance(value, (nn.Module, list, tuple, Mapping)) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        yield from ((f"{leaf}.{name}", parameter) for name, parameter in value.named_parameters())
        for path, part in value.named_modules():
            below = f"{leaf}.{path}" if path else leaf
            yield from ((below + end, parameter) for _, end, parameter in _hidden(part, seen))
    else:
        keys = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in keys:
            yield from _inside(part, f"{leaf}[{key!r}]", seen)
