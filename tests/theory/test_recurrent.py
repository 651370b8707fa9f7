"""Growth per step against simulated cells (QR over the tangent), exact Jacobians, and limits."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import ndtri

from unitygain.theory.gated import gru_growth, lstm_growth
from unitygain.theory.gates import gate_moments
from unitygain.theory.recurrent import (
    combined_growth,
    gru_growth_at_origin,
    lstm_growth_at_origin,
    minimal_rnn_growth,
    rnn_growth,
)

# Accuracy that the formulas away from the origin claim, nat per step, and chance at 150 units.
CLAIMED = 0.02
WIDTH, STEPS = 150, 180


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def exponent(step, tangent, generator) -> tuple[float, float]:
    """Largest Lyapunov exponent and mean square of the state, the first third of the steps left out."""
    total, squares = 0.0, []
    tangent = np.linalg.qr(generator.normal(size=tangent))[0]
    for t in range(STEPS):
        state, tangent = step(tangent)
        tangent, triangle = np.linalg.qr(tangent)
        if t >= STEPS // 3:
            total += math.log(abs(triangle[0, 0]))
            squares.append(np.mean(state**2))
    return total / (STEPS - STEPS // 3), float(np.mean(squares))


def run_lstm(sigma_w2, input_variance, forget_bias, seed):
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(4, WIDTH, WIDTH)) * math.sqrt(sigma_w2 / WIDTH)
    now = {"h": np.zeros(WIDTH), "c": np.zeros(WIDTH)}

    def step(tangent):
        dh, dc = tangent[:WIDTH], tangent[WIDTH:]
        e = weights @ now["h"] + generator.normal(size=(4, WIDTH)) * math.sqrt(input_variance)
        de = weights @ dh
        i, f, g, o = sigmoid(e[0]), sigmoid(e[1] + forget_bias), np.tanh(e[2]), sigmoid(e[3])
        c = f * now["c"] + i * g
        dc = f[:, None] * dc + (now["c"] * f * (1 - f))[:, None] * de[1]
        dc += (g * i * (1 - i))[:, None] * de[0] + (i * (1 - g * g))[:, None] * de[2]
        t = np.tanh(c)
        dh = (o * (1 - t * t))[:, None] * dc + (t * o * (1 - o))[:, None] * de[3]
        now["h"], now["c"] = o * t, c
        return now["h"], np.concatenate([dh, dc])

    return exponent(step, (2 * WIDTH, 3), generator)


def run_gru(sigma_w2, input_variance, update_bias, seed):
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(3, WIDTH, WIDTH)) * math.sqrt(sigma_w2 / WIDTH)
    now = {"h": np.zeros(WIDTH)}

    def step(d):
        h = now["h"]
        a, da = weights @ h, weights @ d
        x = generator.normal(size=(3, WIDTH)) * math.sqrt(input_variance)
        r, z = sigmoid(a[0] + x[0]), sigmoid(a[1] + x[1] + update_bias)
        n = np.tanh(x[2] + r * a[2])
        inner = r[:, None] * da[2] + (a[2] * r * (1 - r))[:, None] * da[0]
        d = (
            z[:, None] * d
            + ((h - n) * z * (1 - z))[:, None] * da[1]
            + ((1 - z) * (1 - n * n))[:, None] * inner
        )
        now["h"] = z * h + (1 - z) * n
        return now["h"], d

    return exponent(step, (WIDTH, 3), generator)


def run_minimal(sigma_w2, input_variance, sigma_v2, bias, seed):
    generator = np.random.default_rng(seed)
    w, v = generator.normal(size=(2, WIDTH, WIDTH)) / math.sqrt(WIDTH)
    now = {"h": np.zeros(WIDTH)}

    def step(d):
        h, z = now["h"], generator.normal(size=WIDTH) * math.sqrt(input_variance)
        u = sigmoid(math.sqrt(sigma_w2) * w @ h + math.sqrt(sigma_v2) * v @ z + bias)
        d = u[:, None] * d + ((h - z) * u * (1 - u))[:, None] * (math.sqrt(sigma_w2) * w @ d)
        now["h"] = u * h + (1 - u) * z
        return now["h"], d

    return exponent(step, (WIDTH, 3), generator)


def agree(growth, runs, variance_error):
    exponents, squares = np.transpose(runs)
    # Twice the standard error of two runs each; 0.02 nat is what the module promises.
    assert abs(exponents.mean() - growth.lyapunov) < CLAIMED + abs(exponents[0] - exponents[1])
    assert squares.mean() == pytest.approx(growth.hidden_variance, rel=variance_error)


@pytest.mark.parametrize(
    ("sigma_w2", "input_variance", "forget_bias"), [(1 / 3, 0.3, 0.0), (1 / 3, 0.3, 3.0), (4.0, 1.0, 1.0)]
)
def test_lstm_away_from_the_origin(sigma_w2, input_variance, forget_bias):
    runs = [run_lstm(sigma_w2, input_variance, forget_bias, seed) for seed in (0, 1)]
    # A state that lives for 1/(1-f) = 20 steps is an average over few independent ones: 10 %.
    agree(lstm_growth(sigma_w2, input_variance, forget_bias), runs, 0.15)


@pytest.mark.parametrize(
    ("sigma_w2", "input_variance", "update_bias"), [(1 / 3, 0.3, 2.0), (1.0, 1.0, 0.0), (4.0, 0.2, 0.0)]
)
def test_gru_away_from_the_origin(sigma_w2, input_variance, update_bias):
    runs = [run_gru(sigma_w2, input_variance, update_bias, seed) for seed in (0, 1)]
    agree(gru_growth(sigma_w2, input_variance, update_bias), runs, 0.15)


@pytest.mark.parametrize(
    ("sigma_w2", "sigma_v2", "bias"), [(1.0, 0.0, 0.0), (1.0, 0.0, 3.0), (9.0, 1.0, 1.0)]
)
def test_minimal_rnn(sigma_w2, sigma_v2, bias):
    runs = [run_minimal(sigma_w2, 1.0, sigma_v2, bias, seed) for seed in (0, 1)]
    agree(minimal_rnn_growth(sigma_w2, 1.0, sigma_v2, bias), runs, 0.2)


def draws(count: int) -> list[np.ndarray]:
    """Independent standard normals whose empirical law is exact in one dimension: shuffled quantiles."""
    generator = np.random.default_rng(0)
    quantiles = ndtri((np.arange(200_000) + 0.5) / 200_000)
    return [generator.permutation(quantiles) for _ in range(count)]


def test_lstm_terms_against_samples_of_units():
    """The squared gain that scatters, from units drawn one by one instead of products of moments."""
    sigma_w2, input_variance, biases = 3.0, 0.8, (1.0, -0.3, 0.4)
    growth = lstm_growth(sigma_w2, input_variance, *biases)
    spread = math.sqrt(sigma_w2 * growth.hidden_variance + input_variance)
    zf, zi, zo, zg, zc = draws(5)
    f, i, o = (sigmoid(b + spread * z) for b, z in zip(biases, (zf, zi, zo), strict=True))
    g, dg = np.tanh(spread * zg), 1 - np.tanh(spread * zg) ** 2

    def state(cell: float) -> np.ndarray:
        return np.tanh(math.sqrt(cell) * zc)

    cell = brentq(lambda c: np.mean((o * state(c)) ** 2) - growth.hidden_variance, 1e-6, 1e3)
    c, t = math.sqrt(cell) * zc, state(cell)
    gain = i.mean() * dg.mean() * o.mean() * np.mean(1 - t * t) * math.sqrt(sigma_w2)
    to_cell = sigma_w2 * np.mean((c * f * (1 - f)) ** 2 + (i * dg) ** 2 + (g * i * (1 - i)) ** 2)
    to_hidden = np.mean((o * (1 - t * t)) ** 2)
    lingering = sigma_w2 * np.mean((t * o * (1 - o)) ** 2) / growth.per_step**2
    scattered = f.var() - gain**2 + to_cell * to_hidden / (1 - lingering)
    # Products of independent shuffles of 200,000: 0.5 % each at most.
    assert growth.scattered == pytest.approx(scattered, rel=0.01)
    assert growth.coherent == pytest.approx(f.mean() + gain, rel=0.005)
    # The variance that stays: c' = f·c + i·g, with the part of g that follows c summed as a series.
    step = settled_variance(cell, f, i, g, gain)
    assert step == pytest.approx(cell, rel=0.01)


def settled_variance(cell, f, i, g, gain):
    fresh = np.mean((i * g) ** 2) + (f.var() - gain**2) * cell
    keep = f.mean()
    return fresh / math.sqrt((1 - (keep + gain) ** 2) * (1 - (keep - gain) ** 2))


def test_gru_terms_against_samples_of_units():
    sigma_w2, input_variance, bias_z, bias_r = 3.0, 0.8, 0.7, -0.4
    growth = gru_growth(sigma_w2, input_variance, bias_z, bias_r)
    hidden = growth.hidden_variance
    spread = math.sqrt(sigma_w2 * hidden + input_variance)
    zz, zr, zn, zh, zw = draws(5)
    z, r = sigmoid(bias_z + spread * zz), sigmoid(bias_r + spread * zr)
    inner = math.sqrt(np.mean(r**2) * sigma_w2 * hidden + input_variance) * zn
    n, dn = np.tanh(inner), 1 - np.tanh(inner) ** 2
    h, wh = math.sqrt(hidden) * zh, math.sqrt(sigma_w2 * hidden) * zw
    gain = np.mean(1 - z) * dn.mean() * r.mean() * math.sqrt(sigma_w2)
    through = ((1 - z) * dn * r) ** 2 + ((1 - z) * dn * wh * r * (1 - r)) ** 2
    turned = ((h - n) * z * (1 - z)) ** 2
    scattered = z.var() - gain**2 + sigma_w2 * np.mean(through + turned)
    assert growth.scattered == pytest.approx(scattered, rel=0.01)
    fresh = np.mean(((1 - z) * n) ** 2) + (z.var() - gain**2) * hidden
    keep = z.mean()
    assert hidden == pytest.approx(
        fresh / math.sqrt((1 - (keep + gain) ** 2) * (1 - (keep - gain) ** 2)), rel=0.01
    )


def test_without_input_the_gated_cells_rest_at_the_origin():
    for bias in (-1.0, 0.0, 1.0):
        at_rest = lstm_growth(1 / 3, 0.0, forget_bias=bias)
        assert at_rest.hidden_variance == 0
        assert at_rest.per_step == pytest.approx(lstm_growth_at_origin(1 / 3, bias), rel=1e-9)
        assert gru_growth(1 / 3, 0.0, bias).per_step == pytest.approx(
            gru_growth_at_origin(1 / 3, bias), rel=1e-9
        )


def test_origin_growth_is_the_spectral_radius_of_torch_s_cells():
    """The cell's own Jacobian by autograd: its eigenvalues are f + i·o·(those of the recurrent weights)."""
    width = 24
    lstm, gru = (cell(1, width).double() for cell in (torch.nn.LSTMCell, torch.nn.GRUCell))
    for cell in (lstm, gru):
        for bias in (cell.bias_ih, cell.bias_hh):
            torch.nn.init.zeros_(bias)
    with torch.no_grad():
        lstm.bias_hh[width : 2 * width] = 1.3
        gru.bias_hh[width : 2 * width] = 0.7
    x = torch.zeros(1, dtype=torch.float64)

    def step(state):
        return torch.cat(lstm(x, (state[:width], state[width:])))

    jacobian = torch.autograd.functional.jacobian(step, torch.zeros(2 * width, dtype=torch.float64))
    largest = max(abs(np.linalg.eigvals(jacobian.numpy())))
    recurrent = np.linalg.eigvals(lstm.weight_hh[2 * width : 3 * width].detach().numpy())
    assert largest == pytest.approx(max(abs(sigmoid(1.3) + recurrent / 4)), rel=1e-12)
    jacobian = torch.autograd.functional.jacobian(
        lambda h: gru(x, h), torch.zeros(width, dtype=torch.float64)
    )
    recurrent = np.linalg.eigvals(gru.weight_hh[2 * width :].detach().numpy())
    kept = sigmoid(0.7)
    assert max(abs(np.linalg.eigvals(jacobian.numpy()))) == pytest.approx(
        max(abs(kept + (1 - kept) / 2 * recurrent)), rel=1e-12
    )


