"""UG606: a softmax (or sigmoid) before a loss that has its own.

What it sees:
    That what enters a cross-entropy over classes adds up to 1 in every row with no negative entry, or that
    what enters a binary cross-entropy with logits came out of a sigmoid. A log_softmax before a
    cross-entropy is not meant: taken twice it is the same as taken once.

Why it matters:
    The loss takes the probabilities for logits. These lie in [0, 1], so that the best the model can ever
    say about C classes is a probability of e/(e + C - 1): the loss cannot fall below ln(1 + (C - 1)/e),
    1.46 for ten classes, and the gradient is squeezed by two softmaxes. Training is slow and stops early,
    without any error.

When it is a false alarm:
    Inputs that are meant as logits and add up to 1 by chance do not occur in practice. A target network
    whose probabilities are used as logits on purpose, as some distillation recipes did, would be one.

Remedies:
    drop_output_softmax; give the loss the logits, and take the softmax where probabilities are shown.

References:
    The pages of torch.nn.CrossEntropyLoss and torch.nn.BCEWithLogitsLoss in PyTorch's documentation: the
    input is expected to hold unnormalised logits.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def found(softmax):
    ...     facts = {"kind": "cross_entropy", "classes": 10.0, "softmax_before_loss": softmax}
    ...     loss = Profile("loss_value", "nats", (Site(""),), (2.3,), facts=facts)
    ...     return judge({"loss_value": loss})
    >>> [f.message for f in found(1.0)]
    ['1 softmax too many before the cross_entropy, which has its own: the loss cannot fall below 1.46']

A silent example:
    >>> list(found(0.0))
    []
"""

import math
from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._numbers import spell

MODULES = {"Softmax", "Softmax2d", "Sigmoid"}


@rule(code="UG606", name="double-softmax", severity="error", needs=("loss_value",), wants=("act_rms",))
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield a finding where the loss is given probabilities for logits."""
    facts = profiles["loss_value"].facts
    if facts.get("softmax_before_loss") != 1.0:
        return
    kind, classes = str(facts.get("kind")), float(facts.get("classes", math.nan))
    squash = "sigmoid" if kind.startswith("binary") else "softmax"
    # A sigmoid's output as the logit of the right class is at most 1, of the wrong one at least 0.
    floor = math.log1p((classes - 1) / math.e) if squash == "softmax" else math.log1p(1 / math.e)
    bound = f": the loss cannot fall below {spell(floor)}" if math.isfinite(floor) else ""
    yield Finding(
        "UG606",
        "double-softmax",
        "error",
        f"1 {squash} too many before the {kind}, which has its own{bound}",
        profiles["loss_value"].sites,
        "loss_value",
        1.0,
        f"1 where a {squash} stands before the loss",
        1.0,
        fact="softmax_before_loss",
        causes=(_cause(squash, kind, profiles),),
        evidence={"kind": kind, "lowest loss": floor},
        fix=f"return the logits: take the {squash} out of the model, and use it only to show probabilities",
    )


def _cause(squash: str, kind: str, profiles: Mapping[str, Profile]) -> Cause:
    outputs = profiles.get("act_rms")
    last = outputs.labels[-1] if outputs is not None and outputs.labels else ""
    if last in MODULES:
        text = f"the model ends in a {last} module, and {kind} takes another {squash}"
        return Cause(text, remedy="drop_output_softmax", predicted=(0.0, 0.0))
    note = (
        f"the {squash} is a function call in the forward or the loss, which cannot be taken away from outside"
    )
    return Cause(f"the model or the loss takes a {squash}, and {kind} takes another", note=note)
