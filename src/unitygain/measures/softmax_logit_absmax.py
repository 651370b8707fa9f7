"""softmax_logit_absmax: how large the logits get of every softmax inside the model, such as a router's."""

import math

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record

UNIT = "largest |logit| that enters the softmax"
NOTE = "NaN where every row of the softmax has fewer than two entries that are not masked"
COLUMNS = ("softmax_logit_absmax", "entropy")


@measure(unit=UNIT, needs=("softmax.absmax", "softmax.entropy"))
def softmax_logit_absmax(case: Case, record: Record) -> Profile | None:
    """Largest magnitude among the logits of every softmax inside the model, with the weights ahead of it.

    Such is the softmax of a router over experts, of a gate over branches, or attention; not that of the
    output. Where the entropy is near 0 it chooses one entry, and next to
    no gradient comes back to what made its logits.

    Cost: none beside that of `attention_logit_absmax`. No side effects.

    Args:
        case: Not used.
        record: A record with `softmax.absmax` and `softmax.entropy`.

    Returns:
        One value per softmax, in the order in which they ran; labels are the path of the last module with
        weights that had run. Rows add the ``entropy`` of its rows over the largest that they can have. None
        where there is no such softmax.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> class Mixture(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.router, self.experts = nn.Linear(2, 3, bias=False), nn.Linear(2, 3)
        ...     def forward(self, x):
        ...         return (self.router(x).softmax(-1) * self.experts(x)).sum(-1)
        >>> model = Mixture()
        >>> _ = nn.init.constant_(model.router.weight, 4.0)
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.ones(5, 2)])
        >>> needs = ["softmax.absmax", "softmax.entropy"]
        >>> profile = softmax_logit_absmax(case, observe(case, needs))
        >>> profile.labels, [[round(number, 4) for number in row] for row in profile.rows]
        (('router',), [[8.0, 1.0]])
    """
    behind = {place.site: place.note for place in record.of("softmax") if place.type != "output"}
    largest, entropy = (record.values.get(f"softmax.{name}", {}) for name in ("absmax", "entropy"))
    seen = {site: largest[site][0] for site in behind if site in largest}
    if not seen:
        return None
    return Profile(
        "softmax_logit_absmax",
        UNIT,
        sites=tuple(seen),
        values=tuple(seen.values()),
        labels=tuple(behind[site] for site in seen),
        columns=COLUMNS,
        rows=tuple((value, entropy.get(site, (math.nan,))[0]) for site, value in seen.items()),
        note=NOTE,
    )
