"""What every detector promises: plain state, from which it continues bit for bit, and bounded memory."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unitygain.detectors
from unitygain._registry import DETECTORS, detector
from unitygain._types import Frame
from unitygain.detectors import replay

assert unitygain.detectors.__all__
OWN = [name for name, entry in DETECTORS.items() if entry.make.__module__.startswith("unitygain.")]
numbers = st.floats() | st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf, 5e-324, 1.7e308])


def frames_of(name: str, values: list[float]) -> list[Frame]:
    return [Frame(step, dict.fromkeys(DETECTORS[name].needs, value)) for step, value in enumerate(values, 1)]


def events(subject, frames: list[Frame]) -> list[str]:
    """The events as text, in which NaN equals NaN."""
    return [repr(event) for event in replay([subject], frames)]


@pytest.mark.parametrize("name", OWN)
@given(before=st.lists(numbers, max_size=60), after=st.lists(numbers, max_size=30))
@settings(max_examples=40, deadline=None)
def test_a_resumed_detector_says_the_same(name, before, after):
    frames = frames_of(name, before + after)
    whole, first, second = (DETECTORS[name].make() for _ in range(3))
    expected = events(whole, frames)
    found = events(first, frames[: len(before)])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert found + events(second, frames[len(before) :]) == expected
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize("name", OWN)
def test_state_does_not_grow(name):
    subject = DETECTORS[name].make()
    sizes = set()
    for start in range(1, 3001, 1000):
        replay([subject], frames_of(name, [1.0 + (start + i) % 7 / 10 for i in range(1000)]))
        sizes.add(len(json.dumps(subject.state_dict())))
    assert max(sizes) < 5000
    assert max(sizes) - min(sizes) < 200


@pytest.mark.parametrize("name", OWN)
def test_numbers_that_are_absent_are_no_event(name):
    subject = DETECTORS[name].make()
    assert replay([subject], [Frame(step, {}) for step in range(50)]) == []


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="a detector named 'spike' exists"):
        detector(name="spike", needs=("loss",))(object)
