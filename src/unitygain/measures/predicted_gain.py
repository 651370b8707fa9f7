"""predicted_gain: the gain that every block should have, by the theory of wide random networks."""

import math
from collections import Counter

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.measures._carried import read_outline
from unitygain.measures._wide import BlockGain, NotPredicted, read_block
from unitygain.measures._wide_rules import RULES
from unitygain.probe.draws import on_meta
from unitygain.probe.outline import STEM, outline
from unitygain.probe.record import Record
from unitygain.probe.tape import play

UNIT = "norm of J^T u over norm of u, expected"
COLUMNS = ("backward", "forward", "scatter")
# How far predictions were off beyond what finite width explains, as a standard deviation of the logarithm:
# over 20 seeds of the families in tests/measures/test_predicted_gain.py, none beyond 0.04.
MODEL_ERROR = 0.05
LEVEL = 1.96
NOTE = (
    "expected of random weights of mean zero with the mean square that these have, for what enters each "
    "block as it does; interval: 95 %, from the width and from how far the theory was off on known models"
)
NOTE_ON_META = (
    "a prediction without measurement: expected of weights as their modules would draw them, with the signal "
    "carried from the model's input by theory; interval: 95 %, from the width and from how far the theory "
    "was off on known models"
)


@measure(unit=UNIT, passes="1 forward")
def predicted_gain(case: Case, record: Record) -> Profile | None:
    """Gain of every block that theory expects of what it is made of, beside which `rms_gain` stands.

    Each operation of a block is taken as it would act in a wide random network: a weight by its actual mean
    square and the number of inputs that it sums, an activation by E φ'² at the variance that reaches it, a
    normalisation by the variance that it divides by, a skip path and its branch by the sum of squares,
    attention by how many keys share its weight. What enters a block is taken from the data: its mean
    square, what its rows have in common, and its mean. So a deviation at one block is that block's own.

    Of a model on the meta device the weights are taken as their modules would draw them, and what enters a
    block is what theory says of the blocks before it, from the data or from a signal of unit variance on.

    Cost: one forward pass, and one reduction per weight. No side effects.

    Args:
        case: An isolated case.
        record: A record with blocks.

    Returns:
        One gain per block (not squared) with the interval in which 95 % of such blocks lie. Rows: backward,
        forward (rms out over rms in), and the standard deviation of the logarithm over networks of this
        width. NaN where an operation is not covered; its reason is the block's label. Facts: the expected
        ``gain_per_block`` and ``loop_db`` (from ``loop_db_low`` to ``loop_db_high`` in 95 %) over the
        ``predicted`` blocks of ``depth``, and how many of them add two signals (``with_skip``). None without
        blocks.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(64, 64), nn.ReLU())))
        >>> _ = [nn.init.constant_(layer.bias, 0) for layer in model[::2]]
        >>> case = Case(model, loss=lambda m, x: m(x).sum(), data=[torch.randn(8, 64)])
        >>> [round(value, 1) for value in predicted_gain(case, observe(case, [])).values]
        [0.4, 0.4, 0.4, 0.6]

    References:
        The rules of the operations: `unitygain.theory.signal` and `unitygain.theory.convolution`.
    """
    if not record.blocks:
        return None
    found: dict[Site, BlockGain | NotPredicted] = dict.fromkeys(record.blocks, NotPredicted("it did not run"))
    assumed: dict[Site, str] | None = None
    if on_meta(case.model):
        carried, assumed = read_outline(outline(case, record), RULES)
        found |= carried
    else:
        found |= _read(case, record)
    gains = [value if isinstance(value, BlockGain) else None for value in found.values()]
    labels = tuple("" if isinstance(value, BlockGain) else str(value) for value in found.values())
    return Profile(
        "predicted_gain",
        UNIT,
        tuple(found),
        tuple(gain.backward if gain else math.nan for gain in gains),
        interval=tuple(_interval(gain) for gain in gains),
        columns=COLUMNS,
        rows=tuple((g.backward, g.forward, g.scatter) if g else (math.nan,) * 3 for g in gains),
        labels=labels,
        facts=_facts(gains),
        note=_note(found, assumed),
    )


def _read(case: Case, record: Record) -> dict[Site, BlockGain | NotPredicted]:
    found: dict[Site, BlockGain | NotPredicted] = {}
    for segment in play(case, record):
        try:
            found[segment.site] = read_block(segment, RULES)
        except NotPredicted as reason:
            found[segment.site] = reason
    return found


def _interval(gain: BlockGain | None) -> tuple[float, float]:
    if gain is None:
        return math.nan, math.nan
    reach = math.exp(LEVEL * math.hypot(gain.scatter, MODEL_ERROR))
    return gain.backward / reach, gain.backward * reach


def _facts(gains: list[BlockGain | None]) -> dict[str, float | str]:
    known = [gain for gain in gains if gain and gain.backward > 0]
    decibels = [20 * math.log10(gain.backward) for gain in known]
    loop = math.fsum(decibels) if decibels else math.nan
    # Draws of different layers are independent; the theory may be off alike in all of them.
    scatter = math.hypot(*(gain.scatter for gain in known), MODEL_ERROR * len(known))
    reach = 20 / math.log(10) * LEVEL * scatter
    return {
        "gain_per_block": 10 ** (loop / max(1, len(known)) / 20),
        "loop_db": loop,
        "loop_db_low": loop - reach,
        "loop_db_high": loop + reach,
        "with_skip": float(sum(gain.skips for gain in known)),
        "predicted": float(len(decibels)),
        "depth": float(len(gains)),
    }


def _note(found: dict[Site, BlockGain | NotPredicted], assumed: dict[Site, str] | None) -> str:
    """How it was predicted, where a signal was assumed (on meta), and what was not predicted, by reason."""
    first: dict[str, tuple[Site, NotPredicted]] = {}
    times: Counter[str] = Counter()
    for site, value in found.items():
        if isinstance(value, NotPredicted):
            first.setdefault(value.reason, (site, value))
            times[value.reason] += 1
    parts = [
        f"not predicted: {site}{f' and {times[reason] - 1} more' if times[reason] > 1 else ''} ({why})"
        for reason, (site, why) in first.items()
    ]
    if assumed is None:
        return "; ".join([NOTE, *parts])
    names = {site: "the model" if site == STEM else site for site in assumed}
    units = [f"unit variance was assumed to enter {names[site]} ({why})" for site, why in assumed.items()]
    return "; ".join([NOTE_ON_META, *units, *parts])
