"""UG709: the dimension of a softmax, as plain numbers."""

import pytest
from rules.profiles import judged, profile

import unitygain.rules  # noqa: F401 (fills the table)
from unitygain.measures.attention_axis import COLUMNS

QUERIES = (1.0, 2.0, 3.0, 1.0, 0.6, 1.5, 12.0)
HEADS = (1.0, 3.0, 4.0, 0.0, 1.1, 4.2, 12.0)
TURNED = (2.0, 1.0, 3.0, 1.0, 0.5, 1.4, 64.0)
RIGHT = (2.0, 2.0, 3.0, 0.0, 1.0, 1.0, 12.0)


def read(*rows: tuple[float, ...]):
    """Return the profile of attentions by their dimensions."""
    places = {f"attn.{index}": float(row[0] == row[1]) for index, row in enumerate(rows)}
    return profile("attention_axis", places, columns=COLUMNS, rows=rows)


@pytest.mark.parametrize(
    ("row", "words", "dim"),
    [(QUERIES, "over the queries (dim=-2)", "-1"), (HEADS, "neither", "-1"), (TURNED, "(dim=-1)", "-2")],
)
def test_the_cause_names_both_dimensions(row, words, dim):
    [finding] = judged("UG709", read(row, RIGHT))
    assert finding.severity == "error"
    assert words in finding.causes[0].text
    assert finding.fix.startswith(f"scores.softmax(dim={dim})")


def test_a_mean_of_the_values_and_few_tokens_are_left_alone():
    assert judged("UG709", read(RIGHT)) == []
    assert judged("UG709", read((*QUERIES[:-1], 3.0))) == []
