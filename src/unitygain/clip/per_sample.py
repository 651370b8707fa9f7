"""per_sample: every sample's gradient to at most a norm of its own, before they are averaged."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unitygain.clip._linear_samples import linear_samples
from unitygain.clip._rule import least, require_threshold
from unitygain.stats import gradient_stats
from unitygain.stats.pairs import cosine
from unitygain.stats.samples import sample_norms
from unitygain.stats.scale import combined_norm
from unitygain.theory._given import require_count

Reduction = Literal["mean", "sum"]
Sums = dict[Tensor, Tensor]


@dataclass(frozen=True)
class PerSampleReport:
    """What clipping every sample did to the gradient of a batch.

    Args:
        loss: The loss of the batch, without its graph; None where it was computed elsewhere.
        norms: Norm of every sample's gradient before the clip, shape (samples,), float64.
        factors: What was kept of each.
        method: ``"linear"`` (norms from what enters and leaves the layers), ``"vmap"`` or ``"grad_sample"``.
    """

    loss: Tensor | None
    norms: Tensor
    factors: Tensor
    method: str
    _cosine: Tensor = field(repr=False)

    @cached_property
    def finite(self) -> bool:
        """Whether the gradients of all samples were finite; where not, the gradient is not finite either."""
        return bool(self.norms.isfinite().all())

    @cached_property
    def frac_clipped(self) -> float:
        """Fraction of the samples that were cut."""
        return sum(factor < 1 for factor in self.factors.tolist()) / len(self.factors)

    @cached_property
    def cosine(self) -> float:
        """Cosine between the mean of the gradients without and with the clip; NaN where one is zero."""
        return float(self._cosine)


def per_sample(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    batch: Any,
    c: float | Tensor,
    *,
    reduction: Reduction = "mean",
    chunk: int = 16,
) -> PerSampleReport:
    """Backward pass in which every sample's gradient g_i counts as g_i·min(1, c/‖g_i‖).

    Changes the direction of the batch's gradient, for the better where few samples are far off: nine
    samples of (0.1, 0.1) and one of (100, 0) give a mean along the one; cut at 1 each, the cosine to the
    nine is 0.942, where cutting the mean leaves 0.713. That of each sample's own gradient stays. It takes
    the place of ``loss.backward()``, and adds to ``.grad`` as that does. Without noise it gives no
    differential privacy.

    Where only linear layers learn, each called once, the norms come from what enters and leaves them and
    no sample's gradient is ever formed; otherwise `torch.func` forms them, `chunk` samples at a time.

    Cost: linear layers: one backward pass, and products of positions (`stats.samples`). Otherwise one
    forward and backward pass per sample, vectorised, and memory for the gradients of `chunk` samples.

    Args:
        model: The model. Its samples must not mix: no batch normalisation in training mode.
        loss: ``(model, batch) -> loss``, as in a `Case`.
        batch: Tensors, or a tuple, list or dict of them, the samples along dimension 0.
        c: Largest norm of a sample's gradient, or one for each sample (`mirrored_thresholds`).
        reduction: Whether the loss of a batch is the mean of its samples' or their sum.
        chunk: How many samples are done at once.

    Returns:
        Norms and factors of the samples, and what it did to the direction.

    Raises:
        ValueError: If a threshold is not above 0, the samples cannot be told apart, or batch
            normalisation mixes them.

    Side effects:
        ``.grad`` of the trained parameters; random numbers if the model draws some.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> def mean_output(model, x):
        ...     return model(x).mean()
        >>> report = per_sample(layer, mean_output, torch.tensor([[3.0, 4.0], [0.3, 0.4]]), c=1.0)
        >>> [round(norm, 6) for norm in report.norms.tolist()]
        [5.0, 0.5]
        >>> layer.weight.grad  # the mean of (0.6, 0.8) and (0.3, 0.4)
        tensor([[0.4500, 0.6000]])

    References:
        Abadi et al., Deep learning with differential privacy, 2016, algorithm 1, without its noise.
    """
    samples = _samples(batch)
    bounds = bounds_of(c, samples)
    _require_apart(model)
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction is {reduction!r}; use 'mean' or 'sum'")
    share = 1 / samples if reduction == "mean" else 1.0
    seen = linear_samples(model, loss, batch, samples)
    if seen is not None:
        method, value = "linear", seen.loss
        norms = seen.norms() / share
        factors = _factors(bounds, norms)
        kept, plain = seen.gradients(factors), seen.gradients(torch.ones_like(factors))
    else:
        method = "vmap"
        value, norms, factors, kept, plain = _vectorised(
            model, loss, batch, bounds, require_count("chunk", chunk)
        )
        value = value * share
        for sums in (kept, plain):
            for gradient in sums.values():
                gradient.mul_(share)
    turned = angle(kept, plain)
    for parameter, gradient in kept.items():
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    return PerSampleReport(value, norms, factors, method, turned)


class _Loss(nn.Module):
    """A loss as a module of its model, so that the model's parameters can be given from outside."""

    def __init__(self, model: nn.Module, loss: Callable[[Any, Any], Tensor]) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, batch: Any) -> Tensor:
        """Return the loss of the batch."""
        return self._loss(self.model, batch)


