"""What `import unitygain` adds to `import torch`, and how long the command takes to start.

    python benchmarks/imports.py [--rounds N]

Every figure is of a fresh process, the arms in turn, after one round that is not counted (it fills the
caches of the file system and of compiled Python). An import's seconds are told by the process itself;
a start is the wall time from outside, of the whole process.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from environment import interleave, keep

ROUNDS = 9
ADDED = "import torch, time; t = time.perf_counter(); import unitygain; print(time.perf_counter() - t)"
USED = f"{ADDED[: ADDED.index('print')]}unitygain.diagnose; print(time.perf_counter() - t)"
COMMANDS = {"--help": ["--help"], "rules": ["rules"], "explain": ["explain", "UG101"]}


def told(code: str) -> Callable[[], float]:
    """Return a function that runs code in a fresh process and gives the number that it prints."""

    def once() -> float:
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return float(out.stdout)

    return once


def started(arguments: list[str]) -> Callable[[], float]:
    """Return a function that runs the command in a fresh process and gives its wall time."""
    return lambda: _wall(["-m", "unitygain", *arguments])


def write_report(path: Path) -> None:
    """Write the report of a small diagnosis."""
    import torch
    from torch import nn

    import unitygain as ug

    model = nn.Sequential(*(m for _ in range(12) for m in (nn.Linear(32, 32), nn.ReLU())))
    case = ug.Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.randn(16, 32)])
    ug.diagnose(case).save(path)


def main() -> None:
    """Measure and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.json"
        write_report(path)
        commands = COMMANDS | {"report": ["report", str(path)]}
        arms = {"import unitygain": told(ADDED), "import unitygain and diagnose": told(USED)}
        arms |= {"python alone": lambda: _wall(["-c", "pass"])}
        arms |= {name: started(arguments) for name, arguments in commands.items()}
        counted = interleave(arms, rounds)
    seconds = {
        name: {"median": statistics.median(each), "low": min(each), "high": max(each)}
        for name, each in counted.items()
    }
    keep("imports", {"rounds": rounds, "seconds": seconds})


def _wall(arguments: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
