"""The half that is kept aside: its authors did not know what the rules say, and nobody looked at it since."""

from dataclasses import replace

from zoo.clinic.kept import convolutions, generative, perceptrons, recurrent_and_attention
from zoo.clinic.program import Program

_FILES = (recurrent_and_attention, convolutions, perceptrons, generative)

SICK: tuple[Program, ...] = tuple(replace(program, kept=True) for file in _FILES for program in file.SICK)
HEALTHY: tuple[Program, ...] = tuple(
    replace(program, kept=True) for file in _FILES for program in file.HEALTHY
)
