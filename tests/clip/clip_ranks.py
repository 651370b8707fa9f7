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


CLIPS = ("agc", "by_global_norm", "by_update_rms", "chain", "zscore")


def make(name: str, parameters: list[Tensor]):
    """Return one of the clips that are tried, made anew."""
    from unitygain import clip

    adam = torch.optim.AdamW(parameters, betas=(0.9, 0.99))
    for parameter in parameters:
        moment = torch.full_like(parameter, 0.25)
        adam.state[parameter] = {"step": torch.tensor(9.0), "exp_avg_sq": moment}
    return {
        "by_update_rms": clip.by_update_rms(adam),
        "chain": clip.chain(clip.by_value(0.8), clip.percentile(50), clip.ema(warmup=2)),
        "agc": clip.agc(0.5),
        "zscore": clip.zscore(1.0, warmup=2),
        "by_global_norm": clip.by_global_norm(3.0, p=1),
    }[name]


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
    for name in CLIPS:
        parameters, steps = [torch.nn.Parameter(t) for t in cut(weights())], []
        one = make(name, parameters)  # pyright: ignore
        for step in range(STEPS):
            for parameter, gradient in zip(parameters, cut(whole(step)), strict=True):
                parameter.grad = gradient
            report = one(zip(NAMES, parameters, strict=True))
            gradients = [
                p.grad if i == 2 else p.grad.full_tensor()  # pyright: ignore
                for i, p in enumerate(parameters)
            ]
            steps.append((report.finite, report.norm_before, report.norm_after, report.cosine, gradients))
        found[name] = steps, one.state_dict()
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
