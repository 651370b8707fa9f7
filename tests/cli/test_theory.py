"""Predictions on the command line: the numbers of the theory room, code that runs, and clear refusals."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from unitygain import theory
from unitygain.cli import _app


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = _app.invoke(["theory", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


BIASED = {"elu", "selu", "tanh", "erf"}  # the first two have no critical point without a bias variance


@pytest.mark.parametrize("phi", sorted(set(theory.ACTIVATIONS) - {"sigmoid", "softplus"}))
def test_the_printed_code_sets_the_critical_variances(phi: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "critical", "--phi", phi, *(["--sigma-b2", "0.05"] if phi in BIASED else []))
    assert code == 0
    point = theory.critical(phi, 0.05 if phi in BIASED else None)
    side = "above" if point.from_above else "below"
    assert (f"half-stable: a variance {side} q* comes back" in out) == point.half_stable
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


def test_a_half_stable_point_says_where_the_other_side_goes(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "critical", "--phi", "gelu")
    point = theory.critical("gelu")
    assert point.q_star is not None
    above, below = (
        theory.mean_field("gelu", point.sigma_w2, point.sigma_b2, q=q * point.q_star) for q in (1.5, 0.5)
    )
    assert above.q_star == pytest.approx(point.q_star, rel=1e-5)
    assert f"one below goes on to q = {below.q_star:.4g}, where chi_1 = {below.chi_1:.4g}" in out


def test_a_half_stable_point_whose_upper_side_grows(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "critical", "--phi", "mish")
    assert "a variance below q* comes back to it, one above grows without bound" in out


def test_a_point_that_does_not_hold_is_said_to(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "critical", "--phi", "gelu", "--sigma-b2", "0.01")
    assert "does not hold: a deviation from q* grows by 1.098 per layer" in out
    _, out, _ = run(capsys, "critical", "--phi", "tanh", "--sigma-b2", "0.01")
    assert "does not hold" not in out


def test_mean_field_prints_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "mean-field", "--phi", "tanh", "--sigma-w2", "2.5", "--sigma-b2", "0.05")
    assert code == 0
    rows = dict(line.split(None, 1) for line in out.splitlines() if not line.startswith("rms"))
    assert rows["phase"] == "chaotic"
    assert rows["chi_1"].startswith("1.13352")
    assert rows["q*"].startswith("1.06396")


def test_the_phase_diagram_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "phase", "--phi", "tanh", "--points", "40")
    assert code == 0
    picture = [line[7:] for line in out.splitlines()[1:16]]
    # Every row goes from ordered to chaotic, and the edge moves to the right with the bias.
    edges = [re.fullmatch(r"([.:-]+)[+*]+", row) for row in picture]
    assert all(edges)
    where = [len(edge[1]) for edge in edges if edge]
    assert where == sorted(where, reverse=True)
    assert "sigma_w 1 at sigma_b 0, 1.193 at sigma_b 0.1" in out
    assert max(map(len, out.splitlines()[:19])) <= 80
    _, out, _ = run(capsys, "phase", "--phi", "relu", "--points", "40")
    assert "Beyond sigma_w 1.414" in out
    assert "blank: no fixed point" in out


MODEL = """
import torch, unitygain as ug
from torch import nn

def make():
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Linear(16, 16), nn.Tanh())]
    for layer in layers[::2]:
        nn.init.normal_(layer.weight, std=1.3 / 4)
    model = nn.Sequential(*layers, nn.Linear(16, 16), nn.ReLU())
    return ug.Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.randn(4, 16)])
"""


def test_a_model_is_placed_on_its_diagram(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    page = tmp_path / "phase.html"
    arguments = ["phase", "--on", f"{tmp_path / 'model.py'}:make", "--html", str(page), "--points", "30"]
    code, out, err = run(capsys, *arguments)
    assert code == 0
    assert "Edge of chaos of tanh" in out
    assert "The model's 3 layers:" in out
    assert "1 layers with other activations are not on it." in out
    assert sum(line.startswith(("0 ", "2 ", "4 ")) for line in out.splitlines()) == 3
    assert any("O" in line for line in out.splitlines()[1:16])
    assert "wrote" in err
    text = page.read_text("utf-8")
    assert "<title>Phase diagram of tanh · unitygain</title>" in text
    # Written over, since it is a page of ours.
    assert run(capsys, *arguments)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "exit_code", "first_line"),
    [
        (["critical", "--phi", "tahn"], 2, "error: unknown activation 'tahn'; did you mean 'tanh'?"),
        (["phase"], 2, "error: --phi or --on is missing"),
        (["phase", "--phi", "tahn"], 2, "error: unknown activation 'tahn'; did you mean 'tanh'?"),
        (["phase", "--phi", "tanh", "--points", "3"], 2, "error: --points must be an integer >= 10"),
        (["phase", "--phi", "tanh", "--html", "/nowhere/x.html"], 3, "error: cannot write /nowhere/x.html"),
        (["phase", "--on", "nowhere.py:make", "-q"], 3, "error: "),
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


@pytest.mark.parametrize("command", ["critical", "phase"])
def test_no_torch_is_imported(command: str) -> None:
    script = (
        "import sys; from unitygain.cli._app import invoke; "
        f"code = invoke(['theory', {command!r}, '--phi', 'gelu']); sys.exit(code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("more", [["sigmoid"], ["softplus", "--sigma-b2", "0.1"]])
def test_a_fix_names_the_option_and_not_the_argument(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    err = run(capsys, "critical", "--phi", *more)[2]
    assert " --sigma-b2" in err.partition("fix: ")[2]
    assert " sigma_b2" not in err.partition("fix: ")[2]
