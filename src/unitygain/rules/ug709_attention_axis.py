"""UG709: attention whose softmax runs over another dimension than the keys.

What it sees:
    The dimension of an attention's softmax beside the one that its product with the values sums over
    (`attention_axis`). It fires where they differ, in a square matrix of four tokens or more whose logits
    are products of queries and keys, and no division has made a mean of it since.

Why it matters:
    Attention is a mean of the values only if the weights of each query sum to one. Over the queries they
    compete for each key instead: a token that no query wants is still handed to some, one query gets much
    and another next to nothing, and what one token reads depends on all the others, so that a causal mask no
    more hides what comes later. It runs and its shapes are right, and the model learns worse or nothing that
    needs attention.

When it is a false alarm:
    A model in which queries compete on purpose, such as slots for what they explain: these divide by the sum
    over the keys after the softmax, and then are not judged.

Remedies:
    ``scores.softmax(dim=-1)`` where the scores are (..., queries, keys) and the product is
    ``weights @ values``. ``values @ weights`` of values (channels, tokens) needs the weights transposed.

References:
    Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), equation 1. Locatello et al., "Object-Centric
    Learning with Slot Attention" (NeurIPS 2020), section 2.1, on queries that compete on purpose. PyTorch,
    "torch.nn.functional.softmax", on the implicit choice of dim.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> columns = ("dim", "summed", "dimensions", "queries", "sum_least", "sum_most", "tokens")
    >>> def found(value, row):
    ...     profile = Profile("attention_axis", "", (Site("attn"),), (value,), columns=columns, rows=(row,))
    ...     return [(finding.code, finding.fix) for finding in judge({"attention_axis": profile})]
    >>> found(0.0, (1.0, 2.0, 3.0, 1.0, 0.4, 1.9, 12.0))
    [('UG709', 'scores.softmax(dim=-1)  # the dimension that the product with the values sums over')]

A silent example:
    >>> found(1.0, (2.0, 2.0, 3.0, 0.0, 1.0, 1.0, 12.0)), found(0.0, (1.0, 2.0, 3.0, 1.0, 0.9, 1.1, 3.0))
    ([], [])
"""

from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._numbers import spell

# As of UG708: the parts of a sample, two or three, may be anything.
TOKENS = 4


@rule(code="UG709", name="attention-axis", severity="error", needs=("attention_axis",))
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding where attention does not sum over what its softmax ran over."""
    profile = profiles["attention_axis"]
    read = [
        (site, value, dict(zip(profile.columns, row, strict=True)))
        for site, value, row in zip(profile.sites, profile.values, profile.rows, strict=True)
    ]
    wrong = [(site, seen) for site, value, seen in read if value == 0 and seen["tokens"] >= TOKENS]
    if not wrong:
        return
    site, seen = wrong[0]
    dim, summed, count = (int(seen[name]) for name in ("dim", "summed", "dimensions"))
    more = f" (and in {len(wrong) - 1} more of {len(read)} attentions)" if len(wrong) > 1 else ""
    yield Finding(
        "UG709",
        "attention-axis",
        "error",
        f"the softmax at {site} runs over dimension {dim} of {count} (counted from 0), and the product with "
        f"the values sums over dimension {summed}: the {spell(seen['tokens'])} weights of one query sum to "
        f"{spell(seen['sum_least'])} up to {spell(seen['sum_most'])} in the place of 1{more}",
        tuple(site for site, _ in wrong),
        "attention_axis",
        0.0,
        profile.unit,
        1.0,
        causes=(Cause(_explain(seen)),),
        evidence={"attentions of this kind": len(wrong), "attentions": len(read), **seen},
        fix=f"scores.softmax(dim={summed - count})  "
        "# the dimension that the product with the values sums over",
    )


def _explain(seen: Mapping[str, float]) -> str:
    summed, count = int(seen["summed"]), int(seen["dimensions"])
    if not seen["queries"]:
        return (
            f"softmax axis: it runs over dimension {int(seen['dim'])}, which is neither queries nor keys "
            "(heads or samples, as F.softmax chooses by itself where no dim is given); the keys are "
            f"dim={summed - count}"
        )
    return (
        f"softmax axis: it runs over the queries (dim={int(seen['dim']) - count}), which compete for each "
        f"key; the weights of a query are to sum to 1 over the keys, which the product with the values sums "
        f"over (dim={summed - count}), or the weights are to be transposed before it"
    )
