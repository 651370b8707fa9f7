"""swap_activation: put another activation in the place of activation modules.

Takes away what the shape of an activation alone does.

What it changes:
    The chosen activation modules are replaced. No parameter is touched.

Why it helps:
    The slope of a sigmoid is at most 1/4, so that a chain of them loses a factor of four per layer whatever
    the weights are scaled to within reason; tanh has slope 1 at zero, and a ReLU slope 1 where it is open.

When it does not help:
    Weights that were initialised, or trained, for one activation are wrong for another: set their gain too
    (rescale_weights). A sigmoid that is a gate or makes probabilities is meant to be one. An activation that
    is a function call has no module and stays.

What it costs:
    Nothing worth speaking of; tanh and GELU take somewhat longer than ReLU.

References:
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (AISTATS
    2010), section 3.
"""

from torch import nn
from torch.nn.modules import activation as activations

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.probe.sites import Select
from unitygain.remedies._snapshot import Undo, swap

KINDS: dict[str, type[nn.Module]] = {
    name: kind
    for name in activations.__all__
    if isinstance(kind := getattr(activations, name), type) and name != "MultiheadAttention"
}


@remedy(treats=("UG101", "UG205", "UG608"), changes="architecture")
def swap_activation(case: Case, *, to: str = "Tanh", of: str = "", sites: Select = None) -> Undo:
    """Replace activation modules.

    Args:
        case: The case; its model gets other modules in the places of the chosen ones.
        to: Class name in torch.nn of the activation to put in.
        of: Class name of those to take out; every activation without parameters when left out.
        sites: Which module paths.

    Returns:
        What puts the very same modules back.

    Raises:
        ValueError: If a class name is unknown, or the model has no such module.

    Side effects:
        The model's submodules; no parameter is touched.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 2)])
        >>> undo = swap_activation(case, to="Tanh", of="Sigmoid")
        >>> type(model[1]).__name__
        'Tanh'
    """
    for word in (to, of or to):
        if word not in KINDS:
            raise ValueError(f"torch.nn has no activation {word!r}; the names are {', '.join(KINDS)}")
    wanted = (KINDS[of],) if of else tuple(KINDS.values())

    def make(module: nn.Module) -> nn.Module | None:
        plain = type(module) in wanted and not any(True for _ in module.parameters())
        return KINDS[to]() if plain else None

    return swap(case.model, sites, make, f"a {of}" if of else "an activation")
