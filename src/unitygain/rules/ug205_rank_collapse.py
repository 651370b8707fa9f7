"""UG205: what leaves the trunk is nearly the same vector for every token or sample.

What it sees:
    1 - cosine between tokens (or samples, where there is no sequence) at the exit of every block. It fires
    where the last block leaves 3e-4 or less, a tenth or less of the largest value before; with attention
    that averages (entropy above 0.9 of its maximum) already at 0.005, or 0.1 in Post-LN, and an eighth. At
    1e-6 it is an error.
    The blocks of a discriminator are left out: generated samples are one class to it, and to make them alike
    is its task. Where the skip path passes through the norms of the block, as in Post-LN, these are the first
    cause; where blocks with attention have no skip path around them, that is.

Why it matters:
    The head sees one input. What distinguishes tokens has to be learned from a rest that shrinks per block,
    the gradients of query and key weights shrink with it, and training sticks at the frequencies of the
    classes.

When it is a false alarm:
    Inputs that are alike from the start do not fire, since the fall is judged. A model whose cross-entropy is
    below half of a guess's has learnt all the same, and gets information only. A trained model whose hidden
    states share a large common component is caught by neither condition unless the cosine passes 0.9997; then
    centre the states before you believe it. A head with its own normalisation that subtracts the mean can
    live with it.

Remedies:
    pre_norm: normalise before the branch, not after the sum; add_residual: a skip path around every block
    that has none; scale residual branches by 1/sqrt(2L); weights that keep the signal above the biases; fewer
    blocks.

References:
    Dong, Cordonnier and Loukas, "Attention is not all you need: pure attention loses rank doubly
    exponentially with depth" (ICML 2021). Noci, Anagnostidis, Biggio, Orvieto, Singh and Lucchi, "Signal
    Propagation in Transformers: Theoretical Perspectives and the Role of Rank Collapse" (NeurIPS 2022). For
    networks without attention: Poole et al., "Exponential expressivity in deep neural networks through
    transient chaos" (NeurIPS 2016), on the fixed point of the correlation map. For what a classifier makes of
    one class: Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep
    learning training" (PNAS 2020). For the norms: Xiong et al., "On Layer Normalization in the Transformer
    Architecture" (ICML 2020), section 3.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> blocks = tuple(Site(f"blocks.{i}") for i in range(5))
    >>> cosine = Profile("token_cosine", "cosine", blocks, (0.1, 0.5, 0.9, 0.99, 0.9998))
    >>> [finding.code for finding in judge({"token_cosine": cosine})]
    ['UG205']

A silent example:
    >>> cosine = Profile("token_cosine", "cosine", blocks, (0.1, 0.3, 0.5, 0.6, 0.65))
    >>> list(judge({"token_cosine": cosine}))
    []
"""

import math
from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Severity, Site
from unitygain.rules._fixes import suggest
from unitygain.rules._kept_statistics import blame_unset
from unitygain.rules._layers import OFFSET, parameter_rms, read_layers, within_any
from unitygain.rules._losses import LEARNT, read_entropy
from unitygain.rules._numbers import median, spell

LEAST = 4
COLLAPSED, FALL = 3e-4, 10.0
# 16 Pre-LN blocks that train were seen at 0.015. Where the skip path leads through the norms as well, what
# tells tokens apart is divided at every block, and less of a fall is enough.
AVERAGED, AVERAGED_FALL, AVERAGING = 0.005, 8.0, 0.9
DIVIDED_TOO = 0.1
FATAL = 1e-6
# Below this the rounding of float32 outputs, (2^-24)² and a little more, hides what tells inputs apart.
HIDDEN = 2.0**-44
# What only the last block brings is no collapse over depth: a branch that ends in zeros, say.
SUDDEN = 0.9
# The norm of a sum divides the skip path by sqrt(2) for a branch as large as the stream; 0.9: half as large.
DIVIDED, SAME = 0.9, 1.01


