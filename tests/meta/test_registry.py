"""A measure, rule or remedy is one file and one line in its folder's __init__, and it has its page."""

import re

import pytest
from meta.tree import PACKAGE, ROOT, modules, name

import unitygain
from unitygain._registry import MEASURES, REMEDIES, RULES

HEADINGS = (
    "What it sees",
    "Why it matters",
    "When it is a false alarm",
    "Remedies",
    "References",
    "A firing example",
    "A silent example",
)


def entries(*rooms: str) -> list:
    """Return the files of `rooms` that hold one entry each: private ones hold what several share."""
    return [file for file in modules(*rooms) if not file.name.startswith("_")]


@pytest.mark.parametrize("file", entries("measures", "rules", "remedies"), ids=name)
def test_file_is_listed_in_its_folder(file):
    listed = (file.parent / "__init__.py").read_text(encoding="utf-8")
    assert re.search(rf"\b{file.stem}\b", listed), (
        f"add a line for {file.stem} to {name(file.parent)}/__init__.py"
    )


@pytest.mark.parametrize("room", ["measures", "rules", "remedies"])
def test_every_entry_comes_from_its_own_room(room):
    table = {"measures": MEASURES, "rules": RULES, "remedies": REMEDIES}[room]
    assert getattr(unitygain, room), f"{room} cannot be imported"
    assert table, f"{room} registered nothing"
    actions = {
        key: getattr(entry, "compute", getattr(entry, "judge", getattr(entry, "apply", None)))
        for key, entry in table.items()
    }
    strangers = {
        key: action.__module__
        for key, action in actions.items()
        if not action.__module__.startswith(f"unitygain.{room}.")
    }
    assert not strangers


def test_every_measure_stands_in_the_tables():
    assert unitygain.measures
    promised = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = (ROOT / "docs" / "measures.md").read_text(encoding="utf-8")
    assert not [measure for measure in MEASURES if f"`{measure}`" not in promised]
    assert not [measure for measure in MEASURES if f"`{measure}`" not in listed]


def test_every_measure_declares_its_unit_its_cost_and_itself():
    assert unitygain.measures
    for entry in MEASURES.values():
        assert entry.unit.strip(), f"{entry.name} has no unit"
        assert entry.passes.strip(), f"{entry.name} does not say what it costs"
        assert entry.summary.strip(), f"{entry.name} has no docstring"


def test_every_rule_has_its_page():
    assert unitygain.rules
    for code, rule in RULES.items():
        assert re.fullmatch(r"UG[1-9]\d\d", code)
        page = ROOT / "docs" / "rules" / f"{code}.md"
        assert page.is_file(), f"run make docs to write {name(page)}"
        found = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert tuple(found) == HEADINGS, f"{name(page)} of {rule.name}"


def test_every_remedy_names_rules_that_exist():
    assert unitygain.remedies
    unknown = {name: set(remedy.treats) - set(RULES) for name, remedy in REMEDIES.items()}
    assert not {name: codes for name, codes in unknown.items() if codes}


def test_the_package_is_where_the_tests_look():
    assert PACKAGE.samefile(unitygain.__path__[0])
