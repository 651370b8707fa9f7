"""treat: what cures is verified, what does not is told from it, and nothing of the user's is touched."""

import dataclasses
import functools
import math

import pytest
import torch
from torch import nn

import unitygain as ug
import unitygain._treat
from unitygain._arena import Arena
from unitygain._candidates import Arm, choose_arms
from unitygain._crew import Here
from unitygain._diagnose import measure_all
from unitygain._job import GAINS, Task, fresh_subject, perform
from unitygain._registry import MEASURES, REMEDIES, Remedy
from unitygain._rehearsal import train
from unitygain._trial import conclude, gained, judge_losses
from unitygain._types import Cause, Finding, Site
from unitygain.probe.isolate import isolated
from unitygain.report import Report


def deep(depth: int = 18, width: int = 32) -> nn.Module:
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, 4))


def labelled(count: int = 2, width: int = 32) -> list[tuple[torch.Tensor, torch.Tensor]]:
    source = torch.Generator().manual_seed(0)
    inputs = [torch.randn(64, width, generator=source) for _ in range(count)]
    return [(x, x[:, :4].argmax(1)) for x in inputs]


def make(model=deep, **more) -> ug.Case:
    given = {
        "loss": lambda m, batch: nn.functional.cross_entropy(m(batch[0]), batch[1]),
        "data": labelled(),
        "optimizer": lambda params: torch.optim.Adam(params, 2e-3),
    }
    return ug.Case(model, **(given | more))


def compare(case: ug.Case, arms: list[Arm], steps: int = 2, seeds: int = 1) -> list[ug.Trial]:
    """Try the arms without a diagnosis."""
    return Arena(case, Here(case), Task(probes=2), seeds, math.inf, lambda *_: None, steps).compare(arms)


# What people would do about a cause is tried elsewhere: here the removals of causes alone, which is quick.
REMOVALS = functools.partial(choose_arms, most=2)


@pytest.fixture
def removals(monkeypatch):
    monkeypatch.setattr(unitygain._treat, "choose_arms", REMOVALS)


@pytest.fixture(scope="module")
def treated() -> Report:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unitygain._treat, "choose_arms", REMOVALS)
        return ug.treat(make(), steps=60)


@pytest.mark.cure
def test_the_cure_of_a_deep_default_network_is_verified(treated):
    best = treated.best
    assert best is not None
    assert best.remedies == ("rescale_weights",)
    assert (best.seeds, best.steps) == (3, 60)
    assert best.interval is not None
    assert best.interval[0] > 0
    assert "UG101" in best.cleared
    assert best.predicted is not None
    assert best.predicted[0] <= best.after <= best.predicted[1]
    untreated = treated.trials[0]
    assert (untreated.verdict, untreated.remedies, untreated.name) == ("untreated", (), "untreated")
    assert best.loss == pytest.approx(untreated.loss - best.better)


@pytest.mark.cure
def test_a_trial_is_what_a_person_would_do_by_hand(treated):
    best = treated.best
    assert best is not None
    losses = []
    for seed in range(3):
        case = make()
        case._model = case.build(seed)
        best.apply(case)
        losses.append(train(case, 60, seed=seed).final)
    assert best.loss == pytest.approx(math.fsum(losses) / 3, rel=1e-6)


