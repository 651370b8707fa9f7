"""The part that is kept aside: its authors did not know what the rules say, and nobody looked at it since."""

from dataclasses import replace

from zoo.clinic.kept import images_again, makers_again, sequences_again, vectors_again
from zoo.clinic.program import Program

_FILES = (sequences_again, images_again, vectors_again, makers_again)

SICK: tuple[Program, ...] = tuple(replace(program, kept=True) for file in _FILES for program in file.SICK)
HEALTHY: tuple[Program, ...] = tuple(
    replace(program, kept=True) for file in _FILES for program in file.HEALTHY
)
