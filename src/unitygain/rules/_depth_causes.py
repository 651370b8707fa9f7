"""Why a gain per block is not 1: weights, activation, normalisation, branches, each in decibels per block."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from unitygain._types import Cause, Profile, Site
from unitygain.rules._activation_causes import (
    LOOSE_CURVED,
    LOOSE_HIGH,
    LOOSE_LOW,
    Suspect,
    blame_biases,
    blame_slope,
    factor_beside,
    layers_per_block,
    most_common,
)
from unitygain.rules._kept_statistics import blame_unset
from unitygain.rules._layers import SCALE_FREE, SLOPE, Layer, read_layers, within, within_any
from unitygain.rules._numbers import from_db, median, spell, to_db
from unitygain.rules._parameters import is_bias, owner
from unitygain.rules._unexplained import blame_rest

# What counts as a cause: a decibel per block is 12 % per block.
NOTABLE = 1.0
# Decibels from 1 from which on the weights of a norm are worth a word.
UNUSUAL = 6.0
# Skip and branch are at right angles only on average: their sum of squares is the gain's within this factor.
AGREE = 1.12
# A ReLU behind the sum passes half of the squares of a signal of either sign, and all of a positive one.
OPEN = math.sqrt(0.5)


def explain_depth(
    profiles: Mapping[str, Profile], blocks: tuple[Site, ...], per_block: float, *, forward: bool
) -> tuple[Cause, ...]:
    """Return the causes of a growth or decay over `blocks`, the one that accounts for most first.

    Args:
        profiles: All profiles; ``weight_gain`` and ``gain_parts`` split the gain.
        blocks: The trunk.
        per_block: The gain per block that is to be explained.
        forward: Whether it is the gain of the forward signal.
    """
    sign = math.copysign(1.0, per_block - 1)
    parts = read_parts(profiles)
    residual = adds_up(parts, per_block, forward=forward)
    residual = residual or (not forward and per_block > 1 and _adds_up_usually(profiles, parts))
    layers = read_layers(profiles, blocks)
    found: list[Suspect] = []
    if residual:
        found += blame_branch(blocks, per_block, parts, forward=forward)
        found += blame_skip(per_block, parts)
    else:
        beside = factor_beside(profiles, layers, blocks, parts) if per_block > 1 else 1.0
        found += blame_weights(layers, blocks, per_block, beside)
        found += blame_slope(layers, blocks, per_block, forward=forward)
        found += blame_biases(profiles, layers, blocks, per_block, forward=forward)
        found += blame_norm(profiles, parts, per_block)
        found += blame_between(profiles, blocks, parts)
    found = [suspect for suspect in found if suspect.decibel * sign >= NOTABLE]
    found.sort(key=lambda suspect: -abs(suspect.decibel))
    causes = [*blame_unset(profiles, len(blocks)), *(suspect.cause for suspect in found)]
    if not causes:
        causes.append(blame_rest(profiles, layers, len(blocks), per_block, forward=forward))
    if not residual and sign < 0:
        causes.append(Cause(f"no skip path: the gradient has one way, through all {len(blocks)} blocks"))
    return tuple(causes)


def adds_up(parts: Mapping[str, float], per_block: float, *, forward: bool) -> bool:
    """Whether a skip path and a branch make the gain, so that weights do not multiply along the trunk."""
    skip, branch = parts.get("skip", math.nan), parts.get("branch", math.nan)
    if forward and per_block < 1:
        return skip < min(1 / AGREE, per_block * AGREE)
    if forward:
        return OPEN / AGREE < skip < AGREE
    return 1 / AGREE < math.hypot(skip, branch) / per_block < AGREE


def _adds_up_usually(profiles: Mapping[str, Profile], parts: Mapping[str, float]) -> bool:
    """Whether they make the growth of the median block back, where a few blocks alone are far from that."""
    gains = profiles.get("backward_gain")
    usual = median([value for _, value in gains.finite()] or [1.0]) if gains else 1.0
    return usual > 1 and adds_up(parts, usual, forward=False)


def read_parts(profiles: Mapping[str, Profile]) -> dict[str, float]:
    """Return the median over the blocks of every column of ``gain_parts`` that has finite numbers."""
    profile = profiles.get("gain_parts")
    columns = profile.columns if profile else ()
    found = {
        name: [row[index] for row in profile.rows if math.isfinite(row[index])]
        for index, name in enumerate(columns)
        if profile
    }
    return {name: median(values) for name, values in found.items() if values}


def blame_weights(
    layers: list[Layer], blocks: tuple[Site, ...], per_block: float, beside: float
) -> Iterable[Suspect]:
    """Yield the weights, where their gain, times a factor beside the activation, is not what that needs."""
    if not layers:
        return
    usual = most_common(layers)
    # The gain per block is a mean of logarithms, and so must be what the layers have to do with it.
    needed = usual[0].needed
    gain = from_db(sum(to_db(layer.gain) for layer in usual) / len(usual))
    each = layers_per_block(layers, blocks)
    alone = gain * beside / needed
    wrong = to_db(alone) * each
    name = usual[0].activation
    # A slope that depends on the scale of the signal comes back to its usual size with it.
    free = name in SCALE_FREE or (name in SLOPE and gain < needed)
    centre, low, high = (per_block / from_db(wrong), LOOSE_LOW, LOOSE_HIGH) if free else (1.0, *LOOSE_CURVED)
    # Where the signal had fallen below the biases, they chose which units are open. At their own gain the
    # weights choose, and the gain is 1.
    least, most = (min(centre, 1.0), max(centre, 1.0)) if name in SCALE_FREE else (centre, centre)
    behind = f"{name} needs {spell(needed)}" if name not in {"identity", *SLOPE} else "1 keeps the scale"
    yield Suspect(
        wrong,
        Cause(
            f"weights: {_spell_gain(gain, beside, name)} where {behind}; that alone gives {spell(alone)}x "
            f"per layer, {spell(from_db(wrong))}x per block",
            "rescale_weights",
            {"sites": tuple(layer.site.path for layer in usual), "gain": needed / beside},
            (least * low**each, most * high**each),
        ),
    )


def _spell_gain(gain: float, beside: float, activation: str) -> str:
    """Write the gain of the weights, and the factor that multiplies it where there is one."""
    default = " (fan_in·var = 1/3, PyTorch's default initialisation)" if abs(gain**2 - 1 / 3) < 0.02 else ""
    text = f"sqrt(fan_in·var) = {spell(gain)}{default}"
    return text if beside == 1 else f"{text}, times the {spell(beside)} of forward beside the {activation},"


def blame_norm(
    profiles: Mapping[str, Profile], parts: Mapping[str, float], per_block: float
) -> Iterable[Suspect]:
    """Yield normalisation, where it multiplies the gradient of a block without a skip path."""
    norm = parts.get("normalisation", 1.0)
    if not norm > 0 or norm == 1.0:
        return
    rest = per_block / norm
    kind, weight = _usual_norm(profiles)
    what = f"{kind} divides by the spread of its input"
    if abs(to_db(weight)) > UNUSUAL:
        what += f" and its weights have an rms of {spell(weight)}"
    yield Suspect(
        to_db(norm),
        Cause(
            f"normalisation: {what}, {spell(norm)}x per block on the way back",
            "bypass_norm",
            {},
            (rest * LOOSE_LOW, rest * LOOSE_HIGH),
        ),
    )


def _usual_norm(profiles: Mapping[str, Profile]) -> tuple[str, float]:
    """Return the type of most norms, and the median rms of their weights; "it" and NaN without any."""
    outputs, sizes = profiles.get("act_rms"), profiles.get("param_rms")
    labels = zip(outputs.sites, outputs.labels, strict=True) if outputs and outputs.labels else ()
    norms = {site.path: label for site, label in labels if "Norm" in label}
    if not norms:
        return "it", math.nan
    scales = [
        value
        for site, value in (sizes.finite() if sizes else ())
        if value > 0 and owner(site) in norms and not is_bias(site)
    ]
    [(kind, _)] = Counter(norms.values()).most_common(1)
    return kind, median(scales) if scales else math.nan


def blame_between(
    profiles: Mapping[str, Profile], blocks: tuple[Site, ...], parts: Mapping[str, float]
) -> Iterable[Suspect]:
    """Yield what a block does outside of its layers, activations and norms: a gate, a sum over rows."""
    rest = parts.get("other", 1.0)
    if not rest > 0 or rest == 1.0:
        return
    means = _gates(profiles, blocks)
    if means:
        text = f"gate: its mean is {spell(median(means))}, and it multiplies by {spell(rest)}x per block"
    else:
        text = (
            "between the layers: a sum over rows (neighbours that are added up and not averaged), a product "
            f"or a factor in forward passes {spell(rest)}x per block, which no weight accounts for"
        )
    yield Suspect(to_db(rest), Cause(text))


def _gates(profiles: Mapping[str, Profile], blocks: tuple[Site, ...]) -> list[float]:
    """Return the means of the gates inside of the blocks, or else of those that run between them."""
    profile, inside = profiles.get("gate_mean"), {block.path for block in blocks}
    gates = profile.finite() if profile else ()
    own = [value for site, value in gates if within_any(site.path, inside)]
    around = [value for site, value in gates if all(within(path, site.path) for path in inside)]
    return own or (around if len(around) >= len(blocks) - 1 else [])


def blame_skip(per_block: float, parts: Mapping[str, float]) -> Iterable[Suspect]:
    """Yield a skip path that is multiplied on its way, as where the sum is halved."""
    skip, rest = parts.get("skip", 1.0), parts.get("other", 1.0)
    if per_block >= 1 or skip >= 1:
        return
    text = f"skip path: it passes {spell(skip)}x per block, where 1 keeps what enters"
    if abs(to_db(rest)) >= NOTABLE:
        text += f"; forward multiplies the sum of skip path and branch by {spell(rest)}"
    yield Suspect(to_db(per_block), Cause(text))


def blame_branch(
    blocks: tuple[Site, ...], per_block: float, parts: Mapping[str, float], *, forward: bool
) -> Iterable[Suspect]:
    """Yield the branches that are added to the skip path without a share."""
    if per_block <= 1:
        return
    skip, branch = (1.0, math.sqrt(per_block**2 - 1)) if forward else (parts["skip"], parts["branch"])
    factor = 1 / math.sqrt(2 * len(blocks))
    shared = math.hypot(skip, factor * branch)
    yield Suspect(
        to_db(per_block),
        Cause(
            f"branches: the skip path passes {spell(skip)}x and the branch adds {spell(branch)}x of its own, "
            f"{spell(per_block)}x per block; divided by sqrt(2·{len(blocks)}) it is {spell(shared)}x",
            "scale_branch",
            {"sites": tuple(block.path for block in blocks), "factor": factor},
            # Where a ReLU behind the sum closes part of the skip path, a smaller branch closes less of it.
            (shared * 0.9, max(shared, math.hypot(1.0, factor * branch) if skip < 1 else 0.0) * 1.1),
        ),
    )