@pytest.mark.cure
def test_the_best_is_applied_and_undone_bit_for_bit(treated):
    again = Report.from_json(treated.to_json())
    assert again == treated
    case = make()
    before = {name: value.clone() for name, value in case.model.state_dict().items()}
    assert again.best is not None
    undo = again.best.apply(case)
    changed = case.model.state_dict()
    assert not all(torch.equal(changed[name], value) for name, value in before.items())
    undo()
    assert all(torch.equal(case.model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.cure
def test_treating_leaves_the_case_and_the_random_states_alone(removals):
    case = make(lambda: deep(12, 16), data=labelled(width=16))
    before = {name: value.clone() for name, value in case.model.state_dict().items()}
    torch.manual_seed(9)
    state = torch.get_rng_state()
    first = ug.treat(case, steps=10, seeds=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(case.model.state_dict()[name], value) for name, value in before.items())
    assert all(p.grad is None for p in case.model.parameters())
    assert case.clip is None
    second = ug.treat(case, steps=10, seeds=1)
    assert [(t.name, t.verdict, t.loss) for t in first.trials] == [
        (t.name, t.verdict, t.loss) for t in second.trials
    ]
    # One seed never verifies anything.
    assert first.best is None


def test_a_healthy_model_is_tried_at_lower_rates_alone():
    report = ug.treat(make(lambda: deep(1)), steps=20)
    assert [t.remedies for t in report.trials] == [(), ("lower_learning_rate",), ("lower_learning_rate",)]
    assert report.best is None


@pytest.mark.cure
def test_an_instance_is_one_initialisation_and_says_so(removals):
    torch.manual_seed(0)
    report = ug.treat(make(deep(12, 16), data=labelled(width=16)), steps=5, seeds=1)
    assert {t.note for t in report.trials} == {"one initialisation, batches in other orders"}


@pytest.mark.cure
def test_a_budget_too_small_is_said(removals):
    case = make(lambda: deep(12, 16), data=labelled(width=16))
    report = ug.treat(case, steps=20, budget=1e-6)
    assert report.trials[0].seeds == 1
    others = report.trials[1:]
    assert sorted((t.verdict, t.seeds) for t in others)[0] in {("leads", 1), ("no better", 1)}
    assert {t.verdict for t in others} & {"undecided", "leads"}
    assert report.conclusion.startswith("budget too small for a verdict: 2 of ")
    assert "trainings of 20 steps were done in 1e-06 s; give about budget=" in report.conclusion
    assert report.conclusion in " ".join(str(report).split())


def finding(*causes: Cause, code: str = "UG101") -> Finding:
    return Finding(code, "x", "error", "m", (Site("a"),), "backward_gain", 0.4, "u", 0.7, causes=causes)


def test_refuted_causes_are_not_tried_and_the_same_change_once():
    rescale = Cause("a", "rescale_weights", {"gain": 1.0}, (0.8, 1.2))
    refuted = dataclasses.replace(rescale, parameters={"gain": 2.0}, status="refuted")
    without = Cause("depth")
    arms, _ = choose_arms([finding(refuted, rescale), finding(without, rescale, code="UG202")])
    removals = [arm for arm in arms if arm.calls[0][0] == "rescale_weights"]
    (arm,) = removals
    assert arm.calls == (("rescale_weights", {"gain": 1.0}),)
    assert arm.codes == ("UG101", "UG202")


def test_a_remedy_that_does_not_apply_is_a_row_with_its_sentence_and_its_code():
    alien = Arm((("rescale_weights", {"sites": ("nowhere",), "gain": 1.0}),), (finding(),))
    plain, row = compare(make(), [alien])
    assert (plain.verdict, plain.seeds) == ("untreated", 1)
    assert (row.verdict, row.seeds) == ("not tried", 0)
    assert "no weight of a linear map is chosen by sites=('nowhere',)" in row.note
    assert "undo = ug.remedies.rescale_weights(case, sites=('nowhere',), gain=1.0)" in row.code


def test_a_remedy_that_fails_in_the_middle_is_a_row_and_the_case_is_as_it_was(monkeypatch):
    def break_off(case: ug.Case):
        with torch.no_grad():
            next(case.model.parameters()).zero_()
        case._batches = ()
        raise RuntimeError("half way")

    entry = Remedy("break_off", ("UG101",), break_off, "", "weights", ())
    monkeypatch.setitem(REMEDIES, "break_off", entry)
    for case in (make(), make(deep())):
        before = {name: value.clone() for name, value in case.model.state_dict().items()}
        held = case.batches
        plain, row = compare(case, [Arm((("break_off", {}),), (finding(),))])
        assert (row.verdict, row.note) == ("failed", "RuntimeError: half way")
        assert math.isfinite(plain.loss)
        assert case.batches is held
        assert all(torch.equal(case.model.state_dict()[name], value) for name, value in before.items())


def test_ctrl_c_keeps_what_is_done(removals):
    def stop(done: int, total: int, what: str) -> None:
        if "training rescale_weights" in what:
            raise KeyboardInterrupt

    case = make(lambda: deep(12, 16), data=labelled(width=16))
    report = ug.treat(case, steps=5, seeds=2, progress=stop)
    assert report.trials[0].seeds == 1
    assert all(t.verdict == "undecided" for t in report.trials[1:])
    assert report.trials[1].cleared
    assert report.conclusion == "interrupted: 1 of 3 trainings of 5 steps were done"
    assert any(s.what == "trials" and s.reason.startswith("interrupted") for s in report.skipped)


def test_verdicts():
    even = [2.0, 2.1, 1.9]
    assert judge_losses([1.0, 1.1, 0.9], even, 3) == "verified"
    assert judge_losses([1.0, 1.1], even, 3) == "leads"
    assert judge_losses([1.0, 1.1], even, 2) == "leads"
    assert judge_losses([1.0, 2.2], even, 3) == "no better"
    assert judge_losses([1.999, 2.099, 1.899], even, 3) == "no better"
    assert judge_losses([0.1, 2.0, 1.8], even, 3) == "leads"
    assert judge_losses([], even, 3) == "undecided"
    broken = [math.inf] * 3
    assert judge_losses([1.0, 1.1, 0.9], broken, 3) == "verified"
    assert judge_losses([math.inf, 1.0, 1.0], broken, 3) == "no better"
    assert gained([1.0, 1.0], [math.inf, 2.0]) == (math.inf, (1.0, 1.0))
    assert gained([1.0, math.inf], [2.0, 3.0])[1] is None
    assert judge_losses([0.02, 0.03, 0.025], [math.inf, 5.3, math.inf], 3) == "verified"
    assert judge_losses([0.5, 0.7, 0.6], [755.0, math.inf, math.inf], 3) == "verified"
    assert judge_losses([0.82, 0.9, 1.3], [1.6e5, 3.4e4, 3.2e8], 3) == "verified"
    assert judge_losses([0.82, 0.9, 1.3], [1.6e5, 1.4, 3.2e8], 3) == "leads"


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="declares no optimizer"):
        ug.treat(make(optimizer=None))
    with pytest.raises(ValueError, match="seeds is 0"):
        ug.treat(make(), seeds=0)
    with pytest.raises(ValueError, match=r"budget -1\.0"):
        ug.treat(make(), budget=-1.0)
    trial = ug.Trial(("os.system",), ({},), (), "leads", 1.0)
    with pytest.raises(ValueError, match=r"no remedy is named 'os\.system'"):
        trial.apply(make())


@pytest.mark.cure
def test_the_code_of_the_best_is_what_apply_does(treated):
    best = treated.best
    assert best is not None
    case, other = make(), make()
    best.apply(case)
    scope: dict = {"case": other}
    exec(best.code, scope)
    state, twin = case.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(state[name], twin[name]) for name in state)
    scope["undo"]()
    assert all(torch.equal(value, make().model.state_dict()[name]) for name, value in twin.items())


