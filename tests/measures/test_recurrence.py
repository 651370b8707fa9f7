"""Exponents and growth of recurrent modules against dense Jacobians, closed forms and wide networks."""

import math

import numpy as np
import pytest
import torch
from measures.reading import measured, squares
from torch import Tensor, nn

from unitygain._case import Case
from unitygain._types import Profile
from unitygain.probe.observe import observe
from unitygain.probe.steps import walk
from unitygain.theory.recurrent import rnn_growth

KINDS = [nn.RNN, nn.LSTM, nn.GRU]


def exponents(profile: Profile, index: int = 0) -> np.ndarray:
    return np.array(profile.rows[index][profile.columns.index("exponent_1") :])


def column(profile: Profile, name: str, index: int = 0) -> float:
    return profile.rows[index][profile.columns.index(name)]


def dense(case: Case) -> list[np.ndarray]:
    """Jacobians of the first sample, step by step, by differentiating the fused module itself."""
    module, x = case.model, case.batches[0]
    assert isinstance(module, nn.RNNBase)
    size = module.hidden_size
    state = torch.zeros(size * (2 if isinstance(module, nn.LSTM) else 1), dtype=x.dtype)

    def step(flat: Tensor, time: int) -> Tensor:
        parts = tuple(part.view(1, 1, -1) for part in flat.split(size))
        after = module(x[time : time + 1, :1], parts if len(parts) > 1 else parts[0])[1]
        return torch.cat([part.flatten() for part in (after if isinstance(after, tuple) else (after,))])

    found = []
    for time in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(lambda flat, t=time: step(flat, t), state)
        found.append(jacobian.numpy())
        state = step(state, time).detach()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_exponents_agree_with_dense_jacobians(kind):
    case = squares(kind(3, 5), 40, 2, 3)
    found = measured(case, "lyapunov_spectrum")["lyapunov_spectrum"]
    factors = [jacobian.T for jacobian in dense(case)[::-1]]
    size = len(factors[0])
    columns = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))[0]
    logs = np.zeros(size)
    for index, factor in enumerate(factors):
        columns, triangle = np.linalg.qr(factor @ columns)
        logs += np.log(np.abs(np.diag(triangle))) if index >= 4 else 0
    # Forty steps leave one step between orthogonalisations: the same arithmetic on both sides.
    np.testing.assert_allclose(exponents(found), np.sort(logs / 36)[::-1], rtol=1e-7)
    radius = np.abs(np.linalg.eigvals(factors[0])).max()
    assert column(found, "spectral_radius") == pytest.approx(radius, rel=1e-9)
    assert column(found, "steps") == 40


@pytest.mark.parametrize("kind", KINDS)
def test_growth_agrees_with_dense_products(kind):
    case = squares(kind(3, 5), 30, 2, 3)
    for name, parameter in case.model.named_parameters():
        parameter.data.mul_(3.0 if "hh" in name else 0.3)
    found = measured(case, "transient_growth")["transient_growth"]
    product, norms = np.eye(len(dense(case)[0])), [1.0]
    for factor in dense(case)[::-1]:
        product = product @ factor
        norms.append(float(np.linalg.norm(product, 2)))
    assert found.values[0] == pytest.approx(max(norms), rel=1e-9)
    assert column(found, "at_steps") == int(np.argmax(norms)) > 0
    assert column(found, "one_step") == pytest.approx(norms[1], rel=1e-9)


def linear(matrix: Tensor, steps: int) -> Case:
    """A ReLU network whose units stay open: a linear system with this matrix."""
    module = nn.RNN(1, len(matrix), nonlinearity="relu").double()
    with torch.no_grad():
        module.weight_hh_l0.copy_(matrix)
        module.weight_ih_l0.fill_(1.0)
        module.bias_ih_l0.fill_(1.0)
    return Case(module, lambda m, x: m(x)[0].sum(), [torch.ones(steps, 1, 1, dtype=torch.float64)])


def test_linear_system_is_exact():
    matrix = torch.diag(torch.tensor([0.9, 0.5, 0.25], dtype=torch.float64))
    found = measured(linear(matrix, 300), "lyapunov_spectrum")["lyapunov_spectrum"]
    # After 30 steps a random start is aligned to (5/9)^30 = 2e-8.
    np.testing.assert_allclose(exponents(found), np.log([0.9, 0.5, 0.25]), rtol=0, atol=1e-6)
    assert found.error is not None
    assert found.error[0] == pytest.approx(0, abs=1e-6)
    assert column(found, "horizon") == pytest.approx(math.log(2**52) / -math.log(0.9), rel=1e-5)
    assert column(found, "sum") == pytest.approx(math.log(0.9 * 0.5 * 0.25), abs=3e-6)


