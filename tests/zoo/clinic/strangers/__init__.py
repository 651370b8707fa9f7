"""Programs by authors who did not know what the rules say; kept aside at first, opened to mend the rules."""

from zoo.clinic.program import Program
from zoo.clinic.strangers import (
    apart,
    apart_more,
    asked,
    classic,
    convolutions,
    forge,
    forum,
    fresh,
    fresh_more,
    generative,
    images_again,
    ladder,
    loop,
    made,
    makers_again,
    makers_anew,
    papers,
    perceptrons,
    recurrent_and_attention,
    sequences_again,
    stream,
    told,
    trunks_anew,
    typical,
    typical_more,
    vectors_again,
    wired,
)

_FILES = (
    *(recurrent_and_attention, convolutions, perceptrons, generative),
    *(sequences_again, images_again, vectors_again, makers_again),
    *(trunks_anew, makers_anew, typical, typical_more, fresh, fresh_more),
    *(apart, apart_more, told, made, asked, wired, classic, forum, papers),
    *(ladder, stream, loop, forge),
)

# The fourth and fifth of a cause, of which the clinic has three at most.
_SPARE = {
    *("classic-tone-default", "forum-twenty-layers", "papers-glorot", "papers-he-xavier"),
    *("classic-adapter-zeros", "classic-pool-undivided", "papers-post-ln"),
    *("ladder-as-it-comes", "ladder-gain-for-std", "ladder-kept-is-dropped"),
    *("loop-softmax-inside", "forge-physics-seconds"),
}

SICK: tuple[Program, ...] = tuple(
    program for file in _FILES for program in file.SICK if program.name not in _SPARE
)
HEALTHY: tuple[Program, ...] = tuple(program for file in _FILES for program in file.HEALTHY)
