"""Predictions on the command line: the numbers of the theory room, code that runs, and clear refusals."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from unitygain import theory
from unitygain.cli import _app


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = _app.invoke(["theory", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("phi", ["relu", "gelu", "tanh"])
def test_the_printed_code_sets_the_critical_variances(phi: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "critical", "--phi", phi, *(["--sigma-b2", "0.05"] if phi == "tanh" else []))
    assert code == 0
    point = theory.critical(phi, 0.05 if phi == "tanh" else None)
    model = nn.Sequential(nn.Linear(400, 900), nn.Conv2d(30, 100, 3))
    exec(out.partition("\n\n")[2], {"model": model, "nn": nn})
    for weight in (model[0].weight, model[1].weight):
        assert isinstance(weight, torch.Tensor)
        # The standard error of a variance from n draws is sqrt(2/n): four of them.
        expected = point.sigma_w2 / weight[0].numel()
        assert float(weight.detach().var()) == pytest.approx(expected, rel=4 * math.sqrt(2 / weight.numel()))
    biases = torch.cat([model[0].bias.flatten(), model[1].bias.flatten()])
    if point.sigma_b2 == 0:
        assert not biases.any()
    else:
        assert float(biases.detach().var()) == pytest.approx(
            point.sigma_b2, rel=4 * math.sqrt(2 / len(biases))
        )


def test_mean_field_prints_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "mean-field", "--phi", "tanh", "--sigma-w2", "2.5", "--sigma-b2", "0.05")
    assert code == 0
    rows = dict(line.split(None, 1) for line in out.splitlines() if not line.startswith("rms"))
    assert rows["phase"] == "chaotic"
    assert rows["chi_1"].startswith("1.13352")
    assert rows["q*"].startswith("1.06396")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "first_line"),
    [
        (["critical", "--phi", "tahn"], 2, "error: unknown activation 'tahn'; did you mean 'tanh'?"),
        (["critical", "--phi", "sigmoid"], 3, "error: sigmoid has no half-stable point"),
        (
            ["mean-field", "--phi", "relu", "--sigma-w2", "3"],
            3,
            "error: relu with sigma_w2 = 3, sigma_b2",
        ),
        (
            ["mean-field", "--phi", "relu", "--sigma-w2", "nan"],
            2,
            "error: --sigma-w2 must be a finite",
        ),
        (["mean-field", "--phi", "relu", "--sigma-w2", "-1"], 2, "error: --sigma-w2 must be a finite"),
    ],
)
def test_refusals(
    arguments: list[str], exit_code: int, first_line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == exit_code
    assert out == ""
    assert err.splitlines()[0].startswith(first_line)


def test_no_torch_is_imported() -> None:
    script = (
        "import sys; from unitygain.cli._app import invoke; "
        "code = invoke(['theory', 'critical', '--phi', 'gelu']); sys.exit(code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0
