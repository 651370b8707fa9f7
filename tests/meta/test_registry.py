"""A measure, rule or remedy is one file and one line in its folder's __init__, and it has its page."""

import re
from typing import Any

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


@pytest.mark.parametrize("file", entries("measures", "rules", "remedies", "detectors"), ids=name)
def test_file_is_listed_in_its_folder(file):
    listed = (file.parent / "__init__.py").read_text(encoding="utf-8")
    assert re.search(rf"\b{file.stem}\b", listed), (
        f"add a line for {file.stem} to {name(file.parent)}/__init__.py"
    )


def own(room: str) -> dict[str, tuple[Any, str]]:
    """Return the own entries of `room` with the module of each; tests register others beside them."""
    assert getattr(unitygain, room), f"{room} cannot be imported"
    table, action = {
        "measures": (MEASURES, "compute"),
        "rules": (RULES, "judge"),
        "remedies": (REMEDIES, "apply"),
    }[room]
    homes = {key: getattr(entry, action).__module__ for key, entry in table.items()}
    return {key: (table[key], home) for key, home in homes.items() if home.startswith("unitygain.")}


@pytest.mark.parametrize("room", ["measures", "rules", "remedies"])
def test_every_entry_comes_from_its_own_room(room):
    entries = own(room)
    assert entries, f"{room} registered nothing"
    assert not {key: home for key, (_, home) in entries.items() if not home.startswith(f"unitygain.{room}.")}


def test_every_measure_stands_in_the_tables():
    promised = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = (ROOT / "docs" / "measures.md").read_text(encoding="utf-8")
    assert not [measure for measure in own("measures") if f"`{measure}`" not in promised]
    assert not [measure for measure in own("measures") if f"`{measure}`" not in listed]


def test_every_measure_declares_its_unit_its_cost_and_itself():
    for entry, _ in own("measures").values():
        assert entry.unit.strip(), f"{entry.name} has no unit"
        assert entry.passes.strip(), f"{entry.name} does not say what it costs"
        assert entry.summary.strip(), f"{entry.name} has no docstring"


def test_every_rule_has_its_page():
    for code, (rule, _) in own("rules").items():
        assert re.fullmatch(r"UG[1-9]\d\d", code)
        page = ROOT / "docs" / "rules" / f"{code}.md"
        assert page.is_file(), f"run make docs to write {name(page)}"
        found = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert tuple(found) == HEADINGS, f"{name(page)} of {rule.name}"


def test_every_remedy_names_rules_that_exist():
    codes = set(own("rules"))
    unknown = {remedy: set(entry.treats) - codes for remedy, (entry, _) in own("remedies").items()}
    assert not {remedy: missing for remedy, missing in unknown.items() if missing}


def test_the_package_is_where_the_tests_look():
    assert PACKAGE.samefile(unitygain.__path__[0])
