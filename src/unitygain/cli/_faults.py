"""What can go wrong on the command line, as one kind of exception: a fact, a fix and an exit code."""

import json
import sys
from collections.abc import Iterable
from enum import IntEnum

LONGEST_WORD = 80
LONGEST_REASON = 300


class ExitCode(IntEnum):
    """What the shell gets; documented in the README and never renumbered."""

    FINE = 0
    FINDINGS = 1
    USAGE = 2
    INPUT = 3
    USER_CODE = 4
    OURS = 5
    INTERRUPTED = 130


class Fault(Exception):
    """One sentence that says what is wrong, with the value, and one command or edit that mends it.

    Args:
        message: The fact with its value; foreign text in it has been through `quote` or `plain`.
        name: Stable name for programs, such as ``"E-TARGET-NOT-FOUND"``.
        exit_code: What the process exits with.
        why: The reason, where it is known and not obvious.
        fix: One command or edit.
        frames: Lines of the user's own code that led here, outermost first.
    """

    def __init__(
        self,
        message: str,
        *,
        name: str,
        exit_code: ExitCode = ExitCode.INPUT,
        why: str = "",
        fix: str = "",
        frames: Iterable[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.name = name
        self.exit_code = exit_code
        self.why = why
        self.fix = fix
        self.frames = tuple(frames)

    def text(self) -> str:
        """Return the lines that a person reads, the last one ended."""
        lines = [f"error: {self.message}"]
        lines += [f"  at {frame}" for frame in self.frames]
        lines += [f"  why: {self.why}"] if self.why else []
        lines += [f"  fix: {self.fix}"] if self.fix else []
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """Return the same for a program, as one line of JSON."""
        facts = {"code": self.name, "message": self.message, "why": self.why, "fix": self.fix}
        return json.dumps({"error": {key: value for key, value in facts.items() if value}}) + "\n"


def usage(message: str, *, fix: str = "", name: str = "E-USAGE") -> Fault:
    """Return the fault of a command line that cannot be understood."""
    return Fault(message, name=name, exit_code=ExitCode.USAGE, fix=fix)


def tell(fault: Fault, *, as_json: bool = False) -> None:
    """Print `fault` on stderr, and as one JSON object on stdout where JSON was asked for there."""
    sys.stderr.write(fault.text())
    if as_json:
        sys.stdout.write(fault.json())


def plain(value: object, limit: int = 120) -> str:
    """Return foreign text as one line of at most `limit` characters that no terminal acts on."""
    from unitygain.report import show

    return show(str(value), limit)


def quote(value: object) -> str:
    """Return `plain` text in single quotes."""
    return f"'{plain(value)}'"


def first_line(error: BaseException) -> str:
    """Return the first line of what `error` says, or its type where it says nothing or cannot be asked."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:
        lines = []
    return plain(lines[0], LONGEST_REASON) if lines else type(error).__name__


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate within two edits of `word` (swapped neighbours count one), if there is one."""
    best, least = None, min(2.0, (len(word) - 1) / 2) + 0.5
    for candidate in sorted(set(candidates)):
        if abs(len(candidate) - len(word)) > 2 or len(candidate) > LONGEST_WORD:
            continue
        edits = _edit_distance(word.lower(), candidate.lower())
        if edits < least:
            best, least = candidate, edits
    return best


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` to put behind a message, or nothing."""
    guess = nearest(word, candidates)
    return f"; did you mean {quote(guess)}?" if guess else ""


def _edit_distance(a: str, b: str) -> int:
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row, above = row, [i], before
        for j, y in enumerate(b, 1):
            edits = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                edits = min(edits, above[j - 2] + 1)
            row.append(edits)
    return row[-1]
