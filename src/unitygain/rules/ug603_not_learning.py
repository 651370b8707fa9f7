"""UG603: parameters that should learn and get no gradient, or are frozen where their neighbours train.

What it sees:
    Five things, told apart. Trainable parameters whose gradient is None: the loss does not depend on them,
    or a re-entrant checkpoint that runs them is handed nothing that requires a gradient.
    Trainable parameters whose gradient is exactly zero in every entry; where that is so for all of them, a
    loss of zero, or below half of a guess's cross-entropy, says that nothing is left to learn. Weights of
    zeros that get none before two others or more, one behind the other, have moved: a warning where the
    optimizer's step is in proportion to the gradient, information otherwise. A recurrent module that is
    called step by step, and at every step is handed its last state without its graph (`grad_steps` of 1): its
    parameters get a gradient, but of no earlier step. And frozen parameters: a warning where one layer is
    frozen and others of the very same kind, before and behind it, train, most of that kind or, where the
    trunk's weights still are a random draw, some of it; and where the frozen weights are half of the model or
    more, all look like a random draw (`frozen_drawn`), and hand on fewer numbers than they are given, so that
    what they lose is lost for good. Otherwise information, because a frozen backbone, a frozen first half or
    frozen normalisation is how fine-tuning is done, and random features, more than the inputs, are a method.

Why it matters:
    A parameter without a gradient is capacity, memory and optimizer state that never does anything, and
    most often a forgotten call, a detach() or a wrong name.

When it is a false alarm:
    One batch is one look: an expert of a mixture that no token chose, a layer that stochastic depth left
    out, an embedding table of a token type that did not occur. Experts are recognised by their name and
    reported as information; so is what cannot have a gradient where its kind does: biases beside weights that
    get one (a loss of differences or slopes), and the last of a series that each block hands to the next,
    such as the last backcast of N-BEATS or the last step of the coordinates. Behind a weight that starts at
    zero (a zero-initialised residual branch, the B matrix of LoRA, a zeroed head) everything has a zero
    gradient in the first step only: what starts at zero is moved along its gradient, and nothing is said of
    what gets one then. Weights that are given zeros now, as by a code that is rounded to zero and whose
    gradient goes straight through, get theirs when what runs before has moved.
    A rule of learning that is local in time by design cuts every state on purpose; of a
    truncation to two steps or more nothing is said.

Remedies:
    unfreeze; activation_init where weights start at zero in a row; call the module in forward; take
    detach() and no_grad() out of the path; checkpoint with use_reentrant=False; delete what is not used.

References:
    Zhang, Dauphin and Ma, "Fixup Initialization" (arXiv:1901.09321), section 3, and Hu et al., "LoRA"
    (arXiv:2106.09685), section 4.1, on weights that start at zero by design. Howard and Ruder, "Universal
    Language Model Fine-tuning" (arXiv:1801.06146), section 3.3, on freezing by layers.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> names = [Site(f"{part}.weight") for part in ("first", "forgotten", "head")]
    >>> trainable = Profile("param_trainable", "1 or 0", tuple(names), (1.0, 1.0, 1.0))
    >>> gradient = Profile("param_grad_rms", "rms", (names[0], names[2]), (0.1, 0.2))
    >>> [f.message for f in judge({"param_trainable": trainable, "param_grad_rms": gradient})]
    ['1 of 3 trainable parameters gets no gradient at all (None): forgotten']

A silent example:
    >>> gradient = Profile("param_grad_rms", "rms", tuple(names), (0.1, 0.1, 0.2))
    >>> list(judge({"param_trainable": trainable, "param_grad_rms": gradient}))
    []
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Severity, Site
from unitygain.rules._checkpoints import FIX, blame_checkpoint
from unitygain.rules._cut import judge_cut
from unitygain.rules._fixes import suggest
from unitygain.rules._frozen import judge_frozen
from unitygain.rules._layers import enclosing, within_any
from unitygain.rules._losses import LEARNT, read_entropy
from unitygain.rules._parameters import is_bias, list_owners, owner
from unitygain.rules._ranges import SMALLEST_NORMAL
from unitygain.rules._spare import find_spare
from unitygain.rules._zeros import blank_weights, judge_series, started_at_zero


@rule(
    code="UG603",
    name="parameter-not-learning",
    severity="warning",
    needs=("param_trainable",),
    wants=(
        "param_grad_rms",
        "backward_gain",
        "param_rms",
        "param_grad_delay",
        "update_ratio",
        "frozen_drawn",
        "grad_steps",
        "fake_logit_grad",
        "act_rms",
        "act_frac_dead",
        "act_frac_nonfinite",
        "grad_rescaled",
        "loss_value",
    ),
)
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield a finding each for unused, zero-gradient, short-sighted and frozen parameters."""
    trainable = [site for site, value in profiles["param_trainable"].items() if value]
    if "param_grad_rms" not in profiles:
        if trainable:
            yield _unused(trainable, len(trainable), profiles)
        return
    gradients = dict(profiles["param_grad_rms"].items())
    unused = [site for site in trainable if site not in gradients]
    zero = [] if _matters_not(profiles) else [site for site in trainable if gradients.get(site) == 0]
    if unused:
        yield _unused(unused, len(trainable), profiles)
    if zero and len(zero) == len(trainable):
        if not _satisfied(profiles):
            yield _without_gradient(zero, len(trainable), profiles)
    elif zero:
        reached = {owner(site) for site, value in gradients.items() if value > 0 and not is_bias(site)}
        # Behind a weight that gets one, what sums to zero in a bias are the samples, as in a balanced hinge.
        zero = [site for site in zero if not (is_bias(site) and owner(site) in reached)]
        zero = _not_behind_zero_weights(zero, gradients, profiles)
        if zero and not _given_zeros(zero, gradients, profiles):
            yield _without_gradient(zero, len(trainable), profiles)
        else:
            yield from judge_series(len(trainable), profiles)
    cut = judge_cut(profiles)
    if cut is not None:
        yield cut
    frozen = [site for site, value in profiles["param_trainable"].items() if not value]
    if frozen:
        yield judge_frozen(frozen, trainable, profiles)