@pytest.mark.cure
def test_the_gains_of_a_trial_are_those_of_the_changed_model(treated):
    best = treated.best
    assert best is not None
    case = make()
    best.apply(case)
    named = [MEASURES[name] for name in GAINS]
    with isolated(case, 0) as (subject, _):
        profiles, _, _ = measure_all(subject, None, 8, 0, lambda *_: None, named, chance=False)
    for name in GAINS:
        assert best.profiles[name].values == profiles[name].values
    theory = best.profiles["predicted_gain"].facts
    measured = best.profiles["backward_gain"].facts
    # The weights that theory is told to expect pass 1x; the loss gradient of width 32 wanders around it.
    assert float(theory["gain_per_block"]) == pytest.approx(1.0, rel=0.02)
    assert float(measured["gain_per_block"]) == pytest.approx(1.0, rel=0.15)
    assert treated.conclusion.startswith("rescale_weights works here: loss ")


def test_a_training_that_is_far_behind_is_given_up_after_a_third():
    slow = Arm((("lower_learning_rate", {"factor": 1e-6}),))
    good = Arm((("rescale_weights", {"gain": 2**0.5}),))
    plain, *rows = compare(make(lambda: deep(2)), [slow, good], steps=60, seeds=1)
    behind = next(row for row in rows if row.remedies == ("lower_learning_rate",))
    assert (behind.verdict, behind.steps, behind.seeds) == ("no better", 20, 1)
    assert behind.note == "given up after 20 of 60 steps: far behind the untreated case by then"
    assert behind.better < 0
    assert (plain.steps, next(row for row in rows if row is not behind).steps) == (60, 60)