def test_origin_growth_with_every_bias_is_that_of_torch_s_cells():
    """Recurrent weights √sigma_w2·I have the circular law's edge as their only eigenvalue."""
    width, sigma_w2, eye = 5, 0.7, math.sqrt(0.7) * torch.eye(5, dtype=torch.float64)
    lstm, gru = (cell(1, width).double() for cell in (torch.nn.LSTMCell, torch.nn.GRUCell))
    with torch.no_grad():
        for cell in (lstm, gru):
            cell.weight_hh.copy_(eye.repeat(cell.weight_hh.shape[0] // width, 1))
            for bias in (cell.bias_ih, cell.bias_hh):
                bias.zero_()
        i, f, _, o = lstm.bias_hh.chunk(4)
        r, z, _ = gru.bias_hh.chunk(3)
        for part, value in ((i, -0.4), (f, 1.3), (o, 0.9), (r, -1.1), (z, 0.6)):
            part.fill_(value)
    x = torch.zeros(1, dtype=torch.float64)
    steps = {
        lstm_growth_at_origin(sigma_w2, 1.3, -0.4, 0.9): (
            lambda s: torch.cat(lstm(x, (s[:width], s[width:]))),
            2 * width,
        ),
        gru_growth_at_origin(sigma_w2, 0.6, -1.1): (lambda h: gru(x, h), width),
    }
    for growth, (step, size) in steps.items():
        jacobian = torch.autograd.functional.jacobian(step, torch.zeros(size, dtype=torch.float64))
        assert max(abs(np.linalg.eigvals(jacobian.numpy()))) == pytest.approx(growth, rel=1e-7)


def test_origin_growth_in_the_wide_limit():
    # The circular law puts the largest real part at √sigma_w2, to about √(ln n/n)/2 at n = 250.
    weights = np.random.default_rng(0).normal(size=(250, 250)) / math.sqrt(250)
    largest = max(abs(0.5 + 0.25 * np.linalg.eigvals(weights)))
    assert lstm_growth_at_origin(1.0) == pytest.approx(largest, rel=0.03)


def test_combined_growth_has_both_limits():
    assert combined_growth(0.5, 0.3, 0.0) == pytest.approx(0.8, rel=1e-12)
    assert combined_growth(0.5, 0.0, 0.3) == pytest.approx(math.sqrt(0.25 + 0.3), rel=1e-12)
    assert combined_growth(0.0, 0.5, 0.3) == pytest.approx(math.sqrt(0.25 + 0.3), rel=1e-12)


@pytest.mark.parametrize(("keep", "gain", "scattered"), [(0.5, 0.4, 0.2), (0.8, 0.1, 0.3)])
def test_combined_growth_matches_a_product_of_matrices(keep, gain, scattered):
    generator = np.random.default_rng(0)
    width, steps, total = 200, 150, 0.0
    fixed = keep * np.eye(width) + gain * generator.normal(size=(width, width)) / math.sqrt(width)
    v = generator.normal(size=(width, 3))
    for t in range(steps):
        fresh = generator.normal(size=(width, width)) * math.sqrt(scattered / width)
        v, triangle = np.linalg.qr((fixed + fresh) @ v)
        total += math.log(abs(triangle[0, 0])) if t >= 30 else 0.0
    # Log of a norm of 200 numbers over 120 steps: chance 1/√(200·120), finite width of order 1/200.
    assert total / 120 == pytest.approx(math.log(combined_growth(keep, gain, scattered)), abs=0.03)


def test_rnn_growth_at_known_points():
    assert rnn_growth("tanh", 1 / 3).lyapunov == pytest.approx(-0.5 * math.log(3), rel=1e-12)
    assert rnn_growth("tanh", 1.0).horizon == math.inf
    driven = rnn_growth("tanh", 2.25, input_variance=1.0)
    assert driven.lyapunov < rnn_growth("tanh", 2.25).lyapunov


def test_driven_rnn_by_arc_sines_and_by_a_simulated_cell():
    growth = rnn_growth("erf", 2.25, input_variance=0.6)
    q = 2.25 * growth.hidden_variance + 0.6
    assert growth.hidden_variance == pytest.approx(2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rel=1e-9)
    assert growth.per_step == pytest.approx(math.sqrt(2.25 * 4 / math.pi / math.sqrt(1 + 4 * q)), rel=1e-9)
    assert growth.horizon == pytest.approx(-1 / math.log(growth.per_step), rel=1e-12)
    runs = []
    for seed in (0, 1):
        generator = np.random.default_rng(seed)
        weights, now = generator.normal(size=(WIDTH, WIDTH)) * math.sqrt(2.25 / WIDTH), np.zeros(WIDTH)

        def step(tangent, weights=weights, generator=generator):
            nonlocal now
            now = np.tanh(weights @ now + generator.normal(size=WIDTH) * math.sqrt(0.6))
            return now, (1 - now**2)[:, None] * (weights @ tangent)

        runs.append(exponent(step, (WIDTH, 3), generator))
    agree(rnn_growth("tanh", 2.25, input_variance=0.6), runs, 0.05)


def test_gates_that_are_shut_for_good_let_nothing_pass():
    assert lstm_growth(1.0, 0.5, forget_bias=-1e4, input_bias=-1e4).per_step < 1e-100
    assert rnn_growth(lambda x: 0 * x, 1.0).lyapunov == -math.inf
    assert rnn_growth(lambda x: 0 * x, 1.0).horizon == 0


def test_gate_moments_match_a_sum():
    z = np.arange(-9, 9, 0.01)
    weight = 0.01 * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    s = sigmoid(1.2 + math.sqrt(2.5) * z)
    found = gate_moments(1.2, 2.5)
    assert found.mean == pytest.approx(weight @ s, rel=1e-10)
    assert found.square == pytest.approx(weight @ s**2, rel=1e-10)
    assert found.slope_square == pytest.approx(weight @ (s * (1 - s)) ** 2, rel=1e-10)


def test_bad_input_is_a_sentence():
    with pytest.raises(ValueError, match="sigma_w2 is 5; above 4 gates of consecutive steps"):
        lstm_growth(5.0, 1.0)
    with pytest.raises(ValueError, match="sigma_w2 is 9; above 4"):
        gru_growth(9.0, 1.0)
    with pytest.raises(ValueError, match="forget_bias is nan"):
        lstm_growth_at_origin(1.0, math.nan)
    with pytest.raises(ValueError, match=r"variance passes 10000 and settles nowhere.*lower forget_bias"):
        lstm_growth(1.0, 0.5, forget_bias=20.0)
    with pytest.raises(ValueError, match="input_variance is -1"):
        minimal_rnn_growth(1.0, -1.0)
    with pytest.raises(ValueError, match="sigma_w2 is 0; give a finite number above 0"):
        rnn_growth("tanh", 0)
