"""Whose fault an exception is, read from its traceback: the user's code, the input, or ours."""

import contextlib
import linecache
import os
import platform
import sysconfig
import tempfile
import traceback
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from types import FrameType, TracebackType

from unitygain.cli._faults import ExitCode, Fault, first_line, plain

OURS = str(Path(__file__).resolve().parent.parent)
LIBRARY = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
MOST_FRAMES = 8
LONGEST_MESSAGE = 1000


def blame(error: Exception, *, owned: Iterable[str] = (), doing: str = "the target") -> Fault | None:
    """Return the fault behind `error`, or None where it is ours.

    A ValueError or TypeError that unitygain itself raises is a word to the user about the input. For all
    else the innermost frame decides that is unitygain's or the user's; the frames of the standard library
    and of installed packages decide nothing.

    Args:
        error: What was caught.
        owned: Folders and files of installed packages that count as the user's for this command.
        doing: Subject of the message, such as ``"model"`` or ``"make_case()"``.
    """
    if isinstance(error, Fault):
        return error
    frames = list(traceback.walk_tb(error.__traceback__))
    if isinstance(error, (ValueError, TypeError)) and frames and _is_raise(*frames[-1]):
        return Fault(plain_message(error), name="E-INPUT")
    owned = tuple(owned)
    for frame, _ in reversed(frames):
        file = frame.f_code.co_filename
        if is_ours(file):
            return None
        if is_theirs(file, owned):
            return user_fault(error, doing=doing, owned=owned)
    return None


def user_fault(error: BaseException, *, doing: str, owned: Iterable[str] = (), where: str = "") -> Fault:
    """Return the fault of user code that raised `error`, with their own frames only."""
    kind = "" if type(error) is RuntimeError else f"{type(error).__name__}: "
    fix = ""
    if "out of memory" in str(error).lower() or isinstance(error, MemoryError):
        fix = "use a smaller batch, or fewer probes (--probes 2)"
    return Fault(
        f"{doing} raised {kind}{first_line(error)}{where}",
        name="E-USER-CODE",
        exit_code=ExitCode.USER_CODE,
        fix=fix,
        frames=user_frames(error.__traceback__, tuple(owned)),
    )


def user_frames(trace: TracebackType | None, owned: tuple[str, ...] = ()) -> list[str]:
    """Return ``file:line in function`` for the frames of the user's own code, outermost first."""
    frames = [
        f"{plain(short_path(frame.f_code.co_filename))}:{line} in {plain(frame.f_code.co_name)}"
        for frame, line in traceback.walk_tb(trace)
        if is_theirs(frame.f_code.co_filename, owned)
    ]
    return frames if len(frames) <= MOST_FRAMES else [*frames[:2], "...", *frames[3 - MOST_FRAMES :]]


def plain_message(error: BaseException) -> str:
    """Return our own message on one line; its foreign parts were made plain where they were put in."""
    return plain(" ".join(str(error).split()), LONGEST_MESSAGE) or type(error).__name__


def is_ours(file: str) -> bool:
    """Whether `file` is part of unitygain."""
    return _under(file, OURS)


def is_theirs(file: str, owned: Iterable[str] = ()) -> bool:
    """Whether `file` is code of the user: not ours, not generated, not installed."""
    if file.startswith("<") or is_ours(file):
        return False
    if any(_under(file, folder) for folder in owned):
        return True
    return not any(_under(file, folder) for folder in LIBRARY) and "site-packages" not in Path(file).parts


def short_path(file: str | os.PathLike[str]) -> str:
    """Return `file` as seen from the current folder, where it lies in it."""
    try:
        return str(Path(os.path.abspath(file)).relative_to(os.path.abspath(".")))
    except (ValueError, OSError):
        return str(file)


def our_fault(error: BaseException) -> Fault:
    """Write the traceback to a file and return the fault that names it and says what to send.

    Side effects:
        Writes one file, readable by its owner only, to the folder of temporary files.
    """
    path = ""
    with contextlib.suppress(OSError):
        handle, path = tempfile.mkstemp(prefix="unitygain-fault-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{versions()}\n\n{''.join(traceback.format_exception(error))}")
    send = f"send {path} (read it first: it names files of yours)" if path else "send what --debug prints"
    return Fault(
        f"{type(error).__name__}: {first_line(error)}",
        name="E-OURS",
        exit_code=ExitCode.OURS,
        why="this is a fault of unitygain, not of your model or your code",
        fix=f"{send} and the command that you ran to the issue tracker; --debug prints the traceback here",
    )


def versions() -> str:
    """Return the versions that matter in a report of a fault, without importing anything heavy."""
    found = [f"python {platform.python_version()}", platform.platform()]
    for package in ("unitygain", "torch", "numpy", "typer", "transformers"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{package} {metadata.version(package)}")
    return ", ".join(found)


def _is_raise(frame: FrameType, line: int) -> bool:
    file = frame.f_code.co_filename
    return is_ours(file) and linecache.getline(file, line).lstrip().startswith("raise ")


def _under(file: str, folder: str) -> bool:
    file, folder = os.path.realpath(file), os.path.realpath(folder)
    return file == folder or file.startswith(folder.rstrip(os.sep) + os.sep)
