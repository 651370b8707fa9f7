"""fake_logit_grad against autograd written out, and what counts as a discriminator's verdict."""

import functools
from collections.abc import Callable

import pytest
import torch
from measures.reading import measured
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import games

import unitygain.rules  # noqa: F401 (fills the table)
from unitygain._case import Case, Loss
from unitygain._registry import RULES
from unitygain._types import Profile
from unitygain.probe.adversary import closed_over, find_discriminators
from unitygain.theory.adversarial import generator_gradient

BY_LOGIT = {
    "saturating": lambda a: -F.softplus(a),
    "non_saturating": lambda a: F.softplus(-a),
    "wasserstein": lambda a: -a,
    "least_squares": lambda a: (a - 1).square(),
}


def game(value: float) -> games.Game:
    made, judge = games.points()
    games.verdict(judge, value)
    return games.Game(made, judge).double()


def noise() -> Tensor:
    return torch.randn(16, 8, generator=torch.Generator().manual_seed(1)).double()


def look(model: nn.Module, loss: Loss) -> Profile | None:
    return measured(Case(model, loss, [noise()]), "fake_logit_grad").get("fake_logit_grad")


def require(profile: Profile | None) -> Profile:
    assert profile is not None
    return profile


@pytest.mark.parametrize("value", [-9.0, -1.0, 0.0, 3.0])
@pytest.mark.parametrize("name", BY_LOGIT)
def test_pull_and_bend_are_those_of_the_loss_written_out(name, value):
    model, by_logit = game(value), BY_LOGIT[name]
    profile = require(look(model, getattr(games, name)))
    found = dict(zip(profile.columns, profile.rows[0], strict=True))
    fake = model.generator(noise()).detach().requires_grad_()
    a = model.discriminator(fake)
    free, zero = a.detach().requires_grad_(), torch.zeros_like(a, requires_grad=True)
    (slope,) = torch.autograd.grad(by_logit(free).sum(), free, create_graph=True)
    bend = torch.autograd.grad(slope.sum(), free)[0] if slope.requires_grad else torch.zeros_like(slope)
    slope = slope.detach()
    (undecided,) = torch.autograd.grad(by_logit(zero).sum(), zero)
    (through,) = torch.autograd.grad(a, fake, slope)
    assert profile.values[0] == pytest.approx(float(slope.abs().sum() / undecided.abs().sum()), rel=1e-9)
    assert found["pull"] == pytest.approx(float(slope.abs().mean()), rel=1e-9)
    assert found["bend"] == pytest.approx(float(bend.sum() / slope.abs().sum()), rel=1e-9)
    assert found["logit_mean"] == pytest.approx(float(a.detach().mean()), rel=1e-9)
    assert found["passed"] == pytest.approx(float(through.norm() / slope.norm()), rel=1e-9)
    laws = [generator_gradient(float(logit)) for logit in a.detach().flatten()]
    assert found["saturating"] == pytest.approx(-2 * sum(law.saturating for law in laws) / 16, rel=1e-9)
    if name in found:
        assert profile.values[0] == pytest.approx(found[name], rel=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1000.0])
def test_weight_and_reduction_of_the_loss_cancel(scale):
    model = game(-4.0)
    plain = require(look(model, games.saturating))
    loud = require(look(model, lambda m, z: -scale * F.softplus(m(z)).sum()))
    assert loud.values[0] == pytest.approx(plain.values[0], rel=1e-9)


def test_a_sigmoid_at_the_end_is_not_the_logit():
    made, judge = games.points()
    games.verdict(judge, -6.0)
    bare, squashed = games.Game(made, judge).double(), games.Game(made, nn.Sequential(judge, nn.Sigmoid()))
    loss = require(look(squashed.double(), lambda m, z: (1 - m(z)).log().mean()))
    assert loss.values[0] == pytest.approx(require(look(bare, games.saturating)).values[0], rel=1e-9)


def test_only_what_was_generated_counts():
    """Real samples, and generated ones that were detached, are no generator's loss."""
    model = game(-3.0)

    def own(m: nn.Module, z: Tensor) -> Tensor:
        real, fake = m.discriminator(torch.ones(4, 2).double()), m.discriminator(m.generator(z).detach())  # type: ignore[operator]
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    assert look(model, own) is None
    assert look(model, lambda m, z: own(m, z) + games.saturating(m, z)) is not None
    both = require(look(model, lambda m, z: own(m, z) + games.saturating(m, z)))
    assert [str(site) for site in both.sites] == ["discriminator#3"]
    assert both.values == pytest.approx(require(look(model, games.saturating)).values, rel=1e-9)


class Critic(nn.Linear):
    """Known by its class."""


def test_several_discriminators_have_a_value_each():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = games.points()[0]
            self.judges = nn.ModuleList([Critic(2, 1), Critic(2, 1)])

    model = Two()
    nn.init.constant_(model.judges[1].bias, -12.0)  # type: ignore[arg-type]

    def loss(m: nn.Module, z: Tensor) -> Tensor:
        fake = m.generator(z)  # type: ignore[operator]
        return sum((-F.softplus(judge(fake)).mean() for judge in m.judges), torch.zeros(()))  # type: ignore[union-attr]

    profile = require(look(model.double(), loss))
    assert [str(site) for site in profile.sites] == ["judges.0", "judges.1"]
    assert profile.values[0] > 100 * profile.values[1] > 0


