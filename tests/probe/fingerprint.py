"""What looking at a model must not change, in it and around it, as one comparable value."""

import io
import pickle
import random
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


def fingerprint(model: nn.Module, *, pickled: bool = True) -> dict[str, Any]:
    """Return the state of `model` and of the program, bitwise, identities of tensors included."""
    marks: dict[str, Any] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        marks[f"parameter {name}"] = (*tensor(parameter), parameter.requires_grad, *hooks_of(parameter))
        grad = None if is_lazy(parameter) else parameter.grad
        marks[f"gradient of {name}"] = grad if grad is None else tensor(grad)
    for name, buffer in model.named_buffers(remove_duplicate=False):
        marks[f"buffer {name}"] = tensor(buffer)
    for path, module in model.named_modules():
        marks[f"module {path}"] = (id(module), type(module), module.training, tuple(module.__dict__))
        marks[f"hooks of {path}"] = [
            tuple((key, id(hook)) for key, hook in getattr(module, name).items())
            if hasattr(getattr(module, name), "items")
            else None
            for name in HOOKS
        ]
        marks[f"persistence of {path}"] = tuple(sorted(module._non_persistent_buffers_set))
    # A model with parametrisations refuses.
    with suppress(RuntimeError):
        marks["pickled"] = pickle.dumps(model) if pickled else b""
    return marks | program()


def program() -> dict[str, Any]:
    """Return the random states and the modes of the process."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "torch random": bytes_of(torch.get_rng_state()),
        "numpy random": (kind, keys.tobytes(), *rest),
        "python random": random.getstate(),
        "cuda random": [bytes_of(s) for s in torch.cuda.get_rng_state_all()]
        if torch.cuda.is_available()
        else [],
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "autocast cache": torch.is_autocast_cache_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "cudnn": (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark),
        "mkldnn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        "attention": (
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
        ),
        "filters": list(warnings.filters),
    }


def tensor(value: Tensor) -> tuple[Any, ...]:
    """Return identity, kind and bits of a tensor."""
    if is_lazy(value):
        return (id(value), type(value), value.dtype)
    bits = [bytes_of(part) for part in parts(value)]
    return (id(value), type(value), value.dtype, value.layout, tuple(value.shape), value.device, *bits)


def hooks_of(parameter: Tensor) -> tuple[Any, ...]:
    """Return the hooks on a parameter, in order."""
    kinds = (parameter._backward_hooks, getattr(parameter, "_post_accumulate_grad_hooks", None))
    return tuple(tuple(hooks.items()) if hooks else None for hooks in kinds)


def parts(value: Tensor) -> list[Tensor]:
    """Return the strided tensors that hold a tensor's numbers."""
    plain = value.detach()
    return [plain._indices(), plain._values()] if plain.layout is torch.sparse_coo else [plain]


def bytes_of(value: Tensor) -> bytes:
    """Return the bytes of a strided tensor, so that NaN equals NaN and -0.0 differs from 0.0."""
    stream = io.BytesIO()
    plain = value.detach().contiguous().reshape(-1)
    stream.write(plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return stream.getvalue()


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Name what differs between two fingerprints."""
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
