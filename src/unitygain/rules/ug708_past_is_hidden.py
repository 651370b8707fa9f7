"""UG708: a mask hides the past from every token.

What it sees:
    Which tokens a mask shows (`attention_before`): what share of those before a token, and of those after it.
    It fires where the mask of an attention over four tokens or more shows no token any that is before it,
    unless another attention of the model is causal.

Why it matters:
    A decoder whose causal mask is transposed reads what comes after each token, and the last token reads
    nothing but itself. What is to be said of the past cannot be learned, however long one trains, and where
    the next token is the target the model copies it and is useless when it has to go on by itself. A mask
    that leaves each token itself alone makes of attention a layer that is applied token by token.

When it is a false alarm:
    A model that reads backwards on purpose, as the backward half of a bidirectional language model does on
    its own; nodes of a directed graph, numbered so that every edge points to a later one.

Remedies:
    ``torch.ones(n, n).triu(1).bool()`` for what leaves out where it is True (``nn.MultiheadAttention``,
    ``nn.TransformerEncoder``, ``scores.masked_fill(mask, -inf)``); ``torch.ones(n, n).tril().bool()``, or
    ``is_causal=True``, for ``scaled_dot_product_attention``, which reads where it is True.

References:
    Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), section 3.2.3: all values that correspond to
    connections to the right are masked out.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def found(before, after, tokens=8.0):
    ...     profile = Profile("attention_before", "share", (Site("attn"),), (before,),
    ...                       columns=("after", "tokens"), rows=((after, tokens),))
    ...     return [finding.code for finding in judge({"attention_before": profile})]
    >>> found(0.0, 1.0), found(0.0, 0.0)
    (['UG708'], ['UG708'])

A silent example:
    >>> found(1.0, 0.0), found(0.3, 0.3), found(0.0, 1.0, tokens=2.0)
    ([], [], [])
"""

from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._numbers import spell

# Of two or three tokens, as the parts of a sample, a mask may show a few on purpose.
TOKENS = 4


@rule(code="UG708", name="past-is-hidden", severity="error", needs=("attention_before",))
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding where no token reads any before it."""
    profile = profiles["attention_before"]
    places = zip(profile.sites, profile.values, profile.rows, strict=True)
    long = [(site, before, after, tokens) for site, before, (after, tokens) in places if tokens >= TOKENS]
    blind = [place for place in long if place[1] == 0]
    causal = [place for place in long if place[1] > 0 and place[2] == 0]
    if not blind or causal:
        return
    site, _, after, tokens = blind[0]
    alone = after == 0
    more = f" (and in {len(blind) - 1} more of {len(long)} attentions)" if len(blind) > 1 else ""
    what = "no token but itself" if alone else "those after it and none before it"
    yield Finding(
        "UG708",
        "past-is-hidden",
        "error",
        f"a mask hides the past: at {site} each of {spell(tokens)} tokens may read {what}{more}",
        tuple(place[0] for place in blind),
        "attention_before",
        0.0,
        "of the tokens before",
        0.0,
        causes=(
            Cause(
                "mask: it leaves each token itself alone, so that attention joins nothing"
                if alone
                else "transposed mask: it hides what comes before a token and shows what comes after; "
                "triu(1) is what nn.MultiheadAttention and nn.TransformerEncoder leave out, tril() what "
                "scaled_dot_product_attention reads"
            ),
        ),
        evidence={
            "attentions that hide the past": len(blind),
            "attentions": len(long),
            "later tokens that are shown": after,
        },
        fix="mask = torch.ones(n, n).triu(1).bool()  # True where attention is left out",
    )
