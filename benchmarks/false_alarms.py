"""How often a diagnosis alarms on healthy networks at their initialisation, by family.

    python benchmarks/false_alarms.py [INITS=1000] [FIRST=0] [WORKERS=2]

A report alarms where any rule finds anything of that severity; all rules run, on all that they read. Beside
that stands what the p-values say: in how many reports the worst of all blocks (ranked among its draws), the
whole trunk as its weights are, and the whole trunk at unity gain are below the level. The last is no null law
where a healthy design does not have unity gain (tanh, normalised, residual): alone it is no alarm.
Writes the table and every alarm to results/false_alarms.json.
"""

import json
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from environment import keep
from scipy.stats import beta

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from zoo.inits import FAMILIES, study

LEVELS = {"warning": 0.05, "error": 0.01}


def count(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many of the reports alarmed, with the 95 % interval of the share (Clopper and Pearson)."""
    table: dict[str, Any] = {"inits": len(rows), "wandering": sum(row["deep"] for row in rows)}
    for severity in LEVELS:
        table[severity] = share(sum(row[severity] for row in rows), len(rows))
    for kind in ("places", "loops", "unity"):
        known = [row[kind] for row in rows if row[kind] is not None]
        for level in LEVELS.values():
            table[f"{kind} at {level:g}"] = share(sum(p <= level for p in known), len(known))
    each = [p for row in rows for p in row["each"]]
    table |= {
        f"each p at {level:g}": share(sum(p <= level for p in each), len(each)) for level in LEVELS.values()
    }
    table["codes"] = sorted({code for row in rows for code in row["codes"]})
    return table


def share(hits: int, of: int) -> str:
    """Write a share with its interval."""
    if not of:
        return "-"
    low = beta.ppf(0.025, hits, of - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, of - hits) if hits < of else 1.0
    return f"{hits}/{of} = {100 * hits / of:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def examine(family: str, seed: int) -> dict[str, Any]:
    """Study one init on one thread."""
    torch.set_num_threads(1)
    return study(family, seed)


def main(inits: int, first: int, workers: int) -> None:
    """Run the study over all families in turn."""
    torch.set_num_threads(1)
    started, rows = time.perf_counter(), defaultdict(list)
    names = list(FAMILIES)
    families = [names[index % len(names)] for index in range(inits)]
    seeds = [first + index // len(names) for index in range(inits)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for family, row in zip(families, pool.map(examine, families, seeds), strict=True):
            rows[family].append(row)
            print(json.dumps({"family": family, **row}), flush=True)
    everything = [row for family in rows.values() for row in family]
    table = {family: count(found) for family, found in rows.items()} | {"all": count(everything)}
    said = [line for row in everything for line in row["said"]]
    keep("false_alarms", {"seconds": time.perf_counter() - started, "table": table, "alarms": said})


if __name__ == "__main__":
    main(*(int(text) for text in (*sys.argv[1:], *("1000", "0", "2")[len(sys.argv) - 1 :])))
