"""Real models on real data: what is found in them is pinned, not the floats."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unitygain as ug
from unitygain.report import Report

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setenv("UNITYGAIN_STRICT", "1")
    yield
    for name in ("post_ln_transformer", "plain_cnn", "tanh_rnn", "minilm_pairs"):
        sys.modules.pop(name, None)


def case_of(name: str, function: str = "make_case") -> ug.Case:
    return getattr(importlib.import_module(name), function)()


def codes(report: Report, severity: str) -> set[str]:
    return {finding.code for finding in report.findings if finding.severity == severity}


def first_cause(report: Report, code: str) -> tuple[str, str]:
    (finding,) = [finding for finding in report.findings if finding.code == code]
    return finding.causes[0].text.split(":")[0], finding.causes[0].status


def test_post_ln_transformer_collapses_without_vanishing() -> None:
    report = ug.diagnose(case_of("post_ln_transformer"))
    assert codes(report, "error") | codes(report, "warning") == {"UG205"}
    assert first_cause(report, "UG205") == ("norms", "confirmed")
    gains = report.profiles["backward_gain"]
    assert len(gains) == 24
    # The popular claim that Post-LN vanishes does not hold here: the slope's interval includes 0 dB.
    assert float(gains.facts["slope_db_low"]) < 0 < float(gains.facts["slope_db_high"])
    assert report.profiles["attention_entropy"].values[-1] > 0.9


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_plain_cnn_vanishes_by_its_default_initialisation() -> None:
    report = ug.diagnose(case_of("plain_cnn"))
    assert "UG101" in codes(report, "error")
    assert codes(report, "error") <= {"UG101", "UG205"}
    assert first_cause(report, "UG101") == ("weights", "confirmed")
    first = next(iter(report.profiles["grad_rms"].values))
    assert 1e-24 < first < 1e-16


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_tanh_rnn_has_lost_its_first_steps_while_its_parameters_look_healthy() -> None:
    report = ug.diagnose(case_of("tanh_rnn"))
    assert codes(report, "error") == {"UG401"}
    assert first_cause(report, "UG401") == ("recurrent weights", "confirmed")
    assert report.profiles["time_grad_rms"].values[0] == 0.0
    assert min(report.profiles["param_grad_rms"].values) > 1e-4


@pytest.mark.parametrize("function", ["make_case", "make_trained_case"])
def test_pretrained_encoder_has_no_error_before_and_after_training(
    function: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = ug.diagnose(case_of("minilm_pairs", function))
    assert codes(report, "error") == set()
    assert report.case["blocks"] == 6
    losses = report.profiles["loss_value"].values
    if function == "make_trained_case":
        assert losses[0] < 0.5
    else:
        assert 0.4 < losses[0] < 1.0


def test_gpt2_small_from_its_config(tmp_path: Path) -> None:
    out = tmp_path / "gpt2.json"
    command = [sys.executable, "-m", "unitygain", "diagnose", "hf:examples/gpt2-small", "--json", str(out)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "not real text" in ran.stderr
    report = Report.from_json(out.read_text())
    assert codes(report, "error") == set()
    assert report.case["blocks"] == 12
    assert report.case["parameters"] == 124_439_808
    assert report.case["weights"].startswith("random")
