"""Shapes and dtypes in signatures are checked where UNITYGAIN_SHAPES=1 (`make shapes`), and only there."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module

import pytest
import shapes
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from meta.tree import ROOT
from torch import Tensor


def scale(x: Float[Tensor, "rows columns"], by: Float[Tensor, " columns"]) -> Float[Tensor, "rows columns"]:
    """Scale the columns of `x`."""
    return x * by


def test_checker_refuses_a_wrong_dtype_and_a_wrong_shape():
    checked = jaxtyped(typechecker=shapes.check)(scale)
    assert checked(torch.ones(2, 3), torch.ones(3)).shape == (2, 3)
    with pytest.raises(TypeCheckError, match="x"):
        checked(torch.ones(2, 3, dtype=torch.int64), torch.ones(3))
    with pytest.raises(TypeCheckError, match="by"):
        checked(torch.ones(2, 3), torch.ones(2))


def test_checker_leaves_other_functions_alone():
    def plain(x: int) -> int:
        return x

    assert shapes.check(plain) is plain


@pytest.mark.shapes
def test_modules_that_state_shapes_are_instrumented():
    instrumented = shapes.modules()
    assert instrumented, "no module states shapes in its signatures"
    module = __import__(instrumented[0], fromlist=["__spec__"])
    assert "jaxtyping" in type(module.__spec__.loader).__module__


def floating_functions() -> list[tuple[str, Callable[..., object]]]:
    """Return the functions of the library whose only needed argument is a floating tensor, with its name."""
    found = []
    for module in map(import_module, shapes.modules()):
        for _, function in inspect.getmembers(module, inspect.isfunction):
            needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
            if len(needed) == 1 and "Float" in str(needed[0].annotation):
                found.append((needed[0].name, function))
    return found


@pytest.mark.shapes
def test_a_wrong_dtype_raises_in_the_library():
    functions = floating_functions()
    assert functions, "no function of the library states the dtype of its only argument"
    for argument, function in functions:
        with pytest.raises(TypeCheckError, match=argument):
            function(torch.zeros(3, dtype=torch.bool))


def test_users_run_without_the_checks():
    module = shapes.modules()[0]
    code = f"import {module} as module; print(type(module.__spec__.loader).__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "SourceFileLoader"
