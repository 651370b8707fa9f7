"""`unitygain theory`: predictions for wide networks, without a model and without torch."""

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from unitygain.cli._faults import ExitCode, Fault, did_you_mean, quote, usage

if TYPE_CHECKING:
    from unitygain.theory import CriticalPoint

theory_app = typer.Typer(
    name="theory",
    help="Predict what wide networks do to signals and gradients; no model is needed.",
    rich_markup_mode=None,
)
Phi = Annotated[str, typer.Option("--phi", metavar="NAME", help="Activation: relu, gelu, silu, tanh, ...")]
BIAS = "Bias variance."
Answer = TypeVar("Answer")


@theory_app.command()
def critical(
    phi: Phi,
    sigma_b2: Annotated[
        str | None, typer.Option(metavar="V", help=f"{BIAS} Left out: 0, or the half-stable point.")
    ] = None,
) -> int:
    """Print the initialisation at the edge of chaos, and the code for it."""
    from unitygain import theory

    _known(phi)
    bias = None if sigma_b2 is None else _variance("--sigma-b2", sigma_b2)
    point = _asked(lambda: theory.critical(phi, bias))
    std_w, std_b = math.sqrt(point.sigma_w2), math.sqrt(point.sigma_b2)
    settles = "every variance is kept" if point.q_star is None else f"q* = {point.q_star:.6g}"
    lines = [
        f"{point.phi} at the edge of chaos (chi_1 = 1): sigma_w2 = {point.sigma_w2:.6g}, "
        f"sigma_b2 = {point.sigma_b2:.6g}, {settles}",
    ]
    if not point.holds:
        lines.append(
            f"does not hold: a deviation from q* grows by {point.chi_par:.4g} per layer, so that signals "
            "leave it on both sides and chi_1 does not stay 1; choose another --sigma-b2, or none"
        )
    if point.half_stable:
        lines.append(_half_stable(point))
    lines += ["", *_code(std_w, std_b), ""]
    sys.stdout.write("\n".join(lines))
    return ExitCode.FINE


@theory_app.command(name="mean-field")
def mean_field(
    phi: Phi,
    sigma_w2: Annotated[str, typer.Option(metavar="V", help="Weight variance times fan-in.")],
    sigma_b2: Annotated[str, typer.Option(metavar="V", help=BIAS)] = "0",
) -> int:
    """Print where signals settle in a wide, deep network, and how fast the gradient grows or falls."""
    from unitygain import theory

    _known(phi)
    weights, biases = _variance("--sigma-w2", sigma_w2), _variance("--sigma-b2", sigma_b2)
    field = _asked(lambda: theory.mean_field(phi, weights, biases))
    rows = (
        ("phase", field.phase),
        ("chi_1", f"{field.chi_1:.6g}  squared gain of the gradient per layer"),
        ("rms gain", f"{math.sqrt(field.chi_1):.6g}  per layer, {10 * math.log10(field.chi_1):+.3g} dB"),
        ("q*", f"{field.q_star:.6g}  variance of a pre-activation"),
        ("c*", f"{field.c_star:.6g}  correlation of two inputs"),
        ("xi_q", f"{field.xi_q:.4g}  layers in which the variance settles by e"),
        ("xi_c", f"{field.xi_c:.4g}  layers in which the correlation settles by e"),
        ("xi_grad", f"{field.xi_grad:.4g}  layers in which the squared gradient falls by e"),
    )
    sys.stdout.write("".join(f"{name:<9} {text}\n" for name, text in rows))
    return ExitCode.FINE


@theory_app.command()
def phase(
    phi: Annotated[
        str | None, typer.Option("--phi", metavar="NAME", help="Activation; the model's own if left out.")
    ] = None,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="TARGET", help="Place the layers of this model on it, as for diagnose."),
    ] = None,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write it as one page.")] = None,
    points: Annotated[str, typer.Option(metavar="N", help="Points along each axis.")] = "200",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress bar.")] = False,
) -> int:
    """Draw the phase diagram over weight and bias deviations, with a model's layers on it."""
    from unitygain.cli._phase import command

    if phi is not None:
        _known(phi)
    return command(phi, on, html, points, quiet)


def _half_stable(point: "CriticalPoint") -> str:
    """Say where a variance on the wrong side of q* goes."""
    from unitygain import theory

    assert point.q_star is not None
    back, away, factor = ("above", "below", 0.5) if point.from_above else ("below", "above", 1.5)
    try:
        end = theory.mean_field(point.phi, point.sigma_w2, point.sigma_b2, q=factor * point.q_star)
    except ValueError:
        goes = "grows without bound"
    else:
        goes = f"goes on to q = {end.q_star:.4g}, where chi_1 = {end.chi_1:.4g}"
    return (
        f"half-stable: a variance {back} q* comes back to it, one {away} {goes}; finite networks drift that "
        "way over depth"
    )


def _code(std_w: float, std_b: float) -> list[str]:
    bias = "nn.init.zeros_(module.bias)" if std_b == 0 else f"nn.init.normal_(module.bias, std={std_b:.6g})"
    return [
        "for module in model.modules():",
        "    if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):",
        "        fan_in = module.weight[0].numel()",
        f"        nn.init.normal_(module.weight, std={std_w:.6g} / fan_in**0.5)",
        "        if module.bias is not None:",
        f"            {bias}",
    ]


def _known(phi: str) -> None:
    from unitygain.theory import ACTIVATIONS

    if phi not in ACTIVATIONS:
        names = ", ".join(sorted(ACTIVATIONS))
        raise usage(
            f"unknown activation {quote(phi)}{did_you_mean(phi, ACTIVATIONS)}",
            fix=f"--phi with one of {names}",
        )


def _variance(option: str, given: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise usage(
            f"{option} must be a finite number of at least 0, got {quote(given)}", fix=f"{option} 0.05"
        )
    return value


def _asked(question: Callable[[], Answer]) -> Answer:
    try:
        return question()
    except ValueError as error:
        fact, _, fix = str(error).partition("; ")
        # The library's argument is the option here.
        fix = fix.replace("sigma_b2", "--sigma-b2").replace("sigma_w2", "--sigma-w2")
        raise Fault(fact, name="E-NO-PREDICTION", exit_code=ExitCode.INPUT, fix=fix) from error
