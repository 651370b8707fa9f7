"""The discriminator of a model that holds one, and its logits of what the rest of the model made."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case
from unitygain._types import Site
from unitygain.probe.hooks import Hooks
from unitygain.probe.junctions import first_floating
from unitygain.probe.leaves import in_backward, unwrap
from unitygain.probe.record import Record
from unitygain.probe.sites import makes_weight
from unitygain.probe.trace import trace

WORDS = ("discriminator", "critic", "adversar")
SHORT = ("disc", "netd", "net_d", "d")
# What may stand between the logits and the end of a discriminator.
AFTER_LOGITS = (nn.Sigmoid, nn.LogSigmoid, nn.Identity, nn.Flatten, nn.Dropout)


@dataclass
class Verdict:
    """One call of a discriminator on what the generator made.

    Args:
        site: The discriminator, and which of its calls.
        fake: What it was shown.
        logits: What its last layer gave, before any sigmoid.
    """

    site: Site
    fake: Tensor
    logits: Tensor


@dataclass
class _Call:
    path: str
    shown: Tensor | None
    last: Tensor | None = None


@dataclass
class _Watch:
    """Follows the calls of discriminators in a forward pass."""

    undecided: bool
    calls: list[_Call] = field(default_factory=list)
    open: list[_Call] = field(default_factory=list)

    def before(self, path: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not in_backward():
                self.open.append(_Call(path, first_floating((args, kwargs))))

        return enter

    def after(self, *_: Any) -> None:
        if not in_backward() and self.open:
            call = self.open.pop()
            # A discriminator inside another one is a part of it.
            if not self.open:
                self.calls.append(call)
            elif call.last is not None:
                self.open[-1].last = call.last

    def leaf(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        found = first_floating(unwrap(output))
        if not self.open or found is None or not found.requires_grad:
            return
        self.open[-1].last = found
        if self.undecided:
            # The value alone is changed: the graph from here to the loss is that of logits of zero.
            found.detach().zero_()


def find_discriminators(
    model: nn.Module, beside: Mapping[str, nn.Module] | None = None
) -> dict[str, nn.Module]:
    """Return the parts of the model that are called a discriminator or critic, or judge like one, by path.

    Like one judges a frozen part beside parts that learn, whose last layer puts out one number. Where the
    model has none, modules beside it are asked in the same way.

    Args:
        model: The model.
        beside: Modules that the loss uses and that are no part of the model, by name.

    Example:
        >>> model = nn.ModuleDict({"generator": nn.Linear(2, 2), "critic": nn.Linear(2, 1)})
        >>> list(find_discriminators(model))
        ['critic']
    """
    called = {path: module for path, module in model.named_modules() if path and _called_so(path, module)}
    if called or not any(parameter.requires_grad for parameter in model.parameters()):
        return called
    frozen: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{above}.") for above in frozen)
        if path and not inside and is_frozen(module) and _ends_in_one(module):
            frozen[path] = module
    if frozen or not beside:
        return frozen
    called = {name: module for name, module in beside.items() if _called_so(name, module)}
    return called or {n: module for n, module in beside.items() if is_frozen(module) and _ends_in_one(module)}


def closed_over(case: Case) -> dict[str, nn.Module]:
    """Return the modules that the loss names, in closures and globals, and that are no part of the model.

    Example:
        >>> critic = nn.Linear(2, 1)
        >>> case = Case(nn.Linear(2, 2), loss=lambda m, x: -critic(m(x)).mean(), data=[torch.ones(4, 2)])
        >>> list(closed_over(case))
        ['critic']
    """
    loss: Any = case.loss
    while isinstance(loss, functools.partial):
        loss = loss.func
    try:
        seen = inspect.getclosurevars(loss)
    except (TypeError, ValueError):
        # No function of Python's: a builtin or an object that is called.
        return {}
    parts = set(case.model.modules())
    return {
        name: value
        for name, value in {**seen.globals, **seen.nonlocals}.items()
        if isinstance(value, nn.Module) and value not in parts
    }


def is_frozen(module: nn.Module) -> bool:
    """Whether a module has parameters, none of which requires a gradient."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _ends_in_one(module: nn.Module) -> bool:
    weights = [leaf.weight for leaf in module.modules() if isinstance(getattr(leaf, "weight", None), Tensor)]
    last = weights[-1] if weights else None
    return isinstance(last, Tensor) and last.ndim > 1 and len(last) == 1


def _called_so(path: str, module: nn.Module) -> bool:
    name, kind = path.lower().rpartition(".")[2], type(module).__name__.lower()
    return name in SHORT or any(word in text for word in WORDS for text in (name, kind))


@contextmanager
def judged(case: Case, record: Record, *, undecided: bool = False) -> Iterator[tuple[Tensor, list[Verdict]]]:
    """Yield the loss and the verdicts on what trained parts outside of the discriminators made.

    Args:
        case: An isolated case.
        record: Its record.
        undecided: Whether the last layers' outputs are set to zero, as a discriminator that knows nothing
            would have them; the graph behind them must then not be used.

    Side effects:
        As `trace`; the graph is held while the context is open.
    """
    chosen = find_discriminators(case.model, closed_over(case))
    hooks, watch = Hooks(), _Watch(undecided)
    inside = {id(leaf): leaf for module in chosen.values() for leaf in module.modules() if is_logit(leaf)}
    judges = {id(parameter) for module in chosen.values() for parameter in module.parameters()}
    makers = {id(p) for p in case.model.parameters() if p.requires_grad and id(p) not in judges}
    try:
        # The leaf before the module around it: a discriminator may be a single layer.
        for leaf in inside.values():
            hooks.on_call(leaf, lambda *_: None, watch.leaf)
        for path, module in chosen.items():
            hooks.on_call(module, watch.before(path), watch.after)
        with trace(case, record) as live:
            hooks.remove()
            calls = [call for call in watch.calls if call.shown is not None and call.last is not None]
            yield live.loss, [_verdict(call, calls) for call in calls if _made_by(call.shown, makers)]
    finally:
        hooks.remove()


def is_logit(module: nn.Module) -> bool:
    """Whether a module is a leaf whose output may be logits."""
    inner = (name for name, _ in module.named_children() if not makes_weight(name))
    return not any(inner) and not isinstance(module, AFTER_LOGITS)


def _verdict(call: _Call, calls: list[_Call]) -> Verdict:
    same = [other for other in calls if other.path == call.path]
    number = next(index for index, other in enumerate(same, 1) if other is call) if len(same) > 1 else 0
    assert call.shown is not None
    assert call.last is not None
    return Verdict(Site(call.path, number), call.shown, call.last)


def _made_by(tensor: Tensor | None, parameters: set[int]) -> bool:
    """Whether the graph of a tensor leads back to one of the parameters."""
    ahead = [tensor.grad_fn] if tensor is not None and tensor.grad_fn is not None else []
    seen: set[Any] = set(ahead)
    while ahead:
        node: Any = ahead.pop()
        if id(getattr(node, "variable", None)) in parameters:
            return True
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                ahead.append(below)
    return False


def pull(loss: Tensor, logits: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return dL/da at the logits and, where the loss has a second derivative, the row sums of d²L/da²."""
    if not loss.requires_grad:
        return torch.zeros_like(logits), None
    (slope,) = torch.autograd.grad(loss, logits, create_graph=True, allow_unused=True)
    if slope is None or not slope.requires_grad:
        return torch.zeros_like(logits) if slope is None else slope, None
    (bend,) = torch.autograd.grad(slope, logits, torch.ones_like(slope), retain_graph=True, allow_unused=True)
    return slope.detach(), bend
