"""A p-value that is only known from above is printed as a bound, in text and in tables."""

import dataclasses

from unitygain._types import Finding, Profile, Site
from unitygain.report._tables import tables
from unitygain.report._text import evidence

FINDING = Finding(
    "UG101",
    "vanishing-gradient",
    "error",
    "the gradient shrinks",
    (Site("blocks.0"),),
    "backward_gain",
    0.4,
    "x per block",
    0.7,
    expected=0.97,
    p_value=0.001,
)


def test_text_prints_a_bound_where_the_draws_end():
    assert "p = 0.001" in evidence(FINDING)
    assert "p < 0.001" in evidence(dataclasses.replace(FINDING, evidence={"p_least": 0.001}))
    larger = dataclasses.replace(FINDING, p_value=0.02, evidence={"p_least": 0.001})
    assert "p = 0.02" in evidence(larger)


def test_tables_print_a_bound_where_the_draws_end():
    sites = (Site("blocks.0"), Site("blocks.1"))
    facts = {"p_least": 0.001}
    gain = Profile("backward_gain", "ratio", sites, (0.4, 1.0), p_value=(0.001, 0.3), facts=facts)
    (table,) = tables({"backward_gain": gain})
    column = table.headings.index("backward_gain: p")
    assert [row[column] for row in table.rows] == ["< 0.001", "0.3"]
