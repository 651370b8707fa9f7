"""UG707: what is read of padded sequences, as plain numbers."""

import pytest
from rules.profiles import judged, profile

import unitygain.rules  # noqa: F401 (fills the table)

COLUMNS = ("at_padding", "at_words")


def read(kind: str, at_padding: float, at_words: float):
    """Return the profile of one place."""
    share = at_padding / (at_padding + at_words)
    rows = ((at_padding, at_words),)
    return profile("padding_read", {"attn": share}, labels=(kind,), columns=COLUMNS, rows=rows)


@pytest.mark.parametrize(("at_words", "count"), [(0.0, 1), (0.0001, 1), (0.0003, 0), (0.2, 0)])
def test_attention_that_gives_words_a_thousandth_reads_them(at_words, count):
    assert len(judged("UG707", read("attention", 0.2, at_words))) == count


@pytest.mark.parametrize(
    ("at_padding", "at_words", "count"),
    [(1.0, 0.09, 1), (0.5, 0.25, 1), (0.49, 0.0, 0), (1.0, 0.26, 0), (1.0, 1.0, 0), (0.0, 1.0, 0)],
)
def test_a_gradient_at_padding_and_not_at_words_is_told(at_padding, at_words, count):
    assert len(judged("UG707", read("embedding", at_padding, at_words))) == count


@pytest.mark.parametrize("kind", ["attention", "embedding"])
def test_the_mask_is_the_first_cause(kind):
    [finding] = judged("UG707", read(kind, 0.9, 0.0))
    assert finding.causes[0].text.startswith("inverted mask: ")
    assert finding.severity == "error"
