"""UG615: the momentum of Adam outlasts the scale that it is divided by.

What it sees:
    The betas of an optimizer that keeps a mean of the gradient (β1) and one of its square (β2), as Adam,
    AdamW, NAdam and RAdam do; others are known by their state. It fires where β1² >= sqrt(β2), which breaks
    the condition of Adam's analysis: betas that have changed places, (0.999, 0.9), give 1.05, the usual ones
    0.81.

Why it matters:
    The step is the one mean over the root of the other. Where the gradient becomes smaller, as it does when
    the loss falls and in every row that is not looked up, the square is forgotten first and the momentum is
    not: the step grows by β1/sqrt(β2) with every iteration, and no bound on it is left. A β1 of 0.999 besides
    follows the gradient of the last thousand steps, and turns round long after the loss did.

When it is a false alarm:
    A short training: at betas just above the condition, (0.95, 0.8), a loss falls for some hundred steps as
    with the usual ones, and jumps once it is small. A large epsilon bounds the step, too.

Remedies:
    betas=(0.9, 0.999), in this order; (0.9, 0.95) of language models and (0.5, 0.9) or (0.0, 0.99) of
    adversaries are within the condition.

References:
    Kingma and Ba, "Adam: A Method for Stochastic Optimization" (ICLR 2015), theorem 4.1. Reddi, Kale and
    Kumar, "On the Convergence of Adam and Beyond" (ICLR 2018), theorem 4, for β1/sqrt(β2) < 1. What it costs
    is an experiment of this project: docs/log.md, "betas".

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def found(first, second):
    ...     facts = {"beta1": first, "beta2": second, "beta_ratio": first**2 / second**0.5}
    ...     facts["optimizer"] = "Adam"
    ...     profile = Profile("update_ratio", "ratio", (Site("weight"),), (0.01,), facts=facts)
    ...     return [finding.code for finding in judge({"update_ratio": profile})]
    >>> found(0.999, 0.9), found(0.9, 0.5)
    (['UG615'], ['UG615'])

A silent example:
    >>> found(0.9, 0.999), found(0.5, 0.9), found(0.0, 0.99), found(0.95, 0.95), found(float("nan"), 0.9)
    ([], [], [], [], [])
"""

from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Site
from unitygain.rules._numbers import spell
from unitygain.rules._updates import read_fact

# Kingma and Ba, theorem 4.1.
CONDITION = 1.0
USUAL = (0.9, 0.999)


@rule(code="UG615", name="adam-betas", severity="warning", needs=("update_ratio",))
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Judge the betas of the optimizer against the condition of its analysis."""
    first, second, ratio = (read_fact(profiles, name) for name in ("beta1", "beta2", "beta_ratio"))
    if not ratio >= CONDITION:
        return
    growth = first / second**0.5 if second else float("inf")
    name = profiles["update_ratio"].facts["optimizer"]
    yield Finding(
        "UG615",
        "adam-betas",
        "warning",
        f"{name}'s betas are ({first:g}, {second:g}): β1²/sqrt(β2) is {spell(ratio)}, where its analysis "
        f"needs less than 1; where the gradient falls away the step grows {spell(growth)}x with each "
        "iteration",
        (Site(""),),
        "update_ratio",
        ratio,
        "β1²/sqrt(β2)",
        CONDITION,
        fact="beta_ratio",
        causes=(Cause(_explain(first, second)),),
        evidence={"beta1": first, "beta2": second, "growth per step": growth},
        fix=f"betas={USUAL}  # in the optimizer",
    )


def _explain(first: float, second: float) -> str:
    keeps, scales = spell(1 / (1 - first)), spell(1 / (1 - second))
    memory = (
        f"the momentum is a mean of the last {keeps} gradients, and what it is divided by one of the last "
        f"{scales} squares"
    )
    if (second, first) == USUAL:
        return f"betas: they have changed places; {memory}: betas={USUAL}"
    return f"betas: β1 = {first:g} is too large for β2 = {second:g}, or they have changed places; {memory}"
