"""The half of the clinic that is kept aside: written by who did not know what the rules say, never looked at since."""

from dataclasses import replace

from zoo.clinic.program import Program

_SICK: tuple[Program, ...] = ()
_HEALTHY: tuple[Program, ...] = ()

SICK = tuple(replace(program, kept=True) for program in _SICK)
HEALTHY = tuple(replace(program, kept=True) for program in _HEALTHY)
