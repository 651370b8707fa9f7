"""gradient_reversed: which ways are reversed, and that the loss itself tells the sign."""

from typing import Any

import pytest
import torch
from measures.reading import measured
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from zoo import reversals
from zoo.reversals import Hooked, Turn

from unitygain._case import Case
from unitygain._types import Profile
from unitygain.rules.ug105_not_what_it_claims import judge

NAME = "gradient_reversed"


def look(case: Case) -> Profile | None:
    return measured(case, NAME).get(NAME)


def squared(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x) - 1).square().mean()


def case(*layers: nn.Module, loss: Any = squared) -> Case:
    torch.manual_seed(0)
    return Case(nn.Sequential(nn.Linear(3, 4), *layers, nn.Linear(4, 1)), loss, [torch.randn(8, 3)])


def test_the_step_is_along_the_gradient_that_training_gets():
    """By hand: a step of 1 % of the parameters' length along minus the reversed gradient."""
    made = case(Turn(1.0, -0.5))
    profile = look(made)
    assert profile is not None
    model, x = made.model, made.batches[0]
    model.zero_grad()
    before = squared(model, x)
    before.backward()
    behind = list(model[0].parameters())
    size, slope = (
        float(torch.cat([t.detach().flatten() for t in of]).norm())
        for of in (behind, [p.grad for p in behind])
    )
    with torch.no_grad():
        for parameter in behind:
            parameter -= 0.01 * size / slope * parameter.grad
    seen = dict(zip(profile.columns, profile.rows[0], strict=True))
    assert profile.values[0] == pytest.approx(squared(model, x).item(), rel=1e-5)
    assert seen["before"] == pytest.approx(before.item(), rel=1e-6)
    assert seen["back"] < seen["before"] < seen["after_a_tenth"] < profile.values[0]
    assert seen["factor"] == pytest.approx(-0.5)
    assert (seen["parameters"], profile.facts["first"]) == (2.0, "0.weight")
    assert (str(profile.sites[0]), profile.labels) == ("1", ("Turned",))


@pytest.mark.parametrize(
    "layer",
    [Turn(1.0, 0.5), Turn(-1.0, -1.0), Turn(1.0, -1.0, 2), Turn(1.0, 0.0), nn.Identity()],
    ids=["scaled", "minus", "twice", "zero", "none"],
)
def test_what_has_the_right_sign_is_left_alone(layer):
    assert look(case(layer)) is None


@pytest.mark.parametrize(
    ("backs", "factor"), [((-1.0,), -1.0), ((-0.5, 0.5), -0.25), ((-1.0, -1.0, -1.0), -1.0)]
)
def test_hooks_on_a_tensor_are_read_as_one(backs, factor):
    profile = look(case(Hooked(*backs)))
    assert profile is not None
    assert profile.rows[0][profile.columns.index("factor")] == pytest.approx(factor)
    assert (str(profile.sites[0]), profile.labels) == ("1", ("a tensor hook",))
    [finding] = judge({NAME: profile})
    assert finding.causes[0].text.startswith("way back: the hook on a tensor at 1 reverses")


@pytest.mark.parametrize(
    "layers",
    [(Hooked(0.1),), (Hooked(-1.0, -1.0),), (Hooked(-1.0), Turn(1.0, -1.0)), (Hooked(0.0),), (Hooked(),)],
)
def test_hooks_that_leave_the_sign_are_left_alone(layers):
    assert look(case(*layers)) is None


def test_a_hook_that_only_looks_and_one_on_a_parameter_are_left_alone():
    made = case(nn.Tanh())
    seen = []

    def squared_and_seen(model: nn.Module, x: Tensor) -> Tensor:
        out = model(x)
        out.register_hook(seen.append)
        model[0].weight.register_hook(lambda gradient: -gradient)
        return (out - 1).square().mean()

    assert look(Case(made.model, squared_and_seen, made.batches)) is None


def test_three_reversals_are_one():
    assert look(case(Turn(1.0, -1.0, 3))) is not None


def test_an_input_with_another_way_to_the_loss_is_enough():
    def beside(model: nn.Module, x: Tensor) -> Tensor:
        return squared(model, x) + 0.1 * model[0](x).square().mean()

    assert look(case(Turn(1.0, -1.0), loss=beside)) is None


def test_random_numbers_are_the_same_at_every_step():
    assert look(case(Turn(1.0, -1.0), nn.Dropout(0.5))) is not None
    assert look(case(Turn(-1.0, -1.0), nn.Dropout(0.5))) is None


def test_the_case_is_left_as_it_was():
    made = case(nn.BatchNorm1d(4), Turn(1.0, -1.0))
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    state = torch.get_rng_state()
    assert NAME in measured(made, NAME)
    assert torch.equal(state, torch.get_rng_state())
    for name, parameter in made.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_a_checkpoint_that_gives_no_single_gradients_is_passed_by():
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.map, x, use_reentrant=True)

    assert look(case(Kept(), Turn(1.0, -1.0))) is None


def test_the_finding_names_function_place_and_losses():
    profiles = measured(
        reversals.adapted("rows", 24, -0.8, early=True), "predicted_gain", "rms_gain", "act_rms", NAME
    )
    [finding] = judge(profiles)
    assert (finding.code, finding.severity, str(finding.sites[0])) == ("UG105", "warning", "turn")
    assert "passes Turned at turn, which hands on -0.8x of the gradient" in finding.message
    assert "features.0.weight and 5 other parameters" in finding.message
    assert finding.causes[0].text.startswith("way back: the custom autograd function Turned at turn reverses")
