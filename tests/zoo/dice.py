"""What is drawn by seed: sizes and strengths from ranges, and the patients that are made of them."""

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from unitygain._case import Case
from zoo.patient import Patient, seeded

Option = TypeVar("Option")

# Another seed draws other patients: UNITYGAIN_ZOO_SEED=7 make test.
SEED = int(os.environ.get("UNITYGAIN_ZOO_SEED", "0"))


class Dice:
    """Numbers drawn by a seed and a name, so that no draw depends on another one."""

    def __init__(self, name: str, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {seed}".encode()))

    def whole(self, least: int, most: int) -> int:
        """Return a whole number from `least` to `most`, both included."""
        return int(torch.randint(least, most + 1, (), generator=self._generator))

    def between(self, low: float, high: float) -> float:
        """Return a number between the two."""
        return low + (high - low) * float(torch.rand((), generator=self._generator, dtype=torch.float64))

    def power(self, low: float, high: float) -> float:
        """Return 10 to an exponent between the two."""
        return 10 ** self.between(low, high)

    def one_of(self, *options: Option) -> Option:
        """Return one of the options."""
        return options[self.whole(0, len(options) - 1)]


@dataclass(frozen=True)
class Draw:
    """A patient without its numbers: each seed makes another one of it.

    Args:
        name: What it is, unique among the draws.
        family: Its architecture.
        make: Builds the case from numbers of the dice; the weights are drawn by the seed, too.
        sick: Codes that must be found.
        also: Codes of further findings that are right too.
        near: For a healthy one: codes of the rules that it comes near to.
        gaps: Measures that it leaves no way to make.
    """

    name: str
    family: str
    make: Callable[[Dice], Case]
    sick: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()

    def patient(self, seed: int) -> Patient:
        """Return the patient that `seed` draws."""
        return Patient(
            f"drawn-{self.name}-{seed}",
            self.family,
            seeded(lambda: self.make(Dice(self.name, seed)), seed),
            self.sick,
            self.also,
            self.near,
            drawn=True,
            gaps=self.gaps,
        )
