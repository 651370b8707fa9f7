"""Over how many numbers a norm takes its mean, by what it puts out where they are equal."""

from collections.abc import Callable

import pytest
import torch
from measures.reading import by_name, measured, squares
from torch import Tensor, nn
from torch.nn import functional as F


class Called(nn.Module):
    """Norms as functions, one of them over running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 4)
        self.register_buffer("middle", torch.zeros(4))
        self.register_buffer("spread", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(self.up(x), (4,))
        y = F.batch_norm(y, self.middle, self.spread, training=False)
        return F.group_norm(F.batch_norm(y, None, None, training=True), 4)


@pytest.mark.parametrize(
    ("norm", "shape", "expected"),
    [
        (lambda: nn.GroupNorm(6, 6), (5, 6, 1, 1), 1.0),
        (lambda: nn.GroupNorm(2, 6), (5, 6, 1, 1), 3.0),
        (lambda: nn.GroupNorm(6, 6), (5, 6, 2, 3), 6.0),
        (lambda: nn.InstanceNorm2d(6, affine=True), (5, 6, 2, 1), 2.0),
        (lambda: nn.LayerNorm((2, 3)), (5, 6, 2, 3), 6.0),
        (lambda: nn.LayerNorm(1), (5, 6, 2, 1), 1.0),
        (lambda: nn.BatchNorm2d(6), (5, 6, 2, 3), 30.0),
    ],
)
def test_the_numbers_of_a_norm_are_those_that_share_a_mean(
    norm: Callable[[], nn.Module], shape: tuple[int, ...], expected: float
) -> None:
    model = nn.Sequential(nn.Conv2d(6, 6, 1), norm())
    profile = measured(squares(model, *shape), "norm_numbers")["norm_numbers"]
    assert by_name(profile) == {"1": expected}


def test_functions_are_found_and_kept_statistics_are_none() -> None:
    profile = measured(squares(Called(), 5, 3), "norm_numbers")["norm_numbers"]
    assert profile.values == (4.0, 5.0, 1.0)
    assert all(site.leaf for site in profile.sites)


def test_a_model_without_norms_or_in_evaluation_has_no_profile() -> None:
    assert measured(squares(nn.Linear(3, 2), 4, 3), "norm_numbers") == {}
    still = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    assert measured(squares(still, 4, 3), "norm_numbers") == {}
