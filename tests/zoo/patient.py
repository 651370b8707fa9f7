"""Patient: a tiny Case of the zoo, and the codes that a diagnosis of it must and may give."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unitygain._case import Case


@dataclass(frozen=True)
class Patient:
    """A sick model, or a healthy one that looks a little like a sick one.

    Args:
        name: What it is, unique in the zoo.
        family: Its architecture: the file of the zoo that holds it.
        make_case: Builds the case under a fixed seed.
        sick: Codes that must be found, the disease first; empty for a healthy model.
        also: Codes of further findings that are right too.
        near: For a healthy model: codes of the rules that it comes near to.
        drawn: Whether its sizes and strengths are drawn by seed.
        gaps: Measures that it leaves no way to make, as what needs a graph where there is none.
    """

    name: str
    family: str
    make_case: Callable[[], Case]
    sick: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    drawn: bool = False
    gaps: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing at the level of a warning may be said about it."""
        return not self.sick


def seeded(make: Callable[[], Case], seed: int = 0) -> Callable[[], Case]:
    """Return `make` with its own random state: a case does not depend on what ran before it."""

    def build() -> Case:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            case = make()
            assert case.model is not None
            return case

    return build


def classify(model: Callable[[Tensor], Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of the model's output."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def regress(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared error of the model's output."""
    return (model(batch[0]) - batch[1]).square().mean()


def reconstruct(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean squared error against the input."""
    return (model(batch) - batch).square().mean()


def labelled(*shape: int, classes: int = 10) -> list[tuple[Tensor, Tensor]]:
    """Return one batch of standard normal inputs with random classes."""
    return [(torch.randn(shape), torch.randint(classes, shape[:1]))]
