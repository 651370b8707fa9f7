"""The part that is kept aside: its authors did not know what the rules say, and nobody looked at it since."""

from dataclasses import replace

from zoo.clinic.kept import field, plain, plain_more, shaped, vision
from zoo.clinic.program import Program

_FILES = (plain, plain_more, vision, shaped, field)

SICK: tuple[Program, ...] = tuple(replace(program, kept=True) for file in _FILES for program in file.SICK)
HEALTHY: tuple[Program, ...] = tuple(
    replace(program, kept=True) for file in _FILES for program in file.HEALTHY
)
