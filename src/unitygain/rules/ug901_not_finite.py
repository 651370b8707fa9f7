"""UG901: a number is infinite or NaN.

What it sees:
    The first operation, forward and then backward, that makes an infinity or a NaN from finite numbers: its
    module, its name, the direction, and for the forward pass the file and line of the user's code. A batch
    or a parameter that was not finite to begin with is named itself. Through labels and inputs no gradient
    passes; an infinity that was made of them, as by the logarithm of a label of 0, is named with the
    operation that makes a NaN of it. Where the operation could not be found, the first output, then the
    last gradient, that is not finite.

Why it matters:
    After one NaN everything behind it is NaN, and after one step so is the model. An infinity becomes NaN
    at the first difference, product with zero or normalisation. None of it is a gradient that vanished or
    exploded: quantities of this pass are not judged by other rules. What is divided by an infinity is zero,
    and so is its gradient: in float16 a sum of squares does that, and nothing else of it is seen.

When it is a false alarm:
    A loss that is infinite by definition for some samples and is masked afterwards: the gradient of the
    masked entry is still zero times infinity, which is NaN. Minus infinity in an attention mask is not
    counted.

Remedies:
    By operation: log of x + eps or log_softmax; a bound under the divisor; eps under the square root;
    logsumexp instead of exp; change_precision; samples and parameters looked at before the run.

References:
    IEEE 754-2019, sections 6 and 7, on infinities, NaN and the five exceptions. The note "Numerical
    accuracy" in PyTorch's documentation.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> facts = {"operation": "log", "direction": "forward", "line": "loss.py:12", "kind": "infinity"}
    >>> origin = Profile("nonfinite_origin", "1", (Site("head"),), (1.0,), labels=("log",), facts=facts)
    >>> outputs = Profile("act_frac_nonfinite", "fraction", (Site("head"),), (0.5,))
    >>> loss = Profile("loss_value", "nats", (Site(""),), (float("inf"),))
    >>> found = judge({"act_frac_nonfinite": outputs, "nonfinite_origin": origin, "loss_value": loss})
    >>> [f.message for f in found]
    ['log at head (forward, loss.py:12) makes the 1st infinity, from numbers without one']

A silent example:
    >>> outputs = Profile("act_frac_nonfinite", "fraction", (Site("head"),), (0.0,))
    >>> list(judge({"act_frac_nonfinite": outputs}))
    []
"""

import math
from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Site
from unitygain.rules._numbers import spell
from unitygain.rules._operations import BY_RANGE, CAUSES

WORDS = {"NaN": "NaN", "infinity": "infinity"}
UNKNOWN = Cause("an operation without a module of its own, such as one of the loss or of a custom kernel")


