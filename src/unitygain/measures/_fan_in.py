"""Over how many inputs each weight of a module sums."""

import copy
import math

from torch import Tensor, nn
from torch.nn.utils import parametrize

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def weights_of(module: nn.Module) -> dict[str, tuple[Tensor, float]]:
    """Return the weights of a module that sum over inputs, by parameter name, with their fan_in."""
    if parametrize.is_parametrized(module):
        # In training, reading the weight may advance a parametrisation (spectral norm).
        module = copy.deepcopy(module).eval()
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return {}
    if isinstance(module, nn.Bilinear):
        return {"weight": (module.weight, module.in1_features * module.in2_features)}
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)):
        return _packed(module)
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2 or weight.numel() == 0:
        return {}
    return {"weight": (weight, _fan_in(module, weight))}


def _packed(module: nn.Module) -> dict[str, tuple[Tensor, float]]:
    """Weights of shape (several outputs, inputs): every row sums over the inputs."""
    own = {name: getattr(module, name) for name, _ in module.named_parameters(recurse=False)}
    if isinstance(module, nn.MultiheadAttention):
        own["out_proj.weight"] = module.out_proj.weight
    found = {name: weight for name, weight in own.items() if "weight" in name and weight.ndim == 2}
    return {name: (weight, weight.shape[1]) for name, weight in found.items()}


def _fan_in(module: nn.Module, weight: Tensor) -> float:
    kernel = math.prod(weight.shape[2:])
    if isinstance(module, TRANSPOSED):
        # weight is (in, out/groups, *kernel); an output meets every stride-th entry of the kernel.
        return weight.shape[0] / module.groups * kernel / math.prod(module.stride)
    if isinstance(module, CONVOLUTIONS):
        return weight.shape[1] * kernel
    # Hugging Face's Conv1D is a linear layer whose weight is (in, out).
    return weight.shape[0] if type(module).__name__ == "Conv1D" else weight.shape[1] * kernel
