"""docs/theory.md speaks of every public function, and the tests that it names exist."""

import inspect
import re

import pytest
from meta.tree import ROOT

from unitygain import theory

PAGE = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
FUNCTIONS = sorted(name for name, value in vars(theory).items() if inspect.isfunction(value))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_its_row(name):
    assert re.search(rf"^\|.*`{name}`", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_formula_cites_a_source(name):
    documented = inspect.getdoc(getattr(theory, name)) or ""
    moments = {"find_activation", "leaky_relu", "dtype_range", "simulated_law", "gate_moments"}
    numbers = {"second_moment", "slope_moment", "layers_to_overflow", "underflow_share", "softmax_gain"}
    assert "References:" in documented or name in moments | numbers | {"simulate_relu_gain"}


def test_every_named_test_exists():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    defined = {
        match
        for file in (ROOT / "tests" / "theory").glob("test_*.py")
        for match in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert named
    assert named <= defined
