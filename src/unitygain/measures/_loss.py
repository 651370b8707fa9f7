"""Which of several loss operations is the loss."""

from unitygain._types import Site
from unitygain.probe.record import Record


def main_loss(record: Record) -> Site | None:
    """Return the loss operation with most rows, the last of them in a tie; None where none was seen."""
    rows = record.values.get("loss.rows", {})
    return max(reversed(tuple(rows)), key=lambda site: rows[site][0], default=None)
