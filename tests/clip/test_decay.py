"""Decay in closed form and in the optimizers of torch; projections against dense operators."""

import math

import pytest
import torch
from clip.steps import with_gradients
from torch import nn
from torch.nn.utils import parametrizations

from unitygain import Case, clip
from unitygain._case import reseed

PARAMETERS = ["0.weight", "0.bias", "3.weight", "3.bias"]


@pytest.mark.parametrize("turn", [0.0, 1.0])
def test_steps_to_a_radius_are_those_of_the_decayed_weight(turn):
    c, s = math.cos(turn), math.sin(turn)
    weight = 1.2 * torch.tensor([[c, -s], [s, c]])
    steps = clip.steps_to_spectral_radius(weight, 0.1, 0.1)
    assert steps == 19
    radii = [torch.linalg.eigvals(weight.double() * 0.99**n).abs().max().item() for n in (steps - 1, steps)]
    assert radii[0] > 1 >= radii[1]
    assert clip.steps_to_spectral_radius(weight, 0.1, 0.1, target=1.3) == 0


def test_a_nilpotent_weight_has_no_radius_to_lose():
    assert clip.steps_to_spectral_radius(torch.tensor([[0.0, 9.0], [0.0, 0.0]]), 0.1, 0.1) == 0


def test_no_spectral_radius_says_why():
    with pytest.raises(ValueError, match=r"shape \(2, 3\); a spectral radius needs a square matrix"):
        clip.steps_to_spectral_radius(torch.ones(2, 3), 0.1, 0.1)
    with pytest.raises(ValueError, match="largest entry of weight is nan"):
        clip.steps_to_spectral_radius(torch.full((2, 2), math.nan), 0.1, 0.1)
    with pytest.raises(ValueError, match="decay nothing"):
        clip.steps_to_spectral_radius(2 * torch.eye(2), 0.1, 0.0)


def shrunk(make, steps: int) -> tuple[float, clip.Decay]:
    """Return by what fraction per step weights of 1 shrink under gradients of ±1 and ±4 that cancel."""
    weight = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = make([weight])
    for step in range(200):
        weight.data.fill_(1.0)
        weight.grad = torch.tensor([1.0, 4.0], dtype=torch.float64) * (-1) ** step
        optimizer.step()
    weight.data.fill_(1.0)
    for step in range(steps):
        weight.grad = torch.tensor([1.0, 4.0], dtype=torch.float64) * (-1) ** step
        optimizer.step()
    (found,) = clip.effective_decay(optimizer)
    return (1 - weight.detach().mean().item()) / steps, found


