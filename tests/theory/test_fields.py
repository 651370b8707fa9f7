"""Circuits, games, schedules, dtypes and noise against simulation, autograd and torch's own arithmetic."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from unitygain.theory.adversarial import (
    gaussian_divergences,
    generator_gradient,
    parallel_lines,
    value_at_optimal_discriminator,
)
from unitygain.theory.arithmetic import (
    DTYPES,
    dtype_range,
    layers_to_overflow,
    layers_to_underflow,
    underflow_share,
)
from unitygain.theory.circuits import (
    global_cost_variance,
    local_cost_variance,
    sampled_variance,
    two_design_variance,
)
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


def rotated(angles: np.ndarray) -> np.ndarray:
    """The statevector of a layer of rotations exp(-iθX/2) on |0...0>, qubit by qubit."""
    state = np.eye(2 ** len(angles))[0].astype(complex)
    for qubit, theta in enumerate(angles):
        flipped = string("I" * qubit + "X" + "I" * (len(angles) - qubit - 1)) @ state
        state = math.cos(theta / 2) * state - 1j * math.sin(theta / 2) * flipped
    return state


@pytest.mark.parametrize("qubits", [1, 2, 3])
def test_statevectors_have_the_variances_of_both_costs(qubits):
    """The costs from amplitudes: one less the chance of all zeros, and of a zero at each qubit on average."""
    zero = 1 - (np.arange(2**qubits)[:, None] >> np.arange(qubits) & 1)

    def whole(angles: np.ndarray) -> float:
        return 1 - abs(rotated(angles)[0]) ** 2

    def each(angles: np.ndarray) -> float:
        return 1 - float(np.abs(rotated(angles)) ** 2 @ zero.mean(axis=1))

    for cost, law in ((whole, global_cost_variance), (each, local_cost_variance)):
        found = sampled_variance(cost, qubits, index=qubits - 1, precision=0.05)
        assert abs(found.value - law(qubits)) < 4 * found.error
        assert found.error <= 0.05 * found.value


def test_shift_rule_is_autograd_s():
    """Each draw of the sum is the square of a derivative that torch takes of the same cost."""
    source, squares = np.random.default_rng(3), []
    found = sampled_variance(
        lambda a: math.cos(a[0]) * math.sin(a[1] + 0.3), 2, index=1, precision=1.0, seed=3
    )
    for _ in range(found.draws):
        a = torch.tensor(source.uniform(0, 2 * math.pi, 2), requires_grad=True)
        (slope,) = torch.autograd.grad(a[0].cos() * (a[1] + 0.3).sin(), a)
        squares.append(float(slope[1]) ** 2)
    assert found.value == pytest.approx(np.mean(squares), rel=1e-12)
    assert found.error == pytest.approx(np.std(squares, ddof=1) / math.sqrt(found.draws), rel=1e-12)
    assert found.draws == 100


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
    # By transport of samples: every point goes straight over.
    points = np.random.default_rng(0).normal(size=50)
    assert stats.wasserstein_distance(np.zeros(9), np.full(9, -0.3)) == pytest.approx(0.3)
    assert stats.wasserstein_distance(points, points - 1.7) == pytest.approx(
        gaussian_divergences(-1.7).wasserstein, rel=1e-12
    )
    assert parallel_lines(0.0).wasserstein == 0.0
    assert value_at_optimal_discriminator(math.log(2)) == 0.0
    # Two coins: the value E log D* + E log(1 - D*) at D* = p/(p + q), summed directly.
    p, q = np.array([0.2, 0.8]), np.array([0.6, 0.4])
    best = p / (p + q)
    divergence = 0.5 * (p @ np.log(2 * p / (p + q)) + q @ np.log(2 * q / (p + q)))
    value = p @ np.log(best) + q @ np.log(1 - best)
    assert value_at_optimal_discriminator(float(divergence)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("theta", [-0.01, 0.5, 2.0, 7.0, 25.0])
def test_slopes_of_gaussian_divergences(theta):
    """Divergence and slope by adaptive quadrature of their definitions, about the middle of the two laws."""
    normal = torch.distributions.Normal
    p, q = normal(-abs(theta) / 2, 1.0), normal(abs(theta) / 2, 1.0)

    def logs(x: float) -> tuple[float, float]:
        here = torch.tensor(x, dtype=torch.float64)
        return float(p.log_prob(here)), float(q.log_prob(here))

    def value(x: float) -> float:
        a, b = logs(x)
        both = np.logaddexp(a, b)
        return (math.exp(a) * (math.log(2) + a - both) + math.exp(b) * (math.log(2) + b - both)) / 2

    def slope(x: float) -> float:
        a, b = logs(x)
        return math.exp(a + b - np.logaddexp(a, b)) * abs(theta) / 2

    ends = {"limit": 200, "epsabs": 0.0, "epsrel": 1e-10, "points": [-abs(theta) / 2, 0.0, abs(theta) / 2]}
    found, reach = gaussian_divergences(theta), abs(theta) / 2 + 12
    assert found.jensen_shannon == pytest.approx(integrate.quad(value, -reach, reach, **ends)[0], rel=1e-8)
    expected = math.copysign(integrate.quad(slope, -reach, reach, **ends)[0], theta)
    assert found.jensen_shannon_slope == pytest.approx(expected, rel=1e-8)
    assert (found.wasserstein, found.wasserstein_slope) == (abs(theta), math.copysign(1.0, theta))
    # The slope is that of the values: central differences, where the divergence is not at its end.
    if abs(theta) < 5:
        near = [gaussian_divergences(theta + step).jensen_shannon for step in (-1e-4, 1e-4)]
        assert (near[1] - near[0]) / 2e-4 == pytest.approx(found.jensen_shannon_slope, rel=1e-5)


def test_the_saturating_gradient_at_the_best_discriminator():
    """E log(1 - D*) over generated samples, through the samples: twice the slope of the divergence."""
    theta, draws = torch.tensor(1.5, dtype=torch.float64, requires_grad=True), torch.randn(400_000).double()
    sample = theta + draws
    logit = (sample - 1.5).square() / 2 - sample.square() / 2  # ln p - ln q at the best discriminator
    loss = -torch.nn.functional.softplus(logit)
    (each,) = torch.autograd.grad(loss.sum(), sample, retain_graph=True)
    error = float(each.std()) / math.sqrt(len(draws))
    assert abs(float(each.mean()) - 2 * gaussian_divergences(1.5).jensen_shannon_slope) < 4 * error
    assert gaussian_divergences(0.0).jensen_shannon_slope == 0.0


def test_ddpm_schedule_against_plain_products():
    schedule = linear_schedule()
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(schedule.alpha_bar, alpha_bar, rtol=1e-12)
    np.testing.assert_allclose(schedule.snr, alpha_bar / (1 - alpha_bar), rtol=1e-9)
    assert [int((schedule.snr > level).sum()) for level in (1, 5)] == [259, 130]
    weights = min_snr_weights(schedule)
    np.testing.assert_allclose(weights, np.minimum(schedule.snr, 5) / schedule.snr, rtol=1e-12)
    assert weights.mean() == pytest.approx(0.91307, abs=5e-6)
    np.testing.assert_allclose(min_snr_weights(schedule, 2.0, "x0"), np.minimum(schedule.snr, 2), rtol=1e-12)
    np.testing.assert_allclose(linear_schedule(3, 0.1, 0.3).beta, [0.1, 0.2, 0.3], rtol=1e-12)
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


@pytest.mark.parametrize("offset", [0.008, 0.05])
def test_cosine_schedule_follows_its_cosine(offset):
    schedule = cosine_schedule(1000, offset)
    t = np.arange(1, 1000) / 1000
    f = np.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    f /= math.cos(offset / (1 + offset) * math.pi / 2) ** 2
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
    assert (dtype_range(name).normal, dtype_range(name).largest) == (info.smallest_normal, info.max)
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


def test_flushed_share_matches_a_count():
    """With subnormal numbers flushed, what is below the smallest normal number is gone."""
    sample = np.random.default_rng(1).normal(size=100_000) * 5e-5
    share = float((np.abs(sample) < float(np.finfo(np.float16).smallest_normal)).mean())
    assert share == pytest.approx(underflow_share(5e-5, "float16", flush=True), abs=5 * 0.0016)


@pytest.mark.parametrize("theta", [81.0, 1e6, 1e200])
def test_laws_that_have_parted_are_ln_2_apart_and_pull_no_more(theta):
    found = gaussian_divergences(-theta)
    assert (found.jensen_shannon, found.jensen_shannon_slope) == (math.log(2), 0.0)
    assert (found.wasserstein, found.wasserstein_slope) == (theta, -1.0)
    # Just before, the grid says the same.
    assert gaussian_divergences(79.9).jensen_shannon == pytest.approx(math.log(2), rel=1e-12)
    assert gaussian_divergences(79.9).jensen_shannon_slope == 0.0


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
    # Squares near the largest number do not become infinite and then no number.
    assert gradient_noise(2, 4, 1e308, 1e308).signal == pytest.approx(1e308, rel=1e-12)


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
    with pytest.raises(ValueError, match="theta is inf"):
        gaussian_divergences(math.inf)
    with pytest.raises(ValueError, match="index is 2; there are 2 angles"):
        sampled_variance(lambda angles: 0.0, 2, index=2)
    with pytest.raises(ValueError, match="qubits is 0"):
        two_design_variance(0)
