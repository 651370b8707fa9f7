"""A learned scale at the end of residual branches, as a parametrisation of their last maps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils import parametrize

from unitygain._case import Case
from unitygain.probe.linear_maps import Weight
from unitygain.remedies._branches import Branch
from unitygain.remedies._parametrise import parametrise
from unitygain.remedies._snapshot import Undo


class BranchScale(nn.Module):
    """Multiplies the outputs of a map by a learned number, or each by its own.

    Args:
        scale: The number, or one for each output; weight and bias share it.
        axis: Which axis of the parameter counts the outputs.
    """

    def __init__(self, scale: nn.Parameter, axis: int) -> None:
        super().__init__()
        self.scale = scale
        self.axis = axis

    def forward(self, value: Tensor) -> Tensor:
        """Return the scaled parameter."""
        shape = [1] * value.ndim
        shape[self.axis] = -1
        return self.scale.view(shape) * value


def add_scales(case: Case, branches: Sequence[Branch], start: float, *, each: bool) -> Undo:
    """Give every branch a learned scale at its end.

    Args:
        case: The case; its model is changed in place, and its optimizer holds the scales.
        branches: The branches.
        start: Where the scales begin.
        each: Whether each output has its own.

    Returns:
        What takes the scales away.

    Raises:
        ValueError: If a branch ends in a parameter that is computed already, or that is no map's.
    """
    ends = [weight for branch in branches for weight in _ends(case, branch)]
    scales: dict[int, nn.Parameter] = {}

    def register(weight: Weight) -> None:
        module, axis = weight.module, _axis(weight)
        if id(module) not in scales:
            count = weight.parameter.shape[axis] if each else 1
            like = weight.parameter
            scales[id(module)] = nn.Parameter(
                torch.full((count,), start, dtype=like.dtype, device=like.device)
            )
        parametrize.register_parametrization(module, weight.name, BranchScale(scales[id(module)], axis))

    return parametrise(case, ends, register)


def _ends(case: Case, branch: Branch) -> list[Weight]:
    found = []
    for name in branch.end:
        path, _, own = name.rpartition(".")
        module = case.model.get_submodule(path)
        if own not in {"weight", "bias"} or parametrize.is_parametrized(module):
            raise ValueError(
                f"the branch that ends in {name} has a scale of its own there, or a computed weight"
            )
        parameter = module._parameters[own]
        assert parameter is not None
        if isinstance(module, _ConvTransposeNd) and module.groups > 1:
            raise ValueError(f"{path} is a transposed convolution in groups, whose outputs have no one axis")
        found.append(Weight(path, own, module, parameter, 1.0))
    return found


def _axis(weight: Weight) -> int:
    """The axis of the outputs: the second in transposed convolutions and in Hugging Face's Conv1D."""
    across = isinstance(weight.module, _ConvTransposeNd) or type(weight.module).__name__ == "Conv1D"
    return 1 if across and weight.parameter.ndim > 1 else 0
