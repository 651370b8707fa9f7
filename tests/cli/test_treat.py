"""``unitygain treat``: its options, its report, its exit codes."""

import pytest

from unitygain.report import Report

PROGRAM = """
import torch
from torch import nn
from unitygain import Case

def make_model():
    return nn.Sequential(*(m for _ in range(12) for m in (nn.Linear(16, 16), nn.ReLU())))

def make_case(optimizer=lambda params: torch.optim.Adam(params, 1e-2)):
    x = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    return Case(make_model, loss=lambda m, x: (m(x) - x).square().mean(), data=[x], optimizer=optimizer)

def untrainable():
    return make_case(optimizer=None)
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "sick.py").write_text(PROGRAM)
    return "sick.py:make_case"


def test_it_prints_the_trials_and_writes_them(call, program):
    done = call(
        "treat",
        program,
        "--steps",
        5,
        "--seeds",
        1,
        "--html",
        "r.html",
        "--json",
        "r.json",
        "--fail-on",
        "error",
    )
    assert done.code == 1
    assert "trials: " in done.out
    assert "\n  untreated\n" in done.out
    assert "rescale_weights(" in done.out
    with open("r.json") as file:
        report = Report.from_json(file.read())
    assert [trial.steps for trial in report.trials] == [5] * len(report.trials)
    assert report.trials[0].seeds == 1
    with open("r.html") as file:
        assert 'id="trials"' in file.read()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--budget", "soon"], "error: --budget must be a duration such as 60s, 2m or 1h, got 'soon'"),
        (["--budget", "0"], "error: --budget must be a duration such as 60s, 2m or 1h, got '0'"),
        (["--steps", "0"], "error: --steps must be an integer >= 1, got '0'"),
        (["--seeds", "x"], "error: --seeds must be an integer >= 1, got 'x'"),
    ],
)
def test_options_that_are_no_numbers_are_usage_faults(call, program, options, line):
    done = call("treat", program, *options)
    assert done.code == 2
    assert done.err.splitlines()[0].startswith(line)


def test_a_case_without_an_optimizer_is_invalid_input(call, program):
    done = call("treat", "sick.py:untrainable")
    assert done.code == 3
    assert "declares no optimizer" in done.err.splitlines()[-1] + done.err
