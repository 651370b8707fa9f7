"""The clinic: small training programs, sick by one fault each or healthy, to be told apart unseen."""

from zoo.clinic import (
    around,
    attention,
    images,
    kept,
    layers,
    learning,
    makers,
    numbers,
    sequences,
    sound_images,
    sound_sequences,
    strangers,
)
from zoo.clinic.program import Program

SICK: tuple[Program, ...] = (
    *layers.SICK,
    *images.SICK,
    *sequences.SICK,
    *attention.SICK,
    *around.SICK,
    *learning.SICK,
    *numbers.SICK,
    *makers.SICK,
    *strangers.SICK,
    *kept.SICK,
)
HEALTHY: tuple[Program, ...] = (
    *(program.well() for program in SICK),
    *sound_images.HEALTHY,
    *sound_sequences.HEALTHY,
    *strangers.HEALTHY,
    *kept.HEALTHY,
)
PROGRAMS = (*SICK, *HEALTHY)

assert len({program.name for program in PROGRAMS}) == len(PROGRAMS)
