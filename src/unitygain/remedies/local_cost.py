"""local_cost: train a circuit on a cost of few neighbouring qubits, which the case declares.

A cost that asks all qubits at once is flat even for a shallow circuit. Only the user knows the observables,
and declares the loss as one of ``Case(..., variants={"local_cost": loss})``.

What it changes:
    The loss of the case.

Why it helps:
    1 - <|0...0><0...0|> is a product over all qubits, and so is its gradient: at random angles its variance
    falls exponentially with their number after a single layer. The mean over the qubits of 1 - <|0><0|> is
    smallest at the same state, and its gradient falls like a power of their number, as long as the layers
    grow with its logarithm at most.

When it does not help:
    A deep circuit is flat for local costs too: identity_block_init, or fewer layers. Both costs agree at
    their smallest value alone; where it cannot be reached, the local one ends elsewhere. UG706 reads what
    the circuit itself gives, and goes only where its observable is another one.

What it costs:
    Nothing per step; on a device one measurement basis serves all terms of one qubit.

References:
    Cerezo, Sone, Volkoff, Cincio and Coles, "Cost function dependent barren plateaus in shallow parametrized
    quantum circuits" (Nature Communications 2021), theorems 1 and 2.
"""

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._snapshot import Undo
from unitygain.remedies._variants import put_variant

VARIANT = "local_cost"


@remedy(treats=("UG706",), changes="loss", instead_of=("identity_block_init",))
def local_cost(case: Case) -> Undo:
    """Put the declared loss ``local_cost`` in the place of the case's loss.

    Args:
        case: The case; its loss function is replaced.

    Returns:
        What gives the case its own loss function back.

    Raises:
        ValueError: If the case declares no variant of that name.

    Side effects:
        ``case.loss``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> case = Case(nn.Linear(1, 1), loss=lambda m, x: 9 + 0 * m(x).sum(), data=[torch.ones(1, 1)],
        ...             variants={"local_cost": lambda m, x: 5 + 0 * m(x).sum()})
        >>> undo = local_cost(case)
        >>> case.compute_loss(case.batches[0]).item()
        5.0
    """
    return put_variant(
        case,
        VARIANT,
        "give Case(variants={'local_cost': loss}), such as 1 - mean over the qubits of <|0><0|> in the place "
        "of 1 - <|0...0><0...0|>",
    )