@rule(
    code="UG205",
    name="rank-collapse",
    severity="error",
    needs=("token_cosine",),
    wants=(
        "effective_rank",
        "attention_entropy",
        "weight_gain",
        "param_rms",
        "loss_value",
        "gain_parts",
        "fake_logit_grad",
        "norm_unset",
    ),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding where the tokens become the same over the trunk."""
    apart = before_judges(profiles)
    if len(apart) < LEAST:
        return
    first, (last_site, last) = max(value for _, value in apart), apart[-1]
    entropy = attention_entropy(profiles, [site for site, _ in apart])
    averaged = entropy >= AVERAGING and not offset_by_biases(profiles, [site for site, _ in apart])
    averages = DIVIDED_TOO if skip_through_norms(profiles) < DIVIDED else AVERAGED
    limit, fall = (averages, AVERAGED_FALL) if averaged else (COLLAPSED, FALL)
    if last > limit or first < fall * last or first <= HIDDEN or apart[-2][1] > SUDDEN * first:
        return
    learnt = has_learnt(profiles)
    severity: Severity = "info" if learnt else "error" if last <= FATAL else "warning"
    likely = (*blame_unset(profiles, len(apart)), *causes(profiles, apart, entropy))
    between = profiles["token_cosine"].facts.get("between", "tokens")
    yield Finding(
        "UG205",
        "rank-collapse",
        severity,
        f"{between} become the same over {len(apart)} blocks: their mean cosine is {1 - last:.6g} at "
        f"{last_site}, 1 - cosine falls from {spell(first)} to {spell(last)}{learnt}",
        (last_site,),
        "token_cosine",
        1 - last,
        f"mean cosine between two {between}",
        1 - limit,
        causes=likely,
        evidence={"apart_first": first, "apart_last": last, **rank(profiles, last_site)},
        fix=suggest(likely),
    )


def before_judges(profiles: Mapping[str, Profile]) -> list[tuple[Site, float]]:
    """Return 1 - cosine per block, without the blocks of discriminators."""
    game = profiles.get("fake_logit_grad")
    judges = {site.path for site in game.sites} if game else set[str]()
    found = profiles["token_cosine"].finite()
    return [(site, 1 - cosine) for site, cosine in found if not within_any(site.path, judges)]


def has_learnt(profiles: Mapping[str, Profile]) -> str:
    """Say that the loss is far below that of a guess, where it is; an empty string elsewhere."""
    read = read_entropy(profiles["loss_value"]) if "loss_value" in profiles else None
    if read is None or not read[0] < LEARNT * read[1]:
        return ""
    return f"; the loss is {spell(read[0])} per row all the same, where a guess has {spell(read[1])}"


def offset_by_biases(profiles: Mapping[str, Profile], blocks: list[Site]) -> bool:
    """Whether half of the blocks' layers, as those that write to the stream, add more bias than signal.

    What tokens then have in common is an offset that the next norm's input has whole, and attention's average
    is small beside it: 32 blocks of GPT-2's weights with biases as PyTorch draws them train at a cosine of
    0.997.
    """
    layers = read_layers(profiles, blocks)
    biased = [one for one in layers if parameter_rms(profiles, f"{one.site.path}.bias") >= one.gain]
    return bool(layers) and 2 * len(biased) >= len(layers)


def attention_entropy(profiles: Mapping[str, Profile], blocks: list[Site]) -> float:
    """Return the median entropy of the attention inside the blocks, NaN without attention."""
    found = [value for _, value in attention(profiles, blocks)]
    return median(found) if found else math.nan


def attention(profiles: Mapping[str, Profile], blocks: list[Site]) -> list[tuple[Site, float]]:
    """Return the finite attention entropies inside the blocks."""
    profile = profiles.get("attention_entropy")
    paths = {block.path for block in blocks}
    return [item for item in (profile.finite() if profile else ()) if within_any(item[0].path, paths)]


def rank(profiles: Mapping[str, Profile], site: Site) -> dict[str, float | str]:
    """Return the effective rank at `site`, where it was measured."""
    profile = profiles.get("effective_rank")
    found = [value for here, value in profile.finite() if here == site] if profile else []
    return {"effective_rank": found[0]} if found else {}


def causes(
    profiles: Mapping[str, Profile], apart: list[tuple[Site, float]], entropy: float
) -> Iterable[Cause]:
    """Yield norms of sums, attention that averages, an activation with a mean, biases, then depth itself.

    Blocks of attention without a skip path need one first. In others it stands before the depth, where each
    block keeps a tenth or more.
    """
    blocks = [site for site, _ in apart]
    first, kept = max(value for _, value in apart), kept_per_block([value for _, value in apart])
    half = (-1.0, 1 - max(first * kept ** ((len(blocks) - 1) / 2), HIDDEN))
    yield from norms(profiles, half)
    attends, bare = attention(profiles, blocks), tuple(no_skip(profiles, blocks, kept, half))
    if attends and bare:
        yield from bare
    elif entropy >= AVERAGING:
        paths = tuple(dict.fromkeys(site.path for site, _ in attends))
        yield Cause(
            f"attention: it averages the tokens (entropy {spell(entropy)} of its maximum), and each of "
            f"{len(blocks)} blocks adds that average to all of them; scaled by 1/sqrt(2·{len(blocks)}) at "
            "least half of the fall, in decibels, must go",
            "scale_branch",
            {"sites": paths, "factor": 1 / math.sqrt(2 * len(blocks))},
            half,
        )
    layers = read_layers(profiles, blocks)
    offset = [layer for layer in layers if layer.activation in OFFSET]
    if len(offset) > len(layers) / 2:
        yield Cause(
            f"activation: the outputs of a {offset[0].activation} have a mean that is the same for every "
            "input, beside which what tells inputs apart is small; without it half of the fall, in "
            "decibels, must go",
            "swap_activation",
            {"of": OFFSET[offset[0].activation], "to": "Tanh"},
            half,
        )
    yield from biases(profiles, blocks, half[1])
    # A block that loses a tenth and more by itself has a fault of its own, beside which depth is no matter.
    if not attends and kept * FALL >= 1:
        yield from bare
    yield Cause(f"depth: {len(blocks)} blocks, each of which keeps {spell(kept)} of what tells them apart")


def norms(profiles: Mapping[str, Profile], half: tuple[float, float]) -> Iterable[Cause]:
    """Yield the norms of sums, where the skip path leads through them and they divide it."""
    skip = skip_through_norms(profiles)
    if skip < DIVIDED:
        yield Cause(
            f"norms: they divide the sums of stream and branch, so that the skip path passes {spell(skip)}x "
            "per block, exactly what they make of it, and what tells inputs apart is divided with it; in "
            "front of the branches at least half of the fall, in decibels, must go",
            "pre_norm",
            predicted=half,
        )


def skip_through_norms(profiles: Mapping[str, Profile]) -> float:
    """Return the median gain of a skip path that leads through the norms of its block, NaN without any."""
    parts = profiles.get("gain_parts")
    if parts is None or not parts.rows:
        return math.nan
    norm, skip = parts.columns.index("normalisation"), parts.columns.index("skip")
    through = [row[skip] for row in parts.rows if 1 / SAME < row[skip] / row[norm] < SAME]
    return median(through) if len(through) > len(parts.rows) / 2 else math.nan


def no_skip(
    profiles: Mapping[str, Profile], blocks: list[Site], kept: float, half: tuple[float, float]
) -> Iterable[Cause]:
    """Yield the lack of a skip path, where none goes around most of the blocks that were followed."""
    parts, known = profiles.get("gain_parts"), set(blocks)
    rows = [row for site, row in zip(parts.sites, parts.rows, strict=True) if site in known] if parts else []
    if parts is None or not rows:
        return
    norm, skip = parts.columns.index("normalisation"), parts.columns.index("skip")
    # A row of NaN is a block through which the gradient could not be followed.
    followed = [row for row in rows if math.isfinite(row[norm])]
    without = [row for row in followed if math.isnan(row[skip])]
    if 2 * len(followed) > len(rows) and 2 * len(without) > len(followed):
        yield Cause(
            f"no skip path: each of {len(blocks)} blocks hands on what it makes, and not its sum with what "
            f"entered, so that {spell(kept)} of what tells them apart is kept per block; with x + block(x) "
            "at least half of the fall, in decibels, must go",
            "add_residual",
            predicted=half,
        )


def kept_per_block(apart: list[float]) -> float:
    """Return what a block keeps of 1 - cosine, from the blocks whose value rounding does not hide."""
    end = next((index for index, value in enumerate(apart) if value <= HIDDEN), len(apart))
    seen = apart[:end]
    if len(seen) < 2:
        return (HIDDEN / max(apart)) ** (1 / (len(apart) - 1))
    return (seen[-1] / max(apart)) ** (1 / (len(seen) - 1))


def biases(profiles: Mapping[str, Profile], blocks: list[Site], half: float) -> Iterable[Cause]:
    """Yield the biases, where most layers' weights let the signal fall below them."""
    layers = read_layers(profiles, blocks)
    weak = [layer for layer in layers if layer.gain < 0.9 * layer.needed]
    biased = [layer for layer in weak if parameter_rms(profiles, f"{layer.site.path}.bias") > 0]
    if len(biased) > len(layers) / 2:
        usual = median([layer.gain for layer in biased])
        yield Cause(
            f"biases: with weights at sqrt(fan_in·var) = {spell(usual)} the signal falls below the biases, "
            "which are the same for every input",
            "zero_biases",
            {"sites": tuple(site.path + end for site in blocks for end in ("", ".*"))},
            (-1.0, max(half, 1 - COLLAPSED)),
        )
