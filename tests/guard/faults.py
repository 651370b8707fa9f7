"""Drawn faults in tiny trainings: what breaks, when, and how it ends with and without a guard."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unitygain.guard import Guard, TrainingStopped, Verdict, accept, clip, rewind, skip

STEPS = 160
OVERFLOWS = 170  # a scale of 256 has no reciprocal in float32 after 136 halvings
# More patient than the defaults: the faults come in bursts, and one lasts for a whole shard of the data.
ON_NONFINITE = (skip(5), rewind(3), skip(300))
ON_SPIKE = (clip(5), skip(5), rewind(6), accept(1))
KINDS = (
    "nan gradient",
    "inf gradient",
    "nan batch",
    "huge batch",
    "loss spike",
    "huge learning rate",
    "overflow run",
    "broken weights",
)


class Perceptron(nn.Module):
    """A perceptron; with batch norm a forward pass can spoil its running statistics."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        middle = [nn.BatchNorm1d(12), nn.Tanh()] if norm else [nn.ReLU()]
        self.layers = nn.Sequential(nn.Linear(6, 12), *middle, nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@dataclass(frozen=True)
class Sequence:
    """A training with faults, all drawn from `seed`: steps at which something happens, and how strongly."""

    seed: int
    kind: str
    at: tuple[int, ...]
    size: float
    optimizer: str
    norm: bool


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    finite: bool
    loss: float
    start: float
    verdicts: tuple[Verdict, ...] = ()
    stopped: str = ""


def draw(seed: int) -> Sequence:
    """Draw a sequence of faults."""
    dice = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    count = {"nan gradient": 3, "inf gradient": 3, "overflow run": 1, "broken weights": 1}.get(kind, 2)
    # From step 40 on, so that every fault has a history before it, and ends 40 steps before the end.
    first = int(dice.integers(40, 70))
    length = 1 if kind == "broken weights" else int(dice.integers(1, 5))
    starts = first + np.sort(dice.choice(45, count, replace=False))
    at = tuple(sorted({int(start + i) for start in starts for i in range(length)}))
    size = float(10 ** dice.uniform(5, 9))
    optimizer = str(dice.choice(["sgd", "momentum", "adam", "adamw"]))
    return Sequence(seed, kind, at, size, optimizer, bool(dice.integers(2)))


def make(sequence: Sequence) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Build the model and the optimizer of a sequence."""
    torch.manual_seed(sequence.seed)
    model = Perceptron(sequence.norm)
    kinds: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD(model.parameters(), 0.2),
        "momentum": lambda: torch.optim.SGD(model.parameters(), 0.05, momentum=0.9),
        "adam": lambda: torch.optim.Adam(model.parameters(), 5e-3),
        "adamw": lambda: torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=0.01),
    }
    return model, kinds[sequence.optimizer]()


def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Three classes that a teacher tells apart, another batch every time."""
    draw = torch.Generator().manual_seed(seed)
    teacher = torch.randn(6, 3, generator=draw)
    while True:
        x = torch.randn(32, 6, generator=draw)
        yield x, (x @ teacher).argmax(dim=1)


def train(sequence: Sequence, *, guarded: bool, faulty: bool = True) -> Outcome:
    """Train with the faults of `sequence` and judge the end on clean data in eval mode."""
    model, optimizer = make(sequence)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0) if sequence.kind == "overflow run" else None
    guard = None
    if guarded:
        ladders = {"on_nonfinite": ON_NONFINITE, "on_spike": ON_SPIKE}
        guard = Guard(model, optimizer, scaler=scaler, snapshot_every=25, **ladders)
    data = batches(sequence.seed)
    held_out = next(data)
    start = judged(model, held_out)
    verdicts = []
    at = sequence.at if faulty else ()
    if scaler is not None and faulty:
        at = range(sequence.at[0], sequence.at[0] + OVERFLOWS)
    steps = STEPS + (len(at) if isinstance(at, range) else 0)
    for step in range(steps):
        bad = step in at
        try:
            verdict = one_step(sequence, model, optimizer, scaler, guard, next(data), bad)
        except TrainingStopped as stop:
            return Outcome(finite(model), judged(model, held_out), start, tuple(verdicts), str(stop))
        if verdict is not None:
            verdicts.append(verdict)
    return Outcome(finite(model), judged(model, held_out), start, tuple(verdicts))


def one_step(sequence, model, optimizer, scaler, guard, batch, bad: bool) -> Verdict | None:
    """One step of the plain loop, with the fault in it if `bad`."""
    x, y = batch
    kind, size = sequence.kind, sequence.size
    rates = [group["lr"] for group in optimizer.param_groups]
    if bad and kind == "nan batch":
        x = x.clone()
        x[0, 0] = math.nan
    if bad and kind == "huge batch":
        x = x * size
    if bad and kind == "huge learning rate":
        for group in optimizer.param_groups:
            group["lr"] *= size
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    if bad and kind == "loss spike":
        loss = loss * size
    (loss if scaler is None else scaler.scale(loss)).backward()
    if bad:
        spoil(kind, model)
    verdict = None
    if guard is not None:
        verdict = guard.step(loss)
    elif scaler is not None:
        scaler.step(optimizer)
        scaler.update()
    else:
        optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    return verdict


def spoil(kind: str, model: nn.Module) -> None:
    """Write a fault into the gradients or the weights."""
    weight = model.layers[0].weight
    if kind == "nan gradient":
        weight.grad[1, 2] = math.nan
    if kind in ("inf gradient", "overflow run"):
        weight.grad[2, 1] = math.inf
    if kind == "broken weights":
        with torch.no_grad():
            weight[0, 0] = math.inf


def judged(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """Loss on clean data, in eval mode."""
    model.eval()
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1]).item()
    model.train()
    return loss


def finite(model: nn.Module) -> bool:
    """Whether all that a checkpoint would hold is finite."""
    return all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


def failed(outcome: Outcome, clean: Outcome) -> bool:
    """Not finite, stopped, or less than half of what the clean training learnt."""
    learnt = (outcome.start - outcome.loss) / (clean.start - clean.loss)
    return not outcome.finite or bool(outcome.stopped) or not learnt > 0.5