def test_watching_for_the_rung_changes_no_bit():
    case = make(lambda: nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4)))
    watched, free = (perform(case, Task(steps=9, rung=rung, bar=1e9)) for rung in (3, 0))
    assert (watched.loss, watched.first) == (free.loss, free.first)
    assert watched.rung == pytest.approx(math.fsum(train(fresh_subject(case, 0, 0), 9).losses[1:3]) / 2)


def test_a_change_that_trains_on_another_loss_is_not_given_up_by_it():
    def other(model: nn.Module, batch) -> torch.Tensor:
        return 100 + nn.functional.cross_entropy(model(batch[0]), batch[1])

    case = make(lambda: deep(2), variants={"other": other})
    reading = perform(case, Task((("swap_loss", {"variant": "other"}),), steps=9, rung=3, bar=0.0))
    assert reading.steps == 9
    assert math.isnan(reading.rung)
    # What is compared is the case's own loss.
    assert reading.loss < 2


def test_what_theory_expects_to_be_worse_is_trained_last_and_not_left_out():
    trained: list[str] = []

    def say(done: int, total: int, what: str) -> None:
        if what.startswith("training"):
            trained.append(what.split()[1].rstrip(","))

    case = make(lambda: deep(6))
    with isolated(case, 0) as (subject, _):
        before, _, _ = measure_all(
            subject, None, 2, 0, lambda *_: None, [MEASURES["predicted_gain"]], chance=False
        )
    worse = Arm((("rescale_weights", {"gain": 0.1}),), (finding(),))
    better = Arm((("zero_biases", {}),), (finding(),))
    arena = Arena(case, Here(case), Task(probes=2), 1, math.inf, say, 3, before)
    trials = arena.compare([worse, better])
    assert trained == ["untreated", "zero_biases", "rescale_weights"]
    assert all(trial.seeds for trial in trials)


def test_a_healthy_model_is_said_to_be_fine(monkeypatch):
    empty = Report({}, {}, (), (), 0.0)
    monkeypatch.setattr(unitygain._treat, "diagnose", lambda case, **_: empty)
    case = make(lambda: deep(1))
    fine = ug.treat(case, steps=20)
    assert fine.conclusion.startswith("the plain model was fine: it trains (loss 1.")
    assert {trial.remedies for trial in fine.trials[1:]} == {("lower_learning_rate",)}
    sick = dataclasses.replace(empty, findings=(finding(Cause("depth"), code="UG999"),))
    monkeypatch.setattr(unitygain._treat, "diagnose", lambda case, **_: sick)
    assert ug.treat(case).conclusion.startswith("nothing was tried: no remedy is known for the causes")
    monkeypatch.setattr(unitygain._treat, "diagnose", lambda case, **_: empty)
    harmful = ug.treat(case, steps=40, also=[("rescale_weights", {"gain": 30.0})])
    assert harmful.conclusion.startswith("the plain model was fine: it trains (loss 1.")
    assert harmful.best is None


def test_a_rate_that_no_finding_names_is_found_by_trial(monkeypatch):
    empty = Report({}, {}, (), (), 0.0)
    monkeypatch.setattr(unitygain._treat, "diagnose", lambda case, **_: empty)
    report = ug.treat(make(lambda: deep(2), optimizer=lambda p: torch.optim.Adam(p, 0.3)), steps=60)
    assert report.best is not None
    assert report.best.remedies == ("lower_learning_rate",)
    assert report.conclusion.startswith("lower_learning_rate works here")


