"""clip_gradients: cut the global gradient norm at a threshold between backward and step.

Without a threshold it is searched for: clip.suggest rehearses a grid of them on a copy of the case and takes
the middle of the band that trains.

What it changes:
    The clip of the case, in whose place it stands. The gradients keep their direction; the model stays as it
    is.

Why it helps:
    Along a cliff of the loss one gradient is thousands of times longer than the others, and one step along it
    throws away what the steps before it gained. A bound on the norm is a bound on that step, and leaves all
    other steps alone.

When it does not help:
    It bounds the step and not the gain: a gradient that grows with depth or time on every batch is cut on
    every batch, and then the layers where it is small learn as many times more slowly. A missing 1/sqrt(d) in
    attention or a recurrent matrix above 1 is hidden by it and not cured. Adam divides by the size of the
    gradient, so that a clip on every step changes nothing there but the first steps and the rare ones. A
    threshold that cuts most steps sets the learning rate. Gradients that are not finite stay so.

What it costs:
    One pass over the gradients per step. Searching for the threshold takes about a dozen trainings of 20
    steps.

References:
    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks" (ICML 2013),
    algorithm 1. Zhang, He, Sra and Jadbabaie, "Why gradient clipping accelerates training" (ICLR 2020),
    theorem 3.
"""

from unitygain._case import Case
from unitygain._registry import remedy
from unitygain.clip import by_global_norm, suggest
from unitygain.remedies._snapshot import Undo

# A search that is cheap enough for a trial: what it finds holds for these steps.
STEPS, POINTS, EDGE = 20, 8, 0.9


@remedy(
    treats=("UG102", "UG402", "UG601"),
    changes="gradient",
    instead_of=("lower_learning_rate", "rescale_weights"),
)
def clip_gradients(case: Case, *, threshold: float | None = None) -> Undo:
    """Clip by global norm.

    Args:
        case: The case; it gets another clip. A case with its own step must call ``case.clip`` in it.
        threshold: Largest norm of all gradients together; searched for when left out, which needs an
            optimizer.

    Returns:
        What gives the case its own clip back.

    Raises:
        ValueError: If the threshold is not above 0; without one, if the case declares no optimizer, its own
            step calls no clip, or no threshold trains.

    Side effects:
        ``case.clip``. The search trains copies, and leaves the random states as they were.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer = nn.Linear(1, 1)
        >>> case = Case(layer, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 1)])
        >>> undo = clip_gradients(case, threshold=0.5)
        >>> case.clip
        by_global_norm(c=0.5, p=2.0)
    """
    if threshold is None:
        found = suggest(case, steps=STEPS, points=POINTS, edge=EDGE, seed=case.seed)
        if found.threshold is None:
            raise ValueError(f"{found.reason}; give threshold= to clip all the same")
        threshold = found.threshold
    given = case.clip
    case.clip = by_global_norm(threshold)

    def undo() -> None:
        case.clip = given

    return undo
