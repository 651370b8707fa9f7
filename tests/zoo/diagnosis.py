"""Diagnoses of the zoo, each made once in a test run: what the contracts of the rules read."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import nn

import unitygain.measures
import unitygain.rules
from unitygain._case import Case
from unitygain._diagnose import check_causes, isolated, judge, measure_all
from unitygain._registry import MEASURES, RULES, Measure
from unitygain._types import Finding, Profile
from unitygain.report import Report
from zoo.patient import Patient

assert unitygain.measures
assert unitygain.rules

# The spectrum of a whole trunk takes hundreds of passes: it is measured where a verdict on it is asked for.
SPECTRAL = {"chain_gain", "log_spectrum", "jacobian_sigma_max"}
CONDITIONED = {
    "mlp-relu-he-20",
    "mlp-selu-lecun-16",
    "mlp-residual-norm-24",
    "cnn-vgg",
    "generative-flow-calm-8",
    "generative-autoencoder-relu",
    "transformer-pre-norm-12",
}


@dataclass
class Shared:
    """Where the processes of one test run keep their diagnoses for each other; nowhere in a single one."""

    folder: Path | None = None


SHARED = Shared()


@dataclass(frozen=True)
class Diagnosis:
    """What was found in a patient: profiles, findings with checked causes, and the names of its modules."""

    patient: Patient
    profiles: dict[str, Profile]
    findings: tuple[Finding, ...]
    names: frozenset[str]
    architecture: frozenset[str]

    @property
    def codes(self) -> set[str]:
        """The codes that were found."""
        return {finding.code for finding in self.findings}


@cache
def diagnose(patient: Patient) -> Diagnosis:
    """Return the diagnosis of a patient, with all rules and all measures that they read."""
    case = patient.make_case()
    kept = SHARED.folder / f"{patient.name}.json" if SHARED.folder else None
    if kept is not None and kept.exists():
        report = Report.from_json(kept.read_bytes())
    else:
        report = examine(patient, case)
        if kept is not None:
            report.save(kept)
    return Diagnosis(patient, dict(report.profiles), report.findings, names_of(case), architecture_of(case))


def examine(patient: Patient, case: Case) -> Report:
    """Measure and judge a case of the patient, and test the causes."""
    rules = list(RULES.values())
    chosen = list(measures_for(patient))
    with isolated(case, 0) as (subject, _):
        profiles, record, skipped = measure_all(subject, None, 8, 0, lambda *_: None, chosen)
        failed = [note for note in skipped if note.what in MEASURES and note.what not in patient.gaps]
        assert not failed, failed
        findings = check_causes(subject, judge(profiles, rules), record, None, lambda *_: None)
    return Report({}, profiles, findings, skipped, 0.0)


def measures_for(patient: Patient) -> list[Measure]:
    """Return the measures that rules read; the costly ones only where their verdict is asked for."""
    read = {name for rule in RULES.values() for name in (*rule.needs, *rule.wants)}
    asked = patient.name in CONDITIONED or "UG301" in (*patient.sick, *patient.also, *patient.near)
    return [item for name, item in MEASURES.items() if name in read and (asked or name not in SPECTRAL)]


def names_of(case: Case) -> frozenset[str]:
    """Return every path that a site may have: modules and parameters."""
    modules = {path for path, _ in case.model.named_modules()}
    return frozenset(modules | {name for name, _ in case.model.named_parameters()})


def architecture_of(case: Case) -> frozenset[str]:
    """Return the classes of the model's leaf modules: models of other parts are of other architecture."""
    leaves: list[nn.Module] = [m for m in case.model.modules() if not any(True for _ in m.children())]
    return frozenset(type(leaf).__name__ for leaf in leaves)
