"""admin: weigh the stream of a Post-LN transformer by what its branches add, measured in one pass.

Adaptive model initialisation: the deeper a block, the more its stream has gathered, and the heavier it is
weighed against the block's own branch.

What it changes:
    The last map of the i-th branch is divided by omega_i, so that the norm behind it sees x + F(x)/omega_i,
    which is Admin's omega_i·x + F(x) up to the norm's eps. omega_1 is 1, and omega_(i+1) is the deviation of
    omega_i·x + F_i(x), measured on the first batch with all former omegas in force.

Why it helps:
    In a Post-LN block every branch counts as much as the whole stream in front of it, so that the output
    depends on each of the last branches strongly, and a step moves it far. With omega growing like the root
    of the number of branches, each adds about as much as any other, as in a Pre-LN block.

When it does not help:
    Pre-LN blocks do this by themselves and are refused. The variances are those of the first batch and the
    first draw. The division is exact for the function at the start only: a step of size h on a map that was
    divided acts like one of omega·h on Admin's, whose omega is a parameter. It changes nothing about
    logits of attention, or about a head.

What it costs:
    Two forward passes of a copy; nothing per step.

References:
    Liu, Liu, Gao, Chen and Han, "Understanding the Difficulty of Training Transformers" (EMNLP 2020), section
    4.1, on profiling and initialisation.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unitygain._case import Case, random_states
from unitygain._registry import remedy
from unitygain.probe.hooks import Hooks
from unitygain.probe.sites import Select
from unitygain.remedies._branches import Branch, ends_of, find_branches
from unitygain.remedies._layers import require_post_norm
from unitygain.remedies._snapshot import Undo, keep
from unitygain.stats import mean, rms


@remedy(treats=("UG205",), changes="initial weights", instead_of=("scale_branch",))
def admin(case: Case, *, sites: Select = None) -> Undo:
    """Divide the end of every branch by the deviation of the stream in front of it.

    Args:
        case: The case; parameters are changed in place.
        sites: Which branches, by the path of the module that ends one or of one that holds it.

    Returns:
        What puts the parameters back, bit for bit.

    Raises:
        ValueError: If no branch is found, no norm layer with parameters stands behind the sum with one, or
            a norm was not called as a module.

    Side effects:
        The parameters of the maps that end the branches, in place.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        >>> model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        >>> case = Case(model, loss=lambda m, x: m(x).square().sum(), data=[torch.randn(2, 5, 8)])
        >>> before = model.layers[2].linear2.weight.detach().norm()
        >>> undo = admin(case)
        >>> bool(before / model.layers[2].linear2.weight.norm() > 1)
        True
    """
    found = find_branches(case, sites)
    require_post_norm(found, "Admin")
    for branch in found:
        if not branch.norm:
            raise ValueError(
                f"the norm behind the branch that ends in {branch.path} has no parameters to name it by"
            )
    omegas = profile(case, found)
    undo = keep(ends_of(case, found))
    with torch.no_grad():
        for branch, omega in zip(found, omegas, strict=True):
            for parameter in ends_of(case, [branch]):
                parameter.div_(omega)
    return undo


def profile(case: Case, branches: list[Branch]) -> list[float]:
    """Return omega of every branch, from one forward pass of a copy in which each is set before it is used.

    Raises:
        ValueError: If a norm was not called as a module.
    """
    omegas = [1.0]
    places = {branch.norm[0].rpartition(".")[0]: index for index, branch in enumerate(branches)}
    # A copy of its own, since `isolated` may share the memory of parameters, which are written here.
    with random_states(), torch.no_grad():
        twin, hooks = case.copy(), Hooks()
        for path, index in places.items():
            hooks.on_call(
                twin.model.get_submodule(path), _measuring(twin, branches, index, omegas), lambda *_: None
            )
        try:
            twin.compute_loss(twin.batches[0])
        finally:
            hooks.remove()
    if len(omegas) != len(branches) + 1:
        raise ValueError(
            f"{len(omegas) - 1} of {len(branches)} norm layers behind a branch were called in turn as "
            "modules; Admin needs all of them"
        )
    return omegas[:-1]


def _measuring(case: Case, branches: list[Branch], index: int, omegas: list[float]) -> Any:
    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        entered = args[0] if args else next(iter(kwargs.values()))
        if index != len(omegas) - 1 or not isinstance(entered, Tensor):
            return
        # In this copy the sum is x + F/omega: omega times the sum that Admin's block would make.
        omegas.append(omegas[index] * float(rms(entered.double() - mean(entered))))
        for parameter in ends_of(case, branches[index + 1 : index + 2]):
            parameter.div_(omegas[-1])

    return enter
