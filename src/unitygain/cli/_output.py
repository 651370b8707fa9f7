"""Files that a command writes: tried before the long work, written whole or not at all."""

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from unitygain.cli._faults import Fault, plain, quote, usage

STDOUT = "-"
LOOK_BYTES = 4096


class Output:
    """One file to be written at the end of a command.

    A regular file is written beside its place and moved there, so that a full disk or a fault leaves an
    old file as it was. Pipes and devices are written directly.

    Args:
        given: The path as the user gave it; ``-`` is stdout.

    Raises:
        Fault: If nothing could be written there, or a file is in the way that is no report.

    Side effects:
        Makes and removes an empty file in the folder, to learn now whether it can be written to.
    """

    def __init__(self, given: str) -> None:
        self.given = given
        self.path = Path(os.path.realpath(given))
        if given == STDOUT:
            return
        if self.path.is_dir():
            raise self._refuse("it is a folder", fix=f"name a file in it, such as {given.rstrip('/')}/report")
        if self._is_regular():
            self._spare_foreign_file()
            self._try_folder()

    def write(self, text: str) -> None:
        """Write `text` and nothing less.

        Raises:
            Fault: If it cannot be written; an old file is left as it was.
            BrokenPipeError: If it goes to stdout and nobody reads there any more.
        """
        if self.given == STDOUT:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        try:
            if self._is_regular():
                from unitygain.report._write import replace_file

                replace_file(self.path, text.encode("utf-8", "backslashreplace"))
            else:
                self.path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise self._refuse(f"{_reason(error)} (nothing was overwritten)") from error

    def _is_regular(self) -> bool:
        return not self.path.exists() or stat.S_ISREG(self.path.stat().st_mode)

    def _try_folder(self) -> None:
        folder = self.path.parent
        if not folder.is_dir():
            raise self._refuse(f"there is no folder {quote(folder)}", fix="make it first, or name another")
        try:
            handle, name = tempfile.mkstemp(dir=folder, prefix=".unitygain-")
        except OSError as error:
            raise self._refuse(_reason(error), fix="name a file in a folder that you can write to") from error
        os.close(handle)
        os.unlink(name)

    def _spare_foreign_file(self) -> None:
        if not self.path.exists():
            return
        try:
            with open(self.path, "rb") as file:
                start = file.read(LOOK_BYTES).lstrip()
        except OSError as error:
            raise self._refuse(_reason(error)) from error
        report = b"unitygain" in start.lower() and start[:1] in {b"{", b"<"}
        if start and not report:
            raise self._refuse(
                "it exists and is no report of unitygain", fix="name another file, or remove it"
            )

    def _refuse(self, reason: str, *, fix: str = "") -> Fault:
        return Fault(f"cannot write {plain(self.given)}: {reason}", name="E-OUTPUT", fix=fix)


def outputs(html: str | None, json: str | None) -> tuple[Output | None, Output | None]:
    """Return the outputs of ``--html`` and ``--json``, tried and told apart.

    Raises:
        Fault: If either cannot be written or both are one file.
    """
    if html == STDOUT:
        raise usage("--html - is not possible: the page is a file", fix="--html report.html")
    if html and json and os.path.realpath(html) == os.path.realpath(json):
        raise usage(f"--html and --json both name {quote(html)}", fix="give each its own file")
    return (Output(html) if html else None), (Output(json) if json else None)


def guard_stdout(action: Callable[[], int]) -> int:
    """Run `action`; when nobody reads stdout any more (``| head``), end quietly with exit code 0."""
    try:
        code = action()
        sys.stdout.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        return 0
    return code


def steady_streams() -> None:
    """Let stdout and stderr escape characters that their encoding lacks, and be there though closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (it lives as long as the process)
        reconfigure = getattr(getattr(sys, name), "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def wants_colour() -> bool:
    """Whether stdout is a terminal that takes colours and NO_COLOR does not forbid them."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
