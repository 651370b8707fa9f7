"""What every rule promises: it fires on its patients, names place and number, leaves the healthy in peace."""

import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from zoo import DRAWS, HEALTHY, PATIENTS, SEED, SICK
from zoo.diagnosis import CONDITIONED, architecture_of, diagnose
from zoo.patient import Patient

import unitygain.rules
from unitygain._registry import REMEDIES, RULES
from unitygain._types import SEVERITIES, Finding

FOLDER = Path(unitygain.rules.__file__).parent
HEADINGS = (
    "What it sees:",
    "Why it matters:",
    "When it is a false alarm:",
    "Remedies:",
    "References:",
    "A firing example:",
    "A silent example:",
)
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
LEAST_SICK, LEAST_HEALTHY = 3, 5
FURTHER = tuple(draw.patient(SEED + more) for more in range(1, 6) for draw in DRAWS)
# Fixed patients of each code, sick and near, that make test diagnoses; make check diagnoses all of them.
QUICKLY = 1


def name(patient) -> str:
    return patient.name


def first_patients() -> set[str]:
    """Return the names of all that are drawn, and of the first fixed ones of every code."""
    chosen = {patient.name for patient in PATIENTS if patient.drawn}
    for code in RULES:
        for kind in ([p for p in SICK if code in p.sick], [p for p in HEALTHY if code in p.near]):
            chosen |= {patient.name for patient in kind[:QUICKLY]}
    return chosen


FIRST = first_patients()


def over(patients: tuple[Patient, ...], further: tuple[Patient, ...]) -> pytest.MarkDecorator:
    """Run a test on the first patients, in make check on all, and by night on those of further seeds."""
    known = [
        pytest.param(patient, marks=[] if patient.name in FIRST else pytest.mark.cure) for patient in patients
    ]
    later = [pytest.param(patient, marks=pytest.mark.slow) for patient in further]
    return pytest.mark.parametrize("patient", [*known, *later], ids=name)


over_sick = over(SICK, tuple(patient for patient in FURTHER if not patient.healthy))
over_healthy = over(HEALTHY, tuple(patient for patient in FURTHER if patient.healthy))
over_all = over(PATIENTS, FURTHER)


def loud(findings: tuple[Finding, ...]) -> list[str]:
    """Return what a user would be alarmed by."""
    return [f"{finding.code}: {finding.message}" for finding in findings if finding.severity != "info"]


@over_sick
def test_the_disease_is_found_and_nothing_else(patient):
    found = diagnose(patient)
    assert set(patient.sick) <= found.codes, loud(found.findings)
    unexpected = found.codes - {*patient.sick, *patient.also}
    assert not [line for line in loud(found.findings) if line[:5] in unexpected]


@over_healthy
def test_the_healthy_are_left_in_peace(patient):
    assert not loud(diagnose(patient).findings)


@over_all
def test_every_finding_can_be_disputed(patient):
    found = diagnose(patient)
    for finding in found.findings:
        where = f"{patient.name} {finding.code}"
        assert finding.name == RULES[finding.code].name, where
        highest = SEVERITIES.index(RULES[finding.code].severity)
        assert SEVERITIES.index(finding.severity) <= highest, where
        assert finding.quantity in {*RULES[finding.code].needs, *RULES[finding.code].wants}, where
        assert finding.reread(found.profiles) == pytest.approx(finding.value, rel=1e-9, nan_ok=True), where
        assert quotes(finding.message, finding.value), (
            f"{where}: {finding.value} is not in {finding.message!r}"
        )
        assert finding.unit, where
        assert finding.sites, where
        assert {site.path for site in finding.sites} <= found.names, where
        assert finding.causes, where


@over_sick
def test_the_first_cause_of_the_disease_is_confirmed_where_it_can_be_tested(patient):
    for finding in diagnose(patient).findings:
        first = finding.causes[0]
        if finding.code in patient.sick and first.predicted is not None:
            assert first.status == "confirmed", f"{finding.code}: {first}"


