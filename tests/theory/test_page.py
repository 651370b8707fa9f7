"""docs/theory.md speaks of every public name, and the tests that it names exist and use what they check."""

import ast
import inspect
import re
from functools import cache
from types import ModuleType
from typing import get_type_hints

import pytest
from meta.tree import ROOT, parse

from unitygain import theory

PAGE = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
# What is computed, the formula, its source, what it assumes, what checks it. A pipe in a cell is \|.
ROWS = [
    cells
    for line in PAGE.splitlines()
    if line.startswith("| `") and len(cells := re.split(r"(?<!\\)\|", line)[1:-1]) == 5
]
PUBLIC = {
    name: value
    for name, value in vars(theory).items()
    if not name.startswith("_") and not isinstance(value, ModuleType)
}
FUNCTIONS = sorted(name for name, value in PUBLIC.items() if inspect.isfunction(value))


def quoted(cell: str) -> set[str]:
    """The names in backticks of a cell."""
    return set(re.findall(r"`(\w+)`", cell))


@cache
def uses() -> dict[str, set[str]]:
    """What every test of the theory uses by name, itself or through what its file defines."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "tests" / "theory").glob("*.py"):
        own = {
            target.id if isinstance(target, ast.Name) else target.name: names_in(node)
            for node in parse(file).body
            for target in (node.targets if isinstance(node, ast.Assign) else [node])
            if isinstance(target, (ast.Name, ast.FunctionDef))
        }
        for name in own:
            seen, ahead = set(), [name]
            while ahead:
                new = own.get(ahead.pop(), set()) - seen
                seen |= new
                ahead += new
            found[name] = found.get(name, set()) | seen
    return found


def names_in(node: ast.AST) -> set[str]:
    """Every name and attribute in a piece of code."""
    parts = ast.walk(node)
    return {
        part.id if isinstance(part, ast.Name) else part.attr
        for part in parts
        if isinstance(part, (ast.Name, ast.Attribute))
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_its_row(name):
    assert any(name in quoted(row[0]) for row in ROWS)


def test_every_other_name_has_a_row_or_is_what_a_function_returns():
    returned = [get_type_hints(PUBLIC[name]).get("return") for name in FUNCTIONS]
    rows = set().union(*(quoted(row[0]) for row in ROWS))
    assert [name for name, value in PUBLIC.items() if name not in rows and value not in returned] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].split("`")[1])
def test_a_row_says_all_that_the_page_promises_and_its_tests_use_what_they_check(row):
    computed, formula, source, assumes, checked = row
    assert all(cell.strip() for cell in (formula, source, assumes))
    tests = {name for name in quoted(checked) if name.startswith("test_")}
    assert tests, "name the test that checks it"
    used = set().union(*(uses().get(test, set()) for test in tests))
    functions = {name for name in quoted(computed) if not isinstance(PUBLIC.get(name), type)}
    assert functions <= used, f"no test of the row uses {sorted(functions - used)}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_formula_cites_a_source(name):
    documented = inspect.getdoc(getattr(theory, name)) or ""
    moments = {"find_activation", "leaky_relu", "dtype_range", "simulated_law", "gate_moments"}
    numbers = {"second_moment", "slope_moment", "layers_to_overflow", "underflow_share", "softmax_gain"}
    assert "References:" in documented or name in moments | numbers | {"simulate_relu_gain"}


def test_every_named_test_exists():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    defined = {name for name in uses() if name.startswith("test_")}
    assert named
    assert named <= defined
