"""UG614: a loss is given what it is not defined for.

What it sees:
    * A difference of N predictions of shape (N, 1) and N targets of shape (N,), or the other way round, which
      broadcasts to all N x N pairs.
    * A difference of prediction and target, squared, smooth or of the loss's own, where an activation bounds
      the prediction and the targets lie beyond its range by a quarter of their variance or more.
    * A cross-entropy of logits that come out of a tanh or a sigmoid, or are products of vectors of fixed
      length, as cosines are, times a constant that is too small: what the loss cannot fall below is a third
      of that of equal probabilities or more.
    * A cross-entropy over classes of logits that come out of a ReLU, where more than a fifth of those of the
      right classes are exactly 0 and get no gradient.
    * A binary cross-entropy of logits that come out of a ReLU or another activation that puts out nothing
      below 0, where a third of the targets or more ask for a probability below a half.
    * A loss of log-probabilities whose rows do not add up to one over the classes, within a tenth, because
      they do over another dimension or are raw outputs.
    * A binary cross-entropy whose targets are not from 0 to 1.

    A softmax or a sigmoid before a loss that has its own is UG606's, and a loss without a gradient UG608's.

Why it matters:
    The loss has a gradient and falls, and what it falls to is not what was meant. Where every prediction is
    compared with every target, each is pulled to the mean of all targets, whatever its own input says. What
    an activation cannot put out is never reached. Logits of s at most leave a loss of
    ln(1 + (C - 1)·exp(-2s)) over C classes, or more, and the gradient goes on pulling at vectors that are
    right already. A class whose logit lies below 0 in front of a ReLU is not raised where it is right: of 162
    small classifiers on such logits eight in ten lost three points of accuracy or more, 24 on average, and a
    binary loss stays near that of equal probabilities. Numbers that are no probabilities let the loss fall
    without bound, or by what other samples and steps say.

When it is a false alarm:
    Pairs that are wanted and written with (N, 1) beside (N,): say so with one more dimension, (N, 1) beside
    (1, N), and nothing is said. A contrastive loss over many samples whose temperature is 1 on purpose: it
    learns, more slowly than with one of 0.1.

Remedies:
    target.unsqueeze(1) or prediction.squeeze(1) where the shapes make pairs; no activation behind the last
    layer, or targets at its scale; a scale, constant or learned, for cosines; log_softmax over the dimension
    of the classes; targets of 0 and 1 for a binary loss.

References:
    Wang, Xiang, Cheng and Yuille, "NormFace: L2 Hypersphere Embedding for Face Verification" (ACM Multimedia
    2017), proposition 2, for what a loss of cosines cannot fall below. Bishop, "Pattern Recognition and
    Machine Learning" (2006), section 4.3.6, for which activation belongs to which loss.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def found(**facts):
    ...     return judge({"loss_value": Profile("loss_value", "nats", (Site(""),), (1.2,), facts=facts)})
    >>> [(f.code, f.fix) for f in found(pairs=64.0, prediction="column")]
    [('UG614', 'target.unsqueeze(1), or prediction.squeeze(1)')]

A silent example:
    >>> list(found(pairs=1.0, prediction="column", beyond=0.1, bounded_by="tanh"))
    []
"""

import math
from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._bounds import of_bounds
from unitygain.rules._rectified import of_rectified
from unitygain.rules._sums import of_sums


@rule(code="UG614", name="mismatched-loss", severity="error", needs=("loss_value",))
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield findings for pairs, for what is out of the prediction's reach, and for what is no probability."""
    loss = profiles["loss_value"]
    if float(loss.facts.get("pairs", math.nan)) > 1:
        yield _in_pairs(loss)
    yield from of_bounds(loss)
    yield from of_rectified(loss)
    yield from of_sums(loss)


def _in_pairs(loss: Profile) -> Finding:
    rows = int(float(loss.facts["pairs"]))
    column = loss.facts["prediction"] == "column"
    shapes = f"({rows}, 1)", f"({rows},)"
    prediction, target = shapes if column else reversed(shapes)
    fix = (
        "target.unsqueeze(1), or prediction.squeeze(1)"
        if column
        else "target.squeeze(1), or prediction.unsqueeze(1)"
    )
    return Finding(
        "UG614",
        "mismatched-loss",
        "error",
        f"the loss compares each of {rows} predictions with the targets of all {rows} samples",
        loss.sites,
        "loss_value",
        float(rows),
        "targets per prediction",
        1.0,
        fact="pairs",
        causes=(
            Cause(
                f"broadcast: prediction {prediction} and target {target} make ({rows}, {rows}) differences, "
                f"so that every prediction is pulled to the mean of all targets; {fix}"
            ),
        ),
        fix=fix,
    )
