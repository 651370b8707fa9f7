"""A file fits the head, a function fits the screen; a cap that is hit is a design question."""

import ast

import pytest
from meta.tree import modules, name, parse

FILE_LINES = 300
FUNCTION_LINES = 40
TOO_LONG: dict[str, str] = {}  # "path:function" -> why it may stay so


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function's body; its signature and docstring are read as documentation."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    code = function.body[documented:]
    return (code[-1].end_lineno or 0) - code[0].lineno + 1 if code else 0


@pytest.mark.parametrize("file", modules(), ids=name)
def test_file_is_short(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= FILE_LINES


@pytest.mark.parametrize("file", modules(), ids=name)
def test_functions_are_short(file):
    functions = [
        node for node in ast.walk(parse(file)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    long = {
        f"{name(file)}:{node.name}": lines
        for node in functions
        if (lines := code_lines(node)) > FUNCTION_LINES
    }
    assert not {where: lines for where, lines in long.items() if where not in TOO_LONG}
