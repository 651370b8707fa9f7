"""Isolation: work on a copy of a Case, or in place with everything put back, and never disturb the rest."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from unitygain._case import Case


@contextmanager
def isolated(case: Case, seed: int = 0) -> Iterator[tuple[Case, str]]:
    """Yield a case to work on and a sentence on what it is; afterwards all is bitwise as it was.

    A copy is made where the model can be copied; a model that cannot is worked on in place, and its
    parameters, gradients, buffers and train flags are put back. Random states (torch, CUDA, numpy,
    random) are seeded inside and put back; gradients are enabled inside, whatever the caller's mode.

    Args:
        case: The case, which is not changed.
        seed: Seed of the random numbers that the model draws inside (dropout).

    Side effects:
        Memory for a copy of the model (see `Case.copy` on large models).
    """
    with _random_states(case.device), torch.inference_mode(False), torch.enable_grad():
        batches = case.batches
        try:
            twin = case.copy(share=True)
        except Exception as error:
            twin = None
            reason = f"{type(error).__name__}: {error}"
        _seed(seed)
        if twin is not None:
            assert twin.batches is batches
            yield twin, "a copy of the model"
            return
        with _restored(case.model):
            yield case, f"the model itself, put back afterwards; it could not be copied ({reason})"


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (the global state that user code draws from)
    random.seed(seed)


@contextmanager
def _random_states(device: torch.device) -> Iterator[None]:
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Put parameters, gradients, buffers and train flags back, keeping the identity of every tensor."""
    gradients = [(p, p.grad) for p in model.parameters()]
    tensors = [(t, t.detach().clone()) for t in (*model.parameters(), *model.buffers())]
    owners = [(m, name, m._buffers[name]) for m in model.modules() for name in m._buffers]
    flags = [(m, m.training) for m in model.modules()]
    requires: list[tuple[nn.Parameter, bool]] = [(p, p.requires_grad) for p in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for owner, name, buffer in owners:
            owner._buffers[name] = buffer
        with torch.no_grad():
            for tensor, value in tensors:
                if not torch.equal(_bits(tensor), _bits(value)):
                    tensor.copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for parameter, flag in requires:
            parameter.requires_grad_(flag)
        for module, flag in flags:
            module.training = flag


def _bits(tensor: torch.Tensor) -> Any:
    """View the tensor as bytes, so that NaN equals NaN and -0.0 differs from 0.0."""
    plain = tensor.detach()
    return (
        plain.contiguous().reshape(-1).view(torch.uint8) if plain.layout == torch.strided else plain.values()
    )
