"""The part that is kept aside: its authors did not know what the rules say, and nobody looked at it since."""

from dataclasses import replace

from zoo.clinic.kept import (
    field,
    forge,
    forge_more,
    ladder,
    ladder_more,
    loop,
    loop_more,
    plain,
    plain_more,
    shaped,
    stream,
    stream_more,
    vision,
)
from zoo.clinic.program import Program

_FILES = (
    *(plain, plain_more, vision, shaped, field),
    *(ladder, ladder_more, stream, stream_more, loop, loop_more, forge, forge_more),
)

SICK: tuple[Program, ...] = tuple(replace(program, kept=True) for file in _FILES for program in file.SICK)
HEALTHY: tuple[Program, ...] = tuple(
    replace(program, kept=True) for file in _FILES for program in file.HEALTHY
)
