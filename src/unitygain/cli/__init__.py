"""The command ``unitygain``: thin; it parses, calls, prints, and ends with an exit code."""

import sys

OLDEST_PYTHON = (3, 11)

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and end it with the exit code."""
    if sys.version_info[:2] < OLDEST_PYTHON:
        needed, found = (".".join(map(str, version)) for version in (OLDEST_PYTHON, sys.version_info[:3]))
        sys.stderr.write(
            f"error: needs Python >= {needed}, found {found}\n  fix: use a newer Python, such as python3.12\n"
        )
        sys.exit(3)
    from unitygain.cli._app import invoke

    sys.exit(invoke(sys.argv[1:]))
