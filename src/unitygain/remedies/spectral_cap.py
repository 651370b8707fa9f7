"""spectral_cap: keep the operator norm of weights at or below a limit, and leave those below it as they are.

A cap and no normalisation: the weight is multiplied by min(1, limit/sigma) at every forward pass, and sigma
of a convolution is that of the map of feature maps, and not that of the reshaped kernel. Without `sites` it
takes the matrices from state to state of recurrent modules, or, in a model without any, all linear maps.

What it changes:
    The chosen weights are computed from the old parameters, which train on under other names. A weight below
    the limit keeps its bits.

Why it helps:
    A block x + f(x) whose branch has norms below 1 can be inverted and stretches no direction by more than 2;
    a recurrence whose matrix is below 1 forgets its start at a known rate instead of growing. Training may
    lower the norms and cannot raise them above the limit.

When it does not help:
    What is capped below 1 over a hundred steps or layers leaves 0.9^100 = 3e-5 of the signal: the gradient
    then vanishes where it exploded before. A norm bounds the worst direction, and a random square matrix at
    norm 0.9 multiplies the typical one by 0.45. The estimate comes from below: the true norm may be a
    fraction of a per cent above the limit, and more right after a large step. Pickling a parametrised model
    does not work; its state does.

What it costs:
    Per forward pass two products with the weight, or two convolutions of one sample and a backward one.

References:
    Gouk, Frank, Pfahringer and Cree, "Regularisation of neural networks by enforcing Lipschitz continuity"
    (Machine Learning 2021), section 4.1. Behrmann et al., "Invertible Residual Networks" (ICML 2019), section
    2.1, on the limit below 1. Sedghi, Gupta and Long, "The singular values of convolutional layers" (ICLR
    2019).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from unitygain._case import Case, random_states
from unitygain._registry import remedy
from unitygain.probe.hooks import Hooks
from unitygain.probe.junctions import first_floating
from unitygain.probe.linear_maps import Weight
from unitygain.probe.sites import Select
from unitygain.remedies._parametrise import choose_weights, parametrise
from unitygain.remedies._snapshot import Undo

# Power iterations at the start, which end where the estimate grows by less than the precision.
MOST, PRECISION = 300, 1e-6
CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)


class Cap(nn.Module):
    """min(1, limit/sigma)·W, with the singular vector that belongs to sigma from pass to pass."""

    right: Tensor

    def __init__(
        self, weight: Tensor, limit: float, image: Callable[[Tensor, Tensor], Tensor], start: Tensor
    ) -> None:
        super().__init__()
        self.limit, self.image = limit, image
        self.register_buffer("right", F.normalize(start.flatten(), dim=0).view_as(start))
        reached, kernel = 0.0, weight.detach().to(start.dtype)
        for _ in range(MOST):
            sigma = float(self._iterate(kernel))
            if sigma <= (1 + PRECISION) * reached:
                break
            reached = sigma

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight that the module uses; in training the estimate of sigma follows."""
        with torch.autocast(weight.device.type, enabled=False):
            wide = weight.to(self.right.dtype)
            if self.training:
                self._iterate(wide.detach())
            with torch.no_grad():
                left = F.normalize(self.image(wide, self.right).flatten(), dim=0)
            sigma = torch.dot(left, self.image(wide, self.right).flatten())
            factor = self.limit / sigma.clamp(min=self.limit)
        return weight * factor.to(weight.dtype)

    def _iterate(self, weight: Tensor) -> Tensor:
        """Turn the vector towards the largest singular value; return the norm of what it was mapped to."""
        with torch.enable_grad():
            right = self.right.detach().requires_grad_()
            image = self.image(weight, right)
        left = F.normalize(image.detach().flatten(), dim=0).view_as(image)
        (back,) = torch.autograd.grad(image, right, left)
        self.right = F.normalize(back.flatten(), dim=0).view_as(back)
        return torch.dot(left.flatten(), image.detach().flatten())


