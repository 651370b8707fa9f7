"""Gated cells away from the origin: LSTM and GRU driven by inputs that are fresh at every step.

The cell state follows x' = keep·x + gain·W·x + noise with the same W at every step; what fluctuates in
the gates is the noise. Checked against simulated cells of 200 units to 0.02 nat per step for recurrent
weights up to sigma_w2 = 4; beyond, gates of consecutive steps depend on each other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from unitygain.theory._given import require_finite, require_variance
from unitygain.theory.gates import GateMoments, gate_moments, tanh_moments
from unitygain.theory.recurrent import RecurrentGrowth, combined_growth
from unitygain.theory.variance import find_root

LARGEST_WEIGHTS = 4.0


def lstm_growth(
    sigma_w2: float,
    input_variance: float,
    forget_bias: float = 0.0,
    input_bias: float = 0.0,
    output_bias: float = 0.0,
) -> RecurrentGrowth:
    """Return the growth per step of an LSTM away from the origin, driven by inputs fresh each step.

    Args:
        sigma_w2: Variance of the recurrent weights times width, the same for every gate.
        input_variance: Variance of what the inputs add to a pre-activation.
        forget_bias: Sum of the biases of the forget gate.
        input_bias: Sum of the biases of the input gate.
        output_bias: Sum of the biases of the output gate.

    Raises:
        ValueError: If a number is out of range, sigma_w2 above 4, where the formula stops to hold, or the
            cell's variance settles nowhere below 10,000.

    References:
        Derived, with gates taken as independent of each other and over time and the cell state as
        Gaussian; Gilboa et al., Dynamical isometry and a mean field theory of LSTMs and GRUs, 2019.
    """
    _require_weights(sigma_w2)
    require_variance("input_variance", input_variance)
    biases = (
        require_finite("forget_bias", forget_bias),
        require_finite("input_bias", input_bias),
        require_finite("output_bias", output_bias),
    )

    def at(cell: float) -> _LstmState:
        return _lstm_state(cell, sigma_w2, input_variance, biases)

    cell = _settle(lambda c: at(c).settled, 1e4)
    state = at(cell)
    lingering = sigma_w2 * state.output.slope_square * state.squashed[0]
    square, scattered = state.keep**2, state.through
    for _ in range(100):
        # The output gate's own path takes one more step, so its weight depends on the growth.
        # Gates that are shut for good keep a square of zero, by which nothing is divided.
        again = min(0.99, lingering / max(square, 1e-300))
        scattered = max(0.0, state.spread + state.through / (1 - again))
        square = combined_growth(state.keep, state.gain, scattered) ** 2
    return RecurrentGrowth(math.sqrt(square), state.hidden, state.keep + state.gain, scattered)


def gru_growth(
    sigma_w2: float, input_variance: float, update_bias: float = 0.0, reset_bias: float = 0.0
) -> RecurrentGrowth:
    """Return the growth per step of a GRU away from the origin, driven by inputs fresh each step.

    Args:
        sigma_w2: Variance of the recurrent weights times width, the same for every gate.
        input_variance: Variance of what the inputs add to a pre-activation.
        update_bias: Sum of the biases of the update gate z, which keeps.
        reset_bias: Sum of the biases of the reset gate.

    Raises:
        ValueError: If a number is out of range, or sigma_w2 above 4, where the formula stops to hold.

    References:
        Derived under the assumptions of `lstm_growth`; Gilboa et al. 2019.
    """
    _require_weights(sigma_w2)
    require_variance("input_variance", input_variance)
    require_finite("update_bias", update_bias)
    require_finite("reset_bias", reset_bias)

    def at(hidden: float) -> tuple[float, float, float, float]:
        spread = sigma_w2 * hidden + input_variance
        z, r = gate_moments(update_bias, spread), gate_moments(reset_bias, spread)
        candidate = tanh_moments(r.square * sigma_w2 * hidden + input_variance)
        opened, spread_z = 1 - 2 * z.mean + z.square, z.square - z.mean**2
        gain = (1 - z.mean) * candidate[1] * r.mean * math.sqrt(sigma_w2)
        through = opened * candidate[2] * (r.square + sigma_w2 * hidden * r.slope_square)
        turned = (hidden + candidate[0]) * z.slope_square
        scattered = max(0.0, spread_z + sigma_w2 * (through + turned) - gain**2)
        fresh = opened * candidate[0] + (spread_z - gain**2) * hidden
        return hidden * _damping(z.mean, gain) - fresh, z.mean, gain, scattered

    hidden = _settle(lambda v: at(v)[0], 1.0)
    _, keep, gain, scattered = at(hidden)
    return RecurrentGrowth(combined_growth(keep, gain, scattered), hidden, keep + gain, scattered)


def _damping(keep: float, gain: float) -> float:
    """The variance of x' = keep·x + gain·W·x + noise is that of the noise divided by this; negative: none."""
    product = (1 - (keep + gain) ** 2) * (1 - (keep - gain) ** 2)
    return math.copysign(math.sqrt(abs(product)), product)


def _settle(lack: Callable[[float], float], largest: float) -> float:
    """The variance at which `lack` is zero: from an unstable origin the first one above it."""
    if lack(1e-9) > 0:
        return 0.0
    if lack(largest) < 0:
        raise ValueError(
            f"the state's variance passes {largest:g} and settles nowhere below: the cell forgets too little "
            "for its inputs; give a lower forget_bias, or less input_variance"
        )
    return find_root(lack, 1e-9, largest)


@dataclass(frozen=True)
class _LstmState:
    """An LSTM whose cell state has a given variance; `settled` is zero where that variance stays."""

    hidden: float
    keep: float
    gain: float
    spread: float
    through: float
    settled: float
    output: GateMoments
    squashed: tuple[float, float, float]


def _lstm_state(
    cell: float, sigma_w2: float, input_variance: float, biases: tuple[float, float, float]
) -> _LstmState:
    squashed = tanh_moments(cell)

    def hidden_of(hidden: float) -> float:
        return gate_moments(biases[2], sigma_w2 * hidden + input_variance).square * squashed[0]

    hidden = find_root(lambda v: hidden_of(v) - v, 0.0, 1.0) if cell > 0 else 0.0
    variance = sigma_w2 * hidden + input_variance
    f, i, o = (gate_moments(bias, variance) for bias in biases)
    candidate = tanh_moments(variance)
    gain = i.mean * candidate[1] * o.mean * squashed[1] * math.sqrt(sigma_w2)
    weights = cell * f.slope_square + i.square * candidate[2] + candidate[0] * i.slope_square
    through = sigma_w2 * weights * o.square * squashed[2]
    spread = f.square - f.mean**2 - gain**2
    fresh = i.square * candidate[0] + spread * cell
    settled = cell * _damping(f.mean, gain) - fresh
    return _LstmState(hidden, f.mean, gain, spread, through, settled, o, squashed)


def _require_weights(sigma_w2: float) -> None:
    if require_variance("sigma_w2", sigma_w2) > LARGEST_WEIGHTS:
        raise ValueError(
            f"sigma_w2 is {sigma_w2:g}; above {LARGEST_WEIGHTS:g} gates of consecutive steps depend on each "
            "other and no formula is given; measure the cell's exponents"
        )
