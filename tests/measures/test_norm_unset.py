"""Whether kept statistics were ever set, by whether the norm changes what it is given."""

import pytest
import torch
from measures.reading import by_name, measured, squares
from torch import nn


def untouched(norm: nn.Module, x: torch.Tensor) -> bool:
    """Whether a norm in evaluation passes on what enters, but for its epsilon: the naive twin."""
    return torch.allclose(norm(x), x / (1 + norm.eps) ** 0.5, rtol=1e-5, atol=0)


@pytest.mark.parametrize("batches", [0, 1, 3])
@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm1d(4),
        lambda: nn.BatchNorm1d(4, momentum=None),
        lambda: nn.InstanceNorm1d(4, track_running_stats=True),
    ],
)
def test_one_batch_sets_them(norm, batches: int) -> None:
    model = nn.Sequential(nn.Conv1d(3, 4, 1), norm()).double()
    for _ in range(batches):
        model(torch.randn(6, 3, 5, dtype=torch.float64))
    model[1].eval()
    profile = measured(squares(model, 6, 3, 5), "norm_unset")["norm_unset"]
    x = torch.randn(6, 4, 5, dtype=torch.float64)
    assert by_name(profile) == {"1": float(untouched(model[1], x))} == {"1": float(batches == 0)}
    assert profile.facts == {"unset": float(batches == 0)}
    assert profile.labels == (type(model[1]).__name__,)


def test_statistics_of_a_checkpoint_without_a_count_are_set() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    model[1].running_mean[2] = 1e-3
    assert measured(squares(model, 6, 3), "norm_unset")["norm_unset"].values == (0.0,)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm1d(4, track_running_stats=False).eval(),
        nn.InstanceNorm1d(4).eval(),
        nn.LayerNorm(5).eval(),
    ],
)
def test_norms_that_take_the_batchs_own_have_none(norm: nn.Module) -> None:
    assert measured(squares(nn.Sequential(nn.Conv1d(3, 4, 1), norm), 6, 3, 5), "norm_unset") == {}


def test_a_norm_that_does_not_run_is_not_told() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.up(x)

    assert measured(squares(Unused().eval(), 6, 3), "norm_unset") == {}