# What coupled decay takes over η·λ: the mean of 1 and 1/4, twice with a momentum of 1/2; of 1/1.1 and 1/4.1
# where the largest sum divides. None where it is decoupled.
OPTIMIZERS = {
    "Adam": (lambda p: torch.optim.Adam(p, 1e-3, betas=(0.5, 0.999), weight_decay=0.1), 0.625),
    "RMSprop": (lambda p: torch.optim.RMSprop(p, 1e-3, weight_decay=0.1), 0.625),
    "AdamW": (lambda p: torch.optim.AdamW(p, 1e-3, betas=(0.5, 0.999), weight_decay=0.1), None),
    "decoupled NAdam": (
        lambda p: torch.optim.NAdam(p, 1e-3, weight_decay=0.1, decoupled_weight_decay=True),
        None,
    ),
    "Adam amsgrad": (
        lambda p: torch.optim.Adam(p, 1e-3, betas=(0.5, 0.999), weight_decay=0.1, amsgrad=True),
        0.625,
    ),
    "RAdam": (lambda p: torch.optim.RAdam(p, 1e-3, betas=(0.5, 0.99), weight_decay=0.1), 0.625),
    "RMSprop with momentum, centred": (
        lambda p: torch.optim.RMSprop(p, 5e-4, momentum=0.5, centered=True, weight_decay=0.2),
        1.25,
    ),
    "Adamax": (lambda p: torch.optim.Adamax(p, 1e-3, betas=(0.5, 0.999), weight_decay=0.1), 0.577),
}
AS_IT_IS = {
    "SGD": (lambda p: torch.optim.SGD(p, 1e-3, weight_decay=0.1), 1e-4),
    "SGD with momentum": (lambda p: torch.optim.SGD(p, 1e-3, momentum=0.5, weight_decay=0.1), 2e-4),
    "SGD with dampening": (
        lambda p: torch.optim.SGD(p, 1e-3, momentum=0.8, dampening=0.4, weight_decay=0.1),
        3e-4,
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_effective_decay_is_what_weights_lose(name):
    make, share = OPTIMIZERS[name]
    lost, found = shrunk(make, 400)
    assert found.coupled == (share is not None)
    assert found.declared == pytest.approx(1e-4)
    # Gradients that cancel leave a ripple of one step in 400, and the weight itself shrinks by a few percent.
    assert lost == pytest.approx(found.effective, rel=0.06)
    assert found.effective == pytest.approx(1e-4 * (share or 1), rel=0.06)


@pytest.mark.parametrize("name", AS_IT_IS)
def test_the_decay_of_sgd_is_coupled_and_divided_by_nothing(name):
    make, expected = AS_IT_IS[name]
    lost, found = shrunk(make, 400)
    assert found.coupled
    assert found.declared == pytest.approx(1e-4)
    assert found.effective == pytest.approx(expected)
    assert lost == pytest.approx(found.effective, rel=0.08)  # the weight itself shrinks by up to 12 %
    assert "added to the gradient: SGD divides it by nothing" in str(found)


def test_the_decay_of_adagrad_fades_with_its_sum():
    lost, found = shrunk(lambda p: torch.optim.Adagrad(p, 0.1, lr_decay=1e-3, weight_decay=0.1), 20)
    assert found.coupled
    assert lost == pytest.approx(found.effective, rel=0.06)
    assert found.effective == pytest.approx(0.01 / math.sqrt(220) / 1.219 * (1 + 1 / 4) / 2, rel=0.01)


def test_a_clip_that_cuts_gradients_makes_the_coupled_decay_of_adam_larger():
    effective = []
    for c in (math.inf, 0.05):
        weight = nn.Parameter(torch.ones(2))
        adam = torch.optim.Adam([weight], 1e-3, weight_decay=1e-4)
        for _ in range(20):
            weight.grad = torch.tensor([3.0, 4.0])
            clip.clip_grad_norm_([weight], c)
            adam.step()
        effective.append(clip.effective_decay(adam)[0].effective)
    assert effective[1] / effective[0] == pytest.approx(100, rel=0.01)


def test_an_optimizer_whose_decay_is_not_known_says_so():
    weight = nn.Parameter(torch.ones(2))
    adadelta = torch.optim.Adadelta([weight], weight_decay=0.1)
    weight.grad = torch.ones(2)
    adadelta.step()
    (found,) = clip.effective_decay(adadelta)
    assert math.isnan(found.effective)
    assert "what Adadelta makes of it is not known here" in str(found)


def penalised(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x).square().mean() + 0.05 * model[0].weight.square().sum()


def plain(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x).square().mean()


def adds_before_clip(case: Case, batch: torch.Tensor) -> torch.Tensor:
    """A loop that adds λθ to every gradient, and clips then."""
    case.optimizer.zero_grad()
    loss = case.compute_loss(batch)
    loss.backward()
    for parameter in case.model.parameters():
        parameter.grad.add_(parameter.detach(), alpha=0.1)
    case.clip(case.model.parameters())
    case.optimizer.step()
    return loss


@pytest.mark.parametrize(
    ("loss", "step", "who"),
    [(penalised, None, {"0.weight": "loss"}), (plain, adds_before_clip, dict.fromkeys(PARAMETERS, "step"))],
    ids=["loss", "step"],
)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_decay_that_is_added_before_the_clip_is_found_and_cut_with_it(loss, step, who, dropout):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(dropout), nn.Linear(4, 2))
    case = Case(
        model,
        loss,
        data=[torch.randn(5, 3)],
        optimizer=lambda p: torch.optim.SGD(p, 0.5, momentum=0.5),
        step=step,
        clip=clip.by_global_norm(1e-3),
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    random = torch.get_rng_state()
    found = clip.added_decay(case)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], p) and p.grad is None for name, p in model.named_parameters())
    assert [one.place for one in found] == [(0, PARAMETERS.index(name)) for name in who]
    reseed(0)
    case.compute_loss(case.batches[0]).backward()
    if step is not None:
        for p in model.parameters():
            p.grad.add_(p.detach(), alpha=0.1)
    coefficient = clip.by_global_norm(1e-3)(model).coefficient
    for one, name in zip(found, who, strict=True):
        assert one.coupled
        assert one.declared == pytest.approx(0.5 * 0.1, rel=1e-4)
        assert one.effective == pytest.approx(0.5 * 0.1 * coefficient * 2, rel=1e-4)
        assert f"the {who[name]} adds 0.1·θ to {name}, the clip leaves {coefficient:.3g} of it" in str(one)


@pytest.mark.parametrize("loss", [plain, lambda m, x: plain(m, x) + m[0].weight.abs().sum()])
def test_a_gradient_without_such_a_term_has_none(loss):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    case = Case(
        model,
        loss,
        data=[torch.randn(5, 3)],
        optimizer=lambda p: torch.optim.SGD(p, 0.5, weight_decay=0.1),
        clip=clip.by_global_norm(1e-3),
    )
    assert clip.added_decay(case) == ()


def test_added_decay_says_what_it_misses():
    with pytest.raises(ValueError, match="declares no optimizer, so there is no rate"):
        clip.added_decay(Case(nn.Linear(2, 1), plain, data=[torch.ones(1, 2)]))
    case = Case(nn.Linear(2, 1), plain, [torch.ones(1, 2)], lambda p: torch.optim.SGD(p, 0.1))
    with pytest.raises(ValueError, match="batch is 1; the case has 1 drawn batches"):
        clip.added_decay(case, 1)


