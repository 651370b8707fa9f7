"""Which units of a weight are equal to another one, and whether their gradients tell them apart."""

import torch
from torch import Tensor

# Units that differ in their first entries are no copies: most weights cost the sorting of a few columns.
_LEAD = 8
# Sums over the same numbers, in an order that depends on the place in the matrix: 2^-24 a time, a few
# thousand times at worst.
_SAME = 1e-4


def may_copy(units: Tensor) -> bool:
    """Whether the first entries of some unit are those of another one.

    Cost: a sort of the first eight entries of all units.

    Args:
        units: (units, entries), dense, real.

    Example:
        >>> import torch
        >>> may_copy(torch.tensor([[1.0, 2.0], [1.0, 3.0]])), may_copy(torch.ones(2, 20))
        (False, True)
    """
    lead = units.detach()[:, :_LEAD].to(torch.promote_types(units.dtype, torch.float32))
    return len(torch.unique(lead, dim=0)) < len(lead)


def frac_copies(units: Tensor, gradients: Tensor, floor: float) -> tuple[float, float]:
    """Return the fraction of units that are equal to another one, and of those whose gradients are equal too.

    Units of zeros are no copies. Gradients are taken for equal where they differ by 1e-4 of their largest
    entry, or by `floor`, below which they are rounding.

    Cost: a sort of the first entries of all units; of whole units only where these are equal.

    Args:
        units: (units, entries), dense, real.
        gradients: The same shape.
        floor: In the gradients' unit.

    Returns:
        Both as fractions of all units.

    Example:
        >>> import torch
        >>> units = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 3.0], [0.0, 0.0]])
        >>> frac_copies(units, torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.1, 0.2], [0.0, 0.0]]), 0.0)
        (0.5, 0.5)
        >>> frac_copies(units, torch.tensor([[0.5, 0.5], [0.7, 0.5], [0.1, 0.2], [0.0, 0.0]]), 0.0)
        (0.5, 0.0)
    """
    count = len(units)
    wide = torch.promote_types(units.dtype, torch.float32)
    units, gradients = units.detach().to(wide), gradients.detach().to(wide)
    some = units.ne(0).any(1)
    for lead in (_LEAD, units.shape[1]):
        units, gradients = units[some], gradients[some]
        if len(units) < 2:
            return 0.0, 0.0
        _, group, sizes = torch.unique(units[:, :lead], dim=0, return_inverse=True, return_counts=True)
        some = sizes[group] > 1
    order = torch.arange(len(group), device=group.device)
    first = torch.full_like(sizes, len(group)).scatter_reduce(0, group, order, "amin")[group]
    size = gradients.abs().amax(1)
    apart = (gradients - gradients[first]).abs().amax(1)
    alike = some & (apart <= _SAME * size.maximum(size[first]) + floor)
    together = torch.zeros_like(sizes).index_add(0, group, alike.to(sizes.dtype))[group] > 1
    return int(some.sum()) / count, int((alike & together).sum()) / count
