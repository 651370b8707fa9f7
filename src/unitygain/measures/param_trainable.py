"""param_trainable: which parameters learn, and which of them the optimizer holds."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.record import Record

UNIT = "1 if the parameter requires a gradient, else 0"


@measure(unit=UNIT, needs=("parameter.rms",))
def param_trainable(case: Case, record: Record) -> Profile | None:
    """Whether every parameter requires a gradient, and whether the case's optimizer holds it.

    Cost: none; an optimizer is built from the case's factory and thrown away. No side effects.

    Args:
        case: Its model and optimizer are read.
        record: Tells which modules ran inside a re-entrant checkpoint.

    Returns:
        1 or 0 per parameter, in the model's order; labels: ``in optimizer``, ``not in optimizer``, or
        ``no optimizer`` where the case declares none. Facts: how many are ``frozen``; trainable
        ``without_gradient`` after the pass, and of those ``checkpointed``, whose module runs inside a
        re-entrant checkpoint or another custom autograd function, called by the module ``checkpoint``;
        ``trainable_not_held`` and ``frozen_held`` by the optimizer; and how many tensors of the optimizer are
        not the model's, ``held_elsewhere``. None for a model without parameters.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Linear(4, 1)
        >>> sgd = torch.optim.SGD([model.weight], 0.1)
        >>> case = Case(model, loss=lambda m, x: m(x).mean(), data=[torch.ones(2, 4)], optimizer=sgd)
        >>> param_trainable(case, observe(case, ["parameter.rms"])).labels
        ('in optimizer', 'not in optimizer')
    """
    named = dict(case.model.named_parameters())
    if not named:
        return None
    optimizer = case.build_optimizer()
    held = set() if optimizer is None else {id(p) for g in optimizer.param_groups for p in g["params"]}
    inside = {name: id(parameter) in held for name, parameter in named.items()}
    words = {True: "in optimizer", False: "not in optimizer"}
    labels = tuple("no optimizer" if optimizer is None else words[inside[name]] for name in named)
    lonely = [name for name, p in named.items() if p.requires_grad and p.grad is None]
    facts: dict[str, float | str] = {"without_gradient": float(len(lonely))}
    inner = {site.path for site in record.values.get("call.reentrant", ())}
    inner_lonely = sum(not inner.isdisjoint(_holders(name)) for name in lonely)
    if inner_lonely:
        facts |= {"checkpointed": float(inner_lonely), "checkpoint": record.facts["checkpoint"]}
    facts["frozen"] = float(sum(not parameter.requires_grad for parameter in named.values()))
    if optimizer is not None:
        facts["trainable_not_held"] = float(sum(p.requires_grad and not inside[n] for n, p in named.items()))
        facts["frozen_held"] = float(sum(inside[n] and not p.requires_grad for n, p in named.items()))
        facts["held_elsewhere"] = float(len(held - {id(parameter) for parameter in named.values()}))
    return Profile(
        "param_trainable",
        UNIT,
        sites=tuple(Site(name) for name in named),
        values=tuple(float(parameter.requires_grad) for parameter in named.values()),
        labels=labels,
        facts=facts,
    )


def _holders(name: str) -> set[str]:
    """Return the paths of the modules that hold the parameter, but for the model itself."""
    parts = name.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}
