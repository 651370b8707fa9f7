"""softmax_logits: masked entries, and rows of nothing but masked ones, count for nothing."""

import math

import pytest
import torch

from unitygain.stats.operations import softmax_logits


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