def _vectorised(
    model: nn.Module, loss: Callable[[Any, Any], Tensor], batch: Any, bounds: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor, Sums, Sums]:
    """Return the sum of losses, norms, factors, and the sums of the gradients with and without factors."""
    whole = _Loss(model, loss)
    trained = {name: p for name, p in whole.named_parameters() if p.requires_grad}

    def one(given: dict[str, Tensor], sample: Any) -> Tensor:
        alone = pytree.tree_map_only(Tensor, _with_batch, sample)
        return torch.func.functional_call(whole, given, (alone,))

    along = pytree.tree_map(_sample_dimension, batch)
    each = torch.func.vmap(torch.func.grad_and_value(one), in_dims=(None, along), randomness="different")
    detached = {name: p.detach() for name, p in trained.items()}
    kept: Sums = {p: torch.zeros_like(p) for p in trained.values()}
    plain: Sums = {p: torch.zeros_like(p) for p in trained.values()}
    losses, norms, factors = [], [], []
    for start in range(0, len(bounds), chunk):
        part = pytree.tree_map_only(Tensor, _part(start, chunk), batch)
        gradients, values = each(detached, part)
        norms.append(sample_norms(list(gradients.values())))
        factors.append(_factors(bounds[start : start + chunk], norms[-1]))
        losses.append(values.detach())
        for name, gradient in gradients.items():
            for sums, weights in ((kept, factors[-1]), (plain, torch.ones_like(factors[-1]))):
                weight = weights.to(gradient.device, gradient.dtype)
                sums[trained[name]] += torch.tensordot(weight, gradient.detach(), dims=1)
    total = torch.einsum("s->", torch.cat(losses))
    return total, torch.cat(norms), torch.cat(factors), kept, plain


def _part(start: int, chunk: int) -> Callable[[Tensor], Tensor]:
    def part(tensor: Tensor) -> Tensor:
        return tensor[start : start + chunk]

    return part


def _sample_dimension(leaf: Any) -> int | None:
    return 0 if isinstance(leaf, Tensor) else None


def _with_batch(tensor: Tensor) -> Tensor:
    return tensor.unsqueeze(0)


def _factors(bounds: Tensor, norms: Tensor) -> Tensor:
    return least(bounds.to(norms.device), norms)


def angle(kept: Sums, plain: Sums) -> Tensor:
    """Return the cosine between two gradients, each of many tensors."""
    before, after = gradient_stats(plain.values()).norm, gradient_stats(kept.values()).norm
    turned = torch.stack([cosine(kept[p], plain[p]).to(before.device) for p in kept])
    parts = torch.where(turned.isnan() & before.isfinite(), 0.0, turned)
    share = (before / combined_norm(before)) * (after / combined_norm(after))
    return torch.einsum("t,t->", share, parts)


def _samples(batch: Any) -> int:
    tensors = [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]
    sizes = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"the batch's tensors have first dimensions {sorted(sizes)}; "
            "give tensors that all have the samples along dimension 0"
        )
    return sizes.pop()


def bounds_of(c: float | Tensor, samples: int) -> Tensor:
    """Return one threshold for each sample.

    Raises:
        ValueError: If one is not above 0, or there are not as many as samples.
    """
    if not isinstance(c, Tensor):
        return torch.full((samples,), require_threshold("c", c), dtype=torch.float64)
    if c.shape != (samples,):
        raise ValueError(f"c has shape {tuple(c.shape)}; give a number, or one for each of {samples} samples")
    for bound in c.tolist():
        require_threshold("c", bound)
    return c.double()


def _require_apart(model: nn.Module) -> None:
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("the model has no trained parameter; nothing has a gradient to clip")
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ValueError(
                f"{name or 'the model'} is a {type(module).__name__} in training mode, which mixes samples; "
                f"put it in eval mode or use group or layer normalisation"
            )