def test_a_decay_explains_itself():
    weight = nn.Parameter(torch.ones(2))
    adam = torch.optim.Adam([{"params": [weight], "weight_decay": 0.1}, {"params": [nn.Parameter(weight)]}])
    (found,) = clip.effective_decay(adam)
    assert math.isnan(found.effective)
    assert "coupled" in str(found)
    assert "Adam divides it by the size of the gradient, and has taken no step" in str(found)
    assert clip.effective_decay(torch.optim.SGD([weight], 0.1)) == ()


def test_a_clip_never_cuts_the_decay_and_a_loop_that_adds_it_first_does():
    (weight,) = with_gradients([0.3, 0.4])
    weight.data = torch.tensor([100.0, 0.0])
    sgd = torch.optim.SGD([weight], 0.1, weight_decay=0.1)
    clip.by_global_norm(1.0)([weight])
    sgd.step()
    assert weight.tolist() == pytest.approx([98.97, -0.04], rel=1e-6)
    weight.data, weight.grad = torch.tensor([100.0, 0.0]), torch.tensor([0.3, 0.4])
    weight.grad += 0.1 * weight.detach()
    report = clip.by_global_norm(1.0)([weight])
    torch.optim.SGD([weight], 0.1).step()
    assert weight.tolist() == pytest.approx([99.9001, -0.00388], rel=1e-3)
    assert 1 / report.coefficient == pytest.approx(10.3, abs=0.05)


def test_max_norm_scales_units_down_and_its_undo_is_exact():
    weight = torch.randn(5, 3, 2, 2)
    before = weight.clone()
    limit = before.flatten(1).norm(dim=1).median().item()
    undo = clip.max_norm(weight, limit)
    norms, came = weight.flatten(1).norm(dim=1), before.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, came.clamp(max=limit))
    untouched = came <= limit
    assert torch.equal(weight[untouched], before[untouched])
    assert not torch.equal(weight, before)
    undo()
    assert torch.equal(weight, before)
    version = weight._version
    clip.max_norm(weight, 1e9)()
    assert weight._version == version


def test_max_norm_leaves_what_is_not_finite():
    weight = torch.tensor([[math.inf, 1.0], [3.0, 4.0]])
    clip.max_norm(weight, 1.0)
    torch.testing.assert_close(weight, torch.tensor([[math.inf, 1.0], [0.6, 0.8]]))
    bias = torch.tensor([3.0, 4.0])
    clip.max_norm(bias, 1.0)
    torch.testing.assert_close(bias, torch.tensor([0.6, 0.8]))


def dense_norm(layer: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the norm of a layer's Jacobian, column by column."""
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    layer = layer.double()
    matrix = torch.func.jacrev(layer)(zero).reshape(layer(zero).numel(), zero.numel())
    return torch.linalg.svdvals(matrix.detach())[0].item()


LAYERS = {
    "linear": (lambda: nn.Linear(7, 5), (7,)),
    "large": (lambda: nn.Linear(300, 280), (300,)),
    "conv": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 6, 6)),
    "strided": (lambda: nn.Conv2d(2, 3, 3, stride=2), (2, 7, 7)),
    "circular": (lambda: nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), (2, 9)),
    "transposed": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2), (2, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_cap_holds_for_the_operator_and_its_undo_is_exact(name):
    make, shape = LAYERS[name]
    layer = make().double()
    came, before = dense_norm(layer, shape), layer.weight.detach().clone()
    undo = clip.spectral_cap(layer, 0.5 * came, entering=shape)
    capped = dense_norm(layer, shape)
    assert 0.498 * came <= capped <= 0.5 * came * (1 + 1e-3 if name == "large" else 1 + 1e-9)
    undo()
    assert torch.equal(layer.weight, before)
    clip.spectral_cap(layer, 1.01 * came, entering=shape)
    assert torch.equal(layer.weight, before)


def test_the_cap_of_a_convolution_is_not_that_of_its_kernel():
    layer = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular", bias=False)
    layer.weight.data.fill_(1 / 3)
    clip.spectral_cap(layer, 1.0, entering=(1, 8, 8))
    assert layer.weight[0, 0, 0, 0].item() == pytest.approx(1 / 9, rel=1e-5)


def test_a_cap_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="depends on the size of what enters; give its shape"):
        clip.spectral_cap(nn.Conv2d(1, 1, 3), 1.0)
    with pytest.raises(ValueError, match="made by a parametrisation"):
        clip.spectral_cap(parametrizations.weight_norm(nn.Linear(2, 2)), 1.0)
    with pytest.raises(ValueError, match=r"has shape \(3,\)"):
        clip.spectral_cap(nn.LayerNorm(3), 1.0)
    with pytest.raises(ValueError, match="missing or not finite"):
        clip.spectral_cap(torch.full((2, 2), math.nan), 1.0)
    with pytest.raises(ValueError, match="limit is 0"):
        clip.spectral_cap(nn.Linear(2, 2), 0)
