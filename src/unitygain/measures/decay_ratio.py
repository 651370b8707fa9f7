"""decay_ratio: how strongly weight decay pulls at every weight, beside the gradient."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.record import Record
from unitygain.probe.trace import Gap
from unitygain.stats import rms

UNIT = "rms of the weight decay's term over rms of the gradient's"
# What adds λθ to the gradient and then follows the sum as it is, or divides it by its own size.
AS_IT_IS = frozenset({"SGD", "ASGD"})
BY_ITS_SIZE = frozenset({"Adam", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad"})
# What shrinks the weight by η·λ besides a step that has the size of the rate in every entry.
BESIDE = frozenset({"AdamW", "Lion", "AdamWScheduleFree"})


@measure(unit=UNIT, needs=("parameter.rms", "parameter_grad.rms"))
def decay_ratio(case: Case, record: Record) -> Profile | None:
    """Root mean square of what weight decay asks of every weight, over that of what the gradient asks.

    Coupled decay adds λθ to the gradient, clipped as the case declares, and the optimizer follows the sum:
    the ratio is λ·rms(θ)/rms(g). Decoupled decay takes η·λ of the weight beside a step that has the size η in
    every entry: the ratio is λ·rms(θ). Parameters of one dimension, biases and scales of norms, are left out,
    and so are embeddings of one column, which are the biases of what they look up, and weights that are all
    zero, of which there is nothing to decay.

    Cost: one reduction of each weight and gradient; with a clip, a copy of the model. No side effects.

    Args:
        case: Its model holds the gradients of the pass.
        record: Not used.

    Returns:
        One value per trainable weight of two or more dimensions that the optimizer holds, that is not zero
        and has a gradient other than zero, in the model's order; 0 where nothing decays. Labels: ``coupled``,
        ``decoupled``, ``none``. Column ``per_step``: what the decay alone takes off the weight in one step
        at the declared rate, as a fraction of it, momentum built up: η·λ/(1 - μ) in SGD, η·λ in AdamW,
        η·λ/sqrt(rms(g)² + λ²·rms(θ)²) where Adam divides the sum by its own size. Facts: ``optimizer``,
        ``learning_rate`` and ``weight_decay`` (the largest of all groups), ``median_per_step``. None where
        the case declares no optimizer, one without weight decay, or one whose decay is not known here.

    Raises:
        Gap: If the case declares a clip and its model cannot be copied.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Linear(1, 1, bias=False)
        >>> sgd = torch.optim.SGD([nn.init.ones_(model.weight)], 0.1, weight_decay=0.5)
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 1)], optimizer=sgd)
        >>> profile = decay_ratio(case, observe(case, ["parameter.rms"]))
        >>> profile.values, profile.rows
        ((0.5,), ((0.05,),))

    References:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (ICLR 2019), equation 1 and
        proposition 2.
    """
    optimizer = case.build_optimizer()
    groups = [] if optimizer is None else optimizer.param_groups
    largest = max((float(group.get("weight_decay", 0)) for group in groups), default=0.0)
    if optimizer is None or not largest:
        return None
    kinds = [_kind(type(optimizer).__name__, group) for group in groups]
    if "unknown" in kinds:
        return None
    held = {id(p): (group, kind) for group, kind in zip(groups, kinds, strict=True) for p in group["params"]}
    sizes = _gradients(case)
    offsets = {id(table.weight) for table in case.model.modules() if _looks_up_biases(table)}
    found: dict[Site, tuple[float, float, str]] = {}
    for path, weight in case.model.named_parameters():
        size = sizes.get(path, 0.0)
        if id(weight) not in held or id(weight) in offsets or not weight.requires_grad or weight.ndim < 2:
            continue
        if size > 0 and float(rms(weight)) > 0:
            found[Site(path)] = _read(weight, size, *held[id(weight)])
    if not found:
        return None
    facts: dict[str, float | str] = {"optimizer": type(optimizer).__name__, "weight_decay": largest}
    facts["learning_rate"] = max(float(group["lr"]) for group in groups)
    facts["median_per_step"] = sorted(taken for _, taken, _ in found.values())[(len(found) - 1) // 2]
    return Profile(
        "decay_ratio",
        UNIT,
        tuple(found),
        tuple(ratio for ratio, _, _ in found.values()),
        columns=("per_step",),
        rows=tuple((taken,) for _, taken, _ in found.values()),
        labels=tuple(label for _, _, label in found.values()),
        facts=facts,
        note="biases, norms' scales, weights of zeros and weights without a gradient are left out",
    )


def _looks_up_biases(module: nn.Module) -> bool:
    """Whether a module is a table of one number per row: a bias of users, items or words."""
    return isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.embedding_dim == 1


def _kind(name: str, group: Mapping[str, Any]) -> str:
    if name in BESIDE or (name in BY_ITS_SIZE and group.get("decoupled_weight_decay")):
        return "decoupled"
    if name in AS_IT_IS:
        return "as it is"
    return "by its size" if name in BY_ITS_SIZE else "unknown"


def _read(weight: nn.Parameter, size: float, group: Mapping[str, Any], kind: str) -> tuple[float, float, str]:
    """Return the ratio, what goes per step, and the label, for a gradient of rms `size`."""
    rate, decay = float(group["lr"]), float(group["weight_decay"])
    pull = decay * float(rms(weight))
    if not decay:
        return 0.0, 0.0, "none"
    if kind == "decoupled":
        return pull, rate * decay, "decoupled"
    if kind == "by its size":
        return pull / size, rate * decay / math.hypot(size, pull), "coupled"
    momentum = float(group.get("momentum", 0))
    built_up = (1 - float(group["dampening"])) / (1 - momentum) if 0 < momentum < 1 else 1.0
    return pull / size, rate * decay * built_up, "coupled"


def _gradients(case: Case) -> dict[str, float]:
    """Return the rms of every gradient, behind the case's clip, which the decay does not pass."""
    model = case.model
    if case.clip is not None:
        gradients = [parameter.grad for parameter in model.parameters()]
        try:
            model = case.copy().model
        except Exception as error:
            raise Gap(
                f"the model could not be copied, and gradients are only clipped on a copy "
                f"({type(error).__name__}: {error})"
            ) from error
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.detach().clone()
        case.clip(model.parameters())
    return {
        path: float(rms(torch.as_tensor(parameter.grad)))
        for path, parameter in model.named_parameters()
        if parameter.grad is not None
    }
