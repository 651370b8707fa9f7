"""What a remedy is tried on by the contract."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Try:
    """A patient of the zoo, by name, the remedy's arguments, and what must not be found afterwards.

    Args:
        patient: Name of the patient.
        given: The remedy's arguments.
        cures: Codes that are found on the patient, and must not be found on the treated one.
    """

    patient: str
    given: Mapping[str, Any] = field(default_factory=dict)
    cures: tuple[str, ...] = ()
