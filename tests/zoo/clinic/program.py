"""Program: a small training as people write it, sick by one fault or healthy, and what is true about it."""

import re
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from unitygain._case import Case
from unitygain._types import Cause
from zoo.dice import Dice

# A remedy's name with its arguments; an argument that is a function is asked for its value with the case.
Call = tuple[str, Mapping[str, Any]]
Make = Callable[[Dice, bool], Case]


@dataclass(frozen=True)
class Truth:
    """What is wrong with a sick program.

    Args:
        cause: The root cause, a word.
        codes: Codes that count as having seen it.
        names: Pattern for the text of the right first cause.
        remedies: Remedies that, named by the first cause, name it too.
        cure: The true cure; empty where no remedy can be (the fault is a line of the program).
        wrong: What one is tempted to do, and does not cure it.
    """

    cause: str
    codes: tuple[str, ...]
    names: str
    remedies: tuple[str, ...] = ()
    cure: tuple[Call, ...] = ()
    wrong: tuple[Call, ...] = (("lower_learning_rate", {"factor": 0.1}),)

    def named(self, cause: Cause) -> bool:
        """Whether `cause` is the root cause."""
        return cause.remedy in self.remedies or re.search(self.names, cause.text) is not None


@dataclass(frozen=True)
class Program:
    """One program of the clinic; its sizes, strengths and weights are drawn by seed.

    Args:
        name: What it is, unique in the clinic.
        family: Its architecture.
        make: Builds the case from numbers of the dice, with the fault (True) or without it (False).
        truth: What is wrong; None for a healthy program, which is made without a fault.
        steps: Steps after which sick and healthy differ clearly.
        score: What shows the difference, lower is better; the case's own loss when left out.
        kept: Whether it belongs to the half that is kept aside and diagnosed for the table only.
    """

    name: str
    family: str
    make: Make
    truth: Truth | None = None
    steps: int = 120
    score: Callable[[Any, Any], float] | None = None
    kept: bool = False

    def case(self, seed: int, *, fault: bool | None = None) -> Case:
        """Return the case that `seed` draws, with its fault unless `fault` says otherwise."""
        sick = self.truth is not None if fault is None else fault
        name = self.name.removesuffix(WELL)
        with torch.random.fork_rng(), warnings.catch_warnings():
            # Modules say what fast path they do not take.
            warnings.simplefilter("ignore")
            torch.manual_seed(zlib.crc32(f"{name}:{seed}".encode()))
            case = self.make(Dice(name, seed), sick)
            case.name, case.seed = self.name, seed
            assert case.model is not None
            assert case.batches
        return case

    def well(self) -> "Program":
        """Return the same program without its fault."""
        return replace(self, name=self.name + WELL, truth=None)


WELL = ", well"


def resolve(calls: tuple[Call, ...], case: Case) -> tuple[Call, ...]:
    """Return the calls with the arguments that depend on the case."""
    return tuple(
        (name, {key: value(case) if callable(value) else value for key, value in given.items()})
        for name, given in calls
    )
