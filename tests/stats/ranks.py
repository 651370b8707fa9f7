"""What each rank of the distributed tests runs; spawned processes import this file alone."""

import os
import warnings
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor

# Name, shape and dtype of the whole tensor, then the placement per mesh dimension: R, P, S0, S1.
CASES = {
    2: {
        "even": ((8, 6), torch.float32, "S0"),
        "columns": ((8, 6), torch.float32, "S1"),
        "uneven": ((5, 3), torch.float32, "S0"),
        "empty shard": ((1, 3), torch.float32, "S0"),
        "nothing": ((0, 3), torch.float32, "S0"),
        "replicated": ((5, 3), torch.float32, "R"),
        "partial": ((5, 3), torch.float64, "P"),
        "quick": ((300, 70), torch.float32, "S0"),
        "bfloat16": ((9, 4), torch.bfloat16, "S0"),
        "complex": ((5, 3), torch.complex64, "S0"),
        "tokens": ((4, 3, 2), torch.float32, "S1"),
        "scalar": ((), torch.float32, "R"),
        "different scales": ((6, 2), torch.float64, "S0"),
        "nan": ((6, 2), torch.float32, "S0"),
        "infinite": ((6, 2), torch.float32, "S0"),
    },
    4: {
        "hybrid": ((7, 5), torch.float32, "R S0"),
        "hybrid empty": ((1, 5), torch.float32, "R S0"),
        "both": ((7, 5), torch.float32, "S0 S1"),
        "twice": ((7, 5), torch.float32, "S0 S0"),
        "partial shard": ((7, 5), torch.float64, "P S0"),
        "partial twice": ((7, 5), torch.float64, "P P"),
        "replicated": ((7, 5), torch.float32, "R R"),
        "nan": ((6, 2), torch.float32, "R S0"),
    },
}


AGREEMENTS = ("plain", "spread", "not finite", "nothing", "some ranks")


def build(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The whole tensor of a case, the same in every process."""
    draw = torch.Generator().manual_seed(5)
    tensor = torch.randn(shape, generator=draw, dtype=torch.promote_types(dtype, torch.float64)).to(dtype)
    if tensor.ndim == 2 and tensor.numel():
        tensor[:, 0] = 0.0
    if name == "different scales":
        tensor[:3] *= 1e-300
        tensor[3:] *= 1e300
    if name == "nan":
        tensor[0, 0] = float("nan")
    if name == "infinite":
        tensor[-1, 0] = float("inf")
    return tensor


def run(rank: int, world: int, folder: str) -> None:
    """Distribute every case, apply every statistic and save the numbers of this rank."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    sizes = (2,) if world == 2 else (2, 2)
    mesh = init_device_mesh("cpu", sizes, mesh_dim_names=("outer", "inner")[: len(sizes)])
    values, calls = {}, {}
    for name, (shape, dtype, places) in CASES[world].items():
        values[name], calls[name] = measure(place(build(name, shape, dtype), mesh, places.split()))
    placed = [place(build(n, shape, dtype), mesh, p.split()) for n, (shape, dtype, p) in CASES[world].items()]
    together = measure_together([*placed, torch.full((4,), 2.0)])
    agreed = [agree(scenario, mesh) for scenario in AGREEMENTS]
    torch.save((values, calls, together, agreed), Path(folder) / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def place(whole: Tensor, mesh, places: list[str]) -> Tensor:
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    kinds = {"R": Replicate(), "P": Partial(), "S0": Shard(0), "S1": Shard(1)}
    if "P" not in places:
        return distribute_tensor(whole, mesh, [kinds[place] for place in places])
    # Terms whose float64 sum is the whole, bit for bit: a quarter or a half on each rank.
    terms = 2 ** places.count("P")
    rest = distribute_tensor(whole / terms, mesh, [Replicate() if p == "P" else kinds[p] for p in places])
    return DTensor.from_local(
        rest.to_local(), mesh, [kinds[p] for p in places], shape=whole.shape, stride=whole.stride()
    )


def measure_together(tensors: list[Tensor]) -> tuple[Tensor, Tensor | None, int]:
    """Norm and absmax of DTensors and a plain tensor, and how many gatherings that took."""
    import torch.distributed as dist

    from unitygain.stats import gradient_stats

    own = []
    plain = dist.all_gather
    dist.all_gather = lambda *args, **kwargs: (own.append(1), plain(*args, **kwargs))[1]
    try:
        found = gradient_stats(tensors, absmax=True)
    finally:
        dist.all_gather = plain
    return found.norm, found.absmax, len(own)


def agree(scenario: str, mesh) -> tuple[Tensor, Tensor, Tensor, Tensor | None, int]:
    """What `agreed_gradient_stats` says, and how many gatherings that took.

    A tensor is spread over all ranks, one over the last mesh dimension alone with a copy on each of the
    others, and one lies whole on every rank, and differs. At last only the ranks of that dimension agree.
    """
    import torch.distributed as dist

    from unitygain.stats import agreed_gradient_stats

    rank = dist.get_rank()
    own = torch.tensor([float(rank), -float(rank)], dtype=torch.float64)
    plain = torch.full((4,), 1.0 + rank)
    every = "S0 " * mesh.ndim
    wide, small = (build("", shape, torch.float32) for shape in ((8, 6), (5, 3)))
    inner = mesh["inner"] if mesh.ndim > 1 else mesh
    tensors = {
        "plain": [plain],
        "spread": [place(wide, mesh, every.split()), plain, place(small, inner, ["S0"])],
        "not finite": [place(wide, mesh, every.split()), plain],
        "nothing": [],
        "some ranks": [place(small, inner, ["S0"])],
    }[scenario]
    if scenario == "not finite" and rank == dist.get_world_size() - 1:
        plain[0] = float("nan")
    calls = []
    real = dist.all_gather
    dist.all_gather = lambda *args, **kwargs: (calls.append(1), real(*args, **kwargs))[1]
    try:
        group = inner.get_group() if scenario == "some ranks" else dist.group.WORLD
        stats, total, told = agreed_gradient_stats(tensors, own, absmax=True, group=group)
    finally:
        dist.all_gather = real
    return total, told, stats.norm, stats.absmax, len(calls)


def measure(tensor: Tensor) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Every statistic of a DTensor, and how many collectives it took."""
    import torch.distributed as dist
    from torch.distributed.tensor.debug import CommDebugMode

    from unitygain.stats import STATISTICS

    values, calls = {}, {}
    plain = dist.all_gather
    for name, statistic in STATISTICS.items():
        own = []
        dist.all_gather = lambda *args, **kwargs: (own.append(1), plain(*args, **kwargs))[1]
        try:
            with CommDebugMode() as counted:
                values[name] = statistic(tensor)
        finally:
            dist.all_gather = plain
        redistributed = {op: n for op, n in counted.get_comm_counts().items() if "c10d_functional" in str(op)}
        calls[name] = len(own) + sum(redistributed.values())
    return values, calls
