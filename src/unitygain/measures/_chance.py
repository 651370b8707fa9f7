"""What chance makes of a gain: expected value, interval and p beside it, from draws of the same trunk."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from unitygain._types import Profile, Site
from unitygain.probe.record import Numbers, Record
from unitygain.theory.chance import FEWEST, ChanceLaw, drawn_law, unity_law, wide_law, worst_of

# Decibels of a plain gain per nat of the logarithm of its square.
DECIBEL = 10 / math.log(10)
# A law from draws of which many let nothing pass would leave out what it is about.
MOST_DEAD = 0.1
NOTE = (
    "expected, interval (95 %) and p_value are those of the same weights in random places (rows and columns "
    "permuted, signs drawn): the law of another initialisation at this very scale"
)


def beside(profile: Profile, record: Record, signal: str) -> Profile:
    """Return the profile of gains with what chance gives beside each, and in all.

    Args:
        profile: One plain gain per block.
        record: A record with the draws of `unitygain.probe.redraw.redraw`; without them nothing is added.
        signal: Its key there, such as ``"redrawn.backward"``.

    Returns:
        `expected`, `interval` and `p_value` per site, NaN where no law can be had. Facts: ``law``
        (``redrawn``, ``wide layers`` or ``none``), ``draws``, ``p_least`` (a p of this value is a bound) and
        ``p_worst_site``, the chance that one of the sites lies as far out as the farthest.
    """
    if "redraws" not in record.facts:
        return profile
    drawn = {s: d for s, d in record.values.get(signal, {}).items() if all(0 < x < math.inf for x in d)}
    seen = [(s, v) for s, v in profile.items() if s in drawn and 0 < v < math.inf]
    if not seen:
        why = str(record.facts["redraws_note"]) or "nothing passed in some of the draws"
        return dataclasses.replace(
            profile,
            facts={**profile.facts, "law": "none"},
            note="; ".join(filter(None, (profile.note, f"no p-value: {why}"))),
        )
    laws = {site: drawn_law(_logs(drawn[site])) for site, _ in seen}
    least = next(iter(laws.values())).least
    together = np.array([_logs(drawn[site]) for site, _ in seen]).T
    facts: dict[str, float | str] = {
        "law": "redrawn",
        "draws": float(len(together)),
        "p_least": least,
        "p_worst_site": worst_of([2 * math.log(value) for _, value in seen], together),
    }
    return dataclasses.replace(
        profile,
        expected=tuple(math.sqrt(laws[s].expected) if s in laws else math.nan for s in profile.sites),
        interval=tuple(_plain(laws.get(s)) for s in profile.sites),
        p_value=tuple(
            laws[s].p_value(v * v).value if s in laws and 0 < v * v < math.inf else math.nan
            for s, v in profile.items()
        ),
        facts={**profile.facts, **facts},
        note="; ".join(filter(None, (profile.note, NOTE))),
    )


def loop_facts(profile: Profile, record: Record, signal: str) -> dict[str, float | str]:
    """Return what chance makes of the whole trunk's gain, at unity gain and at the weights' own.

    Returns:
        ``unity_db`` with ``_low`` and ``_high``: the typical gain over all blocks, and its 95 % interval, of
        a trunk of this make whose mean squared gain is 1; ``unity_p``, the chance of the measured one there,
        and ``unity_p_least``, at which it is a bound. ``redrawn_db`` with ``_low`` and ``_high``, and
        ``redrawn_p``: the same for the weights as they are, in random places. ``unity_draws``: the draws
        behind them, 0 where they come from the widths alone. Empty where no law can be had.
    """
    seen = [(site, value) for site, value in profile.items() if 0 < value < math.inf]
    loop = math.fsum(2 * math.log(value) for _, value in seen)
    drawn = _loops(record, signal, [site for site, _ in seen])
    if seen and len(drawn) >= FEWEST:
        unity, own = unity_law(drawn), drawn_law(drawn)
        facts = _range("redrawn_db", own) | {"redrawn_p": own.p_of_log(loop).value}
    elif seen and "wide_variance" in record.facts:
        unity, facts = wide_law(float(record.facts["wide_variance"])), {}
    else:
        return {}
    p = unity.p_of_log(loop)
    return {
        **_range("unity_db", unity),
        "unity_p": p.value,
        "unity_p_least": unity.least,
        "unity_draws": float(unity.draws),
        **facts,
    }


def _loops(record: Record, signal: str, sites: Sequence[Site]) -> list[float]:
    """Log squared gain of the whole trunk in every draw in which all blocks passed something."""
    drawn = record.values.get(signal, {})
    if not sites or any(site not in drawn for site in sites):
        return []
    draws = list(zip(*(drawn[site] for site in sites), strict=True))
    alive = [math.fsum(_logs(gains)) for gains in draws if all(0 < gain < math.inf for gain in gains)]
    return alive if len(alive) >= (1 - MOST_DEAD) * len(draws) else []


def _logs(gains: Numbers) -> list[float]:
    """Natural logarithms of the squared gains."""
    return [2 * math.log(gain) for gain in gains]


def _plain(law: ChanceLaw | None) -> tuple[float, float]:
    if law is None:
        return math.nan, math.nan
    low, high = law.interval()
    return math.sqrt(low), math.sqrt(high)


def _range(name: str, law: ChanceLaw) -> dict[str, float | str]:
    """Typical gain and interval in decibels, of the logarithm itself, which no float's range ends."""
    low, high = law.log_interval()
    return {
        name: DECIBEL * law.mean_log,
        f"{name}_low": DECIBEL * low,
        f"{name}_high": DECIBEL * high,
    }
