"""Case: a model and one way to train it."""

import copy
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

Batch = Any
Loss = Callable[[nn.Module, Batch], Tensor]
SMALL_BYTES = 256 * 2**20


class CaseFailure(RuntimeError):
    """The user's own code `raised`, in ``module``, or cannot be diagnosed: a RuntimeError to users."""

    module: str = ""
    raised: bool = False

    @classmethod
    def during(cls, error: BaseException, module: str, batch: int) -> "CaseFailure":
        """Describe an exception of the user's code that was raised inside `module`."""
        where = f" in module {module!r}" if module else ""
        failure = cls(f"the model or loss raised on batch {batch}{where}: {type(error).__name__}: {error}")
        failure.module, failure.raised = module, True
        return failure


class Case:
    """A model and one way to train it.

    Args:
        model: The model, or a callable without arguments that returns it. A factory lets trials draw
            the initialisation again; an instance fixes it.
        loss: ``loss(model, batch) -> scalar``. It gets the model as an argument, so that a change can
            be tried on a copy.
        data: Iterable of batches. The first `batches` of them are drawn once, on first use, and replayed.
        optimizer: Callable from parameters to an optimizer, or an optimizer over the model's parameters.
        step: ``step(case, batch) -> loss`` where the plain step will not do (several models,
            accumulation, loss scaling).
        clip: What clips the gradient between backward and step: ``clip(parameters)``.
        precision: Name of the autocast dtype of the training (``"float16"``, ``"bfloat16"``), if any.
        schedule: Callable from an optimizer to a learning-rate scheduler.
        variants: Alternative losses by name, for remedies that need them.
        name: What to call the case in reports.
        seed: Seed under which a factory is called.
        batches: How many batches to draw.

    Raises:
        TypeError: If `model`, `loss` or `data` is not of the kind above.
        ValueError: If `precision` names no floating dtype or `batches` is below 1.

    Side effects:
        None until `model` or `batches` is first used. Building the model and drawing batches leave the
        global random states as they were; drawing advances an iterator that was handed in. The loss
        gets a fresh copy of the batch each time, so that it may write into it.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> case = Case(nn.Linear(4, 1), loss=lambda m, x: m(x).square().mean(), data=[torch.ones(2, 4)])
        >>> case.compute_loss(case.batches[0]).ndim
        0
    """

    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module],
        loss: Loss,
        data: Iterable[Batch],
        optimizer: Any = None,
        step: Callable[["Case", Batch], Tensor] | None = None,
        clip: Callable[[Iterable[nn.Parameter]], Any] | None = None,
        precision: str | None = None,
        schedule: Callable[[torch.optim.Optimizer], Any] | None = None,
        variants: Mapping[str, Loss] | None = None,
        *,
        name: str = "",
        seed: int = 0,
        batches: int = 4,
    ) -> None:
        if not callable(model):
            raise TypeError(f"model is a {_kind(model)}; give an nn.Module or a function that returns one")
        if not callable(loss):
            raise TypeError(f"loss is a {_kind(loss)}; give a function loss(model, batch) -> scalar tensor")
        if isinstance(data, (Tensor, Mapping, str)) or not isinstance(data, Iterable):
            raise TypeError(
                f"data is a {_kind(data)}; give an iterable of batches, such as [batch] or a DataLoader"
            )
        if precision is not None and not isinstance(getattr(torch, precision, None), torch.dtype):
            raise ValueError(f"precision {precision!r} names no dtype; use 'float16', 'bfloat16' or None")
        if batches < 1:
            raise ValueError(f"batches is {batches}; draw at least 1")
        self._given = model
        self._model = model if isinstance(model, nn.Module) else None
        self._data = data
        self._batches: tuple[Batch, ...] | None = None
        self._draw = batches
        self.loss = loss
        self.optimizer = optimizer
        self.step = step
        self.clip = clip
        self.precision = precision
        self.schedule = schedule
        self.variants = dict(variants or {})
        self.seed = seed
        self.name = name
        # What builds this very case again in another process, where there is such a function.
        self.rebuild: Callable[[], Case] | None = None

    @property
    def factory(self) -> Callable[[], nn.Module] | None:
        """The function that builds the model, or None where an instance was given."""
        return None if isinstance(self._given, nn.Module) else self._given

    @property
    def model(self) -> nn.Module:
        """The model; a factory is called once, under `seed`, with the global random states restored.

        Raises:
            TypeError: If the factory returns no nn.Module.
        """
        if self._model is None:
            self._model = self.build(self.seed)
        return self._model

    def build(self, seed: int) -> nn.Module:
        """Return a new model from the factory under `seed`.

        Raises:
            TypeError: If there is no factory, or it returns no nn.Module.
        """
        if self.factory is None:
            raise TypeError(
                "this case holds one model instance; give a function that returns a model to draw another"
            )
        with random_states(), torch.inference_mode(False), torch.enable_grad():
            reseed(seed)
            model = self.factory()
        if not isinstance(model, nn.Module):
            raise TypeError(f"{_name(self.factory)}() returned {_kind(model)}; expected an nn.Module")
        return model

    @property
    def batches(self) -> tuple[Batch, ...]:
        """The drawn batches, replayed by every measurement and trial.

        Raises:
            ValueError: If the data holds no batch.
        """
        if self._batches is None:
            with random_states(), torch.inference_mode(False), torch.enable_grad():
                self._batches = tuple(itertools.islice(iter(self._data), self._draw))
            if not self._batches:
                raise ValueError("data gave no batch; it is empty, or an iterator that was used up before")
        return self._batches

    def move(self, device: Any = None, dtype: torch.dtype | None = None) -> None:
        """Move the model and the drawn batches, and cast their floating tensors; complex ones keep step.

        Side effects:
            The model's tensors are replaced in place; the batches are this case's own copies.
        """

        def moved(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            kind = dtype and dtype.to_complex() if value.is_complex() else dtype
            floating = value.is_floating_point() or value.is_complex()
            return value.to(device=device, dtype=kind if floating else None)

        self.model._apply(moved)
        self._batches = tuple(pytree.tree_map(moved, batch) for batch in self.batches)

    def compute_loss(self, batch: Batch) -> Tensor:
        """Run the forward pass on `batch` under the declared precision and return the scalar loss.

        Raises:
            RuntimeError: If the loss is not a floating scalar tensor.
        """
        with self.autocast():
            loss = self.loss(self.model, fresh(batch))
        if not isinstance(loss, Tensor):
            raise CaseFailure(f"the loss returned {_kind(loss)}; it must return a scalar tensor")
        if loss.numel() != 1:
            shape = tuple(loss.shape)
            raise CaseFailure(f"the loss has shape {shape}; reduce it to one number, such as loss.mean()")
        if not loss.is_floating_point():
            raise CaseFailure(f"the loss has dtype {loss.dtype}, which has no gradient; give a floating loss")
        return loss.reshape(())

    def autocast(self) -> torch.autocast:
        """Return the autocast context of the declared precision (disabled where none is declared)."""
        # On meta there is nothing to round, and no autocast.
        name, kind = ("", "cpu") if self.device.type == "meta" else (self.precision, self.device.type)
        return torch.autocast(kind, dtype=getattr(torch, name or "bfloat16"), enabled=bool(name))

    @property
    def device(self) -> torch.device:
        """Device of the first parameter."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def build_optimizer(self) -> torch.optim.Optimizer | None:
        """Return the optimizer over this case's own parameters, building it if a factory was given."""
        if self.optimizer is None or isinstance(self.optimizer, torch.optim.Optimizer):
            return self.optimizer
        return self.optimizer(self.model.parameters())

    def copy(self, *, share: bool = False) -> "Case":
        """Return a case with a copy of the model (and of an optimizer instance, bound to the copy).

        Args:
            share: Let the trainable parameters of a model larger than 256 MiB share memory with the
                originals. For callers that never write parameters; gradients, buffers and frozen
                parameters are always apart.

        Raises:
            Exception: Whatever copying the model raises, when it cannot be copied.
        """
        memo: dict[int, Any] = {}
        if share and sum(_bytes(p) for p in self.model.parameters()) > SMALL_BYTES:
            memo = {id(p): nn.Parameter(p.detach(), requires_grad=True) for p in _shareable(self.model)}
        twin = copy.copy(self)
        twin._model, twin.optimizer = copy.deepcopy(
            (self.model, self.optimizer if isinstance(self.optimizer, torch.optim.Optimizer) else None), memo
        )
        twin.optimizer = twin.optimizer or self.optimizer
        twin._given = self._given if self.factory else twin._model
        twin._batches = self.batches
        return twin


def fresh(batch: Batch) -> Batch:
    """Return a copy of a batch: tensors without their graph, and mappings such as tokenizers return."""

    def own(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().clone().requires_grad_(value.requires_grad)
        return copy.copy(value) if isinstance(value, MutableMapping) else value

    return pytree.tree_map(own, batch)


def reseed(seed: int) -> None:
    """Seed every global source of random numbers (torch, CUDA, numpy, random)."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (the global state that user code draws from)
    random.seed(seed)


@contextmanager
def random_states() -> Iterator[None]:
    """Put the global random states (torch, CUDA, MPS, numpy, random) back on leaving."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    metal = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    started = torch.cuda.is_available() and torch.cuda.is_initialized()
    waiting, seed = torch.cuda.is_available() and not started, torch.initial_seed()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if started else ()):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        if metal is not None:
            torch.mps.set_rng_state(metal)
        if waiting:
            # CUDA had not started: it would have begun at the seed that torch had, and does so now.
            torch.cuda.manual_seed_all(seed)


def _bytes(parameter: nn.Parameter) -> int:
    return 0 if is_lazy(parameter) else parameter.numel() * parameter.element_size()


def _shareable(model: nn.Module) -> Iterator[nn.Parameter]:
    """Trainable plain parameters, but for those that a forward pass writes into."""
    renormalised = {id(m.weight) for m in model.modules() if getattr(m, "max_norm", None) is not None}
    plain = (p for p in model.parameters() if p.requires_grad and type(p) is nn.Parameter)
    return (p for p in plain if id(p) not in renormalised)


def _kind(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)}"
    return type(value).__name__


def _name(function: object) -> str:
    return getattr(function, "__name__", type(function).__name__)
