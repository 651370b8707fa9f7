"""How the cost of a diagnosis grows with parameters, with sites and with probes.

    python benchmarks/scaling.py [--rounds N] [--quick] [--skip-largest]

Processor seconds over a range of sizes; each slope is that of the line through log cost over log size, with
its 95 % t-interval; 1 is linear. Sizes are run in turn, round after round, and the least of the rounds
counts. Fixed costs pull a slope below 1, so that the slope of the upper half is given as well.

parameters: the passive measures on 8 blocks of growing width. sites: the passive measures, the whole of
`diagnose` and its report, on more and more blocks with the same number of parameters together. probes: the
rms gain of 4 blocks. Last, a model of 100,000 modules is diagnosed and its report written, once.
"""

import argparse
import math
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from environment import keep
from passive import everything, passive
from scipy import stats
from torch import Tensor, nn

import unitygain as ug
from unitygain.measures.rms_gain import rms_gain
from unitygain.probe.observe import observe

ROUNDS = 3
WIDTHS = (256, 384, 512, 768, 1024, 1536, 2048)
MODULES = (500, 1000, 2000, 4000, 8000, 16000)
PROBES = (8, 16, 32, 64, 128, 256)
LARGEST = 100_000
# Modules per block: itself, the normalisation, the branch with its three.
PER_BLOCK, PARAMETERS = 6, 640_000


class Block(nn.Module):
    """A small branch beside a skip path: six modules."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.branch = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, width) to the same shape."""
        return x + 0.01 * self.branch(self.norm(x))


def make_case(blocks: int, width: int, batch: int) -> ug.Case:
    """Return a chain of equal blocks."""
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(width) for _ in range(blocks)))
    data = [torch.randn(batch, width)]
    return ug.Case(model, loss=lambda m, x: m(x).square().mean(), data=data)


def make_deep(modules: int) -> ug.Case:
    """Return a chain with that many modules, and about 640,000 parameters whatever their number."""
    blocks = modules // PER_BLOCK
    return make_case(blocks, max(2, round(math.sqrt(PARAMETERS / blocks / 2))), 4)


def spent(run: Callable[[], object]) -> float:
    """Return the processor seconds that one call takes."""
    started = time.process_time()
    run()
    return time.process_time() - started


def diagnose(case: ug.Case) -> ug.Report:
    """Diagnose and write the report in all its forms."""
    report = ug.diagnose(case)
    report.to_json(), report.to_html(), str(report)
    return report


def rms_of_probes(probes: int) -> Callable[[], float]:
    """Return a function that gives the seconds of the rms gain with so many probes."""
    case = make_case(4, 256, 16)
    record = observe(case, ["entry.rms"], probes=probes)
    return lambda: spent(lambda: rms_gain(case, record))


def lay_out(quick: bool) -> dict[str, dict[int, Callable[[], float]]]:
    """Return what is measured: for each series, a function per size that gives its seconds."""
    few = slice(0, 3 if quick else None)
    wide = {width: make_case(8, width, 16) for width in WIDTHS[few]}
    deep = {modules: make_deep(modules) for modules in MODULES[few]}
    return {
        "parameters": {
            sum(p.numel() for p in case.model.parameters()): _passively(case) for case in wide.values()
        },
        "sites": {modules: _passively(case) for modules, case in deep.items()},
        "sites, all of diagnose": {
            modules: (lambda case=case: spent(lambda: diagnose(case))) for modules, case in deep.items()
        },
        "probes": {probes: rms_of_probes(probes) for probes in PROBES[few]},
    }


def _passively(case: ug.Case) -> Callable[[], float]:
    return lambda: spent(lambda: passive(case, everything()))


def least(arms: Mapping[int, Callable[[], float]], rounds: int) -> dict[int, float]:
    """Run every size in turn, after one round of the smallest alone, and keep the least of each."""
    next(iter(arms.values()))()
    each = [[arm() for arm in arms.values()] for _ in range(rounds)]
    return dict(zip(arms, (min(column) for column in zip(*each, strict=True)), strict=True))


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> dict[str, float]:
    """Return the slope of log cost over log size with its 95 % t-interval."""
    fit: Any = stats.linregress([math.log(n) for n in sizes], [math.log(s) for s in seconds])
    half = float(stats.t.ppf(0.975, len(sizes) - 2)) * fit.stderr if len(sizes) > 2 else math.nan
    return {"slope": float(fit.slope), "low": fit.slope - half, "high": fit.slope + half}


def summarise(found: Mapping[int, float]) -> dict[str, object]:
    """Return the seconds, the slope, and that of the upper half."""
    sizes, seconds = list(found), list(found.values())
    upper = len(sizes) // 2 - (len(sizes) < 6)
    return {
        "seconds": {str(size): value for size, value in found.items()},
        "all": slope(sizes, seconds),
        "upper half": slope(sizes[upper:], seconds[upper:]),
    }


def run_largest(modules: int) -> dict[str, object]:
    """Diagnose a model of so many modules, write its report, and say what it cost."""
    case = make_deep(modules)
    counted = sum(1 for _ in case.model.modules())
    started, processor = time.perf_counter(), time.process_time()
    report = diagnose(case)
    return {
        "modules": counted,
        "seconds": time.perf_counter() - started,
        "processor_seconds": time.process_time() - processor,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "json_bytes": len(report.to_json()),
        "html_bytes": len(report.to_html()),
        "blocks": report.case["blocks"],
        "failed": [str(s.what) for s in report.skipped if "failed" in s.reason],
    }


def main() -> None:
    """Measure and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="three sizes of each")
    parser.add_argument("--skip-largest", action="store_true", help="leave the 100,000 modules out")
    given = parser.parse_args()
    results: dict[str, object] = {
        name: summarise(least(arms, given.rounds)) for name, arms in lay_out(given.quick).items()
    }
    if not given.skip_largest:
        results["largest"] = run_largest(LARGEST)
    keep("scaling", results)


if __name__ == "__main__":
    main()
