"""Small models, sick and healthy, one family per file: what the contracts of the rules run on."""

from zoo import cnn, flows, generative, mlp, optimizers, precision, recurrent, training, transformer
from zoo.patient import Patient

FAMILIES = (mlp, cnn, recurrent, transformer, generative, optimizers, training, precision, flows)
SICK: tuple[Patient, ...] = tuple(patient for family in FAMILIES for patient in family.sick())
HEALTHY: tuple[Patient, ...] = tuple(patient for family in FAMILIES for patient in family.healthy())
PATIENTS: tuple[Patient, ...] = SICK + HEALTHY

assert len({patient.name for patient in PATIENTS}) == len(PATIENTS)
