"""gradient_reversed: the loss along the gradient of parameters that lie behind reversals alone."""

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.record import Record
from unitygain.probe.reversals import STEPS, find_reversal

UNIT = "loss after a step of 1 % along minus the gradient"
COLUMNS = ("before", "after_a_tenth", "back", "factor", "parameters")


@measure(unit=UNIT, passes="1 forward; 6 where something turns the gradient")
def gradient_reversed(case: Case, record: Record) -> Profile | None:
    """Loss after a small step of the parameters that no gradient reaches but through a reversal.

    A reversal is a custom autograd function, or a hook that the pass sets on a tensor, that hands on a
    negative multiple of the gradient it is given. A
    domain-adversarial network has one before its adversary, on purpose, and its features are reached past it,
    too; a game has one between its players, and the data reaches one of them past it. Here every way from the
    loss to every input passes an odd number of them, and the loss itself tells whether that is the wrong
    sign: it must rise along minus the gradient and fall along it, at steps of 0.1 % and of 1 % of the
    parameters' size. A function that is minus its input, and says so, does not.

    Cost: a forward pass; a backward pass where it has a custom function or a hook on a tensor, and five
    forward passes where inputs lie behind reversals alone. No side effects.

    Args:
        case: An isolated case.
        record: Its record, for the seed and what the graph holds.

    Returns:
        The loss after the larger step, at the module that called the function, whose name is the label, or
        that set the hook, where it is ``a tensor hook``. None
        where some input is reached otherwise, or the loss does not rise. Columns: ``before`` and
        ``after_a_tenth`` (the loss), ``back`` (the loss after the larger step the other way), ``factor``
        (of the gradient), ``parameters`` (how many tensors). Facts: ``first``, the first of them.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> class Reverse(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         return x.clone()
        ...     @staticmethod
        ...     def backward(ctx, g):
        ...         return -g
        >>> case = Case(nn.Linear(2, 1), loss=lambda m, x: Reverse.apply(m(x)).square().mean(),
        ...             data=[torch.ones(3, 2)])
        >>> profile = gradient_reversed(case, observe(case, []))
        >>> profile.labels, profile.values[0] > profile.rows[0][0] > profile.rows[0][2]
        (('Reverse',), True)

    References:
        Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation" (ICML 2015).
    """
    found = find_reversal(case, record)
    if found is None or not found.climbs:
        return None
    before, tenth, after = found.losses
    assert len(found.back) == len(STEPS)
    return Profile(
        "gradient_reversed",
        UNIT,
        (Site(found.path),),
        (after,),
        columns=COLUMNS,
        rows=((before, tenth, found.back[-1], found.factor, float(len(found.parameters))),),
        labels=(found.function,),
        facts={"first": found.parameters[0]},
    )