class _Convolution:
    """A convolution as a map of its kernel and what enters it; of a transposed one, its transpose."""

    def __init__(self, module: _ConvNd) -> None:
        self.apply = CONVOLUTIONS[len(module.kernel_size) - 1]
        self.given: dict[str, Any] = {
            name: getattr(module, name) for name in ("stride", "padding", "dilation", "groups")
        }
        self.mode, self.reach = module.padding_mode, list(module._reversed_padding_repeated_twice)
        if self.mode != "zeros":
            self.given["padding"] = 0

    def __call__(self, kernel: Tensor, entering: Tensor) -> Tensor:
        x = entering if self.mode == "zeros" else F.pad(entering, self.reach, mode=self.mode)
        return self.apply(x, kernel, None, **self.given)


@remedy(
    treats=("UG402", "UG403", "UG406", "UG703"),
    changes="parametrisation",
    instead_of=("rescale_weights", "scale_branch"),
)
def spectral_cap(case: Case, *, sites: Select = None, limit: float = 0.9) -> Undo:
    """Parametrise the chosen weights as min(1, limit/sigma)·W.

    Args:
        case: The case; its model is changed in place.
        sites: Which modules, or single parameters, by path.
        limit: Largest operator norm.

    Returns:
        What puts modules and parameters back, bit for bit.

    Raises:
        ValueError: If no weight is chosen, the limit is no positive number, or a chosen convolution does not
            run on the first batch.

    Side effects:
        Classes and parameters of the chosen modules. Costs up to 300 power iterations for each weight and,
        with convolutions, a forward pass on a copy.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(2, 2)
        >>> _ = model.weight.data.copy_(torch.diag(torch.tensor([4.0, 1.0])))
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> undo = spectral_cap(case, limit=2.0)
        >>> [round(value, 3) for value in model.weight.diag().tolist()]
        [2.0, 0.5]
    """
    if not 0 < limit < math.inf:
        raise ValueError(f"limit is {limit}; give a positive number, such as 0.9")
    weights = choose_weights(case.model, sites, _is_map, "weight of a linear map")
    shapes = _shapes(case, [weight.path for weight in weights if isinstance(weight.module, _ConvNd)])

    def register(weight: Weight) -> None:
        parameter, module = weight.parameter, weight.module
        image: Callable[[Tensor, Tensor], Tensor] = torch.mv
        shape: tuple[int, ...] = (parameter.shape[1],)
        if isinstance(module, _ConvNd):
            image, shape = _Convolution(module), (1, *shapes[weight.path])
        wide = torch.promote_types(parameter.dtype, torch.float32)
        start = torch.randn(shape, dtype=wide).to(parameter.device)
        made = Cap(parameter, limit, image, start)
        parametrize.register_parametrization(module, weight.name, made.train(module.training))

    return parametrise(case, weights, register)


def _is_map(weight: Weight) -> bool:
    return weight.parameter.ndim == 2 or isinstance(weight.module, _ConvNd)


def _shapes(case: Case, paths: list[str]) -> dict[str, tuple[int, ...]]:
    """Shapes, without the batch, of what enters each convolution, or leaves a transposed one."""
    found: dict[str, tuple[int, ...]] = {}
    if not paths:
        return found
    hooks, twin = Hooks(), case.copy()

    def watch(path: str) -> None:
        def see(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            shown = first_floating(output if isinstance(module, _ConvTransposeNd) else (args, kwargs))
            if shown is not None:
                found[path] = tuple(shown.shape[-1 - len(module.kernel_size) :])

        hooks.on_call(twin.model.get_submodule(path), lambda *_: None, see)

    for path in paths:
        watch(path)
    with random_states(), torch.no_grad():
        twin.compute_loss(twin.batches[0])
    hooks.remove()
    missing = [path for path in paths if path not in found]
    if missing:
        raise ValueError(
            f"{missing[0]} does not run on the first batch, so that the size of its maps is not known; "
            "choose others by sites="
        )
    return found
