"""Healthy networks at their start: at most 5 % of the reports may warn, and 1 % call it an error."""

import pytest
from zoo.inits import FAMILIES, study

INITS = 1000


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_false_alarms_on_a_thousand_inits_are_at_their_levels():
    names = list(FAMILIES)
    rows = [study(names[index % len(names)], index // len(names)) for index in range(INITS)]
    for severity, level in (("warning", 0.05), ("error", 0.01)):
        said = [line for row in rows if row[severity] for line in row["said"]]
        assert sum(row[severity] for row in rows) <= level * INITS, "\n".join(said)
    # The p-values themselves, over all places of a report and over the trunk as it is.
    for kind in ("places", "loops"):
        known = [row[kind] for row in rows if row[kind] is not None]
        for level in (0.05, 0.01):
            assert sum(p <= level for p in known) <= level * len(known), f"{kind} at {level}"
    # Chance has to be there to be told apart: many trunks wander by more than 20 dB.
    assert sum(row["deep"] for row in rows) >= INITS // 20
