"""Checks a cause by removal: on a copy that cause alone is taken away, and the value must move as stated."""

import dataclasses
import math
import os
from collections.abc import Callable

from unitygain._case import Case, CaseFailure
from unitygain._registry import MEASURES, REMEDIES
from unitygain._types import Cause, Finding
from unitygain.probe.observe import observe
from unitygain.probe.record import Record
from unitygain.probe.sites import Select
from unitygain.probe.trace import Gap


def check_causes(
    case: Case,
    findings: tuple[Finding, ...],
    record: Record,
    sites: Select,
    say: Callable[[int, int, str], None],
) -> tuple[Finding, ...]:
    """Return the findings with the first cause of each confirmed, refuted or left untested with the reason.

    Where the first is refuted, and its removal did not bring the value half of the way (in its logarithm) to
    where it should, the next is tested, and so on; such causes come last.

    Args:
        case: An isolated case; a copy of it is changed for each cause and thrown away.
        findings: What the rules found.
        record: The record of the plain pass, for its probes and seed.
        sites: The choice of sites of the plain pass.
        say: Progress, called with (done, total, what).

    Returns:
        The findings in the same order.

    Side effects:
        None on `case`. Costs one copy of the model and one pass per finding with a testable cause, and as
        much again for each cause that is refuted.
    """
    checked = []
    for index, finding in enumerate(findings):
        say(index, len(findings), f"testing the cause of {finding.code}")
        checked.append(dataclasses.replace(finding, causes=_check_in_turn(case, finding, record, sites)))
    say(len(findings), len(findings), "done")
    return tuple(checked)


def _check_in_turn(case: Case, finding: Finding, record: Record, sites: Select) -> tuple[Cause, ...]:
    wrong: list[Cause] = []
    for index, cause in enumerate(finding.causes):
        tested = _check(case, finding, cause, record, sites)
        if tested.status != "refuted" or _went_half(tested, finding.value):
            return (tested, *finding.causes[index + 1 :], *wrong)
        wrong.append(tested)
    return tuple(wrong)


def _went_half(cause: Cause, before: float) -> bool:
    """Whether the removal brought the value at least half of the way to where it was predicted."""
    assert cause.predicted is not None
    assert cause.measured is not None
    low, high = cause.predicted
    numbers = [before, cause.measured, low, high]
    if min(numbers) > 0:
        before, after, low, high = map(math.log, numbers)
    else:
        before, after, low, high = numbers
    left, whole = (max(low - value, value - high, 0.0) for value in (after, before))
    return left <= whole / 2


def _check(case: Case, finding: Finding, cause: Cause, record: Record, sites: Select) -> Cause:
    if cause.remedy is None or cause.predicted is None:
        return dataclasses.replace(cause, note=cause.note or "no change to the model takes it away alone")
    try:
        twin = case.copy()
    except Exception as error:
        return dataclasses.replace(
            cause, note=f"the model could not be copied ({type(error).__name__}: {error})"
        )
    try:
        REMEDIES[cause.remedy].apply(twin, **cause.parameters)
        measured = _measure_again(twin, finding, record, sites)
    except (CaseFailure, Gap) as error:
        return dataclasses.replace(cause, note=f"the test failed: {error}")
    except Exception as error:
        if os.environ.get("UNITYGAIN_STRICT"):
            raise
        return dataclasses.replace(cause, note=f"the test failed: {type(error).__name__}: {error}")
    low, high = cause.predicted
    if measured is None or math.isnan(measured):
        return dataclasses.replace(cause, note="the value could not be measured after the removal")
    status = "confirmed" if low <= measured <= high else "refuted"
    return dataclasses.replace(cause, status=status, measured=measured)


def _measure_again(case: Case, finding: Finding, record: Record, sites: Select) -> float | None:
    item = MEASURES[finding.quantity]
    probes, seed = int(record.facts["probes"]), int(record.facts["seed"])
    again = observe(case, item.needs, sites=sites, probes=probes, seed=seed)
    profile = item.compute(case, again)
    return None if profile is None else finding.reread({finding.quantity: profile})
