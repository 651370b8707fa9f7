"""The part that is kept aside: its authors did not know what the rules say, and nobody looked at it since."""

from dataclasses import replace

from zoo.clinic.kept import (
    field,
    forge_more,
    ladder_more,
    loop_more,
    plain,
    plain_more,
    shaped,
    stream_more,
    vision,
)
from zoo.clinic.program import Program

_FILES = (
    *(plain, plain_more, vision, shaped, field),
    *(ladder_more, stream_more, loop_more, forge_more),
)

# The fourth of a cause in the order of the files, of which there are three at most.
_SPARE = {"forge-values-broadcast"}

SICK: tuple[Program, ...] = tuple(
    replace(program, kept=True) for file in _FILES for program in file.SICK if program.name not in _SPARE
)
HEALTHY: tuple[Program, ...] = tuple(
    replace(program, kept=True) for file in _FILES for program in file.HEALTHY
)
