"""activation_gradients: what flows back through chosen places of a model, cut on its way."""

from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unitygain.clip._rule import least, require_threshold
from unitygain.clip.by_value import clamped
from unitygain.probe.hooks import Hooks, takes_hooks
from unitygain.probe.leaves import observable
from unitygain.probe.sites import Select, selects
from unitygain.stats import absmax, norm

Way = Literal["value", "norm"]


@dataclass
class _Counts:
    seen: Tensor
    clipped: Tensor


class EdgeClip:
    """Clips gradients where they arrive, until it is called: calling it takes everything away again.

    Also a context manager. What `activation_gradients` returns.

    Attributes:
        sites: Paths of the modules at whose outputs it clips.
    """

    def __init__(self, places: dict[str, nn.Module], c: float, way: Way) -> None:
        self.sites = tuple(places)
        self._c, self._way = c, way
        self._counts: dict[str, _Counts] = {}
        self._hooks = Hooks()
        self._active = True
        for path, module in places.items():
            self._hooks.on_call(module, _stay, partial(self._leave, path))

    def __call__(self) -> None:
        """Stop clipping, also in graphs that wait for their backward pass; calling it again does nothing."""
        self._active = False
        self._hooks.remove()

    def __enter__(self) -> "EdgeClip":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self()

    @property
    def frac_clipped(self) -> dict[str, float]:
        """Fraction of the gradients so far that were cut, by site; sites that saw none are left out."""
        return {path: float(counts.clipped) / float(counts.seen) for path, counts in self._counts.items()}

    def _leave(
        self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        def change(gradient: Tensor) -> Tensor | None:
            return self._clip(path, gradient) if self._active else None

        for tensor in pytree.tree_leaves(output):
            if observable(tensor) and tensor.requires_grad:
                self._hooks.change_gradient(tensor, change)

    def _clip(self, path: str, gradient: Tensor) -> Tensor | None:
        size = absmax(gradient) if self._way == "value" else norm(gradient)
        # A comparison with NaN is false, and what is infinite is left for the clip of the whole to report.
        fires = (size > self._c) & size.isfinite()
        none = torch.zeros((), dtype=torch.float64, device=size.device)
        counts = self._counts.setdefault(path, _Counts(none, none.clone()))
        counts.seen, counts.clipped = counts.seen + 1, counts.clipped + fires
        if size.device.type == "cpu" and not fires:
            return None
        return torch.where(fires.to(gradient.device), self._cut(gradient, size), gradient)

    def _cut(self, gradient: Tensor, size: Tensor) -> Tensor:
        if self._way == "value":
            return clamped(gradient, self._c)
        wide = torch.promote_types(gradient.dtype, torch.float32)
        return (gradient.to(wide) * least(self._c, size).to(gradient.device)).to(gradient.dtype)


def activation_gradients(model: nn.Module, c: float, sites: Select, *, by: Way = "value") -> EdgeClip:
    """Cut ∂L/∂output of chosen modules in every backward pass from now on, before it flows on.

    Changes the direction of the gradient of everything before the chosen place, with ``by="norm"`` too:
    what comes through the place loses weight against what goes past it. What lies behind the place, between
    it and the loss, stays, and with ``by="norm"`` the direction of what arrives at it. It keeps one part,
    such as the steps of a recurrent cell or a loss head, from flooding the rest, which clipping parameters
    cannot undo. A gradient that is not finite passes as it is.

    The threshold is in units of the gradient that arrives, a loss scale included.

    Cost: at each place, one pass over the gradient of its output, and one more where it is cut.

    Args:
        model: Gets hooks on the chosen modules; parameters, state and keys stay as they are.
        c: Largest magnitude of an entry, or largest norm.
        sites: Pattern of module paths, several, or ``(path, module) -> bool``.
        by: ``"value"`` cuts entries, ``"norm"`` each gradient as a whole, at every call of the module.

    Returns:
        The undo: call it, or use it in a ``with`` statement. It counts what was cut.

    Raises:
        ValueError: If c is not above 0, no module is chosen, or one takes no hooks.

    Side effects:
        Hooks on the chosen modules until the undo is called.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Identity())
        >>> with activation_gradients(model, 0.5, sites="1") as edges:
        ...     (3 * model(torch.ones(1, 1))).sum().backward()
        >>> model[0].weight.grad.item(), edges.frac_clipped
        (0.5, {'1': 1.0})

    References:
        Graves, Generating sequences with recurrent neural networks, 2013, sections 2.1 and 3.2: derivatives
        are cut at the network's outputs and at the inputs of its LSTM layers.
    """
    if by not in get_args(Way):
        raise ValueError(f"by is {by!r}; use 'value' or 'norm'")
    bound = require_threshold("c", c)
    places = {path: module for path, module in model.named_modules() if selects(sites, path, module)}
    if not places:
        raise ValueError(
            f"no module matches {sites!r}; give a pattern of model.named_modules(), such as 'rnn*'"
        )
    refusing = [path for path, module in places.items() if not takes_hooks(module)]
    if refusing:
        raise ValueError(
            f"{refusing[0]!r} is a TorchScript module, which takes no hooks; choose one around it"
        )
    return EdgeClip(places, bound, by)


def _stay(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Leave what enters as it is."""
