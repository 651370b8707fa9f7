"""What each rank of the clips' distributed test runs; spawned processes import this file alone."""

import os
import warnings
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor

STEPS = 6
BAD = 3
NAMES = ("body.weight", "body.bias", "plain", "head.weight")


def clips() -> dict[str, object]:
    """Return the clips that are tried, made anew."""
    from unitygain import clip

    return {
        "chain": clip.chain(clip.by_value(0.8), clip.percentile(50), clip.ema(warmup=2)),
        "agc": clip.agc(0.5),
        "zscore": clip.zscore(1.0, warmup=2),
        "by_global_norm": clip.by_global_norm(3.0, p=1),
    }


def whole(step: int) -> list[Tensor]:
    """The gradients of a step as one process would hold them; one of them has a NaN in its last entry."""
    draw = torch.Generator().manual_seed(step)
    found = [torch.randn(size, generator=draw) * (step + 1) for size in ((5, 3), (5,), (4,), (2, 5))]
    if step == BAD:
        found[0][-1, -1] = float("nan")
    return found


def weights() -> list[Tensor]:
    """Return the parameters as one process would hold them."""
    return [torch.full(size, 0.5) for size in ((5, 3), (5,), (4,), (2, 5))]


def run(rank: int, world: int, folder: str) -> None:
    """Clip gradients that are cut over the ranks, beside a plain one, and save what became of them."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    file = f"file://{folder}/rendezvous"
    dist.init_process_group(
        "gloo", init_method=file, rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    mesh = init_device_mesh("cpu", (world,))

    def cut(tensors: list[Tensor]) -> list[Tensor]:
        return [t if i == 2 else distribute_tensor(t, mesh, [Shard(0)]) for i, t in enumerate(tensors)]

    found = {}
    for name, one in clips().items():
        parameters, steps = [torch.nn.Parameter(t) for t in cut(weights())], []
        for step in range(STEPS):
            for parameter, gradient in zip(parameters, cut(whole(step)), strict=True):
                parameter.grad = gradient
            report = one(zip(NAMES, parameters, strict=True))  # pyright: ignore
            gradients = [
                p.grad if i == 2 else p.grad.full_tensor()  # pyright: ignore
                for i, p in enumerate(parameters)
            ]
            steps.append((report.finite, report.norm_before, report.norm_after, report.cosine, gradients))
        found[name] = steps, one.state_dict()  # pyright: ignore
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
