"""A visit to the clinic: what the diagnosis says of a program, and how that compares with the truth."""

import re
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from unitygain._case import Case
from unitygain._diagnose import check_causes, diagnose, isolated, judge, measure_all
from unitygain._registry import MEASURES, RULES
from unitygain._types import Finding
from zoo.clinic.program import Program
from zoo.diagnosis import SPECTRAL

Row = dict[str, Any]


def alarms(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that a user would be alarmed by, in the report's order."""
    return [finding for finding in findings if finding.severity != "info"]


def visit(program: Program, seed: int, *, spectra: bool = True) -> Row:
    """Diagnose the program that `seed` draws; the row holds the verdicts and what was said.

    Without `spectra` the costly measures that UG301 alone reads are left out, and so is UG301.
    """
    case, started = program.case(seed), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            findings = diagnose(case).findings if spectra else examine(case)
        except Exception as error:
            return {"name": program.name, "seed": seed, "kept": program.kept, "failed": repr(error)[:300]}
    loud = alarms(findings)
    first = loud[0].causes[0] if loud and loud[0].causes else None
    row: Row = {
        "name": program.name,
        "seed": seed,
        "kept": program.kept,
        "alarms": [f"{finding.code} {finding.message}" for finding in loud],
        "first": "" if first is None else f"{first.text} [{first.remedy or '-'}, {first.status}]",
        "seconds": round(time.process_time() - started, 2),
    }
    if program.truth is not None:
        row["cause"] = program.truth.cause
        row["flagged"] = bool(loud)
        row["detected"] = any(finding.code in program.truth.codes for finding in loud)
        row["first_cause"] = first is not None and program.truth.named(first)
        row["named"] = any(program.truth.named(cause) for finding in loud for cause in finding.causes)
    return row


def examine(case: Case) -> tuple[Finding, ...]:
    """Diagnose as `diagnose` does, without the measures that no other rule than UG301 reads."""
    rules = [rule for code, rule in RULES.items() if code != "UG301"]
    read = {name for rule in rules for name in (*rule.needs, *rule.wants)} - SPECTRAL
    chosen = [measure for name, measure in MEASURES.items() if name in read]
    with isolated(case, 0) as (subject, _):
        profiles, record, _ = measure_all(subject, None, 8, 0, lambda *_: None, chosen)
        return check_causes(subject, judge(profiles, rules), record, None, lambda *_: None)


def interval(hits: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    if not of:
        return 0.0, 1.0
    z, share = 1.959963984540054, hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * (share * (1 - share) / of + z * z / (4 * of * of)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def share(hits: int, of: int) -> str:
    """Write a share with its interval."""
    low, high = interval(hits, of)
    return f"{hits}/{of} = {100 * hits / of:.0f} % ({100 * low:.0f} to {100 * high:.0f})" if of else "-"


def table(rows: Sequence[Row]) -> dict[str, str]:
    """Return the shares over rows of sick and healthy programs."""
    sick = [row for row in rows if "cause" in row]
    well = [row for row in rows if "cause" not in row]
    answered = [row for row in rows if "failed" not in row]
    seconds = sorted(row["seconds"] for row in answered)
    return {
        "flagged": share(sum(row.get("flagged", False) for row in sick), len(sick)),
        "detected": share(sum(row.get("detected", False) for row in sick), len(sick)),
        "first cause": share(sum(row.get("first_cause", False) for row in sick), len(sick)),
        "false alarms": share(sum(bool(row.get("alarms")) for row in well), len(well)),
        "failed": share(len(rows) - len(answered), len(rows)),
        "median seconds": f"{seconds[len(seconds) // 2]:.1f}" if seconds else "-",
    }


def code_of(line: str) -> str:
    """Return the code that a line of alarms begins with."""
    found = re.match(r"UG\d+", line)
    return found.group() if found else ""
