"""The gains of a trunk from its input on: what leaves a block by theory is what enters the next one."""

import dataclasses
import math

from unitygain._types import Site
from unitygain.measures._wide import BlockGain, NotPredicted, Rule, Value, pass_block
from unitygain.probe.outline import STEM, UNIT, Outline
from unitygain.probe.segment import Segment
from unitygain.theory.signal import Signal

STEP = 0.02


@dataclasses.dataclass(frozen=True)
class _State:
    """What enters a block, and the variance of the logarithm of its mean square over networks."""

    signal: Signal
    variance: float = 0.0


def read_outline(
    found: Outline, rules: dict[str, Rule]
) -> tuple[dict[Site, BlockGain | NotPredicted], dict[Site, str]]:
    """Return what theory expects of every block, and at which blocks unit variance was assumed, with why.

    The scatter of a gain has a part of its own and one that comes of what enters being one draw as well.

    Args:
        found: The operations.
        rules: What each operation does, by name.
    """
    gains: dict[Site, BlockGain | NotPredicted] = {}
    assumed = dict(found.assumed)
    state: _State | None = None
    for segment in ([found.stem] if found.stem else []) + found.segments:
        state = _entering(segment, state, assumed)
        try:
            gains[segment.site], state = _pass(segment, state, rules)
        except NotPredicted as reason:
            gains[segment.site], state = reason, None
    gains.pop(STEM, None)
    return gains, assumed


def _entering(segment: Segment, state: _State | None, assumed: dict[Site, str]) -> _State:
    if not segment.carried:
        return _State(Signal(*segment.entering, segment.spread))
    if state is not None:
        return state
    assumed[segment.site] = "what comes before it is not predicted"
    return _State(Signal(*UNIT))


def _pass(segment: Segment, state: _State, rules: dict[str, Rule]) -> tuple[BlockGain, _State | None]:
    gain, leaving = pass_block(segment, state.signal, rules)
    back, forth = _elasticities(segment, state, rules, gain) if state.variance else (0.0, 1.0)
    scatter = math.sqrt(gain.scatter**2 + back**2 * state.variance)
    # The squared gain of one draw scatters forward as it does backward.
    variance = forth**2 * state.variance + (2 * gain.scatter) ** 2
    known = isinstance(leaving, Signal) and _is_finite(leaving)
    after = _State(leaving, variance) if known and isinstance(leaving, Signal) else None
    return dataclasses.replace(gain, scatter=scatter), after


def _elasticities(
    segment: Segment, state: _State, rules: dict[str, Rule], gain: BlockGain
) -> tuple[float, float]:
    """Change of the logarithms of the gain and of the mean square that leaves, per that of what enters."""
    factor = 1 + STEP
    signal = state.signal
    moved = dataclasses.replace(
        signal,
        square=signal.square * factor,
        shared=signal.shared * factor,
        mean=signal.mean * math.sqrt(factor),
    )
    try:
        other, _ = pass_block(segment, moved, rules)
    except NotPredicted:
        return 0.0, 1.0
    back = math.log(other.backward / gain.backward) / math.log(factor)
    forth = 1 + 2 * math.log(other.forward / gain.forward) / math.log(factor)
    return back, forth if math.isfinite(forth) else 1.0


def _is_finite(value: Value) -> bool:
    return all(map(math.isfinite, dataclasses.astuple(value)))
