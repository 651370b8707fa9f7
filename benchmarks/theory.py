"""What the theory costs: fixed points, the phase diagram, Lyapunov spectra; and how exact long products are.

    python benchmarks/theory.py [--points N] [--steps N] [--units N]

Fixed points: the slowest of several points of each activation, the median of its calls. Phase diagram: wall
time on an executor of two threads. Lyapunov spectrum: all exponents of an LSTM, against the vector-Jacobian
products that a full spectrum cannot do without, as many as the state has numbers, batched, at the same steps.
Products: singular values of 50 random layers against 300-digit arithmetic.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mpmath
import numpy as np
import torch
from environment import interleave, keep, ratio
from torch import nn
from torch.nn import functional as F

from unitygain import theory
from unitygain._case import Case
from unitygain.probe.observe import observe
from unitygain.probe.steps import walk
from unitygain.theory.lyapunov import lyapunov_spectrum

POINTS = (
    (0.5, 0.05),
    (0.9805, 0.1),
    (1.28, 0.1),
    (1.5, 0.1),
    (1.9, 0.1),
    (2.05, 0.1),
    (2.5, 0.05),
    (4.0, 0.3),
)
CALLABLES = {"tanh": torch.tanh, "gelu": F.gelu, "selu": F.selu, "hardtanh": F.hardtanh, "mish": F.mish}
REPEATS = 9
ROUNDS = 2


def clock(run: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def slowest_fixed_point(phi: Any) -> dict[str, float]:
    """Return the slowest point at which signals settle, and its median time in milliseconds."""
    found: dict[tuple[float, float], float] = {}
    for sigma_w2, sigma_b2 in POINTS:
        try:
            theory.mean_field(phi, sigma_w2, sigma_b2)
        except ValueError:
            continue
        times = [clock(lambda: theory.mean_field(phi, sigma_w2, sigma_b2)) for _ in range(REPEATS)]  # noqa: B023
        found[sigma_w2, sigma_b2] = 1e3 * statistics.median(times)
    worst = max(found, key=lambda point: found[point])
    return {"ms": found[worst], "sigma_w2": worst[0], "sigma_b2": worst[1]}


def phase_diagram(phi: str, points: int) -> float:
    """Return the seconds that a grid of points x points takes on two threads, with a progress callback."""
    w, b = np.linspace(0.02, 3.0, points) ** 2, np.linspace(0.0, 1.0, points) ** 2
    with ThreadPoolExecutor(2) as executor:
        return clock(
            lambda: theory.phase_diagram(phi, w, b, executor=executor, progress=lambda done, of: None)
        )


def lyapunov(units: int, steps: int) -> dict[str, Any]:
    """Return the time of a whole spectrum over that of its vector-Jacobian products alone."""
    torch.manual_seed(0)
    lstm = nn.LSTM(16, units)
    case = Case(lstm, loss=lambda m, x: m(x)[0].sum(), data=[torch.randn(steps, 1, 16)])
    (walked,) = walk(case, observe(case, [])).walks
    start = np.linalg.qr(np.random.default_rng(0).standard_normal((walked.size, walked.size)))[0]

    def products() -> None:
        for pull in walked.backward():
            pull(start)

    counted = interleave(
        {
            "spectrum": lambda: clock(lambda: lyapunov_spectrum(walked.backward(), start)),
            "products": lambda: clock(products),
        },
        ROUNDS,
    )
    return {"ratio": ratio(counted, "spectrum", "products"), "seconds": counted}


def product_error(layers: int = 50, size: int = 12, seed: int = 0) -> float:
    """Return the largest error of a singular value of a product, nat per layer, against 300 digits."""
    generator = np.random.default_rng(seed)
    factors = [generator.standard_normal((size, size)) / np.sqrt(size) for _ in range(layers)]
    with mpmath.workdps(300):
        product = mpmath.matrix(factors[0].tolist())
        for factor in factors[1:]:
            product = mpmath.matrix(factor.tolist()) * product
        values = mpmath.svd_r(product, compute_uv=False)
        exact = np.array([float(mpmath.log(value)) for value in values])
    return float(np.abs(theory.log_singular_values(factors).logs - exact).max() / layers)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--units", type=int, default=256)
    given = parser.parse_args()
    named = {name: slowest_fixed_point(name) for name in theory.ACTIVATIONS}
    called = {name: slowest_fixed_point(phi) for name, phi in CALLABLES.items()}
    diagrams = {name: phase_diagram(name, given.points) for name in theory.ACTIVATIONS}
    error = max(product_error(seed=seed) for seed in range(3))
    spectrum = lyapunov(given.units, given.steps)
    keep(
        "theory",
        {
            "fixed_point_named": {"target_ms": 1.0, "slowest": named},
            "fixed_point_callable": {"target_ms": 20.0, "slowest": called},
            "phase_diagram_seconds": {"target": 5.0, "points": given.points, "found": diagrams},
            "product_error_nat_per_layer": {"target": 1e-3, "found": error},
            "lyapunov_over_products": {
                "target": 3.0,
                "units": given.units,
                "steps": given.steps,
                **spectrum,
            },
        },
    )


if __name__ == "__main__":
    main()
