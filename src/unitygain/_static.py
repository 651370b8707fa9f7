"""The static report: what can be said of a model on the meta device, which has no weights to measure."""

import os
from collections.abc import Callable, Iterable, Mapping

import torch

import unitygain.measures  # noqa: F401 (importing it fills the registry)
from unitygain._case import Case, CaseFailure
from unitygain._registry import MEASURES, Rule
from unitygain._types import NOT_JUDGED, Profile, Skipped
from unitygain.probe.record import Record
from unitygain.probe.sites import Select
from unitygain.probe.survey import survey
from unitygain.probe.trace import Gap

# The measures that need no more than the operations, and what the weights would be.
STATIC = ("param_rms", "param_trainable", "weight_gain", "phase_point", "predicted_gain")
WITHOUT = "the model is on meta: it has no weights, so that nothing was run and no cause tested"


def require_no_device(device: str | torch.device | None) -> None:
    """Refuse to move a model without weights.

    Raises:
        CaseFailure: If a device other than meta is asked for.
    """
    if device is not None and torch.device(device).type != "meta":
        raise CaseFailure(f"the model is on meta, which has no weights to move to {device}; build it there")


def measure_static(
    case: Case, sites: Select, seed: int, say: Callable[[int, int, str], None]
) -> tuple[dict[str, Profile], Record, tuple[Skipped, ...]]:
    """Run one forward pass of shapes, then the measures that need no numbers; the others are listed."""
    say(0, 1 + len(STATIC), "a forward pass of shapes")
    needs = dict.fromkeys(key for name in STATIC for key in (*MEASURES[name].needs, "entry.rms"))
    record = survey(case, needs, sites=sites, seed=seed)
    profiles: dict[str, Profile] = {}
    skipped = [*record.skipped]
    for index, name in enumerate(STATIC, start=1):
        say(index, 1 + len(STATIC), name)
        try:
            profile = MEASURES[name].compute(case, record)
        except Gap as reason:
            skipped.append(Skipped(name, str(reason)))
            continue
        except Exception as error:
            if os.environ.get("UNITYGAIN_STRICT"):
                raise
            skipped.append(Skipped(name, f"the measurement failed: {type(error).__name__}: {error}"))
            continue
        if profile is not None:
            profiles[name] = profile
    others = ", ".join(name for name in MEASURES if name not in STATIC)
    skipped.append(Skipped("measurement", f"{WITHOUT}; not measured: {others}"))
    say(1 + len(STATIC), 1 + len(STATIC), "done")
    return profiles, record, tuple(skipped)


def unjudged_static(profiles: Mapping[str, Profile], judges: Iterable[Rule]) -> tuple[Skipped, ...]:
    """Say which rules had nothing to judge, and why."""
    notes = []
    for rule in judges:
        if not rule.static:
            notes.append(Skipped(rule.code, f"{NOT_JUDGED}the model is on meta, and it needs a measurement"))
        elif not all(name in profiles for name in rule.static):
            notes.append(Skipped(rule.code, f"{NOT_JUDGED}no {' and '.join(rule.static)} here"))
    return tuple(notes)
