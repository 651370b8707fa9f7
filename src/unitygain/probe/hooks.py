"""The only file that registers hooks: others ask for one and get it removed again."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Before = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]
After = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]

# What sets a hook on a tensor, by whomever it is called.
ON_GRADIENT = Tensor.register_hook


def uncompiled() -> Any:
    """Let compiled code run as plain Python: only that calls the modules one by one, with their hooks."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def takes_hooks(module: nn.Module) -> bool:
    """Whether hooks can be set on a module: TorchScript refuses them."""
    return not isinstance(module, torch.jit.ScriptModule)


def _hookable(module: nn.Module) -> nn.Module:
    if not takes_hooks(module):
        raise ValueError(f"a {type(module).__name__} is TorchScript, which takes no hooks")
    return module


class _Leave:
    """Calls `after`, whose answer replaces nothing; a copy of the module has the same one."""

    def __init__(self, after: After) -> None:
        self._after = after

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self._after(module, args, kwargs, output)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Leave":
        return self


class Hooks:
    """Hooks on modules and tensors, removed together.

    Module full-backward hooks are not offered: they break in-place activations and the identity of
    outputs. A gradient is observed by a hook on the tensor, set from a forward hook.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []

    def on_call(self, module: nn.Module, before: Before, after: After) -> None:
        """Call `before` and `after` around each forward of `module`; `before` may replace its inputs.

        A module that takes no hooks is left alone. Where hooks stay, `before` and `after` are to be objects
        that pickle, so that the module does.
        """
        if not takes_hooks(module):
            return
        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(module.register_forward_hook(_Leave(after), with_kwargs=True))

    def change_input(self, module: nn.Module, change: Before) -> None:
        """Let `change` replace the arguments of every forward of `module`; copies of it carry `change` along.

        Raises:
            ValueError: If the module takes no hooks.
        """
        self._handles.append(_hookable(module).register_forward_pre_hook(change, with_kwargs=True))

    def change_output(self, module: nn.Module, change: After) -> None:
        """Let `change` replace what every forward of `module` returns; copies of it carry `change` along.

        Raises:
            ValueError: If the module takes no hooks.
        """
        self._handles.append(_hookable(module).register_forward_hook(change, with_kwargs=True))

    def on_gradient(self, tensor: Tensor, see: Callable[[Tensor], None]) -> None:
        """Call `see` with the gradient of `tensor`, which it must not keep."""
        # Not the tensor itself, which would hold its hook and be held by it.
        shape, dtype, device = tensor.shape, tensor.dtype, tensor.device

        def arrived(gradient: Tensor | None) -> None:
            # Where the graph is cut on the way, autograd may hand on None for zeros.
            see(torch.zeros(shape, dtype=dtype, device=device) if gradient is None else gradient)

        self._handles.append(tensor.register_hook(arrived))

    def change_gradient(self, tensor: Tensor, change: Callable[[Tensor], Tensor | None]) -> None:
        """Let `change` replace the gradient of `tensor`; None leaves it as it is.

        The hook goes with the graph of the tensor and is not removed before, so that a hook per step and
        tensor is not remembered for the whole training.
        """
        tensor.register_hook(lambda gradient: None if gradient is None else change(gradient))

    def on_arrival(self, node: Any, number: int, see: Callable[[Tensor | None], None]) -> None:
        """Call `see` with the whole gradient of the tensor that is output `number` of a graph node."""

        def arrived(gradients: tuple[Tensor | None, ...]) -> None:
            see(gradients[number])

        self._handles.append(node.register_prehook(arrived))

    def on_passing(self, node: Any, index: int, see: Callable[[Tensor | None], None]) -> None:
        """Call `see` with the gradient that a graph node hands to the source of its input `index`."""

        def passed(inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...]) -> None:
            see(inputs[index])

        self._handles.append(node.register_hook(passed))

    def remove(self) -> None:
        """Remove every hook; calling it again does nothing."""
        while self._handles:
            self._handles.pop().remove()
