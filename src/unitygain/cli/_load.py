"""From a target that was understood to the Case that the user's code returns."""

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from unitygain.cli._blame import short_path, user_frames
from unitygain.cli._faults import ExitCode, Fault, did_you_mean, first_line, nearest, plain, quote
from unitygain.cli._target import Target

if TYPE_CHECKING:
    from unitygain._case import Case

WANTED = "a function that returns a unitygain.Case"


def load(target: Target) -> "Case":
    """Import the module, and nothing else, and return the Case that its callable returns.

    Raises:
        Fault: If it cannot be found (3), is not what it should be (3), or raises (4).

    Side effects:
        Runs the user's module and callable.
    """
    from unitygain._case import Case

    module = _import_file(target) if target.is_file else _import_module(target)
    found = _attribute(module, target)
    if isinstance(found, Case):
        return _named(found, target)
    if not callable(found):
        raise Fault(f"{target} is a {_kind(found)}; expected {WANTED}", name="E-TARGET-KIND")
    _check_arguments(found, target)
    name = f"{plain(target.attribute)}()"
    result = _guarded(found, name, "")
    if isinstance(result, Case):
        return _named(result, target)
    kind = "None" if result is None else _kind(result)
    subject = name if result is None else str(target)
    raise Fault(
        f"{subject} returned {kind}; expected a unitygain.Case", name="E-TARGET-KIND", fix=_wrap(result)
    )


def _named(case: "Case", target: Target) -> "Case":
    """The case with the way to build it again in another process."""
    module = os.path.realpath(target.module) if target.is_file else target.module
    named = dataclasses.replace(target, module=module)
    case.rebuild = case.rebuild or functools.partial(rebuild, named, os.getcwd())
    return case


def rebuild(target: Target, folder: str) -> "Case":
    """Return the Case of a target in a process that only knows its name.

    Args:
        target: A file is named by its whole path.
        folder: Where the command was called, in which modules are looked for.

    Side effects:
        Adds that folder, and a file's own, to ``sys.path``: the user's code may import more later.
    """
    folders = [folder, os.path.dirname(target.module)] if target.is_file else [folder]
    sys.path += [name for name in folders if name not in sys.path]
    return load(target)


def _wrap(result: object) -> str:
    if result is None:
        return "end it with: return unitygain.Case(model, loss=loss, data=batches)"
    return "return unitygain.Case(model, loss=lambda model, batch: ..., data=batches)"


def _import_file(target: Target) -> ModuleType:
    path = Path(target.module)
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path()
        names = [entry.name for entry in folder.iterdir() if entry.suffix == ".py"]
        guess = nearest(path.name, names)
        hint = f"; did you mean {quote(path.with_name(guess))}?" if guess else ""
        raise Fault(f"no file {quote(target.module)}{hint}", name="E-TARGET-NOT-FOUND")
    name = path.stem
    if not name.isidentifier() or name in sys.modules or name in sys.stdlib_module_names:
        name = f"target_{abs(hash(path.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise Fault(f"{quote(target.module)} is not a Python file", name="E-TARGET-KIND")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader = spec.loader
    try:
        _guarded(lambda: loader.exec_module(module), plain(short_path(path)), " while importing")
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _import_module(target: Target) -> ModuleType:
    def bring() -> ModuleType:
        return importlib.import_module(target.module)

    try:
        return _guarded(bring, plain(target.module), " while importing")
    except Fault as fault:
        cause = fault.__cause__
        missing = cause.name if isinstance(cause, ModuleNotFoundError) else None
        if not missing or not (target.module == missing or target.module.startswith(f"{missing}.")):
            raise
        local = [
            entry.stem
            for entry in Path().iterdir()
            if entry.suffix == ".py" or (entry / "__init__.py").is_file()
        ]
        hint = did_you_mean(missing, local)
        raise Fault(
            f"cannot import {quote(missing)} (searched: ., site-packages){hint}", name="E-TARGET-NOT-FOUND"
        ) from None


def _attribute(module: ModuleType, target: Target) -> Any:
    found: Any = module
    for part in target.attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            where = plain(short_path(getattr(module, "__file__", None) or "built in"))
            guess = nearest(
                part,
                [name for name in vars(found) if not name.startswith("_")]
                if hasattr(found, "__dict__")
                else [],
            )
            command = (
                f"unitygain diagnose {plain(target.module)}:{target.attribute.replace(part, guess or part)}"
            )
            raise Fault(
                f"no attribute {quote(part)} in {_place(found, module)} ({where})",
                name="E-TARGET-NOT-FOUND",
                fix=f"did you mean {quote(guess)}?  {command}" if guess else "",
            ) from None
    return found


def _place(found: Any, module: ModuleType) -> str:
    return (
        f"module {quote(module.__name__)}"
        if found is module
        else f"{_kind(found)} of {quote(module.__name__)}"
    )


def _check_arguments(function: Callable[..., Any], target: Target) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in optional]
    if needed:
        raise Fault(
            f"{plain(target.attribute)}() needs {', '.join(map(quote, needed))}",
            name="E-TARGET-ARGUMENTS",
            fix="name a function without arguments that calls it and returns the Case",
        )


def _guarded(action: Callable[[], Any], subject: str, doing: str) -> Any:
    """Run the user's code; what it raises, and an exit, is theirs and is said with file and line."""
    try:
        return action()
    except Exception as error:
        frames = user_frames(error.__traceback__)
        raise Fault(
            f"{subject} raised {type(error).__name__}: {first_line(error)}{_line(error, frames)}",
            name="E-USER-CODE",
            exit_code=ExitCode.USER_CODE,
            fix=_import_fix(error),
            frames=frames,
        ) from error
    except SystemExit as error:
        code = 0 if error.code is None else error.code
        raise Fault(
            f"{subject} exited with {plain(code)}{doing}",
            name="E-USER-EXIT",
            exit_code=ExitCode.USER_CODE,
            fix='guard what runs with: if __name__ == "__main__":',
            frames=user_frames(error.__traceback__),
        ) from error


def _line(error: BaseException, frames: list[str]) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f" (line {error.lineno})"
    return f" (line {frames[-1].rpartition(':')[2].split()[0]})" if frames else ""


def _import_fix(error: BaseException) -> str:
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "the file belongs to a package; give package.module:callable from the folder above it"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install {plain(error.name)} into this environment ({plain(sys.executable)})"
    return ""


def _kind(value: object) -> str:
    return plain(type(value).__name__)
