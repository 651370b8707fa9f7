"""The safe band of thresholds: closed forms, honest answers, and the case left as it was."""

import math

import pytest
import torch
from torch import nn

from unitygain import Case
from unitygain.clip._suggest import Tried, suggest

# One number x, loss x⁴/4 from x = 10 at a learning rate of 0.1: unclipped it diverges at once. A clipped
# step moves by 0.1c. The first step lands on the cycle of period two, x = ±√20, at c = (10 + √20)/0.1.
UPPER = (10 + math.sqrt(20)) / 0.1


def one_number(start: float, power: int, rate: float, **more) -> Case:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, start)
    return Case(
        model,
        loss=lambda m, x: m(x).abs().pow(power).sum() / power,
        data=[torch.ones(1, 1)],
        optimizer=lambda params: torch.optim.SGD(params, rate),
        **more,
    )


def reaches(threshold: float, steps: int) -> bool:
    """Whether the same training in plain Python ends within 0.5 of the bottom."""
    x = 10.0
    for _ in range(steps):
        x -= 0.1 * max(-threshold, min(threshold, x**3))
    return abs(x) < 0.5


def test_the_band_of_a_quartic_has_its_closed_form():
    found = suggest(one_number(10.0, 4, 0.1), steps=50, points=10, goal=0.5**4 / 4, edge=0.02)
    assert found.band is not None
    assert found.threshold is not None
    low, high = found.band
    assert reaches(low * 1.001, 50)
    assert not reaches(low / 1.03, 50)
    assert UPPER / 1.03 < high < UPPER
    assert low < found.threshold < high
    assert found.tried[-1] == Tried(math.inf, math.inf, 0.0, safe=False)
    assert [t.threshold for t in found.tried] == sorted(t.threshold for t in found.tried)
    assert "training without a clip does not" in found.reason


def test_the_edges_are_where_it_stops_being_safe():
    found = suggest(one_number(10.0, 4, 0.1), steps=30, points=8, edge=0.02)
    assert found.band is not None
    low, high = found.band
    by_threshold = {t.threshold: t for t in found.tried}
    assert by_threshold[low].safe
    assert by_threshold[high].safe
    below = max(t.threshold for t in found.tried if t.threshold < low)
    above = min(t.threshold for t in found.tried if t.threshold > high)
    assert not by_threshold[below].safe
    assert not by_threshold[above].safe
    assert low / below < math.exp(0.02) * (1 + 1e-12)
    assert above / high < math.exp(0.02) * (1 + 1e-12)
    inside = [t.safe for t in found.tried if low <= t.threshold <= high]
    assert all(inside)


def test_a_training_that_needs_no_clip_is_told_so():
    found = suggest(one_number(1.0, 2, 0.5), steps=20, points=9)
    assert found.band is not None
    assert found.band[1] == math.inf
    assert found.tried[-1].safe
    assert "so does training without a clip" in found.reason
    assert "upwards" in found.reason


def test_no_cure_is_an_answer():
    found = suggest(one_number(1.0, 2, 0.1), steps=5, points=5, goal=-1.0)
    assert (found.threshold, found.band) == (None, None)
    assert "clipping is no cure here" in str(found)
    assert not any(t.safe for t in found.tried)


def test_safe_thresholds_beyond_a_gap_are_no_part_of_the_band():
    # c = 200 takes x from 10 to -10 and back for ever; c = 10 and c = 100 get there.
    case = one_number(10.0, 4, 0.1)
    found = suggest(case, steps=40, goal=0.5**4 / 4, points=3, between=(10.0, 1000.0), edge=0.2)
    assert [t.safe for t in found.tried if t.threshold in (10.0, 1000.0)] == [True, False]
    assert found.band is not None
    assert found.band[0] == 0.0
    assert 100.0 <= found.band[1] < UPPER


def test_the_clipped_fraction_is_counted():
    # x halves at every step: gradients 1, 1/2, 1/4 …; a threshold of 0.3 cuts the first ones.
    found = suggest(one_number(1.0, 2, 0.5), steps=20, points=3, between=(0.3, 30.0))
    fractions = {round(t.threshold, 6): t.clipped for t in found.tried}
    assert fractions[30.0] == 0.0
    x, cut = 1.0, 0
    for _ in range(20):
        cut += x > 0.3
        x -= 0.5 * min(x, 0.3)
    assert fractions[0.3] == cut / 20


def test_progress_is_told_and_nothing_is_left_behind():
    case, calls = one_number(10.0, 4, 0.1), []
    torch.manual_seed(1)
    state = torch.get_rng_state()
    suggest(case, steps=5, points=4, progress=lambda done, total, what: calls.append((done, total, what)))
    assert calls[0] == (0, 5, "no clip")
    assert [done for done, _, _ in calls] == list(range(len(calls)))
    assert all(done < total for done, total, _ in calls)
    assert torch.equal(torch.get_rng_state(), state)
    assert case.model.weight.item() == 10.0
    assert case.clip is None
    assert case.model.weight.grad is None


def test_a_bar_is_shown_on_request(capsys):
    suggest(one_number(10.0, 4, 0.1), steps=5, points=4)
    assert capsys.readouterr().err == ""
    found = suggest(one_number(10.0, 4, 0.1), steps=5, points=4, progress=True)
    shown = capsys.readouterr()
    assert f"{len(found.tried)}/{len(found.tried)} done" in shown.err
    assert shown.out == ""


def test_an_own_step_must_let_the_clip_in():
    def step(case, batch):
        case.optimizer.zero_grad()
        loss = case.compute_loss(batch)
        loss.backward()
        case.optimizer.step()
        return loss

    def clipping(case, batch):
        case.optimizer.zero_grad()
        loss = case.compute_loss(batch)
        loss.backward()
        case.clip(case.model.parameters())
        case.optimizer.step()
        return loss

    with pytest.raises(ValueError, match=r"never called case\.clip"):
        suggest(one_number(10.0, 4, 0.1, step=step), steps=5, points=3)
    options = {"steps": 10, "points": 3, "edge": 0.5}
    own = suggest(one_number(10.0, 4, 0.1, step=clipping), **options)
    assert own == suggest(one_number(10.0, 4, 0.1), **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": 2}, "points is 2"),
        ({"steps": 1}, "steps 1"),
        ({"slack": 1.5}, "slack is 1.5"),
        ({"edge": 0.0}, "edge 0.0"),
        ({"between": (2.0, 1.0)}, "between is 2 to 1"),
    ],
)
def test_bad_input_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        suggest(one_number(10.0, 4, 0.1), **changes)


def test_no_optimizer_is_named():
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="declares no optimizer"):
        suggest(Case(model, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 1)]))
