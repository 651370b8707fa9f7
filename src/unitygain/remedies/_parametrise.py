"""Weights that are made from others by torch's parametrisations, and their exact undo."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from unitygain._case import Case, random_states, reseed
from unitygain.probe.adversary import find_discriminators
from unitygain.probe.hooks import Hooks
from unitygain.probe.linear_maps import Weight, find_weights
from unitygain.probe.sites import Select
from unitygain.remedies._held import hold
from unitygain.remedies._snapshot import Undo

RECURRENT = (nn.RNNBase, nn.RNNCellBase)


def choose_weights(
    model: nn.Module, sites: Select, takes: Callable[[Weight], bool], what: str, *, judge: bool = False
) -> list[Weight]:
    """Return the weights to bound: those at `sites`, or those through which a signal passes repeatedly.

    Without `sites`: with `judge` those of the discriminator, where there is one; else the matrices from
    state to state, where the model has recurrent modules; else all.

    Args:
        model: The model.
        sites: Which modules or parameters, by path.
        takes: Which weights are of the right kind.
        what: That kind, for the message.
        judge: Whether the discriminator comes first.

    Raises:
        ValueError: If there is none.
    """
    found = [weight for weight in find_weights(model, sites) if takes(weight)]
    if sites is None:
        judges = tuple(find_discriminators(model)) if judge else ()
        shown = [w for w in found if any(f"{w.path}.".startswith(f"{path}.") for path in judges)]
        looped = [w for w in found if isinstance(w.module, RECURRENT) and w.name.startswith("weight_hh")]
        found = shown or looped or found
    found = [weight for weight in found if not parametrize.is_parametrized(weight.module)]
    if not found:
        raise ValueError(
            f"no {what} is chosen by sites={sites!r} that no parametrisation makes already; give sites="
        )
    return found


def parametrise(case: Case, weights: Sequence[Weight], register: Callable[[Weight], Any]) -> Undo:
    """Call `register` for each weight, under the case's seed, and return what takes it back bit for bit.

    Parameters stay the objects that they were, under another name (``parametrizations.weight.original``), so
    that an optimizer goes on with them; it is also handed those that are new.

    Args:
        case: The case; its model is changed in place.
        weights: What `register` is called with; none of their modules is parametrised yet.
        register: Registers a parametrisation of torch.

    Returns:
        What puts the classes, the parameters, their order and their bits back.
    """
    modules = list({id(weight.module): weight.module for weight in weights}.values())
    before = [_remember(module) for module in modules]
    values = [(w.parameter, w.parameter.data, w.parameter.detach().clone()) for w in weights]
    known = {id(parameter) for parameter in case.model.parameters()}
    hooks = Hooks()

    def undo() -> None:
        hooks.remove()
        for put_back in before:
            put_back()
        with torch.no_grad():
            for parameter, memory, value in values:
                parameter.data = memory
                parameter.copy_(value)

    try:
        with random_states():
            reseed(case.seed)
            for weight in weights:
                register(weight)
        for module in modules:
            if isinstance(module, nn.RNNBase):
                hooks.on_call(module, _stay, _forget_flat)
        new = [parameter for parameter in case.model.parameters() if id(parameter) not in known]
        let_go = hold(case, new)
    except BaseException:
        undo()
        raise

    def undo_all() -> None:
        let_go()
        undo()

    return undo_all


def _remember(module: nn.Module) -> Undo:
    """Return what gives a module its class, its table of parameters and its list of weights back."""
    kind, parameters = type(module), dict(module._parameters)
    flat = {
        name: list(vars(module)[name])
        for name in ("_flat_weights", "_flat_weight_refs")
        if name in vars(module)
    }

    def put_back() -> None:
        module._modules.pop("parametrizations", None)
        module.__class__ = kind
        module._parameters.clear()
        module._parameters.update(parameters)
        vars(module).update({name: list(values) for name, values in flat.items()})

    return put_back


def _forget_flat(module: nn.Module, *_: Any) -> None:
    """Drop what a recurrent module keeps of computed weights: it holds a graph, and cannot be copied."""
    flat = [module._parameters.get(name) for name in vars(module)["_flat_weights_names"]]
    vars(module)["_flat_weights"] = flat


def _stay(*_: Any) -> None:
    """Leave what enters as it is."""
