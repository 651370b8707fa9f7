"""A diagnosis that failed: whose fault was it? One plain step, without any of our hooks, tells."""

import traceback
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils import _pytree as pytree

from unitygain._case import Case, CaseFailure
from unitygain.cli._blame import blame, plain_message, user_fault
from unitygain.cli._faults import Fault, plain, quote
from unitygain.probe.isolate import isolated

MOST_INPUTS = 4


def prepare(case: Case, owned: Iterable[str]) -> None:
    """Build the model and draw the data, so that what raises there is said to be raised there.

    Raises:
        Fault: If the factory or the data raises, or gives what it should not.
    """
    for what, attribute in (("the model's factory", "model"), ("the data", "batches")):
        try:
            getattr(case, attribute)
        except Exception as error:
            raise (blame(error, owned=owned, doing=what) or user_fault(error, doing=what)) from error


def failure(
    error: Exception, case: Case, owned: Iterable[str], device: str | None, dtype: str | None
) -> Fault | None:
    """Return the fault behind an `error` of ``diagnose(case)``, or None where it is ours.

    Args:
        error: What diagnose raised.
        case: The case, as it was.
        owned: Folders of installed packages that count as the user's.
        device: The ``--device`` that was asked for.
        dtype: The ``--dtype`` that was asked for.

    Side effects:
        May run one forward and backward pass of a copy of the model.
    """
    if isinstance(error, CaseFailure):
        cause = error.__cause__
        if cause is None or not error.raised:
            return Fault(plain_message(error), name="E-CASE")
        return model_fault(cause, case, owned, error.module)
    found = blame(error, owned=owned, doing="the model or the loss")
    if found is not None and found.name == "E-INPUT":
        return found
    return _plain_step(case, owned, device, dtype) or found


def _plain_step(case: Case, owned: Iterable[str], device: str | None, dtype: str | None) -> Fault | None:
    from unitygain._diagnose import move

    with isolated(case) as (subject, _):
        try:
            move(subject, dtype, device)
            subject.compute_loss(subject.batches[0]).backward()
        except CaseFailure as error:
            return Fault(plain_message(error), name="E-CASE")
        except Exception as error:
            return model_fault(error, subject, owned, "")
        return _unreached(subject.model)


def _unreached(model: nn.Module) -> Fault | None:
    """The fault of lazy parameters that a forward pass leaves without a shape."""
    parameters = list(model.parameters())
    lazy = sum(isinstance(parameter, UninitializedParameter) for parameter in parameters)
    if not lazy:
        return None
    return Fault(
        f"{lazy} of {len(parameters)} parameters are uninitialised (lazy) and no forward pass reaches them",
        name="E-CASE",
        fix="use their modules in forward, or remove them from the model",
    )


def model_fault(error: BaseException, case: Case, owned: Iterable[str], layer: str) -> Fault:
    """Return the fault of a model or loss that raised `error`, with its input and the layer."""
    layer = layer or _layer(error, case.model)
    subject = f"model raised on input {shapes(case.batches[0])}:"
    fault = user_fault(error, doing=subject, owned=owned, where=f" (layer {quote(layer)})" if layer else "")
    fault.message = fault.message.replace(f"{subject} raised ", f"{subject} ", 1)
    return fault


def shapes(batch: Any) -> str:
    """Return the shapes of the tensors of a batch, such as ``8x10, 8``."""
    tensors = [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]
    named = ["x".join(map(str, tensor.shape)) or "scalar" for tensor in tensors[:MOST_INPUTS]]
    more = len(tensors) - MOST_INPUTS
    return ", ".join(named) + (f" and {more} more" if more > 0 else "") or "without tensors"


def _layer(error: BaseException, model: nn.Module) -> str:
    """The innermost module of the model that was running when `error` was raised."""
    names = {id(module): name for name, module in model.named_modules()}
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and names.get(id(module)):
            return plain(names[id(module)])
    return ""
