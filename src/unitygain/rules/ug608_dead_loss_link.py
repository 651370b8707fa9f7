"""UG608: a loss, or a term of one, gives no gradient.

What it sees:
    * A cross-entropy, binary or over classes, that is bad and does not pull. Its mean per row is half as
      much again as that of equal probabilities, or more, while max|p - y|, the gradient at the logits before
      averaging, is nearly zero, or the gradient that arrives at the last output is exactly zero.
    * A term of a sum that was computed from the model and has lost its gradient: one that was detached and
      makes up 60 % of the sizes of all terms or more, or one that `torch.autograd.grad` made without a graph
      of its own (``create_graph=True``) from 5 % on.
    * A second derivative through a piecewise linear activation, as a differential equation of second order
      asks for it, where the products with that derivative are exactly zero.
    * A softmax over one output, which is 1 whatever goes in.

    A loss that is small where p - y is small is satisfied, and nothing is said. With a working link a bad one
    pulls: the cross-entropy of soft or hard targets is their entropy, at most ln(classes), plus a divergence
    that p - y pulls at. Constants are no terms, nor can a number that was multiplied after `.item()` be told
    from one. What reaches the loss by anything but sums and constant factors, as targets and weights do, is
    not looked at. A loss that pulls, and at the wrong thing, is UG614's.

Why it matters:
    The whole model stands still, and every layer looks as if the gradient vanished. No initialisation, skip
    or norm layer helps: the cause is a sigmoid in floating point that has reached exactly 0 or 1 before a
    loss that takes its logarithm, or a clamp whose slope is zero. A term without a gradient is a number that
    is added: the loss shows it, and the optimizer does not see it.

When it is a false alarm:
    A loss with weights of zero on every row of this batch. A detached term that is added only so that the
    loss that is printed is complete.

Remedies:
    binary_cross_entropy_with_logits in the place of sigmoid and binary_cross_entropy; log_softmax in the
    place of softmax, clamp and log; a smaller head (UG605); an activation with curvature for a second
    derivative; create_graph=True for a derivative that is part of the loss, no detach, item or no_grad for
    other terms.

References:
    Goodfellow, Bengio and Courville, "Deep Learning" (2016), section 6.2.2.2, on losses that undo the
    exponential of a sigmoid and losses that saturate with it. Schütt et al., "SchNet: A continuous-filter
    convolutional neural network for modeling quantum interactions" (NeurIPS 2017), section 3.2, for a loss
    of forces, which are derivatives of the model.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def found(row_mean, arriving):
    ...     facts = {"kind": "binary_cross_entropy", "expected": 0.693, "row_mean": row_mean}
    ...     loss = Profile("loss_value", "nats", (Site(""),), (row_mean,), facts=facts)
    ...     pull = Profile("logit_grad_absmax", "max|p - y|", (Site(""),), (1.0,))
    ...     gradient = Profile("grad_rms", "rms", (Site("fc"), Site("head")), (arriving, arriving))
    ...     profiles = {"loss_value": loss, "logit_grad_absmax": pull, "grad_rms": gradient}
    ...     return [f.code for f in judge(profiles)]
    >>> found(50.0, 0.0)
    ['UG608']

A silent example:
    >>> found(50.0, 1e-3), found(0.0001, 0.0)
    ([], [])
"""

import math
from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._losses import read_entropy
from unitygain.rules._numbers import spell
from unitygain.rules._ranges import SMALLEST_NORMAL

PULL = 1e-3
MARGIN = 1.5
# Of the sizes of all terms. The entropy of targets that a frozen or averaged copy gave, taken off to make a
# divergence of a cross-entropy, is the largest term that is left without a gradient on purpose, and at most
# as large as the cross-entropy: 0.5. What was cut by mistake lies at 0.9 and above where it is
# the loss itself.
CUT = 0.6
# A derivative has no other use in a loss than its gradient; a penalty is small beside what it is added to.
CUT_DERIVATIVE = 0.05


