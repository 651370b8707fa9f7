"""Memory: the most that a training step, a diagnosis and trials hold, in copies of the model's parameters.

    python benchmarks/memory.py     # about five minutes; writes results/memory.json

Counted is what torch allocates beyond the user's own model and batch, by the profiler's events, so that
neither the allocator nor imports are in it. The model is wide and the batch small: parameters are nearly all
there is.
"""

import json
from collections.abc import Callable
from typing import Any

import torch
from environment import keep
from torch import nn

import unitygain as ug

WIDTH, BLOCKS, ROWS = 512, 12, 4
STEPS, BUDGET = 4, 60.0
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, 0.1),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, 1e-3),
}


def make_model() -> nn.Module:
    """Return a deep stack of sigmoids, which a gated skip, a swap and others cure."""
    layers = [part for _ in range(BLOCKS) for part in (nn.Linear(WIDTH, WIDTH), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 4))


def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return the cross-entropy."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def most_held(act: Callable[[], object]) -> int:
    """Return the most bytes that torch held at once for what was allocated during `act`."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        act()
    held = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def train(case: ug.Case) -> None:
    """Take two steps as the case declares them, on a model of its own."""
    model = make_model()
    optimizer = case.optimizer(model.parameters())
    for batch in case.batches:
        optimizer.zero_grad()
        case.loss(model, batch).backward()
        optimizer.step()


def main() -> None:
    """Measure and write."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    batches = [(torch.randn(ROWS, WIDTH), torch.arange(ROWS) % 4) for _ in range(2)]
    results: dict[str, Any] = {"unit": "bytes of the model's parameters, beyond the user's own model"}
    for name, optimizer in OPTIMIZERS.items():
        case = ug.Case(make_model, loss, batches, optimizer)
        size = sum(parameter.nbytes for parameter in case.model.parameters())
        acts = {
            "training": lambda case=case: train(case),
            "diagnose": lambda case=case: ug.diagnose(case),
            "treat": lambda case=case: ug.treat(case, steps=STEPS, budget=BUDGET, seeds=1),
        }
        results[name] = {act: round(most_held(run) / size, 2) for act, run in acts.items()}
        print(name, json.dumps(results[name]), flush=True)
    keep("memory", results)


if __name__ == "__main__":
    main()
