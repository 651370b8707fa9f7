"""A saved report, read for ``unitygain report``: without torch, and trusting nothing in it."""

import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unitygain.cli._blame import plain_message
from unitygain.cli._faults import Fault, nearest, plain, quote
from unitygain.cli._safetensors import bytes_of

if TYPE_CHECKING:
    from unitygain.report import Report

LARGEST = 512 * 2**20


def read(given: str) -> "Report":
    """Return the report in the file `given`; ``-`` is stdin.

    Raises:
        Fault: If it cannot be read or is no report.
    """
    from unitygain.report import Report

    try:
        return Report.from_json(sys.stdin.buffer.read(LARGEST) if given == "-" else _content(Path(given)))
    except ValueError as error:
        raise Fault(
            f"{plain(given)}: {plain_message(error)}",
            name="E-REPORT",
            fix="write one with: unitygain diagnose TARGET --json report.json",
        ) from error


def _content(path: Path) -> bytes:
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise Fault(
                f"{quote(path)} is not a file", name="E-REPORT", fix="give the file that --json wrote"
            )
        if facts.st_size > LARGEST:
            raise Fault(f"{quote(path)} has {bytes_of(facts.st_size)}; a report is smaller", name="E-REPORT")
        return path.read_bytes()
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise Fault(f"cannot read {quote(path)}: {reason}", name="E-REPORT") from error


def _missing(path: Path) -> Fault:
    folder = path.parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    guess = nearest(path.name, names)
    hint = f"; did you mean {quote(folder / guess)}?" if guess else ""
    return Fault(f"no report at {quote(path)}{hint}", name="E-REPORT-NOT-FOUND")
