"""tells_places: samples may change their order, and steps that the model knows by their place may not."""

import pytest
import torch
from torch import Tensor, nn
from zoo import mixed

from unitygain._case import Case
from unitygain.probe.exchange import tells_places
from unitygain.probe.observe import observe


def told(case: Case, dim: int) -> bool:
    return tells_places(case, observe(case, []), dim)


@pytest.mark.parametrize(("placed", "data"), [(1, mixed.tagged), (0, mixed.tagged_time_first)])
def test_only_the_dimension_of_the_places_is_told(placed, data):
    torch.manual_seed(0)
    case = Case(mixed.Placed(batch_first=placed == 1, placed=placed), mixed.each_word, data())
    assert [told(case, dim) for dim in (0, 1)] == [placed == 0, placed == 1]


def test_a_loss_that_is_another_one_at_every_call_tells_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 1))
    case = Case(model, lambda m, x: m(x).square().mean(), [torch.randn(8, 5)])
    assert not told(case, 1)


class Counting(nn.Module):
    """Counts its calls in a buffer."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x)


def test_buffers_and_random_states_are_put_back():
    torch.manual_seed(0)
    case = Case(Counting(), lambda m, x: m(x).square().mean(), [torch.randn(8, 5)])
    record, state = observe(case, []), torch.get_rng_state()
    before = float(case.model.calls)
    assert tells_places(case, record, 1)
    assert float(case.model.calls) == before
    assert torch.equal(torch.get_rng_state(), state)
