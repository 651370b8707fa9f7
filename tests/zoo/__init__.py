"""Small models, sick and healthy, one family per file: what the contracts of the rules run on.

Most are fixed; those of the files `drawn_...` are drawn anew by each seed.
"""

from zoo import (
    by_hand,
    checkpoints,
    circuits,
    claims,
    cnn,
    copies,
    cosines,
    denoisers,
    drawn_depth,
    drawn_fields,
    drawn_time,
    drawn_training,
    dropouts,
    flows,
    games,
    generative,
    halves,
    masks,
    misfits,
    mixed,
    mlp,
    norms,
    optimizers,
    parts,
    precision,
    recurrent,
    reversals,
    scalers,
    schedules,
    states,
    texts,
    training,
    transformer,
)
from zoo.dice import SEED, Draw
from zoo.patient import Patient

FAMILIES = (
    mlp,
    cnn,
    recurrent,
    transformer,
    generative,
    optimizers,
    training,
    precision,
    flows,
    games,
    denoisers,
    circuits,
    claims,
    copies,
    dropouts,
    norms,
    mixed,
    texts,
    masks,
    cosines,
    misfits,
    by_hand,
    checkpoints,
    halves,
    schedules,
    scalers,
    states,
    parts,
    reversals,
)
DRAWS: tuple[Draw, ...] = (
    *drawn_depth.DRAWS,
    *drawn_time.DRAWS,
    *drawn_training.DRAWS,
    *drawn_fields.DRAWS,
    *checkpoints.DRAWS,
    *claims.DRAWS,
    *by_hand.DRAWS,
    *copies.DRAWS,
    *cosines.DRAWS,
    *masks.DRAWS,
    *misfits.DRAWS,
    *dropouts.DRAWS,
    *halves.DRAWS,
    *norms.DRAWS,
    *scalers.DRAWS,
    *schedules.DRAWS,
    *mixed.DRAWS,
    *texts.DRAWS,
    *states.DRAWS,
    *parts.DRAWS,
    *reversals.DRAWS,
)
DRAWN: tuple[Patient, ...] = tuple(draw.patient(SEED) for draw in DRAWS)
PATIENTS: tuple[Patient, ...] = (
    *(patient for family in FAMILIES for patient in (*family.sick(), *family.healthy())),
    *DRAWN,
)
SICK: tuple[Patient, ...] = tuple(patient for patient in PATIENTS if not patient.healthy)
HEALTHY: tuple[Patient, ...] = tuple(patient for patient in PATIENTS if patient.healthy)

assert len({patient.name for patient in PATIENTS}) == len(PATIENTS)
