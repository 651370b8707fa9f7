"""Cost of the passive diagnosis of GPT-2-small against one plain forward and backward pass.

    python benchmarks/passive.py [--each]

Time: the arms in turn, each twice in a row with the second run counted, ratios per round. Memory: each arm
in a process of its own, the most that the process ever held.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from environment import high_water, interleave, keep, ratio
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

import unitygain.measures  # noqa: F401 (importing the room fills the registry)
from unitygain._case import Case
from unitygain._registry import MEASURES
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe

CORE = ("act_rms", "act_frac_nonfinite", "grad_rms", "param_rms", "param_grad_rms")
ROUNDS = 9


def make_case() -> Case:
    """Return GPT-2-small with random weights and a batch of 2 x 128 tokens."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).train()
    return Case(model, loss=compute_loss, data=[torch.randint(50257, (2, 128))])


def compute_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """The language-model loss."""
    return model(input_ids=tokens, labels=tokens).loss


def plain(case: Case) -> None:
    """One forward and backward pass."""
    case.model.zero_grad(set_to_none=True)
    case.compute_loss(case.batches[0]).backward()
    case.model.zero_grad(set_to_none=True)


def passive(case: Case, names: tuple[str, ...]) -> None:
    """The passive pass and its measures, isolated as `diagnose` isolates them."""
    chosen = [MEASURES[name] for name in names]
    with isolated(case) as (subject, _):
        record = observe(subject, dict.fromkeys(key for m in chosen for key in m.needs))
        for item in chosen:
            item.compute(subject, record)


def everything() -> tuple[str, ...]:
    """Return the names of all passive measures."""
    return tuple(name for name, item in MEASURES.items() if not item.active)


def arms(case: Case) -> dict[str, Callable[[], None]]:
    """Return what is compared."""
    return {
        "plain": lambda: plain(case),
        "core": lambda: passive(case, CORE),
        "passive": lambda: passive(case, everything()),
    }


def timed(run: Callable[[], None]) -> Callable[[], float]:
    """Return a function that gives the seconds of a second run: the first finds another arm's memory."""

    def once() -> float:
        run()
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    return once


def peak(arm: str) -> float:
    """Run one arm in a process of its own and return the bytes it held at most."""
    out = subprocess.run(
        [sys.executable, __file__, "--peak", arm], capture_output=True, text=True, check=True
    )
    return float(json.loads(out.stdout.splitlines()[-1])["peak"])


def main() -> None:
    """Measure and keep the results."""
    if "--peak" in sys.argv:
        case = make_case()
        case.batches  # noqa: B018 (drawn before the measurement)
        arms(case)[sys.argv[-1]]()
        print(json.dumps({"peak": high_water()}))
        return
    case = make_case()
    counted = interleave({name: timed(run) for name, run in arms(case).items()}, ROUNDS)
    results: dict[str, object] = {"seconds_plain": sorted(counted["plain"])[len(counted["plain"]) // 2]}
    for name in ("core", "passive"):
        results[f"time_{name}_over_plain"] = ratio(counted, name, "plain")
    if "--each" in sys.argv:
        singles = {f"one:{name}": timed(lambda name=name: passive(case, (name,))) for name in everything()}
        alone = interleave({"plain": timed(lambda: plain(case)), **singles}, 1)
        results["time_each_over_plain"] = {k[4:]: ratio(alone, k, "plain") for k in singles}
    bytes_ = {arm: peak(arm) for arm in ("plain", "core", "passive")}
    results["peak_bytes"] = bytes_
    results["peak_over_plain"] = {arm: bytes_[arm] / bytes_["plain"] for arm in ("core", "passive")}
    keep("passive", results)


if __name__ == "__main__":
    main()
