"""What each rank of the drop-in's distributed test runs; spawned processes import this file alone."""

import os
import warnings
from datetime import timedelta
from pathlib import Path

import torch

MAX_NORM = 1.0


def whole() -> list[torch.Tensor]:
    """The gradients as one process would hold them: cut over one mesh, over another, and not cut."""
    draw = torch.Generator().manual_seed(3)
    return [torch.randn(size, generator=draw) for size in ((5, 3), (4, 6), (7,))]


def run(rank: int, world: int, folder: str) -> None:
    """Clip gradients on two meshes beside a plain one, and save what became of them."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    from unitygain.clip import clip_grad_norm_

    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    data, experts = init_device_mesh("cpu", (world,)), init_device_mesh("cpu", (1, world))
    first, second, plain = whole()

    def step() -> list[torch.Tensor]:
        cut = [
            distribute_tensor(first, data, [Shard(0)]),
            distribute_tensor(second, experts, [Shard(0), Shard(1)]),
        ]
        parameters = [torch.zeros_like(gradient) for gradient in (*cut, plain)]
        for parameter, gradient in zip(parameters, (*cut, plain.clone()), strict=True):
            parameter.grad = gradient
        return parameters

    try:
        torch.nn.utils.clip_grad_norm_(step(), MAX_NORM)
        refusal = ""
    except RuntimeError as error:
        refusal = str(error)
    parameters = step()
    norm = clip_grad_norm_(parameters, MAX_NORM)
    cut = [p.grad.full_tensor() for p in parameters[:2]]  # pyright: ignore
    torch.save((refusal, norm, [*cut, parameters[2].grad]), Path(folder) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
