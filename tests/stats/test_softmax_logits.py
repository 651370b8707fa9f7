"""softmax_logits: masked entries, and rows of nothing but masked ones, count for nothing."""

import math

import pytest
import torch

from unitygain.stats.operations import shown_by_mask, softmax_logits


@pytest.mark.parametrize("mask", [-1e9, -1e4, -math.inf])
def test_a_row_that_is_masked_whole_is_left_out(mask: float) -> None:
    logits = torch.tensor([[3.0, 1.0, mask], [mask, mask, mask]])
    probabilities = logits.softmax(-1).nan_to_num()
    absmax, entropy = softmax_logits(logits, probabilities, -1).tolist()
    p = 1 / (1 + math.exp(-2))
    expected = -(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2)
    assert absmax == 3.0
    # Two float32 probabilities.
    assert entropy == pytest.approx(expected, rel=1e-6)


def test_large_logits_that_are_no_mask_count() -> None:
    logits = torch.tensor([[-900.0, -1000.0]])
    assert softmax_logits(logits, logits.softmax(-1), -1)[0].item() == 1000.0


@pytest.mark.parametrize("fill", [-math.inf, -1e9, -1e4])
@pytest.mark.parametrize("diagonal", [-2, 0, 1, 3])
def test_what_a_mask_shows_is_counted_entry_by_entry(fill: float, diagonal: int) -> None:
    torch.manual_seed(0)
    hidden = torch.ones(6, 6).triu(diagonal).bool()
    logits = torch.randn(2, 3, 6, 6).masked_fill(hidden, fill)
    pairs = [(i, j) for i in range(6) for j in range(6) if not hidden[i].all()]
    before = sum(not hidden[i, j] for i, j in pairs if j < i) / 15
    after = sum(not hidden[i, j] for i, j in pairs if j > i) / 15
    shown = shown_by_mask(logits, logits.softmax(-1))
    assert shown.tolist() == pytest.approx([before, after], abs=1e-12)


def test_a_sharp_softmax_is_no_mask() -> None:
    logits = 300 * torch.eye(5)
    assert shown_by_mask(logits, logits.softmax(-1)).tolist() == [1.0, 1.0]
