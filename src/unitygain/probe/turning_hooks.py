"""Hooks that the model sets on tensors during a pass, and what they make of the gradient."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from unitygain.probe.hooks import ON_GRADIENT

Factor = Callable[[Tensor | None, Tensor | None], float]


class TensorHooks(TorchFunctionMode):
    """Watches the hooks that are set while it is active, and what each returns of what it is handed.

    Hooks on parameters and inputs, and on one of several results of an operation, are left alone: the graph
    has no node for these.

    Args:
        factor: Returns c where a gradient is handed on as c times itself, else 0.
        innermost: Returns the path of the module that runs.
    """

    def __init__(self, factor: Factor, innermost: Callable[[], str]) -> None:
        super().__init__()
        self._factor = factor
        self._innermost = innermost
        self._set: dict[Any, str] = {}
        self._factors: dict[Any, float] = {}

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is ON_GRADIENT and len(args) == 2 and _has_a_node(args[0]):
            args = (args[0], self._watched(args[0].grad_fn, args[1]))
        return func(*args, **(kwargs or {}))

    @property
    def any(self) -> bool:
        """Whether a hook was set."""
        return bool(self._set)

    def turning(self) -> dict[Any, float]:
        """Return the nodes whose hooks together have turned the gradient round, and their factor."""
        return {node: factor for node, factor in self._factors.items() if factor < 0}

    def path(self, node: Any) -> str | None:
        """Return the module that ran when a node's hook was set; None where it has none."""
        return self._set.get(node)

    def _watched(
        self, node: Any, hook: Callable[[Tensor], Tensor | None]
    ) -> Callable[[Tensor], Tensor | None]:
        self._set.setdefault(node, self._innermost())

        def see(gradient: Tensor) -> Tensor | None:
            handed = hook(gradient)
            if handed is not None:
                self._factors[node] = self._factors.get(node, 1.0) * self._factor(gradient, handed)
            return handed

        return see


def _has_a_node(tensor: Tensor) -> bool:
    """Whether an operation made a tensor, and nothing else."""
    node = tensor.grad_fn
    return node is not None and len(getattr(node, "_input_metadata", (0,))) == 1