def _unused(sites: list[Site], count: int, profiles: Mapping[str, Profile]) -> Finding:
    leaves = profiles["act_rms"].sites if "act_rms" in profiles else ()
    # A module that holds the parameter ran if it, or a part of it, made an output.
    called = {path for leaf in leaves for path in enclosing(leaf.path)}
    ran = [site for site in sites if owner(site) in called]
    asleep = len(sites) - len(ran)
    causes = blame_checkpoint(profiles)
    spare = [] if causes else find_spare(sites, leaves, profiles)
    fix = FIX if causes else "call these modules in forward, or delete them; look for detach() and no_grad()"
    if asleep:
        causes.append(Cause(f"the modules of {asleep} of them are not called in the forward pass"))
    if ran:
        causes.append(
            Cause(f"the outputs of {list_owners(ran)} do not reach the loss, or are detached on the way")
        )
    routed = all("expert" in site.path for site in sites)
    severity: Severity = "info" if routed or spare else "warning"
    gets = "gets" if len(sites) == 1 else "get"
    return Finding(
        "UG603",
        "parameter-not-learning",
        severity,
        f"{len(sites)} of {count} trainable parameters {gets} no gradient at all (None): "
        f"{list_owners(sites)}",
        tuple(sites),
        "param_trainable",
        float(len(sites)),
        "trainable parameters without a gradient",
        1.0,
        fact="without_gradient",
        causes=tuple(spare or causes),
        evidence={"without gradient": len(sites), "trainable": count},
        fix=fix,
    )


def _without_gradient(sites: list[Site], count: int, profiles: Mapping[str, Profile]) -> Finding:
    dead = (
        [site for site, value in profiles["act_frac_dead"].items() if value == 1]
        if ("act_frac_dead" in profiles)
        else []
    )
    lost = _lost(sites, profiles.get("grad_rescaled"))
    zeros = blank_weights(sites, profiles)
    causes = [started_at_zero(zeros)] if zeros else []
    if dead:
        causes.append(Cause(f"no unit of {dead[0]} is on for any input of the batch (UG206)"))
    if lost:
        causes.append(
            Cause(f"the dtype cannot hold a gradient as small as that of {lost[-1]} (UG501, UG503)")
        )
    causes.extend(_steps(profiles))
    causes.append(Cause("the path to the loss multiplies by zero: a mask, a gate, a clamp, or a rounding"))
    # Where another finding names the reason, this one adds only the list.
    explained = bool(dead or lost) or all("expert" in site.path for site in sites)
    severity: Severity = "info" if explained else "warning"
    return Finding(
        "UG603",
        "parameter-not-learning",
        severity,
        f"the gradient of {len(sites)} of {count} trainable parameters is exactly zero: {list_owners(sites)}",
        tuple(dict.fromkeys((*zeros, *sites))),
        "param_grad_rms",
        0.0,
        "rms of dL/d(parameter)",
        0.0,
        causes=tuple(causes),
        evidence={"zero gradient": len(sites), "trainable": count},
        fix=suggest(causes)
        or "follow the path from these parameters to the loss and find the factor that is zero",
    )


