"""UG605: the loss starts far above that of a prediction that knows nothing.

What it sees:
    The mean loss per row of a cross-entropy (binary or over classes), from the loss operation itself, so
    that a sum over the batch, class weights and further terms of the loss play no part. It fires at 3 nats
    or more above ln(classes), the loss of equal probabilities. One-sided: a loss below it is what training
    is for. It is information up to 20 nats where the head alone is trained, and where the last layer's
    outputs are too small for it: a margin or a temperature behind them starts high on purpose.

    Of a squared error the targets are read: where their standard deviation is above 50, and above 50 times
    the outputs' rms, they were not put to scale. And where the error is above 50, and above 50 times the
    mean square of the targets, it is the outputs that are too large.

    Where the head's own gain is usual (2 at most) and what enters it is large (an rms of 10 or more), the
    first cause is the place where the signal first is ten times as large as all that modules in front put
    out: the weights of a layer, what forward does between two modules, or attention whose weights over the
    keys do not sum to 1.

Why it matters:
    Logits of standard deviation s add about s²/2 to the loss: the model is confident and wrong, and the
    first hundreds of steps go into shrinking its head. The gradient of a confident softmax says nothing but
    the one wrong class, and it is large for every layer behind it.

When it is a false alarm:
    A new head on a trained backbone that is frozen, for which it is information: the loss is convex in the
    head's weights, and no layer behind it gets its gradient. A trained model on data that it was not made
    for, or with labels that were permuted on purpose. A margin taken from the true class's cosine starts 2
    nats above on purpose, He's weights in the head as much. In a small batch the mean varies by about s over
    the root of the number of rows: at s = 1 and 8 rows 3 nats are seven standard deviations above the
    expected 0.5.

Remedies:
    scale_head; a smaller initialisation of the last layer, or zero; a norm layer before it; for tied
    embeddings a standard deviation of 1/sqrt(width) instead of 1. Linear attention divides by the sum of its
    weights over the keys.

References:
    Karpathy, "A Recipe for Training Neural Networks" (2019), "verify loss @ init" and "init well".
    Katharopoulos, Vyas, Pappas and Fleuret, "Transformers are RNNs" (ICML 2020), eq. 5, for the normaliser of
    linear attention.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def found(row_mean):
    ...     facts = {"kind": "cross_entropy", "expected": 2.303, "classes": 10.0, "row_mean": row_mean}
    ...     return judge({"loss_value": Profile("loss_value", "nats", (Site(""),), (row_mean,), facts=facts)})
    >>> [f.message for f in found(14.2)]
    ['the loss starts at 14.2 per row, 11.9 above ln(10) = 2.3, the loss of equal probabilities']

A silent example:
    >>> list(found(2.6)), list(found(0.01))
    ([], [])
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Site
from unitygain.rules._depth_causes import explain_depth
from unitygain.rules._far_outputs import judge_outputs
from unitygain.rules._kept_statistics import blame_unset
from unitygain.rules._layers import read_layers
from unitygain.rules._losses import read_entropy, target_spread
from unitygain.rules._numbers import spell, to_db
from unitygain.rules._parameters import owner
from unitygain.rules._signal_causes import DIVIDE, blame_signal
from unitygain.rules._trend import read_trend

EXCESS = 3.0
FATAL = 20.0
QUIET = 0.1
LARGE_INPUT = 10.0
# Nats over the largest output: a head's own logits were seen to cost up to 0.8 of theirs, margins and
# temperatures, which come behind it, from 1.5 on.
TOO_MUCH = 1.25
# Of targets beside 1 and beside the outputs: optimizers of steps of one size take thousands to get there, and
# the gradient of plain ones is as much larger.
SPREAD = 50.0
HEAD = "torch.nn.init.normal_(head.weight, std=0.02); torch.nn.init.zeros_(head.bias)"
# Growth of the signal over the trunk that alone makes logits of a unit head ten times too large.
GREW_DB = 20.0


@rule(
    code="UG605",
    name="bad-initial-loss",
    severity="error",
    needs=("loss_value",),
    wants=(
        "act_rms",
        "act_absmax",
        "input_rms",
        "param_trainable",
        "forward_gain",
        "weight_gain",
        "gate_mean",
        "gain_parts",
        "act_frac_saturated",
        "param_rms",
        "norm_unset",
        "attention_entropy",
    ),
)
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield a finding where the loss is far above that of equal probabilities, or of targets put to scale."""
    yield from _far_targets(profiles)
    yield from judge_outputs(profiles)
    read = read_entropy(profiles["loss_value"])
    if read is None or not read[0] - read[1] > EXCESS:
        return
    mean, expected = read
    excess = mean - expected
    classes = round(math.exp(expected))
    meant = _head_alone(profiles) or _made_logits(profiles, excess) is not None
    causes = tuple(_causes(profiles, expected, excess))
    yield Finding(
        "UG605",
        "bad-initial-loss",
        "error" if excess > FATAL else "info" if meant else "warning",
        f"the loss starts at {spell(mean)} per row, {spell(excess)} above ln({classes}) = {spell(expected)}, "
        "the loss of equal probabilities",
        profiles["loss_value"].sites,
        "loss_value",
        mean,
        "nats per row",
        expected + EXCESS,
        fact="row_mean",
        expected=expected,
        causes=causes,
        evidence={"kind": profiles["loss_value"].facts["kind"], "loss": profiles["loss_value"].values[0]},
        fix=DIVIDE if causes[0].text.startswith("attention: ") else HEAD,
    )