def seeded_deep(depth: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return deep(depth)


@pytest.mark.parametrize("model", [seeded_deep(), seeded_deep], ids=["one batch", "seeds itself"])
def test_seeds_that_repeat_one_another_verify_nothing(model):
    """An instance on one batch, and a factory that seeds itself: three seeds are one training."""
    case = make(model, data=labelled(1))
    trials = compare(case, [Arm((("rescale_weights", {"gain": 2**0.5}),))], steps=15, seeds=3)
    _, row = trials
    assert (row.verdict, row.seeds, row.interval) == ("leads", 3, None)
    assert row.better > 0
    assert conclude(trials).endswith(
        "rescale_weights leads on 3 seeds; seeds gave the very same losses, which are one training: give a "
        "function that draws a new model under every seed, or more batches"
    )


def test_weights_that_a_change_draws_are_drawn_anew_for_every_seed():
    """One draw under three seeds would be one sample."""
    case, calls = make(seeded_deep(3), data=labelled(1)), (("critical_init", {}),)
    losses = [perform(case, Task(calls=calls, index=index, steps=3)).loss for index in range(3)]
    assert len(set(losses)) == 3
    given = (("critical_init", {"seed": 1}),)
    assert perform(case, Task(calls=given, index=0, steps=3)).loss == losses[1]


def test_losses_far_below_the_untreated_ones_are_compared_by_their_ratio():
    """What is left of hundreds of thousands varies by its own size, and says nothing against 700."""
    treated, untreated = [713.0, 698.0, 687.0], [175e3, 209e3, 370e3]
    assert judge_losses(treated, untreated, 3) == "verified"
    better, interval = gained(treated, untreated)
    assert interval is not None
    assert 0 < interval[0] < interval[1] < 370e3
    assert better > 0
    # Near the untreated ones the same spread leaves it open.
    assert judge_losses([170e3, 100e3, 360e3], untreated, 3) == "leads"


def test_repeated_seeds_count_once():
    assert judge_losses([1.0, 1.1, 1.0], [2.0, 2.1, 2.0], 3) == "leads"
    assert judge_losses([1.0, 1.1, 0.9, 1.0], [2.0, 2.1, 1.9, 2.0], 4) == "verified"
    assert gained([1.0, 1.1, 1.0], [2.0, 2.2, 2.0])[1] == gained([1.0, 1.1], [2.0, 2.2])[1]
    assert gained([1.0, 1.0], [2.0, 2.0]) == (1.0, None)


@pytest.mark.parametrize("own", [0, 1, 5])
def test_every_seed_draws_another_initialisation(own):
    case = make(lambda: deep(1), seed=own)
    drawn = [next(fresh_subject(case, 0, index).model.parameters()) for index in range(6)]
    assert len({float(weight.detach()[0, 0]) for weight in drawn}) == 6
    assert torch.equal(drawn[0], next(case.model.parameters()))


class Missing:
    """A crew of two that never does a task twice over: it leaves out one on the second seed."""

    workers = 2

    def __init__(self, case: ug.Case, plain: bool) -> None:
        self._case, self._plain = case, plain

    def run(self, tasks, deadline, about):
        for place, task in enumerate(tasks):
            if task.steps and task.index == 1 and (not task.calls) == self._plain:
                continue
            yield place, perform(self._case, task)


@pytest.mark.parametrize("plain", [False, True])
def test_losses_of_different_seeds_are_never_paired(plain):
    case = make(lambda: deep(6))
    arm = Arm((("rescale_weights", {"gain": 2**0.5}),))
    arena = Arena(case, Missing(case, plain), Task(probes=2), 3, math.inf, lambda *_: None, 15)  # pyright: ignore[reportArgumentType]
    _, row = arena.compare([arm])
    assert (row.verdict, row.seeds) == ("leads", 1)
    assert arena.cut.startswith("budget too small for a verdict: 3 of 4 trainings")


@pytest.mark.parametrize("target", ["inputs", "others"])
def test_a_loss_that_reads_what_was_changed_is_not_compared(target):
    """Scaling the data of an autoencoder makes its loss smaller and nothing better."""

    def loss(model: nn.Module, batch) -> torch.Tensor:
        return nn.functional.mse_loss(model(batch[0]), batch[0] if target == "inputs" else batch[1])

    source = torch.Generator().manual_seed(0)
    data = [tuple(300 * torch.randn(2, 32, 8, generator=source)) for _ in range(2)]
    case = make(lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)), loss=loss, data=data)
    _, row = compare(case, [Arm((("unit_inputs", {}),))], steps=3)
    assert row.verdict == "not tried" if target == "inputs" else row.seeds == 1
    assert ("as its targets" in row.note) == (target == "inputs")


def test_a_change_of_precision_is_compared_in_full_precision():
    """Weights that do not move give one loss, whatever the precision they were not trained in."""
    case = make(optimizer=lambda params: torch.optim.SGD(params, 0.0), precision="bfloat16")
    plain, full = compare(case, [Arm((("change_precision", {"precision": None}),))])
    assert full.loss == plain.loss
    assert math.isfinite(plain.loss)


def test_what_a_step_returns_is_not_taken_for_the_loss():
    def step(case: ug.Case, batch: object) -> torch.Tensor:
        return 100 * case.compute_loss(batch).detach()

    [plain] = compare(make(step=step), [])
    assert plain.first == plain.loss, "nothing moved"
