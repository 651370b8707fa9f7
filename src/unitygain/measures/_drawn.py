"""The root mean square of a weight, also of one on the meta device that has no numbers yet."""

import math

from torch import Tensor

from unitygain._types import Site
from unitygain.probe.record import Record
from unitygain.stats import rms


def weight_rms(record: Record, path: str, name: str, weight: Tensor) -> float:
    """Return the rms of a weight as it is; on meta, as its module would draw it; NaN where nothing does."""
    if not weight.is_meta:
        return float(rms(weight))
    drawn = record.numbers("drawn.moments", Site(f"{path}.{name}" if path else name))
    return math.sqrt(drawn[0]) if drawn is not None else math.nan
