"""What a benchmark ran on, and how its results are kept."""

import json
import os
import pathlib
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

RESULTS = pathlib.Path(__file__).parent / "results"


def describe() -> dict[str, Any]:
    """Return the environment: processor, cores, threads, Python and torch."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none: not run on a GPU",
    }


def _cpuinfo() -> list[str]:
    path = pathlib.Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def high_water() -> float:
    """Return the most bytes that this process has held; what getrusage says may be its parent's."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024


def interleave(arms: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run every arm once per round, in turn, after one round that is not counted; return what each gave."""
    counted: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name, arm in arms.items():
            figure = arm()
            if turn:
                counted[name].append(figure)
    return counted


def ratio(counted: Mapping[str, list[float]], arm: str, floor: str) -> dict[str, float]:
    """Return the median of the per-round ratios of two arms, with their lowest and highest."""
    ratios = [a / b for a, b in zip(counted[arm], counted[floor], strict=True)]
    return {
        "median": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "rounds": len(ratios),
    }


def keep(name: str, results: Mapping[str, Any]) -> None:
    """Print the results, and write them with the command and the environment under results/."""
    whole = {"command": " ".join(["python", *sys.argv]), "environment": describe(), "results": dict(results)}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(whole, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
