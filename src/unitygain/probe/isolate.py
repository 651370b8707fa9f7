"""Isolation: work on a copy of a Case, or in place with everything put back, and never disturb the rest."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from unitygain._case import Case, random_states, reseed
from unitygain.probe.hooks import uncompiled

TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


@contextmanager
def isolated(case: Case, seed: int = 0) -> Iterator[tuple[Case, str]]:
    """Yield a case to work on and a sentence on what it is; afterwards all is bitwise as it was.

    A copy is made where the model can be copied; a model that cannot is worked on in place, and its
    parameters, gradients, buffers, attributes and train flags are put back (what a mutable attribute,
    such as a list, holds is not). Random states (torch, CUDA, numpy, random) are seeded inside and put
    back; gradients are enabled and compiled code runs uncompiled inside, whatever the caller's mode.

    Args:
        case: The case, which is not changed.
        seed: Seed of the random numbers that the model draws inside (dropout).

    Side effects:
        Memory for a copy of the model (see `Case.copy` on large models).
    """
    with random_states(), torch.inference_mode(False), torch.enable_grad(), uncompiled():
        batches = case.batches
        twin, reason = None, ""
        try:
            twin = case.copy(share=True)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        reseed(seed)
        if twin is not None:
            assert twin.batches is batches
            yield twin, "a copy of the model"
            return
        with _restored(case.model):
            # A shallow copy, so that the batches, loss and optimizer of the caller's case stay what they are.
            yield (
                copy.copy(case),
                f"the model itself, put back afterwards; it could not be copied ({reason})",
            )


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Put everything back at the end, keeping the identity of every tensor."""
    parameters = list(model.parameters())
    gradients = [(p, None if is_lazy(p) else p.grad, p.requires_grad) for p in parameters]
    modules = [_snapshot(module) for module in model.modules()]
    plain = [v for module in model.modules() for v in vars(module).values() if isinstance(v, Tensor)]
    tensors = [_bookmark(t) for t in (*parameters, *model.buffers(), *plain)]
    for parameter, gradient, _ in gradients:
        if gradient is not None:
            parameter.grad = None
    try:
        yield
    finally:
        for module, kind, attributes, contents in modules:
            module.__class__ = kind
            _refill(vars(module), attributes)
            for table, held in contents:
                _refill(table, held)
        with torch.no_grad():
            for tensor, kind, storage, value in tensors:
                tensor.__class__ = kind
                if storage is not None:
                    tensor.data = storage
                if value is not None and not torch.equal(_bits(tensor), _bits(value)):
                    tensor.copy_(value)
        for parameter, gradient, trainable in gradients:
            if not is_lazy(parameter):
                parameter.requires_grad_(trainable)
                parameter.grad = gradient


def _snapshot(module: nn.Module) -> tuple[nn.Module, type, dict[str, Any], list[tuple[Any, Any]]]:
    """Class, attributes, and what the tables of parameters, buffers, parts and hooks hold, in order."""
    attributes = dict(vars(module))
    tables = [
        v for k, v in attributes.items() if isinstance(v, (dict, set)) and (k in TABLES or "hooks" in k)
    ]
    return module, type(module), attributes, [(table, copy.copy(table)) for table in tables]


def _refill(table: Any, held: Any) -> None:
    """Make `table` hold exactly `held`, in its order; an untouched one is not written to."""
    same = list(table) == list(held)
    if not (same and (isinstance(table, set) or all(table[key] is value for key, value in held.items()))):
        table.clear()
        table.update(held)


def _bookmark(tensor: Tensor) -> tuple[Tensor, type, Tensor | None, Tensor | None]:
    """The tensor, its class, its storage (as an alias) and a copy of its numbers."""
    if is_lazy(tensor):
        return tensor, type(tensor), tensor.data, None
    return tensor, type(tensor), tensor.data, tensor.detach().clone()


def _bits(tensor: Tensor) -> Tensor:
    """View the tensor as bytes, so that NaN equals NaN and -0.0 differs from 0.0."""
    plain = tensor.detach()
    if plain.layout != torch.strided:
        plain = plain.coalesce().values() if plain.layout == torch.sparse_coo else plain.values()
    return plain.contiguous().reshape(-1).view(torch.uint8)