def test_eigenvalues_are_not_singular_values():
    found = measured(linear(torch.tensor([[0.5, 4.0], [0.0, 0.5]]).double(), 200), *MEASURES)
    spectrum, growth = found["lyapunov_spectrum"], found["transient_growth"]
    for profile in (spectrum, growth):
        assert column(profile, "spectral_radius") == pytest.approx(0.5, rel=1e-6)
    # A Jordan block grows like k·0.5^(k-1)·4: its exponent is ln 0.5 up to ln(200/20)/180.
    assert spectrum.values[0] == pytest.approx(math.log(0.5), abs=math.log(10) / 180)
    assert column(growth, "one_step") == pytest.approx(4.0616, rel=1e-4)
    assert column(growth, "numerical_abscissa") == pytest.approx(2.5, rel=1e-12)
    assert column(growth, "non_normality") == pytest.approx(4 / math.sqrt(16.5), rel=1e-6)
    assert 1 < column(growth, "kreiss_lower_bound") <= growth.values[0]


MEASURES = ("lyapunov_spectrum", "transient_growth")


def autonomous(width: int, gain: float, seed: int) -> float:
    """Largest exponent of h' = tanh(W·h) from a random state, W Gaussian of variance gain²/width."""
    torch.manual_seed(seed)
    module = nn.RNN(1, width, bias=False).double()
    nn.init.normal_(module.weight_hh_l0, std=gain / math.sqrt(width))
    nn.init.zeros_(module.weight_ih_l0)
    begin = torch.randn(1, 1, width, dtype=torch.float64)
    case = Case(module, lambda m, x: m(x, begin)[0].sum(), [torch.zeros(400, 1, 1, dtype=torch.float64)])
    (walked,) = walk(case, observe(case, [])).walks
    vector, total = np.random.default_rng(seed).standard_normal((width, 1)), 0.0
    for index, pull in enumerate(walked.backward()[:300]):
        vector = pull(vector)
        size = float(np.linalg.norm(vector))
        vector, total = vector / size, total + (math.log(size) if index >= 50 else 0.0)
    return total / 250


def test_autonomous_network_tends_to_theory_with_its_width():
    """λ₁ = ½·ln(g²·E φ'²); what a finite width lacks falls like 1/N, which two widths take out."""
    gain, seeds = 3.0, 8
    by_width = {width: np.array([autonomous(width, gain, s) for s in range(seeds)]) for width in (48, 144)}
    low, high = (by_width[width].mean() for width in (48, 144))
    spread = [by_width[width].std(ddof=1) / math.sqrt(seeds) for width in (48, 144)]
    limit = high + (high - low) / 2
    error = math.hypot(1.5 * spread[1], 0.5 * spread[0])
    assert limit == pytest.approx(rnn_growth("tanh", gain**2).lyapunov, abs=3 * error)
    assert error < 0.03
    assert low > 0


def test_lstm_at_rest_has_the_exponents_of_its_eigenvalues():
    torch.manual_seed(2)
    module = nn.LSTM(1, 8).double()
    for name, parameter in module.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
    case = Case(module, lambda m, x: m(x)[0].sum(), [torch.zeros(400, 1, 1, dtype=torch.float64)])
    found = measured(case, "lyapunov_spectrum")["lyapunov_spectrum"]
    (walked,) = walk(case, observe(case, [])).walks
    values, vectors = np.linalg.eig(walked.jacobian(0).T)
    # h comes from c alone: half of the eigenvalues are zero, and the rest has these exponents.
    alive = np.sort(np.abs(values))[::-1][:8]
    # ‖Jᵏ‖ lies between ρᵏ and κ·ρᵏ, with κ the condition of the eigenvectors that are there.
    kappa = np.linalg.cond(vectors[:, np.argsort(-np.abs(values))[:8]])
    allowed = 2 * math.log(kappa * 8) / 360
    np.testing.assert_allclose(found.values[0], math.log(alive[0]), rtol=0, atol=allowed)


def test_scale_of_the_loss_changes_nothing():
    case = squares(nn.GRU(3, 5), 30, 2, 3)
    before = measured(case, *MEASURES)
    loss = case.loss
    case.loss = lambda model, batch: 1e6 * loss(model, batch)
    assert measured(case, *MEASURES) == before


def test_large_states_give_the_leading_exponents():
    found = measured(squares(nn.LSTM(2, 260), 6, 1, 2), *MEASURES)
    assert set(found) == {"lyapunov_spectrum"}
    profile = found["lyapunov_spectrum"]
    assert len(exponents(profile)) == 16
    assert math.isnan(column(profile, "sum"))
    assert math.isnan(column(profile, "spectral_radius"))


def test_models_without_recurrence_have_no_exponents():
    assert not measured(squares(nn.Linear(3, 3), 4, 3), *MEASURES)


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_float32_and_float64_models_agree_where_nothing_is_chaotic(scale):
    torch.manual_seed(5)
    x = scale * torch.randn(60, 1, 3)
    module = nn.GRU(3, 6)
    narrow = Case(module, lambda m, b: m(b)[0].sum(), [x])
    wide = Case(nn.GRU(3, 6).double(), lambda m, b: m(b)[0].sum(), [x.double()])
    wide.model.load_state_dict(module.state_dict())
    one, other = (measured(case, "lyapunov_spectrum")["lyapunov_spectrum"] for case in (narrow, wide))
    assert one.values == pytest.approx(other.values, rel=1e-9)
    # The same exponent, another rounding: 23 of 52 binary digits.
    assert column(one, "horizon") == pytest.approx(column(other, "horizon") * 23 / 52, rel=1e-9)
