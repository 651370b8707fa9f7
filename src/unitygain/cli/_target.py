"""TARGET: from ``module:callable``, ``file.py:callable`` or ``hf:DIR`` to a Case."""

import ast
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unitygain.cli._faults import Fault, plain, quote, usage

HF = "hf:"
EXAMPLE = "unitygain diagnose train.py:make_case"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class Target:
    """A target that was understood and not yet touched.

    Args:
        module: Module name or path of a file.
        attribute: Dotted name of the callable, or of a Case, in it.
        is_file: Whether `module` is a path.
    """

    module: str
    attribute: str
    is_file: bool

    def __str__(self) -> str:
        return f"{plain(self.module)}:{plain(self.attribute)}"


def parse(text: str | None) -> Target:
    """Return the target that `text` names, without importing anything.

    Raises:
        Fault: If it is missing, names no callable, or names a pickle.
    """
    if not text:
        raise usage(
            "missing target: give `module:callable`, `path/to/file.py:callable` or `hf:DIR`",
            fix=EXAMPLE,
            name="E-TARGET-MISSING",
        )
    module, _, attribute = text.rpartition(":")
    if not module or os.sep in attribute or attribute.endswith(".py"):
        raise _without_callable(text)
    if not all(part.isidentifier() for part in attribute.split(".")):
        raise usage(f"{quote(attribute)} in {quote(text)} is not a name", fix=EXAMPLE)
    is_file = module.endswith(".py") or os.sep in module or "/" in module
    if not is_file and not all(part.isidentifier() for part in module.split(".")):
        raise usage(f"{quote(module)} in {quote(text)} is not a module or a .py file", fix=EXAMPLE)
    return Target(module, attribute, is_file)


def _without_callable(text: str) -> Fault:
    path = Path(text.rstrip(":"))
    if path.suffix in PICKLES:
        return Fault(
            f"{quote(path)} is a pickle, which runs code when it is read; refused",
            name="E-PICKLE",
            fix="write a function that builds the model and loads the weights, and give file.py:function",
        )
    if path.is_dir() and (path / "config.json").is_file():
        return usage(f"{quote(path)} is a folder", fix=f"unitygain diagnose {HF}{plain(path)}")
    if path.suffix == ".py" or path.is_file():
        name = _likely_callable(path)
        return usage(
            f"{quote(path)} is a file; use {plain(path)}:{name}",
            fix=f"unitygain diagnose {plain(path)}:{name}",
        )
    return usage(
        f"{quote(text)} names no callable; use {plain(path)}:callable",
        fix=f"unitygain diagnose {plain(path)}:make_case",
    )


def _likely_callable(path: Path) -> str:
    """The function in the file that most looks like the one meant, read without running it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return "make_case"
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    return plain(next((name for name in names if "case" in name.lower()), "make_case"))


@contextmanager
def importable(target: Target) -> Iterator[None]:
    """Put the current folder, and a file's own, on ``sys.path`` behind the standard library."""
    before = list(sys.path)
    stdlib = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    known = [os.path.realpath(entry) for entry in sys.path]
    after = max(
        (i for i, entry in enumerate(known, 1) if os.path.dirname(entry) in stdlib or entry in stdlib),
        default=0,
    )
    folders = [os.path.dirname(os.path.realpath(target.module))] if target.is_file else []
    for folder in dict.fromkeys([*folders, os.getcwd()]):
        if os.path.realpath(folder) not in known[:after]:
            sys.path.insert(after, folder)
            after += 1
    try:
        yield
    finally:
        sys.path[:] = before
