"""The remedies that make weights from others, or turn recurrent ones: norms, orthogonality, exponents."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from zoo import PATIENTS

from unitygain._case import Case
from unitygain._rehearsal import train
from unitygain.measures import act_rms, lyapunov_spectrum
from unitygain.probe.cells import cells
from unitygain.probe.observe import observe
from unitygain.remedies import (
    decay_to_radius,
    gradient_flossing,
    orthogonal_weights,
    sigma_reparam,
    spectral_cap,
    spectral_norm,
)
from unitygain.remedies.decay_to_radius import spectral_radius
from unitygain.remedies.gradient_flossing import leading_exponents

PATIENT = {patient.name: patient for patient in PATIENTS}
PARAMETRISE = (spectral_norm, spectral_cap, orthogonal_weights, sigma_reparam)


def case_of(model: nn.Module, *shape: int, rate: float = 0.1) -> Case:
    """Return a case whose loss rewards large outputs, so that training pushes every weight outwards."""

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        output = model(x)
        output = output[0] if isinstance(output, tuple) else output
        return -output.square().mean()

    optimizer = torch.optim.SGD(model.parameters(), rate)
    return Case(model, loss, [torch.randn(shape)], optimizer)


@torch.no_grad()
def dense_norm(layer: nn.Module, *shape: int) -> float:
    """Return the largest singular value of an affine layer, from what it does to every unit vector."""
    basis = torch.eye(math.prod(shape)).view(-1, *shape)
    columns = layer(basis) - layer(torch.zeros_like(basis))
    return float(torch.linalg.matrix_norm(columns.flatten(1).double(), 2))


CONVOLUTIONS = {
    "zeros": (lambda: nn.Conv2d(3, 4, 3, padding=1), (3, 6, 5)),
    "stride": (lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2), (4, 6, 6)),
    "circular": (lambda: nn.Conv1d(2, 3, 5, padding=2, padding_mode="circular"), (2, 8)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 2, 4, stride=2, padding=1), (3, 4, 4)),
    "linear": (lambda: nn.Linear(7, 5), (7,)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_capped_layer_has_the_limit_as_its_true_norm(name):
    """The naive twin is the whole Jacobian; the reshaped kernel has another norm."""
    make, shape = CONVOLUTIONS[name]
    layer = make()
    with torch.no_grad():
        layer.weight.mul_(5)
    undo = spectral_cap(case_of(layer, 1, *shape), limit=0.9)
    # What 300 power iterations leave: half the square of the angle to the singular vector.
    assert dense_norm(layer, *shape) == pytest.approx(0.9, rel=5e-3)
    undo()
    assert dense_norm(layer, *shape) > 1


def test_a_layer_below_the_limit_keeps_its_bits():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    with torch.no_grad():
        layer.weight.mul_(0.01)
    before, x = layer.weight.detach().clone(), torch.randn(1, 2, 5, 5)
    expected = layer(x)
    spectral_cap(case_of(layer, 1, 2, 5, 5))
    assert torch.equal(layer.weight, before)
    assert torch.equal(layer(x), expected)


def test_a_weight_of_zeros_stays_and_has_a_gradient():
    layer = nn.Linear(3, 3)
    nn.init.zeros_(layer.weight)
    spectral_cap(case_of(layer, 2, 3))
    layer(torch.ones(1, 3)).sum().backward()
    gradient = layer.parametrizations.weight.original.grad
    assert torch.equal(gradient, torch.ones(3, 3))


def test_the_cap_holds_while_training_pushes_outwards():
    free, capped = (case_of(nn.Linear(6, 6, bias=False), 16, 6) for _ in range(2))
    spectral_cap(capped, limit=0.9)
    train(free, 30)
    train(capped, 30)
    assert dense_norm(free.model, 6) > 3
    # One power iteration per step follows a weight that moves by a few per cent per step.
    assert dense_norm(capped.model, 6) == pytest.approx(0.9, rel=0.02)


def test_orthogonal_weights_stay_so_in_training():
    case = case_of(nn.RNN(3, 5, batch_first=True), 4, 7, 3)
    before = case.model.weight_hh_l0.detach().clone()
    orthogonal_weights(case)
    train(case, 5)
    weight = case.model.weight_hh_l0
    torch.testing.assert_close(weight @ weight.T, torch.eye(5), atol=1e-5, rtol=0)
    assert not torch.allclose(weight, torch.linalg.qr(before).Q)


def test_a_normalised_weight_keeps_norm_one_in_training():
    case = case_of(nn.LSTM(3, 4, batch_first=True), 4, 7, 3)
    spectral_norm(case)
    train(case, 20)
    assert float(torch.linalg.matrix_norm(case.model.weight_hh_l0.detach(), 2)) == pytest.approx(1, rel=0.05)


def test_the_discriminator_is_what_is_normalised_in_a_game():
    case = PATIENT["game-points-won"].make_case()
    spectral_norm(case)
    made = {name.split(".parametrizations")[0] for name, _ in case.model.named_parameters() if ".par" in name}
    assert made == {f"discriminator.{place}" for place in (0, 2, 4)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sigma_is_a_number_that_trains(dtype):
    layer = nn.MultiheadAttention(4, 2, batch_first=True, dtype=dtype)
    case = Case(
        layer,
        lambda m, x: -m(x, x, x)[0].square().mean(),
        [torch.randn(3, 5, 4, dtype=dtype)],
        torch.optim.SGD(layer.parameters(), 0.1),
    )
    groups = copy.deepcopy(case.optimizer.state_dict())
    undo = sigma_reparam(case)

    def norms() -> list[float]:
        parts = layer.in_proj_weight.detach().chunk(3)
        return [float(torch.linalg.matrix_norm(part, 2)) for part in parts]

    # The largest singular vector is exact at the start.
    assert norms() == pytest.approx([1, 1, 1], rel=1e-5)
    gamma = layer.parametrizations.in_proj_weight[0].gamma.detach()
    train(case, 3)
    assert float((gamma - 1).abs().max()) > 1e-4
    # Three power iterations lag a little behind three steps.
    assert norms() == pytest.approx(gamma.flatten().tolist(), rel=0.02)
    undo()
    assert case.optimizer.state_dict() == groups
    assert set(case.optimizer.state) <= set(layer.parameters())


@pytest.mark.parametrize("remedy", PARAMETRISE, ids=lambda remedy: remedy.__name__)
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM])
def test_a_recurrent_module_is_afterwards_what_it_was(remedy, kind):
    model = kind(3, 4, 2, batch_first=True, bidirectional=True)
    case = case_of(model, 2, 6, 3)
    names, flat = list(model.state_dict()), [id(weight) for weight in model._flat_weights]
    values = copy.deepcopy(model.state_dict())
    kinds = type(model)
    undo = remedy(case, sites="weight_hh*")
    assert list(model.state_dict()) != names
    case.compute_loss(case.batches[0]).backward()
    # What was computed with a graph does not stay behind: a copy can be made after a forward pass.
    twin = case.copy()
    twin.model.eval()
    model.eval()
    assert torch.equal(twin.compute_loss(case.batches[0]), case.compute_loss(case.batches[0]))
    undo()
    assert type(model) is kinds
    assert list(model.state_dict()) == names
    assert [id(weight) for weight in model._flat_weights] == flat
    assert all(torch.equal(values[name], value) for name, value in model.state_dict().items())
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert [name for name, _ in model.named_parameters()] == names
    assert torch.isfinite(case.compute_loss(case.batches[0]))


def test_what_makes_a_weight_is_no_place_of_the_signal():
    case = case_of(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)), 3, 4)
    plain = act_rms(case, observe(case, ["output.rms"])).sites
    spectral_norm(case)
    assert act_rms(case, observe(case, ["output.rms"])).sites == plain


def test_decay_alone_takes_the_radius_down_in_the_steps_that_were_stated():
    for make in (lambda p: torch.optim.SGD(p, 0.1), lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.3)):
        for optimizer in (make, None):
            model = nn.RNN(2, 6)
            with torch.no_grad():
                model.weight_hh_l0.mul_(4)
            start = spectral_radius(model.weight_hh_l0)
            given = optimizer or make(model.parameters())
            case = Case(model, lambda m, x: 0 * m(x)[0].sum(), [torch.ones(3, 1, 2)], given)
            undo = decay_to_radius(case, radius=0.8, steps=25)
            twin = case.copy()
            train(twin, 24)
            assert spectral_radius(twin.model.weight_hh_l0) > 0.8
            train(case, 25)
            assert start > 1.2
            # The product of 25 roundings of float32.
            assert spectral_radius(case.model.weight_hh_l0) == pytest.approx(0.8, rel=1e-5)
            undo()
            assert case.optimizer is given


def test_decay_gives_the_groups_of_an_instance_back():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with torch.no_grad():
        model[0].weight.copy_(2 * torch.eye(3))
    groups = [{"params": model[0].parameters()}, {"params": model[1].parameters(), "lr": 0.5}]
    optimizer = torch.optim.SGD(groups, 0.1, momentum=0.9)
    before = copy.deepcopy(optimizer.state_dict())
    case = Case(model, lambda m, x: m(x).sum(), [torch.ones(1, 3)], optimizer)
    undo = decay_to_radius(case, steps=10)
    decayed = [(g["weight_decay"], len(g["params"])) for g in optimizer.param_groups]
    # With momentum 0.9 a step of decay has ten times the length in the end.
    assert decayed == [(0, 1), (0, 2), (pytest.approx((1 - 0.5**0.1) / 1.0), 1)]
    undo()
    assert optimizer.state_dict() == before
    assert [id(p) for g in optimizer.param_groups for p in g["params"]] == [*map(id, model.parameters())]


def test_exponents_of_a_diagonal_matrix_are_its_logarithms():
    """At zero input and state a tanh cell is linear: closed form."""
    rnn = nn.RNN(1, 3).double()
    with torch.no_grad():
        for parameter in rnn.parameters():
            parameter.zero_()
        rnn.weight_hh_l0.copy_(torch.diag(torch.tensor([0.5, 2.0, 1.0])))
    cell = cells(rnn)[0][0]
    inputs = [torch.zeros(1, 1, dtype=torch.float64)] * 50
    start = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    found = leading_exponents(cell, inputs, cell.start(1, inputs[0]), start)
    # The turning in of the directions costs at most (1/2)^10 after the ten steps that are not read.
    torch.testing.assert_close(found, torch.tensor([2.0, 1.0, 0.5]).double().log(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["rnn-tanh-default-150", "rnn-cell-default-120"])
def test_flossing_brings_the_exponents_towards_zero(name):
    def leading() -> float:
        profile = lyapunov_spectrum(case, observe(case, []))
        first = profile.columns.index("exponent_1")
        return sum(value**2 for value in profile.rows[0][first : first + 4])

    case = PATIENT[name].make_case()
    before = leading()
    undo = gradient_flossing(case, exponents=4, iterations=15, steps=20)
    assert leading() < 0.3 * before
    undo()
    assert leading() == before


@pytest.mark.parametrize(
    ("remedy", "given", "message"),
    [
        (spectral_cap, {"limit": 0.0}, "limit is 0.0; give a positive number"),
        (spectral_norm, {"iterations": 0}, "iterations is 0"),
        (spectral_norm, {"sites": "nowhere"}, "no weight of a linear map is chosen by sites='nowhere'"),
        (sigma_reparam, {"gamma": -1.0}, "gamma is -1.0"),
        (orthogonal_weights, {}, "no square matrix is chosen"),
        (decay_to_radius, {}, "declares no optimizer"),
        (decay_to_radius, {"steps": 0}, "steps 0; give a radius above 0"),
        (gradient_flossing, {}, "takes four steps through the first batch"),
        (gradient_flossing, {"iterations": 0}, "must be above 0"),
    ],
)
def test_what_cannot_be_done_says_so(remedy, given, message):
    case = Case(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), lambda m, x: m(x).sum(), [torch.ones(1, 2)])
    with pytest.raises(ValueError, match=message):
        remedy(case, **given)


def test_decay_refuses_what_does_not_decay_and_what_needs_none():
    model = nn.RNN(2, 4)
    case = Case(model, lambda m, x: m(x)[0].sum(), [torch.ones(5, 1, 2)], torch.optim.Adam)
    with pytest.raises(ValueError, match=r"no chosen matrix has a spectral radius above 1.0 \(largest: 0"):
        decay_to_radius(case)
    given = case.optimizer
    with pytest.raises(ValueError, match="Adam does not decay by its rate"):
        decay_to_radius(case, radius=0.1)
    assert case.optimizer is given


def test_a_weight_that_is_made_already_is_left_alone():
    case = PATIENT["rnn-tanh-chaotic"].make_case()
    orthogonal_weights(case)
    with pytest.raises(ValueError, match="that no parametrisation makes already"):
        spectral_cap(case, sites="layer")
    with pytest.raises(ValueError, match="made by a parametrisation; remove it first"):
        gradient_flossing(case)


def test_a_convolution_that_does_not_run_is_refused():
    model = nn.ModuleDict({"used": nn.Conv1d(1, 1, 1), "idle": nn.Conv1d(1, 1, 1)})
    case = Case(model, lambda m, x: m["used"](x).sum(), [torch.ones(1, 1, 4)])
    with pytest.raises(ValueError, match="idle does not run on the first batch"):
        spectral_cap(case)
    assert [type(module).__name__ for module in model.values()] == ["Conv1d", "Conv1d"]