@rule(
    code="UG901",
    name="not-finite",
    severity="error",
    needs=("act_frac_nonfinite",),
    wants=(
        "nonfinite_origin",
        "nonfinite_later",
        "grad_frac_nonfinite",
        "param_grad_rms",
        "loss_value",
        "act_headroom",
    ),
)
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield one finding for the first number that is not finite."""
    origin = profiles.get("nonfinite_origin")
    harmed = _harmed(profiles)
    if origin is not None:
        yield _from_origin(origin, profiles, harmed)
    elif harmed:
        yield _without_origin(profiles)
    elif "nonfinite_later" in profiles:
        yield _from_origin(profiles["nonfinite_later"], profiles, harmed=True)


def _harmed(profiles: Mapping[str, Profile]) -> bool:
    """Whether the loss or a gradient is not finite: an output may be minus infinity under a mask."""
    loss = profiles.get("loss_value")
    fractions, sizes = profiles.get("grad_frac_nonfinite"), profiles.get("param_grad_rms")
    return (
        (loss is not None and not math.isfinite(loss.values[0]))
        or (fractions is not None and any(value > 0 for value in fractions.values))
        or (sizes is not None and not all(map(math.isfinite, sizes.values)))
    )


def _silenced(profiles: Mapping[str, Profile]) -> bool:
    """Whether half of the gradients or more are exactly zero: what an infinity divides is."""
    sizes = profiles.get("param_grad_rms")
    return sizes is not None and 2 * sum(value == 0 for value in sizes.values) >= len(sizes.values) > 0


def _without_origin(profiles: Mapping[str, Profile]) -> Finding:
    """What is known where the operation was not found: the first output, or the last gradient."""
    for name, order, direction in (
        ("act_frac_nonfinite", 1, "forward"),
        ("grad_frac_nonfinite", -1, "backward"),
    ):
        profile = profiles.get(name)
        sick = [(s, v) for s, v in profile.items() if v > 0][::order] if profile else []
        if sick:
            return _from_fraction(profiles[name], sick, direction)
    loss = profiles.get("loss_value")
    if loss is not None and not math.isfinite(loss.values[0]):
        return _from_loss(loss)
    return _from_gradient(profiles["param_grad_rms"])


def _from_origin(origin: Profile, profiles: Mapping[str, Profile], harmed: bool) -> Finding:
    facts = origin.facts
    site, operation, direction = origin.sites[0], str(facts["operation"]), str(facts["direction"])
    kind = WORDS.get(str(facts.get("kind")), "number that is not finite")
    line = str(facts.get("line", "")).rpartition("/")[2].rpartition("\\")[2]
    if operation in {"input", "parameter"}:
        message = f"the {operation} {_name(site)} holds the 1st {kind}, before anything is computed"
    else:
        where = f"{direction}, {line}" if line else direction
        message = f"{operation} at {_name(site)} ({where}) makes the 1st {kind}, from numbers without one"
        message += f", of which {facts['then']} makes a NaN" if "then" in facts else ""
    message += (
        f"; batch {int(float(facts['batch']))} of the drawn ones, of which 0 is finite"
        if "batch" in facts
        else ""
    )
    silent = not harmed and kind == "infinity" and _silenced(profiles)
    message += "; it ends in zeros, and most gradients with it" if silent else ""
    return Finding(
        "UG901",
        "not-finite",
        "error" if harmed or silent else "info",
        message,
        (site,),
        origin.name,
        1.0,
        origin.unit,
        0.0,
        causes=tuple(_causes(operation, direction, profiles, facts)),
        evidence={name: value for name, value in facts.items() if value != ""} | _spread(profiles),
        fix=_fix(operation),
    )


def _causes(
    operation: str, direction: str, profiles: Mapping[str, Profile], facts: Mapping[str, float | str]
) -> Iterator[Cause]:
    name = _plain(operation)
    if operation == "input":
        yield Cause("data: a sample holds a number that is not finite; find and drop it, or fill it in")
        return
    if operation == "parameter":
        yield Cause("parameter: an earlier step wrote it; go back to a checkpoint before that step")
        return
    room = profiles.get("act_headroom")
    beyond = [s for s, bits in room.finite() if bits < 0] if room else []
    if beyond or (facts.get("dtype") == "float16" and name in BY_RANGE):
        place = beyond[0] if beyond else ""
        yield Cause(
            f"range: in float64 the output of {place} is finite; float16 ends at 65504 (UG502)"
            if beyond
            else "range: the result is above 65504, where float16 ends"
        )
    fed = "fed" in facts and "softmax" not in name
    if fed:
        yield Cause(f"infinity: one that was written by hand enters {name}; 0 · inf and inf - inf are NaN")
    for names, forward, backward in CAUSES:
        if name in names:
            yield Cause(forward if direction == "forward" else backward)
    if name not in {entry for names, _, _ in CAUSES for entry in names} | set(BY_RANGE) and not fed:
        yield Cause(f"{name}: look at what enters it, zeros and ends of its domain first")
    if name in BY_RANGE and not beyond and not fed:
        yield Cause(f"growth: the numbers that enter {name} are so large that the result leaves its dtype")


def _plain(operation: str) -> str:
    """The operation behind the node of the graph: ``LogBackward0 (div)`` is the backward of log."""
    node, _, inner = operation.partition("Backward")
    if not inner:
        return operation
    words = {"LinalgVectorNorm": "linalg_vector_norm", "LogSoftmax": "_log_softmax", "Softmax": "_softmax"}
    return words.get(node, node.lower())


def _from_fraction(profile: Profile, sick: list[tuple[Site, float]], direction: str) -> Finding:
    site, share = sick[0]
    what = "output" if direction == "forward" else "gradient"
    return Finding(
        "UG901",
        "not-finite",
        "error",
        f"{spell(share)} of the {what} of {_name(site)} is infinite or NaN, first of {len(sick)} such sites "
        f"({direction}); the operation was not found",
        tuple(place for place, _ in sick),
        profile.name,
        share,
        profile.unit,
        0.0,
        causes=(UNKNOWN,),
        evidence={"direction": direction, "sites": len(sick)},
        fix="assert torch.isfinite(x).all() around this module shows which of its operations it is",
    )


def _from_loss(loss: Profile) -> Finding:
    return Finding(
        "UG901",
        "not-finite",
        "error",
        f"the loss is {loss.values[0]}, though every module's output is finite: the loss function makes it",
        loss.sites,
        "loss_value",
        loss.values[0],
        loss.unit,
        0.0,
        causes=(UNKNOWN,),
        fix="assert torch.isfinite(x).all() between the lines of the loss shows which operation it is",
    )


def _from_gradient(sizes: Profile) -> Finding:
    sick = [(site, value) for site, value in sizes.items() if not math.isfinite(value)]
    return Finding(
        "UG901",
        "not-finite",
        "error",
        f"the gradient of {len(sick)} parameters is {sick[0][1]} or the like, though the loss is finite: "
        f"{sick[0][0]}",
        tuple(site for site, _ in sick),
        "param_grad_rms",
        sick[0][1],
        sizes.unit,
        0.0,
        causes=(UNKNOWN,),
        evidence={"direction": "backward", "parameters": len(sick)},
        fix="torch.autograd.detect_anomaly() names the operation of the backward pass",
    )


def _spread(profiles: Mapping[str, Profile]) -> dict[str, float | str]:
    """How far it spread: sites with outputs and gradients that are not finite."""
    found: dict[str, float | str] = {}
    for name, words in (("act_frac_nonfinite", "outputs"), ("grad_frac_nonfinite", "gradients")):
        if name in profiles:
            found[f"{words} that are not finite"] = sum(value > 0 for value in profiles[name].values)
    return found


def _name(site: Site) -> str:
    return "the model or its loss" if site == Site("") else str(site)


def _fix(operation: str) -> str:
    fixes = {
        "log": "torch.log(x.clamp_min(1e-6)), or torch.nn.functional.log_softmax(logits, -1)",
        "div": "x / y.clamp_min(1e-6)",
        "sqrt": "torch.sqrt(x + 1e-12)",
        "logit": "torch.logit(x, eps=1e-6)",
        "exp": "torch.logsumexp(x, -1), or torch.exp(x - x.amax(-1, keepdim=True))",
        "input": "batch = batch[torch.isfinite(batch).flatten(1).all(1)]",
    }
    return fixes.get(_plain(operation), "")
