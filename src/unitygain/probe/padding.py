"""Whether attention, and the loss, read the words of padded sequences or their padding."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from unitygain._case import Case
from unitygain._types import Site
from unitygain.probe.hooks import Hooks
from unitygain.probe.leaves import in_backward, observable
from unitygain.probe.record import Record
from unitygain.probe.sites import makes_weight
from unitygain.probe.trace import NoGraph, running
from unitygain.stats.padding import padding, reached_by_place, rows_with_both, weight_by_place

ATTENTION, EMBEDDING = "attention", "embedding"
_SOFTMAX = frozenset({"_softmax", "_safe_softmax"})


@dataclass(frozen=True)
class Reading:
    """How much is read at one place.

    Args:
        site: The softmax of an attention, or an embedding.
        kind: ``attention`` or ``embedding``.
        at_padding: Mean weight of a padding token, or the share of padding tokens that get a gradient.
        at_words: The same of the words.
    """

    site: Site
    kind: str
    at_padding: float
    at_words: float

    @property
    def share(self) -> float:
        """Padding's part of what is read, per token: 0.5 where nothing tells padding from words."""
        return self.at_padding / (self.at_padding + self.at_words)


def find_readings(case: Case, record: Record) -> list[Reading]:
    """Return what is read of padding and of words, attentions in the order in which they run first.

    Padding is the ``padding_idx`` of an `nn.Embedding` that is given two-dimensional ids, or the tail of one
    token that ends most of the rows. An attention is any softmax over as many entries as the sequences have.

    Args:
        case: An isolated case.
        record: Its record, which names the seed.

    Raises:
        CaseFailure: If the model or loss raises.
        NoGraph: Under reentrant checkpointing, which hands out no gradient of a single tensor.

    Cost: one forward pass and one backward pass to the embeddings, where there is an embedding.

    Side effects:
        As `trace`.
    """
    if not any(isinstance(module, nn.Embedding) for module in case.model.modules()):
        return []
    seen = _Texts(case.model)
    with ExitStack() as stack:
        stack.enter_context(seen)
        loss = stack.enter_context(running(case, record, seen.watch, int(record.facts.get("batch", 0))))
        if not (seen.outputs and loss.requires_grad):
            return seen.readings()
        seen.read_gradients(loss)
        return seen.readings()


class _Texts(TorchDispatchMode):
    """Notes where padding is, what a softmax gives it, and what embeddings put out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.outputs: list[tuple[str, Tensor, Tensor]] = []
        self._model = model
        self._stack: list[str] = []
        self._pads: list[Tensor] = []
        self._numbers: list[tuple[str, str, Tensor]] = []

    def watch(self, hooks: Hooks) -> None:
        """Set the hooks that tell which module runs and what its embeddings are given."""
        for path, module in self._model.named_modules():
            if not makes_weight(path):
                hooks.on_call(module, self._before(path), self._after(path))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if in_backward() or not self._pads or func._schema.name.removeprefix("aten::") not in _SOFTMAX:
            return out
        if args[1] in {-1, out.ndim - 1}:
            with _disable_current_modes():
                self._attended(out)
        return out

    def read_gradients(self, loss: Tensor) -> None:
        """Note which tokens of the embeddings get a gradient of the loss."""
        tensors = [tensor for _, tensor, _ in self.outputs]
        try:
            gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
        except RuntimeError as error:
            if "use_reentrant" not in str(error):
                raise
            raise NoGraph("checkpointing with use_reentrant=True gives no single gradients") from error
        with _disable_current_modes():
            for (path, _, pads), gradient in zip(self.outputs, gradients, strict=True):
                if gradient is not None:
                    self._numbers.append((path, EMBEDDING, reached_by_place(gradient, pads)))

    def readings(self) -> list[Reading]:
        """Return what was noted, as far as it has a part at padding or at words."""
        total, count = Counter((path, kind) for path, kind, _ in self._numbers), Counter[tuple[str, str]]()
        found = []
        for path, kind, numbers in self._numbers:
            count[path, kind] += 1
            number = count[path, kind] if total[path, kind] > 1 else 0
            site = Site(path, number, ".(softmax)" if kind == ATTENTION else "")
            reading = Reading(site, kind, *numbers.tolist())
            if reading.at_padding + reading.at_words > 0:
                found.append(reading)
        return found

    def _attended(self, weights: Tensor) -> None:
        """Where several embeddings have padding of this shape, that counts of which least is read."""
        fitting = [
            weight_by_place(weights.reshape(len(pads), -1, pads.shape[1]), pads)
            for pads in self._pads
            if weights.ndim > 1 and weights.shape[-1] == pads.shape[1] and weights.shape[0] % len(pads) == 0
        ]
        if fitting:
            least = min(fitting, key=lambda pair: float(pair[0] / (pair[0] + pair[1])))
            self._numbers.append((self._stack[-1] if self._stack else "", ATTENTION, least))

    def _before(self, path: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not in_backward():
                self._stack.append(path)

        return enter

    def _after(self, path: str) -> Callable[..., None]:
        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if in_backward():
                return
            while self._stack and self._stack.pop() != path:
                pass
            ids = next(iter((*args, *kwargs.values())), None)
            if isinstance(module, nn.Embedding) and isinstance(ids, Tensor) and ids.ndim == 2:
                with _disable_current_modes():
                    self._embedded(path, padding(ids, module.padding_idx), output)

        return leave

    def _embedded(self, path: str, pads: Tensor, output: Any) -> None:
        if not any(rows_with_both(pads).tolist()):
            return
        self._pads.append(pads)
        # Sequences that come time first are attended to by sample all the same.
        if pads.shape[0] != pads.shape[1]:
            self._pads.append(pads.T)
        if observable(output) and output.requires_grad:
            self.outputs.append((path, output, pads))