def test_models_without_a_game_have_none():
    classifier = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    assert look(classifier, lambda m, z: F.softplus(-m(z)).mean()) is None
    # An actor and its critic: what the critic is shown was made by trained weights, and its value is linear.
    pair = nn.ModuleDict({"actor": nn.Linear(8, 2), "critic": nn.Linear(2, 1)}).double()
    profile = require(look(pair, lambda m, z: -m["critic"](m["actor"](z)).mean()))  # type: ignore[index]
    assert profile.values == (1.0,)


def test_variants_are_told_by_name():
    case = Case(
        game(0.0), games.saturating, [noise()], variants={"a": games.wasserstein, "b": games.saturating}
    )
    assert measured(case, "fake_logit_grad")["fake_logit_grad"].facts["variants"] == "a, b"


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (nn.ModuleDict({"G": nn.Linear(1, 1), "D": nn.Linear(1, 1)}), ["D"]),
        (nn.ModuleDict({"gen": nn.Linear(1, 1), "disc": nn.Sequential(nn.Linear(1, 1))}), ["disc"]),
        (nn.ModuleDict({"encoder": nn.Linear(1, 1), "decoder": nn.Linear(1, 1)}), []),
        (nn.ModuleDict({"discrete": nn.Linear(1, 1), "d_model": nn.Linear(1, 1)}), []),
    ],
)
def test_names_of_discriminators(model, found):
    assert list(find_discriminators(model)) == found


def _frozen(*outputs: int) -> nn.Module:
    layers = nn.Sequential(*(nn.Linear(4, size) for size in outputs))
    return layers.requires_grad_(False)


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ({"make": nn.Linear(2, 4), "judge": _frozen(4, 1)}, ["judge"]),
        ({"make": nn.Linear(2, 4), "teacher": _frozen(4, 3)}, []),
        ({"make": nn.Linear(2, 4), "value": nn.Linear(4, 1)}, []),
        ({"all": _frozen(4, 1)}, []),
        ({"make": nn.Linear(2, 4), "judge": _frozen(4, 1), "D": nn.Linear(4, 1)}, ["D"]),
    ],
    ids=["one number", "several", "it learns", "nothing learns", "another is called so"],
)
def test_a_frozen_part_that_ends_in_one_number_judges(parts, found):
    assert list(find_discriminators(nn.ModuleDict(parts))) == found


def apart(value: float, judge_s_name: str, by_hand: Callable[[Tensor], Tensor], *, frozen: bool) -> Case:
    """Return a generator's case whose loss closes over a discriminator, under one name or another."""
    made, judge = games.points()
    games.verdict(judge, value)
    judge.double().requires_grad_(not frozen)
    if judge_s_name == "critic":
        critic = judge

        def loss(model: nn.Module, z: Tensor) -> Tensor:
            return by_hand(critic(model(z)))

    else:

        def loss(model: nn.Module, z: Tensor) -> Tensor:
            return by_hand(judge(model(z)))

    return Case(made.double(), loss, [noise()])


def minimax(a: Tensor) -> Tensor:
    return torch.log(1 - torch.sigmoid(a) + 1e-8).mean()


@pytest.mark.parametrize(("name", "frozen"), [("critic", True), ("critic", False), ("judge", True)])
def test_a_discriminator_that_the_loss_closes_over_is_found(name, frozen):
    case = apart(-9.0, name, minimax, frozen=frozen)
    profile = require(measured(case, "fake_logit_grad").get("fake_logit_grad"))
    assert [str(site) for site in profile.sites] == [name]
    inside = require(look(game(-9.0), games.saturating))
    assert profile.values[0] == pytest.approx(inside.values[0], rel=2)
    assert [f.code for f in RULES["UG704"].judge({"fake_logit_grad": profile})] == ["UG704"]


@pytest.mark.parametrize(
    "by_hand",
    [
        lambda a: F.softplus(-a).mean(),
        lambda a: -a.mean(),
        lambda a: (a - 1).square().mean(),
        lambda a: -torch.log(torch.sigmoid(a) + 1e-8).mean(),
    ],
    ids=["non-saturating", "wasserstein", "least squares", "by hand"],
)
@pytest.mark.parametrize("value", [-9.0, 9.0])
def test_losses_that_do_not_saturate_are_silent_beside_a_discriminator_apart(by_hand, value):
    case = apart(value, "critic", by_hand, frozen=True)
    profile = require(measured(case, "fake_logit_grad").get("fake_logit_grad"))
    assert list(RULES["UG704"].judge({"fake_logit_grad": profile})) == []


def test_what_learns_beside_the_model_without_a_name_and_what_is_shown_data_alone_judges_nothing():
    case = apart(-9.0, "judge", minimax, frozen=False)
    assert measured(case, "fake_logit_grad") == {}
    critic = nn.Linear(8, 1).double().requires_grad_(False)
    made = nn.Linear(8, 1).double()
    distilled = Case(made, lambda m, z: (m(z) - critic(z)).square().mean(), [noise()])
    assert measured(distilled, "fake_logit_grad") == {}


def test_a_loss_that_is_a_part_of_a_function_or_an_object_is_looked_through():
    critic = nn.Linear(2, 1)

    def loss(model: nn.Module, z: Tensor, weight: float) -> Tensor:
        return -weight * critic(model(z)).mean()

    made = nn.Linear(8, 2)
    assert list(closed_over(Case(made, functools.partial(loss, weight=2.0), [noise()]))) == ["critic"]
    assert list(closed_over(Case(critic, functools.partial(loss, weight=2.0), [noise()]))) == []

    class Loss:
        def __call__(self, model: nn.Module, z: Tensor) -> Tensor:
            return model(z).mean()

    assert closed_over(Case(made, Loss(), [noise()])) == {}
