"""What is said of rows: how long they are, against a loop over them."""

import pytest
import torch

from unitygain.stats.moments import MOST_LENGTHS, row_lengths, row_spread


@pytest.mark.parametrize("features", [-1, 1])
def test_row_lengths_are_those_of_a_loop(features):
    torch.manual_seed(0)
    tensor = torch.randn(4, 5, 6) * torch.rand(4, 1, 1)
    rows = tensor.double().movedim(features, -1).reshape(-1, tensor.shape[features]).unbind()
    squares = sorted(float(sum(x * x for x in row) / len(row)) for row in rows)
    mean = sum(squares) / len(squares)
    found = row_lengths(tensor, features)
    assert found.tolist() == pytest.approx([square / mean for square in squares])
    assert float((found - 1).square().mean()) == pytest.approx(float(row_spread(tensor, features)))


def test_of_many_rows_a_few_short_ones_stay_apart():
    """One row in 100 is short: 1/length over all 3000 rows is that of the means of neighbours."""
    torch.manual_seed(1)
    tensor = torch.randn(3000, 64)
    tensor[::100] *= 0.01
    found = row_lengths(tensor)
    squares = tensor.double().square().mean(-1)
    assert len(found) == MOST_LENGTHS
    assert float(found.mean()) == pytest.approx(1.0, rel=1e-12)
    # Of the 10.24 places of the 30 short rows one is shared with long ones, which are 10,000 times as long.
    assert float((1 / found).mean()) == pytest.approx(float((squares.mean() / squares).mean()), rel=0.05)


def test_rows_of_zeros_have_no_length():
    assert row_lengths(torch.zeros(3, 4)).tolist() == [0.0, 0.0, 0.0]
