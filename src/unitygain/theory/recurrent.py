"""How wide recurrent cells carry a perturbation from step to step: growth per step, plain (not squared).

Weights are independent with variance sigma_w2/width, the same at every step. The growth per step is the
exponential of the largest Lyapunov exponent: 0.9 loses 10 % a step, 1 remembers for ever.
"""

import math
from dataclasses import dataclass

from scipy import special

from unitygain.theory._given import require_finite, require_positive, require_variance
from unitygain.theory.gates import gate_moments
from unitygain.theory.mean_field import Phi, mean_field
from unitygain.theory.variance import find_root


@dataclass(frozen=True)
class RecurrentGrowth:
    """How a recurrent cell carries a perturbation.

    Args:
        per_step: Growth of a perturbation per step in the long run.
        hidden_variance: Mean square of the hidden state that the cell settles at.
        coherent: Growth of the part that is the same at every step, by itself.
        scattered: Squared gain per step of the part that changes from step to step.
    """

    per_step: float
    hidden_variance: float
    coherent: float
    scattered: float

    @property
    def lyapunov(self) -> float:
        """The largest Lyapunov exponent, nat per step; minus infinity where nothing passes."""
        return math.log(self.per_step) if self.per_step else -math.inf

    @property
    def horizon(self) -> float:
        """Steps in which a perturbation falls by a factor e; infinite where it does not fall."""
        return -1 / self.lyapunov if self.per_step < 1 else math.inf


def combined_growth(keep: float, gain: float, scattered: float) -> float:
    """Return the growth per step of keep·I + gain·W plus terms that change from step to step.

    With the mean square of (keep·I + gain·W)^k summed in a generating function, a perturbation's square
    grows by λ = keep² + gain² + √(4·keep²·gain² + scattered²): (keep + gain)² where nothing scatters,
    the sum of all squares where nothing is coherent.

    Args:
        keep: Mean of what a unit keeps of itself.
        gain: Mean of what it gets through the weights, times the root of the weights' variance sum.
        scattered: Squared gain of everything else.

    Raises:
        ValueError: If a number is not finite or negative.

    References:
        Derived: Σₖ λ^(-k-1)·E‖(keep + gain·W)^k‖²/n = 1/√((λ - keep² - gain²)² - 4·keep²·gain²), which
        times `scattered` is 1 at the growth rate; spectrum: circular law, Ginibre 1965.
    """
    for name, value in (("keep", keep), ("gain", gain), ("scattered", scattered)):
        require_variance(name, value)
    square = keep**2 + gain**2 + math.sqrt(4 * keep**2 * gain**2 + scattered**2)
    return math.sqrt(square)


def rnn_growth(phi: Phi, sigma_w2: float, input_variance: float = 0.0) -> RecurrentGrowth:
    """Return the growth per step of h' = φ(W·h + input), the input of one variance and fresh each step.

    Args:
        phi: Name of an activation, an `Activation`, or a function of a torch tensor.
        sigma_w2: Variance of the recurrent weights times width (PyTorch's default: 1/3).
        input_variance: Variance of what the inputs and biases add to a pre-activation.

    Raises:
        ValueError: If a number is out of range or the state grows without bound.

    Example:
        >>> round(rnn_growth("tanh", 1 / 3).lyapunov, 4), round(rnn_growth("tanh", 4.0).lyapunov, 4)
        (-0.5493, 0.1547)

    References:
        Sompolinsky, Crisanti and Sommers, Chaos in random neural networks, 1988 (continuous time); discrete
        time: Molgedey, Schuchhardt and Schuster 1992. λ = ½·ln(sigma_w2·E φ'²).
    """
    require_positive("sigma_w2", sigma_w2)
    field = mean_field(phi, sigma_w2, input_variance)
    hidden = (field.q_star - input_variance) / sigma_w2
    return RecurrentGrowth(math.sqrt(field.chi_1), hidden, 0.0, field.chi_1)