@pytest.mark.parametrize("number", [0.0, math.inf, math.nan])
@over_sick
def test_no_number_that_was_measured_makes_a_rule_raise(patient, number):
    """Zeros, infinities and NaN are what broken models are made of: in one profile of a rule, and in all."""
    found = {profile.name: profile for profile in diagnose(patient).profiles.values()}
    broken = {name: replace(one, values=(number,) * len(one)) for name, one in found.items()}
    for rule in RULES.values():
        read = found.keys() & {*rule.needs, *rule.wants}
        if set(rule.needs) <= read:
            for name in read:
                list(rule.judge({**found, name: broken[name]}))
            list(rule.judge({**found, **broken}))


def quotes(message: str, value: float) -> bool:
    """Whether the message holds the value, to the digits that it writes; exact zero may be a word."""
    if not math.isfinite(value):
        return str(value) in message.lower()
    if value == 0 and "zero" in message:
        return True
    numbers = [float(text.replace(",", "")) for text in NUMBER.findall(message)]
    return any(math.isclose(number, value, rel_tol=0.01) for number in numbers)


@pytest.mark.parametrize("code", sorted(RULES))
def test_rule_has_patients_of_several_architectures(code):
    patients = [patient for patient in SICK if code in patient.sick]
    assert len(patients) >= LEAST_SICK, [patient.name for patient in patients]
    architectures = {architecture_of(patient.make_case()) for patient in patients}
    assert len(architectures) >= LEAST_SICK, architectures


@pytest.mark.cure
@pytest.mark.parametrize("code", sorted(RULES))
def test_rule_was_given_what_it_needs_on_healthy_models(code):
    """A rule that never saw its profiles was not tested by silence."""
    needed = set(RULES[code].needs)
    nearest = sorted(HEALTHY, key=lambda patient: (code not in patient.near, patient.name not in FIRST))
    given = (patient for patient in nearest if needed <= diagnose(patient).profiles.keys())
    judged = list(itertools.islice(given, LEAST_HEALTHY))
    assert len(judged) >= LEAST_HEALTHY, [patient.name for patient in judged]


@pytest.mark.parametrize("code", sorted(RULES))
def test_rule_has_a_patient_and_a_near_miss_that_are_drawn_by_seed(code):
    assert any(patient.drawn and code in patient.sick for patient in PATIENTS), (
        f"every sick patient of {code} is fixed: give it a Draw(sick=({code!r},)) in tests/zoo/drawn_*.py"
    )
    near = [patient for patient in PATIENTS if patient.drawn and code in patient.near]
    assert near, f"no near miss of {code} is drawn: give it a Draw(near=({code!r},)) in tests/zoo/drawn_*.py"
    judged = [patient for patient in near if set(RULES[code].needs) <= diagnose(patient).profiles.keys()]
    assert judged, f"{code} was not given its profiles on {[patient.name for patient in near]}"


@pytest.mark.parametrize("draw", DRAWS, ids=name)
def test_another_seed_draws_another_patient(draw):
    """A draw whose numbers do not reach the case would be one more fixed patient."""
    assert parameters(draw.patient(SEED)) == parameters(draw.patient(SEED))
    assert parameters(draw.patient(SEED)) != parameters(draw.patient(SEED + 1))


def parameters(patient: Patient) -> list[tuple[float, ...]]:
    """Return shape and sum of every parameter."""
    return [(*p.shape, p.double().sum().item()) for p in patient.make_case().model.parameters()]


@pytest.mark.parametrize("code", sorted(RULES))
def test_rule_has_its_file_and_its_page(code):
    files = [file for file in FOLDER.glob("ug*.py") if file.stem.startswith(code.lower() + "_")]
    assert len(files) == 1
    page = RULES[code].page
    assert page.startswith(f"{code}: ")
    places = [page.find(f"\n{heading}\n") for heading in HEADINGS]
    assert -1 not in places, dict(zip(HEADINGS, places, strict=True))
    assert places == sorted(places)
    firing, silent = page[places[-2] : places[-1]], page[places[-1] :]
    assert ">>> " in firing
    assert f"'{code}'" in firing or ">>> " in firing
    assert ">>> " in silent


@over_sick
def test_remedies_of_causes_exist(patient):
    for finding in diagnose(patient).findings:
        named = {cause.remedy for cause in finding.causes if cause.remedy}
        assert named <= REMEDIES.keys()
        assert all(finding.code in REMEDIES[remedy].treats for remedy in named), (finding.code, named)


def test_conditioned_patients_exist():
    assert {patient.name for patient in PATIENTS} >= CONDITIONED
