"""What `benchmarks/clip.py` is to reach, and the least that is possible on the machine that ran it."""

from collections.abc import Mapping
from typing import Any

TARGETS = (
    ("gpt2", "over_floor", "native_stats", 1.25),
    ("gpt2", "over_peer", "native_telemetry_unclipped", 0.35),
    ("gpt2", "over_peer", "native_telemetry_clipped", 0.65),
    ("gpt2", "over_peer", "torch_drop_in_unclipped", 0.7),
    ("gpt2", "over_peer", "torch_drop_in_clipped", 1.0),
    ("small", "over_peer", "native_stats", 0.15),
    ("small", "over_peer", "native_drop_in_unclipped", 0.15),
    ("small", "over_peer", "torch_drop_in_unclipped", 0.8),
)


def judge(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return of each target the ratio, the least that is possible here, and whether it holds."""
    judged = []
    for place, over, arm, target in TARGETS:
        if arm not in results[place][over]:
            continue  # no kernel here
        found = {name: one["median"] for name, one in results[place][over].items()}
        # Whatever read all of the memory once shows what reading takes; the loop need not be the quickest.
        least = min(found[name] for name in found if name == "floor" or "stats" in name)
        if arm.endswith("_clipped"):
            least += found["rewrite"]
        if place == "small":
            least = found["questions"] + found["floor"] if "drop_in" in arm else found["floor"]
        judged.append({
            "target": f"{place}: {arm} {over.replace('_', ' ')} at most {target}",
            "found": found[arm],
            "holds": found[arm] <= target,
            "least_possible_here": least,
            "possible_here": least <= target,
        })
    return judged
