"""The clinic: how often a diagnosis is right on small sick and healthy programs, and a trial on their cures.

    python benchmarks/clinic.py diagnose [SET ...] [--shard 0/2] [--no-spectra]  # fitted, kept, redrawn
    python benchmarks/clinic.py treat [SET ...] [--shard 0/2] [--budget 60]
    python benchmarks/clinic.py choose [SET ...]                     # what unitygain.treat finds by itself
    python benchmarks/clinic.py peers [SET ...]                      # needs their packages: docs/clinic.md
    python benchmarks/clinic.py table                                # writes results/clinic.json

Every part adds its rows to a file of its own under build/clinic and leaves out what is there already, so that
it can be stopped, go on, and run as several processes with a shard each. `redrawn` is all programs under
another seed. Healthy programs are diagnosed at 5 seeds in the first two sets and at one in the third.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from environment import RESULTS, keep

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from zoo.clinic import HEALTHY, SICK
from zoo.clinic.program import Program
from zoo.clinic.trials import treat_by_itself, try_named, verdict
from zoo.clinic.visits import code_of, share, table, visit

WORK = Path(__file__).parents[1] / "build" / "clinic"
SETS = ("fitted", "kept", "redrawn")
# What a part that judges trials or peers adds to a set's numbers.
WRITES = {
    "diagnose": (),
    "treat": ("true cure verified", "wrong cure rejected", "wrong cure behind the true one"),
    "choose": ("cured by treat",),
    "peers": ("peers",),
}
# What of a row is written to the results, in this order.
VERDICTS = ("set", "name", "seed", "detected", "first_cause", "seconds", "cure", "wrong", "behind", "cured")
HEALTHY_SEEDS, REDRAWN = 5, 1000


def programs(chosen: str, part: str) -> Iterator[tuple[Program, int]]:
    """Yield the programs of a set, the sick ones first, each with its seeds."""
    seed = REDRAWN if chosen == "redrawn" else 0
    for program in (*SICK, *HEALTHY):
        if chosen != "redrawn" and program.kept != (chosen == "kept"):
            continue
        if part in ("treat", "choose") and program.truth is None:
            continue
        if part == "choose" and not program.truth.cure:
            continue
        many = HEALTHY_SEEDS if program.truth is None and chosen != "redrawn" and part == "diagnose" else 1
        yield from ((program, seed + more) for more in range(many))


def read(part: str) -> list[dict[str, Any]]:
    """Return the rows that a part has written so far."""
    files = sorted(WORK.glob(f"{part}-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def run(part: str, sets: list[str], shard: str, budget: float, *, spectra: bool) -> None:
    """Add the missing rows of a part."""
    index, of = (int(text) for text in shard.split("/"))
    WORK.mkdir(parents=True, exist_ok=True)
    done = {(row["set"], row["name"], row["seed"]) for row in read(part)}
    work = [(chosen, *drawn) for chosen in sets for drawn in programs(chosen, part)]
    # The sick first, then the first seed of every healthy program before the second of any.
    work.sort(key=lambda item: (item[2] % REDRAWN, item[1].truth is None))
    for chosen, program, seed in work[index::of]:
        if (chosen, program.name, seed) in done:
            continue
        started = time.process_time()
        row = {"set": chosen, **perform(part, program, seed, budget, spectra=spectra)}
        row["spent"] = round(time.process_time() - started, 2)
        with (WORK / f"{part}-{index}of{of}.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row)[:300], flush=True)


def perform(part: str, program: Program, seed: int, budget: float, *, spectra: bool) -> dict[str, Any]:
    """Return the row of one program."""
    if part == "diagnose":
        return {**visit(program, seed, spectra=spectra), "spectra": spectra}
    if part == "treat":
        return try_named(program, seed, budget)
    if part == "choose":
        return treat_by_itself(program, seed, budget)
    from clinic_peers import consult

    return consult(program, seed)


def summarise() -> None:
    """Print the table and write it with all rows; of a part that was not run again, what is there already."""
    results: dict[str, Any] = {"targets": "detected 95 %, first cause 90 %, false alarms 2 %, cured 90 %"}
    before = json.loads((RESULTS / "clinic.json").read_text("utf-8"))["results"]
    for part in ("diagnose", "treat", "choose", "peers"):
        rows = read(part)
        if not rows and f"{part} rows" in before:
            results[f"{part} rows"] = before[f"{part} rows"]
            for chosen in SETS:
                kept = {key: value for key, value in before.get(chosen, {}).items() if key in WRITES[part]}
                results.setdefault(chosen, {}).update(kept)
            continue
        for chosen in SETS:
            of_set = [row for row in rows if row["set"] == chosen]
            whole = results.setdefault(chosen, {})
            if not of_set:
                # A set that was not run again keeps what it has, and says of which state.
                whole |= {**before.get(chosen, {}), **whole}
                continue
            if part == "diagnose":
                whole |= table(of_set)
            elif part == "peers":
                whole["peers"] = {
                    peer: table([{**row, **row["peers"][peer]} for row in of_set if peer in row["peers"]])
                    for peer in dict.fromkeys(name for row in of_set for name in row["peers"])
                }
            else:
                whole |= outcome(part, of_set)
        new = {row["set"] for row in rows}
        rest = [line for line in before.get(f"{part} rows", ()) if line.split(" ", 1)[0] not in new]
        results[f"{part} rows"] = [*(" ".join(map(str, brief(row).values())) for row in rows), *rest]
    keep("clinic", results)
    print(json.dumps({chosen: results.get(chosen) for chosen in SETS}, indent=1))


def brief(row: dict[str, Any]) -> dict[str, Any]:
    """Return the verdicts of a row; of what was said, the codes alone: nobody shall read the kept half's."""
    short = {key: value for key, value in row.items() if key in VERDICTS}
    codes = ",".join(dict.fromkeys(code_of(line) or "said" for line in row.get("alarms", ())))
    peers = {name: int(said["flagged"]) for name, said in row.get("peers", {}).items()}
    return short | {"alarms": codes or "-"} | ({"flagged by": peers} if peers else {})


def outcome(part: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return the shares of cures that were verified and of tempting ones that were rejected."""
    able = [row for row in rows if row["curable"]]
    if part == "choose":
        return {"cured by treat": share(sum(row["cured"] for row in able), len(able))}
    for row in able + [row for row in rows if row["wrong"]]:
        judged = {name: verdict(row["losses"][name], row["losses"]["untreated"]) for name in row["losses"]}
        row |= {name: judged[name] for name in ("cure", "wrong") if name in judged}
    tempted = [row for row in rows if row["wrong"]]
    return {
        "true cure verified": share(sum(row["cure"] == "verified" for row in able), len(able)),
        "wrong cure rejected": share(sum(row["wrong"] != "verified" for row in tempted), len(tempted)),
        "wrong cure behind the true one": share(
            sum(row["behind"] for row in tempted if row["curable"]), sum(row["curable"] for row in tempted)
        ),
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=("diagnose", "treat", "choose", "peers", "table"))
    parser.add_argument("sets", nargs="*", default=list(SETS), help="fitted, kept, redrawn")
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--no-spectra", action="store_true", help="leave UG301 out: half of the time")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of training per program")
    given = parser.parse_args()
    if given.part == "table":
        summarise()
    else:
        run(given.part, given.sets, given.shard, given.budget, spectra=not given.no_spectra)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
