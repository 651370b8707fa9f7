"""The softmaxes that are attention, apart from those that make the output."""

from unitygain._types import Profile
from unitygain.probe.record import Record


def over_attention(record: Record, key: str, *, name: str, unit: str) -> Profile | None:
    """Return the numbers of `key` at every softmax that is attention; None where there is none."""
    kinds = record.labels("softmax")
    seen = {
        site: numbers for site, numbers in record.values.get(key, {}).items() if kinds[site] == "attention"
    }
    if not seen:
        return None
    return Profile(
        name,
        unit,
        sites=tuple(seen),
        values=tuple(numbers[0] for numbers in seen.values()),
        note="NaN where every row of the softmax has fewer than two entries that are not masked",
    )
