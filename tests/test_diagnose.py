"""The main flow: what it refuses, and what it lists instead of stopping."""

import dataclasses
import warnings

import pytest
import torch
from torch import Tensor, nn

from unitygain import Case, diagnose
from unitygain._case import CaseFailure
from unitygain._diagnose import choose_rules
from unitygain._registry import MEASURES, REMEDIES
from unitygain._removal import check_causes
from unitygain._types import Cause, Profile
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe
from unitygain.probe.record import Record


def mean_square(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


def small() -> Case:
    return Case(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), mean_square, [torch.ones(2, 4)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 0}, "probes is 0; use at least 1"),
        ({"only": ["UG1"]}, "no rule has the code 'UG1'; the codes are UG101"),
        ({"dtype": "flaot32"}, "dtype 'flaot32' is no floating dtype; use 'float32'"),
        ({"dtype": torch.int64}, "dtype torch.int64 is no floating dtype"),
        ({"device": "cdua"}, "device 'cdua' is unknown; use 'cpu'"),
    ],
)
def test_refuses_options_that_it_does_not_know(options, message):
    with pytest.raises(ValueError, match=message):
        diagnose(small(), **options)


def test_one_code_may_stand_alone():
    assert [rule.code for rule in choose_rules("UG101", ())] == ["UG101"]
    assert "UG101" not in [rule.code for rule in choose_rules((), "UG101")]


def test_torchscript_is_refused_by_name():
    with warnings.catch_warnings():
        # torch.jit is deprecated in newer versions of torch.
        warnings.simplefilter("ignore")
        inner = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    model = nn.Sequential(nn.Linear(4, 4), inner, nn.Linear(4, 1))
    with pytest.raises(CaseFailure, match="module '1' is TorchScript, which takes no hooks"):
        diagnose(Case(model, mean_square, [torch.ones(2, 4)]))


def test_a_batch_without_samples_is_refused():
    with pytest.raises(CaseFailure, match=r"batch 0 is empty: its tensors have the shapes \(0, 4\)"):
        diagnose(Case(nn.Linear(4, 1), lambda m, x: m(x).sum(), [torch.ones(0, 4)]))


def test_a_loss_may_differentiate_by_its_own_input():
    def residual(model: nn.Module, x: Tensor) -> Tensor:
        x.requires_grad_()
        value = model(x)
        (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        return (slope + value).square().mean()

    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    report = diagnose(Case(model, residual, [torch.linspace(0, 1, 16)[:, None]]))
    assert 0 < report.profiles["grad_direction_stability"].values[0] <= 1
    assert not [note for note in report.skipped if "failed" in note.reason]


def test_a_measure_that_the_model_does_not_stand_is_listed_and_the_rest_is_measured(monkeypatch):
    def needs_a_graph(model: nn.Module, x: Tensor) -> Tensor:
        value = model(x)
        (slope,) = torch.autograd.grad(value.sum(), model[0].weight, create_graph=True)
        return slope.square().mean()

    monkeypatch.delenv("UNITYGAIN_STRICT", raising=False)
    model = nn.Sequential(nn.Conv1d(2, 2, 3), nn.Tanh(), nn.Conv1d(2, 2, 3))
    report = diagnose(Case(model, needs_a_graph, [torch.randn(2, 2, 9)]))
    assert {note.what for note in report.skipped} >= {"conv_operator_norm"}
    assert report.profiles.keys() >= {"grad_rms", "rms_gain"} & MEASURES.keys()


def test_a_rule_without_its_profile_is_listed_with_the_reason(monkeypatch):
    monkeypatch.delenv("UNITYGAIN_STRICT", raising=False)

    def broken(case: Case, record: Record) -> Profile:
        raise ZeroDivisionError("no")

    measure = MEASURES["act_frac_dead"]
    monkeypatch.setitem(MEASURES, "act_frac_dead", dataclasses.replace(measure, compute=broken))
    report = diagnose(small(), only=["UG101", "UG203", "UG206", "UG401", "UG601", "UG603"])
    unjudged = {note.what: note.reason for note in report.skipped if note.what.startswith("UG")}
    assert unjudged == {
        "UG203": "not judged: act_frac_dead could not be measured",
        "UG206": "not judged: act_frac_dead could not be measured",
        "UG401": "not judged: no time_grad_rms here",
        "UG601": "not judged: no update_ratio here",
    }
    words = " ".join(str(report).split())
    assert "4 rules not judged: UG203, UG206 (act_frac_dead could not be measured); UG401 (no time" in words
    assert "4 rules not judged" in str(report).splitlines()[-1]
    assert "4 rules not judged" in report.to_html()


def test_what_the_users_code_raises_is_caught_as_a_builtin():
    """Nothing private has to be imported to catch it."""

    def fails(model: nn.Module, x: Tensor) -> Tensor:
        raise KeyError("label")

    with pytest.raises(RuntimeError, match=r"the model or loss raised on batch 0: KeyError: 'label'") as seen:
        diagnose(Case(nn.Linear(4, 1), fails, [torch.ones(2, 4)]))
    assert isinstance(seen.value.__cause__, KeyError)


@pytest.mark.parametrize("strict", [False, True])
def test_our_own_failure_in_a_removal_is_said_or_under_strict_raised(monkeypatch, strict):
    def broken(case: Case, **parameters: object) -> None:
        raise ZeroDivisionError("no")

    remedy = REMEDIES["rescale_weights"]
    monkeypatch.setitem(REMEDIES, "rescale_weights", dataclasses.replace(remedy, apply=broken))
    monkeypatch.setenv("UNITYGAIN_STRICT", "1" if strict else "")
    model = nn.Sequential(*(part for _ in range(12) for part in (nn.Linear(32, 32), nn.ReLU())))
    case = Case(model, mean_square, [torch.randn(16, 32)])
    if strict:
        with pytest.raises(ZeroDivisionError):
            diagnose(case, only="UG101")
    else:
        cause = diagnose(case, only="UG101").findings[0].causes[0]
        assert (cause.status, cause.note) == ("not tested", "the test failed: ZeroDivisionError: no")


def test_where_the_first_cause_is_refuted_the_next_is_tested_and_stands_before_it():
    def rescaled(text: str, gain: float, least: float, most: float) -> Cause:
        return Cause(text, "rescale_weights", {"gain": gain}, (least, most))

    model = nn.Sequential(*(part for _ in range(12) for part in (nn.Linear(32, 32), nn.ReLU())))
    case = Case(model, mean_square, [torch.randn(16, 32)])
    found = diagnose(case, only="UG101", removal=False).findings[0]
    wrong, right = rescaled("wrong", 0.6, 0.9, 1.1), rescaled("right", 2**0.5, 0.8, 1.2)
    last = rescaled("last", 2**0.5, 0.8, 1.2)
    with isolated(case, 0) as (subject, _):
        record = observe(subject, MEASURES["backward_gain"].needs)
        (tested,) = check_causes(
            subject,
            (dataclasses.replace(found, causes=(wrong, right, last)),),
            record,
            None,
            lambda *_: None,
        )
    states = [(cause.text, cause.status) for cause in tested.causes]
    assert states == [("right", "confirmed"), ("last", "not tested"), ("wrong", "refuted")]
