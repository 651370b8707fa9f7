"""Which parameters of a module are weights of a linear map, and how many numbers each output sums over."""

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.parameter import UninitializedParameter

from unitygain.probe.sites import Select, selects

LINEAR_MAPS = ("weight", "in_proj_weight", "?_proj_weight", "weight_ih*", "weight_hh*", "weight_hr*")
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)


@dataclass(frozen=True)
class Weight:
    """A weight: its module's path, its own name, the parameter, and its fan-in."""

    path: str
    name: str
    module: nn.Module
    parameter: nn.Parameter
    fan_in: float


def find_weights(model: nn.Module, sites: Select = None, only: str = "*") -> Iterator[Weight]:
    """Yield every weight of a linear map, each parameter once; norms and embeddings are not among them.

    A weight that a parametrisation computes is no parameter and is left out.

    Args:
        model: The model.
        sites: Which modules, or single parameters, by path.
        only: Pattern for the parameter's own name, such as ``"weight_hh_l*"``.
    """
    seen: set[int] = set()
    for path, module in model.named_modules():
        if isinstance(module, (*NORMS, nn.Embedding, nn.EmbeddingBag)):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, UninitializedParameter) or parameter.ndim < 2 or id(parameter) in seen:
                continue
            whole = f"{path}.{name}" if path else name
            named = any(fnmatch.fnmatchcase(name, pattern) for pattern in LINEAR_MAPS)
            # A matrix of any name is one where that very name is asked for.
            named = named or (isinstance(sites, (list, tuple)) and whole in sites)
            chosen = selects(sites, path, module) or selects(sites, whole, module)
            if chosen and named and fnmatch.fnmatchcase(name, only):
                seen.add(id(parameter))
                yield Weight(path, name, module, parameter, fan_in(module, parameter))


def fan_in(module: nn.Module, weight: nn.Parameter) -> float:
    """Return how many products one output sums over."""
    if isinstance(module, _ConvTransposeNd):
        spread = 1
        for stride in module.stride:
            spread *= stride
        return weight.shape[0] / module.groups * weight[0, 0].numel() / spread
    # The linear layer of Hugging Face's GPT-2 keeps (inputs, outputs).
    if type(module).__name__ == "Conv1D" and weight.ndim == 2:
        return weight.shape[0]
    return weight[0].numel()
