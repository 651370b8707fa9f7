"""What each rank of the distributed guard tests runs; spawned processes import this file alone."""

import math
import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

STEPS = 30
ROWS = 8


def make() -> nn.Module:
    """The same model in every process."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3), nn.Linear(3, 1))


def batch(step: int) -> Tensor:
    """The whole batch of all ranks."""
    return torch.randn(2 * ROWS, 4, generator=torch.Generator().manual_seed(step))


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    """A regression whose mean over ranks is that of the whole batch."""
    return (model(x) - x[:, :1]).square().mean()


def run(rank: int, world: int, folder: str) -> None:
    """Run every scenario and save what this rank saw."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    import torch.distributed as dist

    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    found = {
        "ddp": train("ddp", rank),
        "fsdp": train("fsdp", rank),
        "disk": failing_disk(rank, folder),
        "scale": scaled(rank),
        "clips": clipped(),
        "clipped": {kind: clip_steps(kind, rank) for kind in ("ddp", "fsdp")},
    }
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def wrap(kind: str, model: nn.Module) -> nn.Module:
    """Distribute a model."""
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.fsdp import fully_shard

    for layer in model:  # pyright: ignore[reportGeneralTypeIssues]
        fully_shard(layer)
    return fully_shard(model)  # pyright: ignore[reportReturnType]


def train(kind: str, rank: int | None) -> dict[str, Any]:
    """Thirty steps; at 20 the loss of one rank is bad, at 22 and 23 its gradient; at 26 all spike."""
    from unitygain.guard import Guard, clip, rewind, skip

    model = make() if rank is None else wrap(kind, make())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    guard = Guard(
        model, optimizer, on_nonfinite=(skip(2), rewind(2)), on_spike=(clip(3),), snapshot_every=5, calm=3
    )
    actions, collectives = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        x = batch(step)
        loss = loss_of(model, x if rank is None else x[rank * ROWS : (rank + 1) * ROWS])
        loss = loss * (1e6 if step == 26 else 1.0)
        loss.backward()
        if step in {22, 23} and rank in {None, 1}:
            spoil(next(p for p in reversed(list(model.parameters())) if local(p).numel()))
        told = loss.item() if not (step == 20 and rank in {None, 1}) else math.nan
        with Counted() as counted:
            verdict = guard.step(told)
        actions.append((verdict.action, verdict.rewound_to, verdict.grad_norm, verdict.loss))
        collectives.append(counted.calls)
    weights = [(p.full_tensor() if hasattr(p, "full_tensor") else p).detach() for p in model.parameters()]
    return {"actions": actions, "collectives": collectives, "weights": [w.clone() for w in weights]}


def local(tensor: Tensor) -> Tensor:
    """The piece of this rank."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # pyright: ignore[reportCallIssue]


def spoil(parameter: nn.Parameter) -> None:
    """Write a NaN into the gradient on this rank alone."""
    assert parameter.grad is not None
    local(parameter.grad).view(-1)[0] = math.nan


class Counted(TorchDispatchMode):
    """Counts what reaches the process group inside, whoever calls it, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "c10d" in func.namespace:
            name = func._opname.rstrip("_")
            self.calls[name] = self.calls.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def failing_disk(rank: int, folder: str) -> list[Any]:
    """Rank 1 cannot write its second snapshot: where do the ranks go back to?"""
    from unitygain.guard import Guard, rewind
    from unitygain.guard import _snapshots as snapshots

    model = wrap("ddp", make())
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    guard = Guard(
        model, optimizer, on_nonfinite=(rewind(2),), snapshot_every=4, folder=Path(folder) / "snapshots"
    )
    plain = snapshots.write

    def write(path, content):
        if rank == 1 and content["position"] == 4:
            raise OSError(28, "No space left on device")
        plain(path, content)

    snapshots.write = write
    seen = []
    for step in range(5):
        optimizer.zero_grad()
        loss = loss_of(model, batch(step)[rank * ROWS : (rank + 1) * ROWS])
        (loss * (math.nan if step == 4 else 1.0)).backward()
        seen.append(guard.step(loss).rewound_to)
    snapshots.write = plain
    return seen


def clipped() -> dict[str, dict[str, int]]:
    """The collectives of each way to clip the gradients of an FSDP2 model."""
    import unitygain as ug

    model = wrap("fsdp", make())
    clip = ug.clip.chain(ug.clip.by_tensor_norm(1e-3), ug.clip.percentile(50), ug.clip.by_global_norm(1e-4))
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    guard = ug.Guard(model, optimizer, clip=ug.clip.chain(ug.clip.adaptive_value(), clip))
    ways = {
        "clip_grad_norm_": lambda: ug.clip.clip_grad_norm_(model.parameters(), 1e-4),
        "clip_grad_norm_, p=3": lambda: ug.clip.clip_grad_norm_(model.parameters(), 1e-4, 3.0),
        "clip_grad_norm_, p=inf": lambda: ug.clip.clip_grad_norm_(model.parameters(), 1e-4, math.inf),
        "chain": lambda: clip(named),
        "guard": lambda: guard.step(0.0),
    }
    found = {}
    for name, way in ways.items():
        for _ in range(2):  # the guard takes a snapshot first
            optimizer.zero_grad()
            loss_of(model, batch(0)).backward()
            with Counted() as counted:
                way()
            found[name] = counted.calls
    return found


def clip_steps(kind: str, rank: int | None) -> tuple[list[Tensor], list[tuple[float, float, bool]]]:
    """Six steps that are clipped by entry, by history and as a whole: the weights, and what was reported."""
    import unitygain as ug

    model = make() if rank is None else wrap(kind, make())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    clip = ug.clip.chain(ug.clip.by_value(0.2), ug.clip.percentile(50), ug.clip.by_global_norm(0.3))
    told = []
    for step in range(6):
        optimizer.zero_grad()
        x = batch(step)
        loss_of(model, x if rank is None else x[rank * ROWS : (rank + 1) * ROWS]).backward()
        report = clip(model)
        told.append((report.norm_after, report.cosine, report.clipped))
        optimizer.step()
    whole = [(p.full_tensor() if hasattr(p, "full_tensor") else p).detach() for p in model.parameters()]  # pyright: ignore
    return [weight.clone() for weight in whole], told


def scaled(rank: int) -> list[float]:
    """Sharded gradients that overflow on one rank alone: the scales of all ranks stay the same."""
    from unitygain.guard import Guard, ScaleGuard, skip

    model = wrap("fsdp", make())
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    scaler = ScaleGuard(torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3), hysteresis=1)
    guard = Guard(model, optimizer, scaler=scaler, on_nonfinite=(skip(2),))
    scales = []
    for step in range(12):
        optimizer.zero_grad()
        loss = loss_of(model, batch(step)[rank * ROWS : (rank + 1) * ROWS])
        scaler.scale(loss).backward()
        if step in {2, 3, 8} and rank == 0:
            spoil(next(iter(model.parameters())))
        guard.step(loss)
        scales.append(scaler.get_scale())
    return scales