@rule(
    code="UG608",
    name="dead-loss-link",
    severity="error",
    needs=("loss_value",),
    wants=("logit_grad_absmax", "grad_rms", "grad_rescaled"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield a finding where a bad loss, or a term of one, gives no gradient."""
    loss = profiles["loss_value"]
    yield from _of_facts(loss)
    read = read_entropy(loss)
    known = "logit_grad_absmax" in profiles and "grad_rms" in profiles
    single = loss.facts.get("single") == 1.0
    if single or not known or read is None or not read[0] > MARGIN * read[1]:
        return
    mean, expected = read
    pull = profiles["logit_grad_absmax"].values[0]
    gradients = [value for _, value in profiles["grad_rms"].finite()]
    # The output of a saturated sigmoid module gets a gradient, which its own slope then takes away.
    silent = len(gradients) > 1 and not any(gradients[:-1])
    if not (pull < PULL or (silent and not _underflowed(profiles))):
        return
    where = "max|p - y| is " + spell(pull) if pull < PULL else "the gradient behind it is exactly 0"
    yield Finding(
        "UG608",
        "dead-loss-link",
        "error",
        f"the loss is {spell(mean)} per row, above the {spell(expected)} of equal probabilities, and "
        f"does not pull: {where}",
        profiles["loss_value"].sites,
        "loss_value",
        mean,
        "nats per row",
        MARGIN * expected,
        fact="row_mean",
        expected=expected,
        causes=(
            Cause("saturation: the probabilities are exactly 0 or 1, and their slope in the loss is 0"),
            Cause("clamp: the loss cuts off the probabilities, and beyond the cut its slope is 0"),
        ),
        evidence={
            "max|p - y|": pull,
            "largest gradient rms before the last output": max(gradients[:-1], default=0.0),
        },
        fix="give the loss logits: torch.nn.functional.binary_cross_entropy_with_logits(logits, target)",
    )


def _of_facts(loss: Profile) -> Iterator[Finding]:
    """Yield what the facts of the loss tell by themselves."""
    if loss.facts.get("single") == 1.0:
        yield _single(loss)
    if float(loss.facts.get("flat_products", 0.0)) > 0:
        yield _without_curvature(loss)
    derivative = loss.facts.get("cut_by") == "derivative"
    if float(loss.facts.get("cut_share", 0.0)) >= (CUT_DERIVATIVE if derivative else CUT):
        yield _cut(loss, derivative=derivative)


def _single(loss: Profile) -> Finding:
    return Finding(
        "UG608",
        "dead-loss-link",
        "error",
        "a softmax over one output goes into the loss: it is 1 whatever goes in, and passes no gradient",
        loss.sites,
        "loss_value",
        1.0,
        "outputs of the softmax",
        2.0,
        fact="single",
        causes=(
            Cause(
                "softmax over one output: e^x/e^x is always 1; of one output a sigmoid is meant, which "
                "binary_cross_entropy_with_logits takes by itself, or a softmax over two"
            ),
        ),
        fix="torch.nn.functional.binary_cross_entropy_with_logits(logit, target)  # without the softmax",
    )


def _without_curvature(loss: Profile) -> Finding:
    name, products = str(loss.facts["flat_activation"]), float(loss.facts["flat_products"])
    return Finding(
        "UG608",
        "dead-loss-link",
        "warning",
        f"the loss holds a second derivative through {name}, which is zero wherever it is taken: products "
        f"with zeros, {spell(products)}",
        loss.sites,
        "loss_value",
        products,
        "products with zeros",
        0.0,
        fact="flat_products",
        causes=(
            Cause(
                f"second derivative: {name} is piecewise linear, its slope is constant and that slope's "
                "derivative is 0, so that this term of the loss does not depend on the model",
                "swap_activation",
                {"of": name, "to": "Tanh"},
                (0.0, 0.0),
            ),
        ),
        fix="an activation with curvature: torch.nn.Tanh(), torch.nn.SiLU() or a sine",
    )


def _cut(loss: Profile, *, derivative: bool) -> Finding:
    share = float(loss.facts["cut_share"])
    # "1 of the loss" would say that nothing has a gradient.
    size = spell(min(share, 0.999))
    how = (
        "torch.autograd.grad was called without create_graph=True, so that the derivative that is in this "
        "term is a constant (retain_graph=True does not help)"
        if derivative
        else "it was computed from the model, and then cut by detach(), .data, item(), torch.tensor() or "
        "torch.no_grad() before it was added"
    )
    fix = (
        "torch.autograd.grad(..., create_graph=True)"
        if derivative
        else "add the term as it was computed: loss = loss + term, without detach(), item() or no_grad()"
    )
    return Finding(
        "UG608",
        "dead-loss-link",
        "error",
        f"terms that make up {size} of the loss have no gradient to the model: training does not see them",
        loss.sites,
        "loss_value",
        share,
        "of the sizes of the loss's terms",
        CUT_DERIVATIVE if derivative else CUT,
        fact="cut_share",
        causes=(Cause(f"cut graph: {how}"),),
        fix=fix,
    )


def _underflowed(profiles: Mapping[str, Profile]) -> bool:
    """Whether the gradient is there in float64, and only too small for the dtype of the run."""
    rescaled = profiles.get("grad_rescaled")
    if rescaled is None:
        return False
    labels = dict(zip(rescaled.sites, rescaled.labels, strict=True))
    there = [(value, labels[site]) for site, value in rescaled.finite()]
    return any(value < math.log10(SMALLEST_NORMAL.get(dtype, 1.0)) for value, dtype in there)
