"""The first steps against a training by hand, and the rate that is too large for them."""

import math
import sys

import pytest
import torch
from torch import nn

import unitygain as ug
from unitygain._types import Profile, Site
from unitygain.measures.first_steps import first_steps
from unitygain.probe.observe import observe
from unitygain.probe.trace import Gap
from unitygain.rules.ug611_steps_raise_loss import judge

module = sys.modules["unitygain.measures.first_steps"]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    source = torch.Generator().manual_seed(1)
    inputs = [torch.randn(32, 6, generator=source) for _ in range(3)]
    return [(x, x[:, :3].argmax(1)) for x in inputs]


def case_of(rate: float, **more: object) -> ug.Case:
    given = {
        "loss": lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]),
        "data": batches(),
        "optimizer": lambda parameters: torch.optim.SGD(parameters, rate, momentum=0.9),
    }
    return ug.Case(net(), **(given | more))


def measured(case: ug.Case) -> Profile | None:
    return first_steps(case, observe(case, []))


def by_hand(rate: float, steps: int) -> float:
    model, data = net(), batches()
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    for step in range(steps):
        x, y = data[step % 3]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        return sum(float(nn.functional.cross_entropy(model(x), y)) for x, y in data) / 3


def test_it_is_the_training_that_one_would_do_by_hand():
    profile = measured(case_of(0.1))
    assert profile is not None
    before, after, tenth, hundredth = profile.rows[0]
    assert before == pytest.approx(by_hand(0.1, 0), rel=1e-6)
    assert after == profile.values[0] == pytest.approx(by_hand(0.1, 8), rel=1e-6)
    assert after < before
    assert math.isnan(tenth)
    assert math.isnan(hundredth)
    assert profile.facts["steps"] == 8


def test_a_rate_that_is_too_large_is_told_and_confirmed_by_a_smaller_one():
    report = ug.diagnose(case_of(60.0), only=["UG611"])
    (finding,) = report.findings
    assert finding.value == pytest.approx(by_hand(60.0, 24), rel=1e-4)
    assert finding.causes[-1].text.startswith("learning rate:")
    assert finding.causes[0].status == "confirmed"
    profile = report.profiles["first_steps"]
    assert profile.rows[0][3] == pytest.approx(by_hand(0.6, 24), rel=1e-4)


def test_a_loss_that_no_rate_lowers_is_not_blamed_on_the_rate():
    constant = case_of(0.1, loss=lambda m, b: nn.functional.cross_entropy(0 * m(b[0]), b[1]))
    assert ug.diagnose(constant, only=["UG611"]).findings == ()


def test_a_summed_loss_is_named_before_the_rate():
    summed = case_of(2.0, loss=lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1], reduction="sum"))
    (finding,) = ug.diagnose(summed, only=["UG611"]).findings
    assert finding.causes[0].text.startswith("loss: it is 32 times its mean per row")


def test_it_does_not_apply_without_an_optimizer_or_with_a_step_of_its_own():
    assert measured(case_of(0.1, optimizer=None)) is None

    def step(case: ug.Case, batch: object) -> torch.Tensor:
        return case.compute_loss(batch)

    assert measured(case_of(0.1, step=step)) is None


def test_large_and_slow_models_are_left_to_treat(monkeypatch):
    monkeypatch.setattr(module, "MOST_PARAMETERS", 10)
    with pytest.raises(Gap, match="more than 10 parameters are left to treat"):
        measured(case_of(0.1))
    monkeypatch.undo()
    monkeypatch.setattr(module, "MOST_SECONDS", 0.0)
    with pytest.raises(Gap, match="8 training steps would take about 0 s; treat takes them"):
        measured(case_of(0.1))


@pytest.mark.parametrize(
    ("row", "fires"),
    [
        ((2.0, math.inf, 1.0, 1.9), True),
        ((2.0, 2.0, 2.0, 1.79), True),
        ((2.0, 2.0, 1.9, 1.9), False),
        ((2.0, 1.97, 1.79, 1.9), True),
        ((2.0, 1.955, 1.79, 1.9), False),
        ((2.0, 1.0, math.nan, math.nan), False),
        ((-2.0, 5.0, -3.0, -2.1), False),
    ],
)
def test_the_limits(row, fires):
    columns = ("before", "after", "at_a_tenth", "at_a_hundredth")
    profile = Profile("first_steps", "loss", (Site(""),), row[1:2], columns=columns, rows=(row,))
    expected = Profile("loss_value", "loss", (Site(""),), row[:1], facts={"expected": 2.0})
    assert len(list(judge({"first_steps": profile, "loss_value": expected}))) == fires


