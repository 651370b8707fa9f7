"""Circuits, games, schedules, dtypes and noise against simulation, autograd and torch's own arithmetic."""

import math

import numpy as np
import pytest
import torch

from unitygain.theory.adversarial import generator_gradient, parallel_lines, value_at_optimal_discriminator
from unitygain.theory.arithmetic import (
    DTYPES,
    layers_to_overflow,
    layers_to_underflow,
    underflow_share,
)
from unitygain.theory.circuits import global_cost_variance, local_cost_variance, two_design_variance
from unitygain.theory.diffusion import (
    Schedule,
    bound_weights,
    cosine_schedule,
    linear_schedule,
    min_snr_weights,
    mirrored_clip,
)
from unitygain.theory.noise import gradient_noise

PAULI = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}


def string(letters: str) -> np.ndarray:
    product = np.eye(1)
    for letter in letters:
        product = np.kron(product, PAULI[letter])
    return product


def haar(generator, d: int, count: int) -> np.ndarray:
    basis, triangle = np.linalg.qr(
        generator.normal(size=(count, d, d)) + 1j * generator.normal(size=(count, d, d))
    )
    phases = np.diagonal(triangle, axis1=1, axis2=2)
    return basis * (phases / np.abs(phases))[:, None, :]


@pytest.mark.parametrize("qubits", [1, 2, 3])
def test_two_design_variance_matches_haar_random_circuits(qubits):
    """∂C = i/2·<0|U₁†[P, U₂†OU₂]U₁|0> with both sides Haar; drawn until the error bar is 3 %."""
    generator, d = np.random.default_rng(qubits), 2**qubits
    pauli, observable = string("X" + "I" * (qubits - 1)), string("Z" * qubits)
    found = np.empty(0)
    while len(found) < 4000 or np.std(found**2) / math.sqrt(len(found)) > 0.03 * np.mean(found**2):
        before, after = haar(generator, d, 4000)[:, :, 0], haar(generator, d, 4000)
        turned = after.conj().swapaxes(1, 2) @ observable @ after
        commutator = pauli @ turned - turned @ pauli
        slope = 0.5j * np.einsum("ni,nij,nj->n", before.conj(), commutator, before)
        found = np.concatenate([found, slope.real])
    # Four error bars.
    assert np.mean(found**2) == pytest.approx(two_design_variance(qubits), rel=0.12)


