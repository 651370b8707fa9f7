"""A remedy that raises in the middle leaves the case as it was."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import unitygain.remedies  # noqa: F401 (fills the table)
from unitygain import Case
from unitygain._registry import REMEDIES


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x


class Block(nn.Module):
    """A block around any layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(x))


class Both(nn.Module):
    """A linear map over features, then a convolution over the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.along = nn.Linear(4, 4), nn.Conv1d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.along(torch.relu(self.features(x))))


class Interleaved(nn.Module):
    """Attention whose packed map makes queries, keys and values head by head."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (2, 3, 4)).transpose(1, 2).unbind(-2)
        return (torch.softmax(q @ k.mT / 2, -1) @ v).transpose(1, 2).flatten(-2)


def held(model: nn.Module, *shape: int) -> Case:
    """A case with an optimizer instance."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    return Case(model, lambda m, x: m(x).square().mean(), [torch.randn(*shape)], optimizer)


def unlike() -> Case:
    return held(nn.Sequential(*(Block(layer) for layer in (nn.Linear(4, 4), nn.Linear(4, 4), Scale()))), 2, 4)


def mixed() -> Case:
    return held(nn.Sequential(Both(), Both(), Both()), 2, 3, 4)


def interleaved() -> Case:
    return held(nn.Sequential(Interleaved(), nn.Linear(8, 8)), 2, 5, 8)


@pytest.mark.parametrize(
    ("remedy", "given", "make", "message"),
    [
        ("gated_skip", {}, unlike, "a Block holds no linear map or convolution that tells its width"),
        ("concat_skip", {}, unlike, "a Block holds no linear map or convolution that tells its width"),
        ("insert_norm", {"kind": "rms"}, mixed, "kind 'rms' is for linear maps"),
        ("qk_norm", {}, interleaved, r"the heads of .* could not be told apart"),
    ],
)
def test_a_remedy_that_raises_in_the_middle_changes_nothing(
    remedy: str, given: dict[str, str], make: Callable[[], Case], message: str
) -> None:
    case = make()
    before, settings = list(case.model.named_modules()), case.optimizer.state_dict()
    loss = case.compute_loss(case.batches[0])
    with pytest.raises(ValueError, match=message):
        REMEDIES[remedy].apply(case, **given)
    assert list(case.model.named_modules()) == before
    assert case.optimizer.state_dict() == settings
    assert torch.equal(case.compute_loss(case.batches[0]), loss)