def minimal_rnn_growth(
    sigma_w2: float, input_variance: float, sigma_v2: float = 0.0, gate_bias: float = 0.0
) -> RecurrentGrowth:
    """Return the growth per step of the minimalRNN h' = u·h + (1-u)·z, u = sigmoid(W·h + V·z + b).

    Args:
        sigma_w2: Variance of W times width.
        input_variance: Variance of an entry of z, fresh each step.
        sigma_v2: Variance of V times width.
        gate_bias: b; large keeps.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> [round(minimal_rnn_growth(1.0, 1.0, gate_bias=b).per_step, 3) for b in (0.0, 4.0)]
        [0.586, 0.982]

    References:
        Chen, Pennington and Schoenholz, Dynamical isometry and a mean field theory of RNNs, 2018,
        for inputs that are independent over time; ‖J‖² = E u² + sigma_w2·E u'²·E(h - z)².
    """
    require_variance("sigma_w2", sigma_w2)
    require_variance("input_variance", input_variance)
    require_variance("sigma_v2", sigma_v2)
    require_finite("gate_bias", gate_bias)

    def state(hidden: float) -> float:
        gate = gate_moments(gate_bias, sigma_w2 * hidden + sigma_v2 * input_variance)
        return input_variance * (1 - 2 * gate.mean + gate.square) - hidden * (1 - gate.square)

    # The state is an average of inputs: its variance cannot exceed theirs.
    hidden = find_root(state, 0.0, input_variance) if input_variance > 0 else 0.0
    gate = gate_moments(gate_bias, sigma_w2 * hidden + sigma_v2 * input_variance)
    turned = sigma_w2 * gate.slope_square * (hidden + input_variance)
    scattered = gate.square - gate.mean**2 + turned
    return RecurrentGrowth(combined_growth(gate.mean, 0.0, scattered), hidden, gate.mean, scattered)


def lstm_growth_at_origin(
    sigma_w2: float, forget_bias: float = 0.0, input_bias: float = 0.0, output_bias: float = 0.0
) -> float:
    """Return the growth per step of an LSTM at rest (state, input and other biases zero): f + i·o·√sigma_w2.

    Exact in the limit of large width: the Jacobian of the cell state is f·I + i·o·W_g.

    Args:
        sigma_w2: Variance of the recurrent weights times width (PyTorch's default: 1/3).
        forget_bias: Sum of the biases of the forget gate.
        input_bias: Sum of the biases of the input gate.
        output_bias: Sum of the biases of the output gate.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> round(lstm_growth_at_origin(1 / 3), 4), round(lstm_growth_at_origin(1 / 3, forget_bias=1), 4)
        (0.6443, 0.8754)

    References:
        Derived; Can, Krishnamurthy and Schwab, Gating creates slow modes, 2020.
    """
    require_variance("sigma_w2", sigma_w2)
    f = special.expit(require_finite("forget_bias", forget_bias))
    i = special.expit(require_finite("input_bias", input_bias))
    o = special.expit(require_finite("output_bias", output_bias))
    return float(f + i * o * math.sqrt(sigma_w2))


def gru_growth_at_origin(sigma_w2: float, update_bias: float = 0.0, reset_bias: float = 0.0) -> float:
    """Return the growth per step of a GRU at rest: z + (1-z)·r·√sigma_w2.

    Args:
        sigma_w2: Variance of the recurrent weights times width (PyTorch's default: 1/3).
        update_bias: Sum of the biases of the update gate z, which keeps.
        reset_bias: Sum of the biases of the reset gate.

    Raises:
        ValueError: If a number is out of range.

    References:
        Derived; Can, Krishnamurthy and Schwab 2020.
    """
    require_variance("sigma_w2", sigma_w2)
    z = special.expit(require_finite("update_bias", update_bias))
    r = special.expit(require_finite("reset_bias", reset_bias))
    return float(z + (1 - z) * r * math.sqrt(sigma_w2))