@pytest.mark.parametrize(
    ("after", "tenth", "steps", "fires"),
    [(1.92, 0.4, 72.0, True), (1.92, 0.4, 24.0, False), (1.6, 0.4, 72.0, False), (1.99, 1.85, 72.0, False)],
)
def test_a_loss_that_falls_a_little_is_judged_after_more_steps(after, tenth, steps, fires):
    columns = ("before", "after", "at_a_tenth", "at_a_hundredth")
    row = (2.0, after, tenth, math.nan)
    profile = Profile(
        "first_steps", "loss", (Site(""),), row[1:2], columns=columns, rows=(row,), facts={"steps": steps}
    )
    expected = Profile("loss_value", "loss", (Site(""),), row[:1], facts={"expected": 2.0})
    found = list(judge({"first_steps": profile, "loss_value": expected}))
    assert len(found) == fires
    assert all(finding.value > finding.threshold for finding in found)


def test_a_rate_that_falls_behind_a_tenth_of_it_is_given_seventy_two_steps(monkeypatch):
    monkeypatch.setattr(module, "WELL", 1.0)
    hot = case_of(4.0)
    profile = measured(hot)
    assert profile is not None
    assert profile.facts["steps"] == 72
    assert profile.rows[0][1] == pytest.approx(by_hand(4.0, 72), rel=1e-3)
    assert profile.rows[0][2] == pytest.approx(by_hand(0.4, 72), rel=1e-3)
    monkeypatch.setattr(module, "MOST_SECONDS_LONGEST", 0.0)
    shorter = measured(hot)
    assert shorter is not None
    assert shorter.facts["steps"] == 8


@pytest.mark.parametrize(
    ("row", "fires"),
    [
        ((1.62, 2.13, 1.65, 1.623), True),
        ((1.62, 1.65, 1.623, 1.6203), False),
        ((1.62, 9.0, 2.0, 1.9), False),
        ((1.62, 2.13, 1.65, 1.62), False),
        ((1.62, math.inf, 3.0, 1.7), False),
    ],
)
def test_a_loss_that_rises_in_proportion_to_the_rate_goes_uphill(row, fires):
    columns = ("before", "after", "at_a_tenth", "at_a_hundredth")
    steps = Profile("first_steps", "loss", (Site(""),), row[1:2], columns=columns, rows=(row,))
    found = [finding for finding in judge({"first_steps": steps}) if "uphill" in finding.message]
    assert len(found) == fires
    assert all(finding.causes[0].text.startswith("wrong sign") for finding in found)


class Reversed(torch.autograd.Function):
    """Passes its input on, and the gradient back with another sign."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


@pytest.mark.parametrize("kind", ["maximize", "reversed"])
def test_steps_that_go_uphill_are_told(kind):
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    y = (x @ torch.randn(8, 3)).argmax(1)

    def loss(model, batch):
        logits = model(batch[0])
        logits = Reversed.apply(logits) if kind == "reversed" else logits
        return nn.functional.cross_entropy(logits, batch[1])

    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    case = ug.Case(model, loss, [(x, y)], lambda p: torch.optim.Adam(p, 1e-3, maximize=kind == "maximize"))
    (finding,) = ug.diagnose(case, only=["UG611"]).findings
    assert "uphill" in finding.message


@pytest.mark.parametrize(("highest", "fires"), [(2.9, False), (3.1, True)])
def test_beside_a_loss_that_jumped_a_smaller_gain_tells(highest, fires):
    columns, row = ("before", "after", "at_a_tenth", "at_a_hundredth"), (2.0, 2.1, 1.85, 1.99)
    expected = Profile("loss_value", "loss", (Site(""),), row[:1], facts={"expected": 2.0})
    facts = {"steps": 24.0, "highest": highest}
    steps = Profile("first_steps", "loss", (Site(""),), row[1:2], columns=columns, rows=(row,), facts=facts)
    assert len(list(judge({"first_steps": steps, "loss_value": expected}))) == fires


def test_a_loss_that_wanders_where_it_is_small_is_no_finding():
    columns, row = ("before", "after", "at_a_tenth", "at_a_hundredth"), (0.0058, 0.0062, 0.0038, 0.005)
    steps = Profile("first_steps", "loss", (Site(""),), row[1:2], columns=columns, rows=(row,))
    for expected, fires in ((math.nan, False), (1.0, False), (0.006, True)):
        loss = Profile("loss_value", "loss", (Site(""),), row[:1], facts={"expected": expected})
        assert len(list(judge({"first_steps": steps, "loss_value": loss}))) == fires
