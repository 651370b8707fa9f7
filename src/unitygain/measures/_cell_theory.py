"""What theory expects of a recurrent cell whose weights were drawn at random, at the scale that they have."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from unitygain.probe.cells import Cell
from unitygain.probe.steps import Walk
from unitygain.stats import mean, rms
from unitygain.theory.gated import gru_growth, lstm_growth
from unitygain.theory.recurrent import rnn_growth

# The formula's own error, and what one matrix of finite width scatters: of 480 random cells of 16 to 128
# units at least 95 % lie within CLAIMED + SCATTER/√width (docs/log.md).
CLAIMED, SCATTER = 0.02, 1.2


def expected_exponent(walked: Walk) -> tuple[float, tuple[float, float]]:
    """Return the largest exponent that mean-field theory expects, and the range for one random matrix.

    From the variance of the recurrent weights, the mean of every gate's bias and the variance that the
    inputs of this walk bring; the inputs are taken as fresh at every step. NaN where there is no formula: a
    projected LSTM, gated cells with fan_in·var above 4, ReLU states that grow without bound.
    """
    cell = walked.cell
    unknown = math.nan, (math.nan, math.nan)
    if not isinstance(cell, Cell) or cell.projection is not None:
        return unknown
    width = cell.width
    biases = [bias for bias in (cell.input_bias, cell.state_bias) if bias is not None]
    driven = F.linear(torch.cat(list(walked.inputs)), cell.input_weight) + sum(biases)
    sigma_w2 = width * float(rms(cell.state_weight)) ** 2
    try:
        exponent = _growth(cell.kind, sigma_w2, driven)
    except ValueError:
        return unknown
    spread = CLAIMED + SCATTER / math.sqrt(width)
    return exponent, (exponent - spread, exponent + spread)


def _growth(kind: str, sigma_w2: float, driven: Tensor) -> float:
    if kind in {"tanh", "relu"}:
        return rnn_growth(kind, sigma_w2, float(rms(driven)) ** 2).lyapunov
    gates = driven.chunk(4 if kind == "lstm" else 3, dim=-1)
    biases = [float(mean(gate)) for gate in gates]
    variances = [float(rms(gate)) ** 2 - bias**2 for gate, bias in zip(gates, biases, strict=True)]
    variance = max(0.0, math.fsum(variances) / len(variances))
    if kind == "lstm":
        into, keep, _, out = biases
        return lstm_growth(sigma_w2, variance, keep, into, out).lyapunov
    reset, update, _ = biases
    return gru_growth(sigma_w2, variance, update, reset).lyapunov