def _far_targets(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield a finding where the targets of a squared error spread far beyond what the model puts out."""
    loss, outputs = profiles["loss_value"], profiles["act_rms"].finite() if "act_rms" in profiles else ()
    spread = target_spread(profiles)
    if not (outputs and spread > SPREAD and spread > SPREAD * outputs[-1][1]):
        return
    mean = float(loss.facts["row_mean"])
    yield Finding(
        "UG605",
        "bad-initial-loss",
        "warning",
        f"the squared error starts at {spell(mean)}: the targets have a standard deviation of {spell(spread)}"
        f", and the outputs of {outputs[-1][0]} an rms of {spell(outputs[-1][1])}",
        loss.sites,
        "loss_value",
        mean,
        "squared error per entry",
        SPREAD**2,
        fact="row_mean",
        causes=(
            Cause(
                f"targets: their standard deviation is {spell(spread)}; divided by it, after their mean is "
                "taken off, the error starts near 1"
            ),
        ),
        evidence={"target_spread": spread, "output_rms": outputs[-1][1]},
        fix="targets = (targets - targets.mean()) / targets.std()  # of the training set",
    )


def _head_alone(profiles: Mapping[str, Profile]) -> bool:
    """Whether all that is trained belongs to the last module that runs."""
    trained = profiles["param_trainable"].items() if "param_trainable" in profiles else ()
    labels = profiles["param_trainable"].labels if "param_trainable" in profiles else ()
    outputs = profiles["act_rms"].sites if "act_rms" in profiles else ()
    homes = {
        owner(site)
        for (site, value), label in zip(trained, labels, strict=True)
        if value and label != "not in optimizer"
    }
    return bool(outputs) and homes == {outputs[-1].path}


def _causes(profiles: Mapping[str, Profile], expected: float, excess: float) -> Iterator[Cause]:
    scales = profiles["input_rms"].finite() if "input_rms" in profiles else ()
    inputs = max((value for _, value in scales), default=0.0)
    if inputs > LARGE_INPUT:
        yield Cause(
            f"inputs: their rms is {spell(inputs)}, and the logits grow with it (UG607)",
            remedy="unit_inputs",
            predicted=(0.0, expected + EXCESS),
        )
    outputs = profiles["act_rms"].finite() if "act_rms" in profiles else ()
    yield from _growth(profiles, outputs[-1][0] if outputs else None, expected)
    if not inputs > LARGE_INPUT:
        yield from blame_signal(profiles, expected + EXCESS)
    if outputs and outputs[-1][1] > 1:
        site, size = outputs[-1]
        factor = QUIET / size
        # Logits of rms 0.1 move a row's loss by at most twice their largest entry, a few tenths of a nat.
        yield Cause(
            f"head: the logits of {site} have an rms of {spell(size)}; at {QUIET} the loss is ln(classes)",
            remedy="scale_head",
            parameters={"factor": factor, "site": site.path},
            predicted=(expected - 0.5, expected + 0.5),
        )
    most = _made_logits(profiles, excess)
    if most is not None:
        yield Cause(
            f"temperature: outputs of {spell(most)} at most become logits {spell(excess)} nats off in "
            "the loss: similarities are divided by too low a temperature, or multiplied by too large a scale"
        )
    yield Cause("labels: they do not belong to these inputs, or are shifted by one class")


def _made_logits(profiles: Mapping[str, Profile], excess: float) -> float | None:
    """Return the largest output of the last layer where it is too small for the loss's logits; else None."""
    tops = profiles["act_absmax"].finite() if "act_absmax" in profiles else ()
    return tops[-1][1] if tops and excess > TOO_MUCH * tops[-1][1] else None


def _growth(profiles: Mapping[str, Profile], head: Site | None, expected: float) -> Iterator[Cause]:
    """Yield what makes the signal grow over the trunk, where that is more than the head itself does."""
    trend = read_trend(profiles["forward_gain"]) if "forward_gain" in profiles else None
    own = next((layer.gain for layer in read_layers(profiles) if layer.site == head), 1.0)
    if trend is None or trend.low <= 0 or trend.loop < max(GREW_DB, to_db(own)):
        return
    blocks = profiles["forward_gain"].sites
    still = tuple(blame_unset(profiles, len(blocks)))
    yield from still
    first = explain_depth(profiles, blocks, trend.per_block, forward=True)[len(still)]
    if first.remedy is not None:
        yield replace(first, predicted=(0.0, expected + EXCESS))
