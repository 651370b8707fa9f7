"""identity_block_init: start a variational circuit as blocks that are each the identity.

The second half of the layers of a block takes the angles of the first half, negated and in reverse order, so
that it undoes it; the layer in the middle of an odd number gets zeros. Only the user knows which parameters
are angles and along which axis the layers lie.

What it changes:
    The chosen angles, once, before training. Those of the first halves stay.

Why it helps:
    A deep circuit with random angles is a draw from all unitaries, and the variance of its gradient falls
    like 2^-(qubits + 1): a barren plateau. As the identity it is not: the first angle of a block acts on the
    state as if nothing came after it, with a gradient of the order of 1 at any number of qubits.

When it does not help:
    It needs layers that the reverse undoes: in each, gates that commute (one rotation per qubit), then
    entangling gates that are their own inverse (CZ, CNOT). With those between the layers an odd number of
    layers per block leaves one layer of entanglers over; an even number does not cancel, unless the second
    half of the circuit is itself written in reverse. Two rotations per qubit and layer in the same order are
    not undone. It shapes the start: training can still walk onto the plateau. A cost that is smallest or
    largest at the identity has no gradient there. A cost of all qubits at once flattens even shallow
    circuits: local_cost.

What it costs:
    Nothing per step.

References:
    Grant, Wossnig, Ostaszewski and Benedetti, "An initialization strategy for addressing barren plateaus in
    parametrized quantum circuits" (Quantum 2019), section 3. McClean et al., "Barren plateaus in quantum
    neural network training landscapes" (Nature Communications 2018), on the variance.
"""

import fnmatch

import torch

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.remedies._snapshot import Undo, keep


@remedy(treats=("UG706",), changes="initial weights")
def identity_block_init(case: Case, *, names: str = "", axis: int = 0, size: int | None = None) -> Undo:
    """Make the second half of every block of layers the inverse of its first half.

    Args:
        case: The case; the angles are changed in place.
        names: Name of the parameter that holds the angles, or a pattern.
        axis: Its axis of the layers.
        size: Layers of a block; all when left out.

    Returns:
        What puts the angles back, bit for bit.

    Raises:
        ValueError: If no real parameter has the name and axis, or the layers are no whole number of blocks of
            at least two.

    Side effects:
        The angles, in place.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.ParameterDict({"angles": nn.Parameter(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))})
        >>> case = Case(model, loss=lambda m, x: m["angles"].cos().prod(), data=[0])
        >>> undo = identity_block_init(case, names="angles")
        >>> [round(angle, 1) for angle in model["angles"].tolist()]
        [0.1, 0.2, 0.0, -0.2, -0.1]
    """
    angles = [
        parameter
        for name, parameter in case.model.named_parameters()
        if fnmatch.fnmatchcase(name, names) and parameter.is_floating_point() and parameter.ndim > axis >= 0
    ]
    if not angles:
        raise ValueError(
            f"no real parameter with an axis {axis} is named {names!r}; which ones are the angles of a "
            "circuit only you know: give names='weights', say"
        )
    for parameter in angles:
        layers = parameter.shape[axis]
        if layers % (size or layers or 1) or (size or layers) < 2:
            raise ValueError(
                f"{layers} layers are no whole number of blocks of {size}; give a size of at least 2"
            )
    undo = keep(angles)
    with torch.no_grad():
        for parameter in angles:
            for block in parameter.split(size or parameter.shape[axis], dim=axis):
                half, layers = block.shape[axis] // 2, block.shape[axis]
                block.narrow(axis, half, layers - 2 * half).zero_()
                mirrored = block.narrow(axis, 0, half).flip(axis).neg()
                block.narrow(axis, layers - half, half).copy_(mirrored)
    return undo
