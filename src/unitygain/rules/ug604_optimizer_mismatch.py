"""UG604: trainable parameters that the optimizer does not hold, or frozen ones that it does.

What it sees:
    Each parameter's requires_grad beside its membership in the optimizer's groups. Trainable and not held:
    a warning, and an error where the optimizer holds none of the model's parameters at all. Frozen and
    held: information. And parameters that get a gradient of the loss and that the model does not register,
    because a plain list, tuple or dict holds their module: a warning, unless the optimizer was given them.

Why it matters:
    A parameter that no optimizer holds gets a gradient in every step and never moves. The usual reasons:
    the optimizer was built before a head was replaced, before the model was copied or moved in a way that
    made new parameters, or from the parameters of a part. Nothing in the loop complains.

When it is a false alarm:
    Where several optimizers share the work (an actor and a critic) and the case declares one of them. Where
    what is not held is the discriminator of a game, it is information. A frozen parameter in the optimizer is
    harmless: its gradient is None, and a step leaves it alone.

Remedies:
    nn.ModuleList, nn.ModuleDict or nn.ParameterList in the place of a plain container. Build the optimizer
    last, from model.parameters(); optimizer.add_param_group for what came later.

References:
    The page of torch.optim in PyTorch's documentation, section "Constructing it", on moving a model before
    its optimizer is constructed.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> sites = (Site("body.weight"), Site("head.weight"))
    >>> def found(*labels):
    ...     profile = Profile("param_trainable", "1 or 0", sites, (1.0, 1.0), labels=labels)
    ...     return judge({"param_trainable": profile})
    >>> [(f.severity, f.message) for f in found("in optimizer", "not in optimizer")]
    [('warning', 'the optimizer does not hold 1 of 2 trainable parameters: head')]

A silent example:
    >>> list(found("in optimizer", "in optimizer")), list(found("no optimizer", "no optimizer"))
    ([], [])
"""

from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Severity, Site
from unitygain.rules._layers import within_any
from unitygain.rules._parameters import list_names, list_owners

HELD = "in optimizer"
NOT_HELD = "not in optimizer"


@rule(
    code="UG604",
    name="optimizer-mismatch",
    severity="error",
    needs=("param_trainable",),
    static=("param_trainable",),
    wants=("fake_logit_grad", "unregistered_grad_rms"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield one finding for trainable parameters not held or not registered, one for frozen ones held."""
    hidden = profiles.get("unregistered_grad_rms")
    if hidden is not None and float(hidden.facts["not_held"]):
        yield _unregistered(hidden)
    profile = profiles["param_trainable"]
    if not profile.labels:
        return
    entries = list(zip(profile.sites, profile.values, profile.labels, strict=True))
    trainable = [site for site, value, _ in entries if value]
    missing = [site for site, value, label in entries if value and label == NOT_HELD]
    held = any(label == HELD for _, _, label in entries)
    idle = [site for site, value, label in entries if not value and label == HELD]
    if missing:
        yield _missing(missing, len(trainable), held, shared=_of_the_other_player(missing, profiles))
    if idle:
        yield Finding(
            "UG604",
            "optimizer-mismatch",
            "info",
            f"the optimizer holds {len(idle)} frozen parameters, which it leaves alone: {list_owners(idle)}",
            tuple(idle),
            "param_trainable",
            float(len(idle)),
            "frozen parameters in the optimizer",
            1.0,
            fact="frozen_held",
            causes=(Cause("the optimizer was built from all parameters, before or after some were frozen"),),
            fix="optimizer = make([p for p in model.parameters() if p.requires_grad])",
        )


def _of_the_other_player(sites: list[Site], profiles: Mapping[str, Profile]) -> bool:
    """Whether all `sites` are of a game's discriminator, which has an optimizer of its own."""
    game = profiles.get("fake_logit_grad")
    judges = {site.path for site in game.sites} if game else set()
    return bool(judges) and all(within_any(site.path, judges) for site in sites)


def _unregistered(hidden: Profile) -> Finding:
    sites = tuple(site for site, label in zip(hidden.sites, hidden.labels, strict=True) if label != HELD)
    containers = str(hidden.facts["containers"])
    take, are = ("parameter takes", "is") if len(sites) == 1 else ("parameters take", "are")
    return Finding(
        "UG604",
        "optimizer-mismatch",
        "warning",
        f"{len(sites)} {take} part in the loss and {are} not registered in the model: "
        f"{list_names(sites)}; model.parameters() leaves out what a plain container holds, "
        "and no step moves it",
        sites,
        "unregistered_grad_rms",
        float(len(sites)),
        "parameters with a gradient that the model does not register and the optimizer does not hold",
        1.0,
        fact="not_held",
        causes=(
            Cause(f"a plain Python list, tuple or dict holds their modules ({containers}): not registered"),
            Cause("another optimizer, which the case does not declare, holds them"),
        ),
        evidence={"containers": containers},
        fix="self.layers = nn.ModuleList(self.layers)  # or nn.ModuleDict, nn.ParameterList",
    )


def _missing(sites: list[Site], count: int, held: bool, *, shared: bool) -> Finding:
    severity: Severity = "error" if not held else "info" if shared else "warning"
    names = list_owners(sites)
    if held:
        message = f"the optimizer does not hold {len(sites)} of {count} trainable parameters: {names}"
        text = f"the optimizer was not given {names}: it was built before they came to be, or from a part"
    else:
        message = f"the optimizer holds none of the {count} trainable parameters: no step changes the model"
        text = "the optimizer was built over another model: before a copy, a compilation or a conversion"
    causes = [Cause(text, "hold_parameters", {}, (0.0, 0.0))]
    if held:
        causes.insert(
            0 if shared else 1, Cause("another optimizer, which the case does not declare, holds them")
        )
    return Finding(
        "UG604",
        "optimizer-mismatch",
        severity,
        message,
        tuple(sites),
        "param_trainable",
        float(len(sites)),
        "trainable parameters that the optimizer does not hold",
        1.0,
        fact="trainable_not_held",
        causes=tuple(causes),
        evidence={"not held": len(sites), "trainable": count},
        fix="build the optimizer last: optimizer = make(model.parameters())",
    )
