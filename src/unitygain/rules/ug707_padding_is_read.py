"""UG707: padding is read in the place of the words.

What it sees:
    The mean attention weight of a padding token and of a word (`padding_read`). It fires where the words get
    less than a thousandth of what padding gets. And, where no attention tells, which tokens of an embedding
    get a gradient of the loss: it fires where half of the padding or more does, and at most a quarter of the
    words. Padding is the ``padding_idx`` of the embedding, or the tail of the token that ends most sequences.

Why it matters:
    What the model is given of a text is how long it is. The loss falls to that of the classes' shares and
    stays there, and no initialisation, rate or norm helps.

When it is a false alarm:
    Tokens of the index ``padding_idx`` that are no padding, and are all that is to be read.

Remedies:
    The mask the other way round: ``nn.MultiheadAttention`` and ``nn.TransformerEncoder`` leave out where it
    is True (``src_key_padding_mask = text == pad``), as does ``scores.masked_fill(mask, -inf)``;
    ``scaled_dot_product_attention`` and the ``attention_mask`` of Hugging Face keep where it is True or 1. A
    mean over words is ``(x * keep).sum(1) / keep.sum(1)`` with ``keep = text != pad``.

References:
    Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), section 3.2.3, on masks of -inf.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def found(at_padding, at_words, kind="attention"):
    ...     share = at_padding / (at_padding + at_words)
    ...     profile = Profile("padding_read", "part", (Site("attn"),), (share,), labels=(kind,),
    ...                       columns=("at_padding", "at_words"), rows=((at_padding, at_words),))
    ...     return [finding.code for finding in judge({"padding_read": profile})]
    >>> found(0.2, 0.0), found(0.9, 0.1, "embedding")
    (['UG707'], ['UG707'])

A silent example:
    >>> found(0.0, 0.2), found(0.1, 0.1), found(1.0, 1.0, "embedding")
    ([], [], [])
"""

from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Site
from unitygain.rules._numbers import spell

# Of a masked word it is exactly 0; without any mask, padding and words get about as much (0.5), and a sound
# mask leaves padding 0.
ALONE = 0.999
# Under an inverted mask no words are reached but the one that is read itself; a sound mask, or none, reaches
# all of them.
REACHED, MISSED = 0.5, 0.25


@rule(code="UG707", name="padding-is-read", severity="error", needs=("padding_read",))
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding where padding is read and the words are not, by attention first."""
    profile = profiles["padding_read"]
    places = list(zip(profile.sites, profile.values, profile.labels, profile.rows, strict=True))
    attentions = [place for place in places if place[2] == "attention"]
    alone = [(site, share) for site, share, _, _ in attentions if share > ALONE]
    if alone:
        yield _attention(alone, len(attentions))
        return
    for site, share, kind, (at_padding, at_words) in places:
        if kind == "embedding" and at_padding >= REACHED and at_words <= MISSED:
            yield _embedding(site, share, at_padding, at_words)
            return


def _attention(found: list[tuple[Site, float]], of: int) -> Finding:
    site, share = found[0]
    more = f" (and in {len(found) - 1} more of {of} attentions)" if len(found) > 1 else ""
    return Finding(
        "UG707",
        "padding-is-read",
        "error",
        f"attention reads padding and no words: {spell(share)} of its weight per token lies at padding at "
        f"{site}{more}",
        tuple(place for place, _ in found),
        "padding_read",
        share,
        "of the weight per token",
        ALONE,
        causes=(
            Cause(
                "inverted mask: the padding mask hides the words and shows the padding; "
                "nn.MultiheadAttention and nn.TransformerEncoder leave out where it is True (text == pad), "
                "scaled_dot_product_attention reads where it is True (text != pad)"
            ),
        ),
        evidence={"attentions that read padding alone": len(found), "attentions": of},
        fix="invert the padding mask: ~mask",
    )


def _embedding(site: Site, share: float, at_padding: float, at_words: float) -> Finding:
    return Finding(
        "UG707",
        "padding-is-read",
        "error",
        f"the loss reads padding in the place of words: {spell(at_padding)} of the padding of {site} gets a "
        f"gradient, and {spell(at_words)} of the words (padding's part is {spell(share)})",
        (site,),
        "padding_read",
        share,
        "of the tokens that get a gradient, per token",
        REACHED / (REACHED + MISSED),
        causes=(
            Cause(
                "inverted mask: the mask of a mean, a maximum or an attention keeps the padding and leaves "
                "out the words"
            ),
            Cause("last position: output[:, -1] of a shorter sequence is padding; read it at its own length"),
        ),
        evidence={"padding with a gradient": at_padding, "words with a gradient": at_words},
        fix="invert the padding mask: ~mask",
    )
