"""UG708: what a mask shows, as plain numbers."""

import pytest
from rules.profiles import judged, profile

import unitygain.rules  # noqa: F401 (fills the table)


def read(*places: tuple[float, float], tokens: float = 8.0):
    """Return the profile of attentions by what their masks show of the past and of what follows."""
    shown = {f"attn.{index}": before for index, (before, _) in enumerate(places)}
    rows = tuple((after, tokens) for _, after in places)
    return profile("attention_before", shown, columns=("after", "tokens"), rows=rows)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [(0.0, 1.0, "transposed mask"), (0.0, 0.4, "transposed mask"), (0.0, 0.0, "mask: it leaves each token")],
)
def test_a_hidden_past_is_told_by_what_is_shown(before, after, words):
    [finding] = judged("UG708", read((before, after)))
    assert finding.severity == "error"
    assert finding.causes[0].text.startswith(words)


@pytest.mark.parametrize("shown", [(1.0, 0.0), (1.0, 1.0), (0.01, 0.5)])
def test_a_past_that_is_shown_in_part_is_left_alone(shown):
    assert judged("UG708", read(shown)) == []


def test_one_that_looks_back_beside_one_that_looks_ahead_is_meant():
    assert judged("UG708", read((0.0, 1.0), (1.0, 0.0))) == []
    assert len(judged("UG708", read((0.0, 1.0), (1.0, 1.0)))) == 1


def test_few_tokens_are_left_alone():
    assert judged("UG708", read((0.0, 1.0), tokens=3.0)) == []
    assert len(judged("UG708", read((0.0, 1.0), tokens=4.0))) == 1