def _steps(profiles: Mapping[str, Profile]) -> Iterator[Cause]:
    """Yield a function of steps on the way to the loss."""
    loss = profiles.get("loss_value")
    function = str(loss.facts.get("step_function", "")) if loss else ""
    if function:
        yield Cause(
            f"steps: the path to the loss goes through {function}, whose slope is 0 everywhere; hand the "
            "gradient straight through (x + (step(x) - x).detach()), or use a smooth function"
        )


def _not_behind_zero_weights(
    sites: Sequence[Site], gradients: Mapping[Site, float], profiles: Mapping[str, Profile]
) -> list[Site]:
    """The `sites` that stay without a gradient when what starts at zero moves.

    Where that was not tried, those with no weight that is zero, and gets a gradient, behind them or in the
    same part.
    """
    delays = profiles.get("param_grad_delay")
    if delays is not None:
        never = {site for site, steps in delays.items() if math.isinf(steps)}
        left = [site for site in sites if site in never]
        return left if any(not is_bias(site) for site in left) else []
    sizes = profiles.get("param_rms")
    order = {place: index for index, place in enumerate(sizes.sites)} if sizes else {}
    zeros = [
        p
        for p, v in (sizes.items() if sizes else ())
        if v == 0 and not is_bias(p) and gradients.get(p, 0.0) > 0
    ]
    last = max((order[zero] for zero in zeros), default=-1)
    parts = {_part(zero) for zero in zeros}
    # A parameter of a block itself, beside the modules that the block holds, acts on what they make.
    gates = {owner(zero) for zero in zeros} - {""}
    return [
        site
        for site in sites
        if order.get(site, -1) >= last
        and _part(site) not in parts
        and not any(place in gates for place in enclosing(_part(site)))
    ]


def _given_zeros(
    sites: Sequence[Site], gradients: Mapping[Site, float], profiles: Mapping[str, Profile]
) -> bool:
    """Whether all are weights that are given zeros now, by what learns and will give others.

    The bias beside such a weight gets a gradient, and so does what runs before, as where a code is rounded to
    zero and its gradient goes straight through.
    """
    leaves = [leaf.path for leaf in profiles["act_rms"].sites] if "act_rms" in profiles else []
    moved = {owner(site) for site, value in gradients.items() if value > 0}
    return all(
        not is_bias(site)
        and owner(site) in moved
        and owner(site) in leaves
        and moved.intersection(leaves[: leaves.index(owner(site))])
        for site in sites
    )


def _part(site: Site) -> str:
    """The module that holds the parameter's module; a parameter of the model's own children stands alone."""
    return owner(site).rpartition(".")[0] or site.path


def _matters_not(profiles: Mapping[str, Profile]) -> bool:
    """Whether a zero gradient there says nothing: a non-finite pass leaves zeros and NaN anywhere."""
    broken = profiles.get("act_frac_nonfinite")
    return broken is not None and any(value > 0 for value in broken.values)


def _satisfied(profiles: Mapping[str, Profile]) -> bool:
    """Whether nothing is left to learn: a hinge at zero, or the cross-entropy of a model that knows."""
    loss = profiles.get("loss_value")
    read = read_entropy(loss) if loss else None
    return read[0] < LEARNT * read[1] if read else loss is None or loss.values[0] == 0


def _lost(sites: Sequence[Site], rescaled: Profile | None) -> list[Site]:
    """Modules of the parameters whose output has a gradient in float64, too small for the run's dtype."""
    if rescaled is None:
        return []
    owners = {owner(site) for site in sites} - {""}
    labels = dict(zip(rescaled.sites, rescaled.labels, strict=True))
    return [
        site
        for site, value in rescaled.finite()
        if within_any(site.path, owners) and value < math.log10(SMALLEST_NORMAL.get(labels[site], 1.0))
    ]