def test_a_layered_circuit_reaches_the_two_design_law():
    """A statevector of three qubits under random rotations and controlled-Z gates, by the shift rule."""
    generator, qubits, layers, found = np.random.default_rng(0), 3, 16, []
    entangle = np.diag([(-1.0) ** ((i & 1) * (i >> 1 & 1) + (i >> 1 & 1) * (i >> 2 & 1)) for i in range(8)])
    observable = string("ZZI").diagonal().real
    gates = [[string("I" * k + p + "I" * (2 - k)) for k in range(qubits)] for p in "XYZ"]
    axes, angles = (
        generator.integers(3, size=(600, layers, qubits)),
        generator.uniform(0, 2 * math.pi, (600, layers, qubits)),
    )
    for axis, angle in zip(axes, angles, strict=True):
        costs = []
        for shift in (math.pi / 2, -math.pi / 2):
            state = np.eye(8)[0].astype(complex)
            for layer in range(layers):
                for qubit in range(qubits):
                    theta = angle[layer, qubit] + shift * (layer == layers // 2 and qubit == 0)
                    flipped = gates[axis[layer, qubit]][qubit] @ state
                    state = math.cos(theta / 2) * state - 1j * math.sin(theta / 2) * flipped
                state = entangle @ state
            costs.append(float(observable @ np.abs(state) ** 2))
        found.append((costs[0] - costs[1]) / 2)
    squares = np.square(found)
    # Four standard errors, about 9 % each for 600 circuits.
    assert abs(squares.mean() - two_design_variance(3)) < 4 * squares.std() / math.sqrt(len(squares))


@pytest.mark.parametrize("qubits", [1, 2, 5])
def test_one_layer_costs_have_their_variances(qubits):
    """P(0) = Πcos²(θ/2): the slope by θ₁ integrated over a grid on which trigonometric sums are exact."""
    theta = np.arange(8) * math.pi / 4
    zero, slope = np.cos(theta / 2) ** 2, -np.sin(theta) / 2
    assert np.mean(slope**2) * np.mean(zero**2) ** (qubits - 1) == pytest.approx(
        global_cost_variance(qubits), rel=1e-12
    )
    assert np.mean((slope / qubits) ** 2) == pytest.approx(local_cost_variance(qubits), rel=1e-12)


@pytest.mark.parametrize("logit", [-30.0, -1.0, 0.0, 4.0])
def test_generator_gradients_are_autograd_s(logit):
    a = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    found = generator_gradient(logit)
    losses = (-torch.nn.functional.softplus(a), torch.nn.functional.softplus(-a), -a)
    for loss, ours in zip(losses, (found.saturating, found.non_saturating, found.wasserstein), strict=True):
        assert float(torch.autograd.grad(loss, a, retain_graph=True)[0]) == pytest.approx(ours, rel=1e-12)


def test_only_wasserstein_shows_the_way():
    apart = parallel_lines(-0.3)
    assert (apart.jensen_shannon, apart.kullback_leibler) == (math.log(2), math.inf)
    assert (apart.wasserstein, apart.wasserstein_slope) == (0.3, -1.0)
    assert parallel_lines(0.0).wasserstein == 0.0
    assert value_at_optimal_discriminator(math.log(2)) == 0.0
    # Two coins: the value E log D* + E log(1 - D*) at D* = p/(p + q), summed directly.
    p, q = np.array([0.2, 0.8]), np.array([0.6, 0.4])
    best = p / (p + q)
    divergence = 0.5 * (p @ np.log(2 * p / (p + q)) + q @ np.log(2 * q / (p + q)))
    value = p @ np.log(best) + q @ np.log(1 - best)
    assert value_at_optimal_discriminator(float(divergence)) == pytest.approx(value, rel=1e-12)


def test_ddpm_schedule_against_plain_products():
    schedule = linear_schedule()
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(schedule.alpha_bar, alpha_bar, rtol=1e-12)
    np.testing.assert_allclose(schedule.snr, alpha_bar / (1 - alpha_bar), rtol=1e-9)
    assert [int((schedule.snr > level).sum()) for level in (1, 5)] == [259, 130]
    weights = min_snr_weights(schedule)
    np.testing.assert_allclose(weights, np.minimum(schedule.snr, 5) / schedule.snr, rtol=1e-12)
    assert weights.mean() == pytest.approx(0.91307, abs=5e-6)
    np.testing.assert_allclose(
        min_snr_weights(schedule, target="v") * (schedule.snr + 1),
        min_snr_weights(schedule, target="x0"),
        rtol=1e-12,
    )
    bound = bound_weights(schedule)
    assert bound[0] / bound[-1] == pytest.approx(
        (1e-4 / 0.9999 / 1e-4) / (0.02 / 0.98 / (1 - alpha_bar[-1])), rel=1e-9
    )


def test_the_variational_weight_is_the_quotient_of_the_two_losses():
    """One step's KL between Gaussians of equal variance, against the squared error of ε: both by hand."""
    schedule, t, error = linear_schedule(50), 20, 0.37
    beta, alpha_bar = schedule.beta[t], schedule.alpha_bar[t]
    mean_error = beta / math.sqrt((1 - beta) * (1 - alpha_bar)) * error
    assert bound_weights(schedule)[t] * error**2 == pytest.approx(mean_error**2 / (2 * beta), rel=1e-12)


def test_cosine_schedule_follows_its_cosine():
    schedule = cosine_schedule(1000)
    t = np.arange(1, 1000) / 1000
    f = np.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    np.testing.assert_allclose(schedule.alpha_bar[:-1], f, rtol=1e-9)
    assert schedule.beta.max() == 0.999


def test_mirrored_clip_bounds_every_weighted_step():
    weights = np.array([0.1, 1.0, 30.0])
    limits = mirrored_clip(2.0, weights, reference=1.0)
    for gradient in (0.5, 3.0, 1e6):
        assert np.all(np.minimum(gradient, limits) * weights <= 2.0 * (1 + 1e-12))
    assert limits[1] == 2.0
    assert mirrored_clip(2.0, weights)[0] == pytest.approx(2.0 * weights.mean() / 0.1, rel=1e-12)


@pytest.mark.parametrize("name", DTYPES)
def test_ranges_are_torch_s(name):
    info = torch.finfo(getattr(torch, name))
    assert (DTYPES[name].normal, DTYPES[name].largest) == (info.smallest_normal, info.max)
    smallest = torch.tensor(DTYPES[name].smallest, dtype=torch.float64).to(getattr(torch, name))
    assert float(smallest) == DTYPES[name].smallest
    assert float((smallest.double() / 2).to(getattr(torch, name))) == 0.0


@pytest.mark.parametrize("factor", [0.1, 0.5, 0.73])
@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float8_e5m2"])
def test_underflow_counts_are_torch_s(name, factor):
    k = layers_to_underflow(factor, name)
    cast = [float(torch.tensor(factor**n, dtype=torch.float64).to(getattr(torch, name))) for n in (k - 1, k)]
    assert cast[0] > 0 == cast[1]


def test_underflow_counts_of_double_and_of_flushed_single():
    assert 0.1 ** layers_to_underflow(0.1, "float64") == 0.0
    assert layers_to_underflow(0.1, "float32", flush=True) == 38
    assert layers_to_underflow(0.5, "float32", flush=True) == 127
    assert layers_to_underflow(0.5, "float16", start=1024.0) == layers_to_underflow(0.5, "float16") + 10


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_overflow_counts_are_torch_s(name):
    k = layers_to_overflow(10, name)
    cast = [float(torch.tensor(10.0**n, dtype=torch.float64).to(getattr(torch, name))) for n in (k - 1, k)]
    assert math.isfinite(cast[0])
    assert math.isinf(cast[1])


@pytest.mark.parametrize(("name", "rms"), [("float16", 3e-8), ("bfloat16", 1e-40), ("float8_e4m3fn", 2e-3)])
def test_underflow_share_matches_a_cast(name, rms):
    sample = rms * torch.randn(40_000, dtype=torch.float64)
    share = float((sample.to(getattr(torch, name)).double() == 0).double().mean())
    # Five standard errors of a share of 40,000: at most 5·0.0025.
    assert share == pytest.approx(underflow_share(rms, name), abs=0.0125)


def test_gradient_noise_is_unbiased():
    generator = np.random.default_rng(0)
    mean, width = np.full(20, 0.3), 20
    squares = {}
    for batch in (4, 64):
        draws = mean + generator.normal(size=(40_000, width)) * 2.0 / math.sqrt(batch)
        squares[batch] = float((draws**2).sum(axis=1).mean())
    found = gradient_noise(4, 64, squares[4], squares[64])
    # |G|² = 1.8, trΣ = 80; errors of the two averages are 0.02 and 0.003, so 1 % and 0.2 %; four of them.
    assert found.signal == pytest.approx(1.8, rel=0.04)
    assert found.noise == pytest.approx(80.0, rel=0.01)
    assert found.scale == pytest.approx(80 / 1.8, rel=0.05)
    assert gradient_noise(4, 64, 20.0, 1.0).scale is None


def test_bad_input_is_a_sentence():
    with pytest.raises(ValueError, match="large_batch is 8 and small_batch 8; it must be larger"):
        gradient_noise(8, 8, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"factor is 1.0; a number falls"):
        layers_to_underflow(1.0, "float32")
    with pytest.raises(ValueError, match=r"factor is 0.5; a number grows"):
        layers_to_overflow(0.5, "float32")
    with pytest.raises(ValueError, match="no dtype is named 'half'; the names are bfloat16"):
        underflow_share(1.0, "half")
    with pytest.raises(ValueError, match=r"beta lies in \[0, 0.5\]"):
        Schedule(np.array([0.0, 0.5]))
    with pytest.raises(ValueError, match="target is 'score'; use 'epsilon'"):
        min_snr_weights(linear_schedule(), target="score")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"weights lie in \[0, 1\]"):
        mirrored_clip(1.0, [0.0, 1.0])
    with pytest.raises(ValueError, match="jensen_shannon is 1; it is at most"):
        value_at_optimal_discriminator(1.0)
    with pytest.raises(ValueError, match="logit is nan"):
        generator_gradient(math.nan)
    with pytest.raises(ValueError, match="qubits is 0"):
        two_design_variance(0)
