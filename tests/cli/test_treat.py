"""``unitygain treat``: its options, its report, its exit codes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from unitygain.report import Report

PROGRAM = """
import threading
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

def holding_a_lock():
    case = make_case()
    case.model.lock = threading.Lock()
    return Case(case.model, case.loss, case.batches, case.optimizer)
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "sick.py").write_text(PROGRAM)
    return "sick.py:make_case"


@pytest.mark.cure
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


def test_a_case_that_cannot_be_copied_is_no_model_that_raised(call, program):
    done = call("treat", "sick.py:holding_a_lock")
    assert done.code == 3
    assert (
        "error: the case cannot be copied, so nothing can be tried on it: TypeError: cannot pickle"
        in done.err
    )


# Sleeps in the second training of a process; the diagnosis takes at most 24 steps with one optimizer.
ENDLESS = """
import time
import torch
from torch import nn
from unitygain import Case

class Counting(torch.optim.SGD):
    trainings = 0

    def step(self, closure=None):
        self.taken = getattr(self, "taken", 0) + 1
        Counting.trainings += self.taken == 30
        if self.taken == 30 and Counting.trainings == 2:
            open("second", "w").close()
            time.sleep(300)
        return super().step(closure)

def make_model():
    return nn.Sequential(*(m for _ in range(12) for m in (nn.Linear(16, 16), nn.ReLU())))

def loss(model, x):
    return (model(x) - x).square().mean()

def make_case():
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    return Case(make_model, loss, [x], optimizer=lambda params: Counting(params, 1e-2))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_keeps_what_is_done_and_writes_it(tmp_path, workers):
    (tmp_path / "endless.py").write_text(ENDLESS)
    words = ["treat", "endless.py:make_case", "--steps", "40", "--workers", str(workers), "--json", "r.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "unitygain", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run that was started in the background hands down that the signal is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    limit = time.monotonic() + 240
    while not (tmp_path / "second").exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    report = Report.from_json((tmp_path / "r.json").read_bytes())
    assert (report.trials[0].verdict, report.trials[0].seeds, report.trials[0].steps) == ("untreated", 1, 40)
    assert report.trials[1].profiles["backward_gain"].facts["depth"] == 12
    assert report.conclusion.startswith("interrupted: ")
    assert report.conclusion in " ".join(out.split())


def test_a_further_remedy_and_a_number_of_workers_are_checked(call, program):
    done = call("treat", program, "--also", "make_it_work")
    assert done.code == 3
    assert "no remedy is named 'make_it_work'; the names are" in done.err
    done = call("treat", program, "--workers", "0")
    assert done.code == 2
    assert "--workers must be an integer >= 1, got '0'" in done.err
