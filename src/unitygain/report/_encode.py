"""A report to JSON, schema 1: lossless, and blind to objects that it does not know."""

import json
import math
import numbers
from collections.abc import Mapping
from typing import Any

from unitygain._trial import Trial
from unitygain._types import Cause, Finding, Profile, Site, Skipped

SCHEMA = 1
KIND = "unitygain report"
DEPTH = 16
_ITEMS = 10_000
_BITS = 4096


def encode(
    case: Mapping[str, Any],
    profiles: Mapping[str, Profile],
    findings: tuple[Finding, ...],
    skipped: tuple[Skipped, ...],
    seconds: float,
    trials: tuple[Trial, ...] = (),
    conclusion: str = "",
) -> str:
    """Return the parts of a report as JSON text in ASCII."""
    tree = {
        "kind": KIND,
        "schema": SCHEMA,
        "case": _plain_map(case),
        "findings": [_from_finding(finding) for finding in findings],
        "profiles": {name: _from_profile(profile) for name, profile in profiles.items()},
        "skipped": [[item.what, item.reason] for item in skipped],
        "seconds": _float(seconds),
        "trials": [_from_trial(trial) for trial in trials],
        "conclusion": conclusion,
    }
    return json.dumps(tree, allow_nan=False, separators=(",", ":"))


def _float(value: float) -> float | int | str:
    """A number as JSON can hold it: NaN and infinity are not JSON, so they are words."""
    if type(value) is int:
        return value
    exact = float(value)
    if math.isnan(exact):
        return "NaN"
    return exact if math.isfinite(exact) else ("Infinity" if exact > 0 else "-Infinity")


def _floats(values: tuple[float, ...] | None) -> list[Any] | None:
    return None if values is None else [_float(value) for value in values]


def _pairs(values: tuple[tuple[float, float], ...] | None) -> list[Any] | None:
    return None if values is None else [_floats(pair) for pair in values]


def _plain(value: Any, depth: int = 0) -> Any:
    """Any value, tagged where JSON would lose its kind; a foreign object leaves only its type's name."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, numbers.Integral):
        exact = int(value)
        return exact if exact.bit_length() <= _BITS else _foreign(value)
    if isinstance(value, numbers.Real):
        exact = _float(float(value))
        return {"float": exact} if isinstance(exact, str) else exact
    if isinstance(value, (list, tuple)) and len(value) <= _ITEMS and depth < DEPTH:
        items = [_plain(item, depth + 1) for item in value]
        return items if isinstance(value, tuple) else {"list": items}
    if isinstance(value, Mapping) and len(value) <= _ITEMS and depth < DEPTH and _named(value):
        return {"map": {key: _plain(item, depth + 1) for key, item in value.items()}}
    return _foreign(value)


def _named(value: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) for key in value)


def _foreign(value: object) -> dict[str, str]:
    return {"object": type(value).__name__}


def _plain_map(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in values.items()}


def _from_site(site: Site) -> list[Any]:
    return [site.path, site.call, site.leaf, site.time]


def _from_profile(profile: Profile) -> dict[str, Any]:
    tree = {
        "name": profile.name,
        "unit": profile.unit,
        "sites": [_from_site(site) for site in profile.sites],
        "values": _floats(profile.values),
        "error": _floats(profile.error),
        "expected": _floats(profile.expected),
        "interval": _pairs(profile.interval),
        "p_value": _floats(profile.p_value),
        "columns": list(profile.columns),
        "rows": [_floats(row) for row in profile.rows],
        "labels": list(profile.labels),
        "facts": _plain_map(profile.facts),
        "note": profile.note,
    }
    return {key: value for key, value in tree.items() if value is not None}


def _from_cause(cause: Cause) -> dict[str, Any]:
    return {
        "text": cause.text,
        "remedy": cause.remedy,
        "parameters": _plain_map(cause.parameters),
        "predicted": _floats(cause.predicted),
        "status": cause.status,
        "measured": None if cause.measured is None else _float(cause.measured),
        "note": cause.note,
    }


def _from_finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity,
        "message": finding.message,
        "sites": [_from_site(site) for site in finding.sites],
        "quantity": finding.quantity,
        "fact": finding.fact,
        "value": _float(finding.value),
        "unit": finding.unit,
        "threshold": _float(finding.threshold),
        "interval": _floats(finding.interval),
        "expected": None if finding.expected is None else _float(finding.expected),
        "p_value": None if finding.p_value is None else _float(finding.p_value),
        "causes": [_from_cause(cause) for cause in finding.causes],
        "evidence": _plain_map(finding.evidence),
        "fix": finding.fix,
    }


def _from_trial(trial: Trial) -> dict[str, Any]:
    return {
        "remedies": list(trial.remedies),
        "parameters": [_plain_map(given) for given in trial.parameters],
        "treats": list(trial.treats),
        "verdict": trial.verdict,
        "loss": _float(trial.loss),
        "better": _float(trial.better),
        "interval": _floats(trial.interval),
        "seeds": trial.seeds,
        "steps": trial.steps,
        "seconds_per_step": _float(trial.seconds_per_step),
        "quantity": trial.quantity,
        "before": _float(trial.before),
        "after": _float(trial.after),
        "predicted": _floats(trial.predicted),
        "cleared": list(trial.cleared),
        "left": list(trial.left),
        "code": trial.code,
        "note": trial.note,
        "changes": trial.changes,
        "first": _float(trial.first),
        "profiles": {name: _from_profile(profile) for name, profile in trial.profiles.items()},
    }
