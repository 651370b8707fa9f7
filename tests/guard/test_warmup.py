"""Sequence lengths: the formula, the gate, the state."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unitygain.guard import Guard, LengthWarmup, skip


@given(st.integers(1, 200), st.integers(0, 3000), st.integers(1, 400), st.integers(1, 64))
def test_lengths_follow_the_formula(start, more, steps, multiple):
    lengths = LengthWarmup(start, start + more, steps, multiple_of=multiple)
    found = list(itertools.islice(lengths, steps + 3))
    for step, length in enumerate(found):
        exact = math.floor(start + more * min(1, step / steps) + 1e-9)
        expected = start + more if step >= steps else max(start, exact // multiple * multiple)
        assert length == expected
    assert found == sorted(found)
    assert found[-1] == start + more


def test_lengths_wait_while_the_guard_is_not_green():
    model = nn.Linear(2, 1)
    guard = Guard(model, torch.optim.SGD(model.parameters(), 0.1), on_nonfinite=(skip(9),), calm=3)
    lengths = LengthWarmup(8, 80, 9, guard=guard)
    found = []
    for number, length in zip(range(14), lengths, strict=False):
        found.append(length)
        model.zero_grad()
        model(torch.full((2, 2), math.nan if number in {3, 5} else 1.0)).sum().backward()
        guard.step()
    # Held from the step after the first event until three healthy steps after the last.
    assert found == [8, 16, 24, 32, 40, 40, 40, 40, 40, 40, 48, 56, 64, 72]
    assert found == sorted(found)


def test_the_clock_is_the_state():
    first, second = LengthWarmup(8, 512, 50), LengthWarmup(8, 512, 50)
    for _ in range(17):
        next(first)
    second.load_state_dict(first.state_dict())
    assert [next(first) for _ in range(60)] == [next(second) for _ in range(60)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((16, 8, 10), "lengths from 16 to 8"),
        ((0, 8, 10), "lengths from 0 to 8"),
        ((8, 16, 0), "steps is 0"),
    ],
)
def test_lengths_that_do_not_grow_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LengthWarmup(*arguments)
