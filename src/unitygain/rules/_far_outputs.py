"""A squared error that starts far above its targets, because the outputs are far too large."""

import math
from collections.abc import Iterator, Mapping

from unitygain._types import Cause, Finding, Profile
from unitygain.rules._depth_causes import explain_depth
from unitygain.rules._numbers import spell
from unitygain.rules._signal_causes import blame_signal
from unitygain.rules._trend import read_trend

# Mean squares: outputs of seven times the targets, beside which what is to be learnt is two per cent of what
# is to be unlearnt. Held against 1 too, since targets that are small, or zero as a residual's, are no scale.
TIMES = 50.0
# What the modules put out explains the output where it comes within this factor of it.
EXPLAINS = 0.5
LARGE_INPUT = 10.0
GREW_DB = 20.0


def judge_outputs(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield a finding where the squared error is as large as outputs alone make it."""
    loss = profiles["loss_value"]
    names = ("row_mean", "target_rms", "output_rms")
    mean, target, output = (float(loss.facts.get(name, math.nan)) for name in names)
    limit = TIMES * max(1.0, target**2)
    # Outputs that are small are not to blame for the error; an output that is scaled in the loss is not read.
    if loss.facts.get("kind") != "mse" or not (mean > limit and output**2 > mean / 4):
        return
    yield Finding(
        "UG605",
        "bad-initial-loss",
        "warning",
        f"the squared error starts at {spell(mean)} per entry, where the targets' mean square is "
        f"{spell(target**2)}: the outputs have an rms of {spell(output)}",
        loss.sites,
        "loss_value",
        mean,
        "squared error per entry",
        limit,
        fact="row_mean",
        causes=tuple(_causes(profiles, output, limit)),
        evidence={"target_rms": target, "output_rms": output},
        fix="torch.nn.init.normal_(head.weight, std=0.02); torch.nn.init.zeros_(head.bias)",
    )


def _causes(profiles: Mapping[str, Profile], output: float, limit: float) -> Iterator[Cause]:
    scales = profiles["input_rms"].finite() if "input_rms" in profiles else ()
    inputs = max((value for _, value in scales), default=0.0)
    if inputs > LARGE_INPUT:
        yield Cause(
            f"inputs: their rms is {spell(inputs)}, and the outputs grow with it (UG607)", "unit_inputs"
        )
    yield from _growth(profiles)
    outputs = profiles.get("act_rms")
    labels = dict(zip(outputs.sites, outputs.labels, strict=True)) if outputs and outputs.labels else {}
    # The site without a path is the model itself, where it has no modules.
    sizes = [(value, site) for site, value in (outputs.finite() if outputs else ()) if site.path]
    most, site = max(sizes, key=lambda one: one[0], default=(0.0, None))
    if most < EXPLAINS * output:
        largest = f"no module puts out more than {spell(most)}" if sizes else "no module runs"
        yield Cause(
            f"between the modules: {largest}, and the output has an rms of {spell(output)}; what forward "
            "does itself makes it grow, as a product with weights that a module makes (too large by the root "
            "of their fan-in), or a loop whose steps are too long"
        )
        return
    if not inputs > LARGE_INPUT:
        yield from blame_signal(profiles, limit)
    last, head = sizes[-1]
    if last > EXPLAINS * output and labels.get(head) == "Linear":
        yield Cause(
            f"head: the outputs of {head} have an rms of {spell(last)}; smaller weights start lower",
            "scale_head",
            {"factor": 1 / last, "site": head.path},
            (0.0, limit),
        )
    else:
        yield Cause(
            f"scale: the outputs of {site} have an rms of {spell(most)}; look at what comes before it"
        )


def _growth(profiles: Mapping[str, Profile]) -> Iterator[Cause]:
    """Yield what makes the signal grow over the trunk, where it does by 20 dB or more."""
    trend = read_trend(profiles["forward_gain"]) if "forward_gain" in profiles else None
    if trend is not None and trend.low > 0 and trend.loop >= GREW_DB:
        yield explain_depth(profiles, profiles["forward_gain"].sites, trend.per_block, forward=True)[0]
