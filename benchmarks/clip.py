"""What clipping costs beside `torch.nn.utils.clip_grad_norm_`, and beside reading the memory once.

    python benchmarks/clip.py [--rounds N] [--threads N] [--skip-largest]

The arms run in turn in one process; what is kept are medians of the ratios per round. `peer` is torch's
function, `stats` the norm and finiteness of every tensor (`stats_absmax` also its largest entry), `drop_in`
`unitygain.clip.clip_grad_norm_`, `telemetry` `by_global_norm` with every number of its report asked for.
Where there is a CUDA device the same arms run on it, with waiting for it forbidden.

Targets, on the 148 gradients of GPT-2-small and two threads: compiled stats at most 1.25 floors; telemetry at
most 0.35 of torch's clip when nothing is clipped and 0.65 when it is; in torch alone 0.7 and 1.0. On 1000
tensors of 64: 0.15 compiled, 0.8 in torch. On CUDA: 1.2 times what a copy of the bandwidth would take.

Beside each target stands the least that is possible on the machine that ran: `floor`, a compiled loop that
adds 64-bit words; `rewrite`, one that reads and writes each word; `questions`, asking every tensor for its
gradient, type, dtype, order, address and length, without which nothing that Python calls can read it. A
target below that is not to be had there.
"""

import argparse
import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from clip_targets import judge
from environment import interleave, keep, ratio
from torch import Tensor
from torch.nn.utils import clip_grad_norm_ as torch_clip

from unitygain import clip
from unitygain.stats import gradient_stats, gradients_of, native

ROUNDS = 15
LAYERS, WIDTH, TOKENS, POSITIONS = 12, 768, 50257, 1024
TENSORS = (10, 100, 1000, 10_000)
BYTES = (10**6, 10**7, 10**8, 10**9, 2 * 10**9)
BACKENDS = ("native", "torch") if native.LIBRARY.exists() else ("torch",)


def gpt2_shapes() -> list[tuple[int, ...]]:
    """Return the shapes of the 148 parameters of GPT-2-small."""
    matrices = [(WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)]
    block: list[tuple[int, ...]] = [(WIDTH,)] * 4
    for rows, columns in matrices:
        block += [(rows, columns), (columns,)]
    return [(TOKENS, WIDTH), (POSITIONS, WIDTH), *block * LAYERS, (WIDTH,), (WIDTH,)]


def make(shapes: Sequence[tuple[int, ...]], device: str = "cpu") -> list[Tensor]:
    """Return parameters with gradients of N(0, 1e-3²)."""
    parameters = [torch.zeros(1, device=device).expand(shape) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, device=device).mul_(1e-3)
    return parameters


def build_floor(folder: str) -> ctypes.CDLL | None:
    """Compile the loop that only reads; None where there is no compiler."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None
    library = Path(folder) / "read_floor.so"
    source = Path(__file__).with_name("read_floor.c")
    flags = ["-O3", "-Wno-psabi", "-shared", "-fPIC", "-pthread"]
    subprocess.run([compiler, *flags, "-o", library, source], check=True)
    return ctypes.CDLL(str(library))


def floor_arm(
    gradients: Sequence[Tensor], library: ctypes.CDLL | None, writes: bool = False
) -> Callable[[], object]:
    """Return the arm that reads the gradients and no more, or that also writes them as they are."""
    if library is None:
        return lambda: [gradient.mul_(1.0) if writes else gradient.sum() for gradient in gradients]
    addresses = array("Q", [gradient.data_ptr() for gradient in gradients])
    words = array("q", [gradient.numel() * gradient.element_size() // 8 for gradient in gradients])
    pointers = [ctypes.c_void_p(part.buffer_info()[0]) for part in (addresses, words)]
    count, threads = ctypes.c_int64(len(gradients)), ctypes.c_int64(torch.get_num_threads())
    kept = (addresses, words)  # what the pointers point to
    function = library.rewrite_floor if writes else library.read_floor
    return lambda: kept and function(count, *pointers, threads)


def ask(parameters: Sequence[Tensor]) -> None:
    """Ask every tensor what has to be known to read its gradient."""
    gradients = [parameter.grad for parameter in parameters]
    for question in (
        type,
        attrgetter("dtype"),
        Tensor.is_contiguous,
        Tensor.data_ptr,
        Tensor.numel,
    ):
        list(map(question, gradients))


@contextmanager
def forced(backend: str):
    """Read gradients with one backend."""
    before = os.environ.get("UNITYGAIN_STATS")
    os.environ["UNITYGAIN_STATS"] = backend
    try:
        yield
    finally:
        del os.environ["UNITYGAIN_STATS"]
        if before is not None:
            os.environ["UNITYGAIN_STATS"] = before


def telemetry(bound: float, parameters: Sequence[Tensor]) -> None:
    """Clip by the global norm and ask for every number that the report has."""
    report = clip.by_global_norm(bound)(parameters)
    for name in ("norm_before", "norm_after", "coefficient", "cosine", "shares", "frac_clipped", "quantiles"):
        getattr(report, name)


def arms(parameters: Sequence[Tensor]) -> dict[str, Callable[[], float]]:
    """Return the clips, and the statistics by themselves, each timed; without the floor."""
    gradients = gradients_of(parameters)
    calls: dict[str, Callable[[float], object]] = {
        "drop_in": lambda bound: clip.clip_grad_norm_(parameters, bound),
        "telemetry": lambda bound: telemetry(bound, parameters),
        "stats": lambda bound: gradient_stats(gradients),
        "stats_absmax": lambda bound: gradient_stats(gradients, absmax=True),
    }
    timed = {}
    for clipped, suffix in ((False, "_unclipped"), (True, "_clipped")):
        timed[f"peer{suffix}"] = bounded(
            lambda bound: torch_clip(parameters, bound), gradients, clipped, "torch"
        )
        for backend in BACKENDS:
            for name in ("drop_in", "telemetry"):
                timed[f"{backend}_{name}{suffix}"] = bounded(calls[name], gradients, clipped, backend)
    for backend in BACKENDS:
        for name in ("stats", "stats_absmax"):
            timed[f"{backend}_{name}"] = bounded(calls[name], gradients, False, backend)
    return timed


def bounded(
    run: Callable[[float], object], gradients: Sequence[Tensor], clipped: bool, backend: str
) -> Callable[[], float]:
    """Return a function that runs once, with a bound that clips or does not, and gives the seconds."""

    def once() -> float:
        # Just below the norm, so that nothing has to be put back between the rounds.
        bound = 0.999 * gradient_stats(gradients).total_norm().item() if clipped else float("inf")
        with forced(backend):
            started = time.perf_counter()
            run(bound)
            return time.perf_counter() - started

    return once


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """Return a function that runs once and gives the seconds."""

    def once() -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    return once


def compare(parameters: Sequence[Tensor], library: ctypes.CDLL | None, rounds: int) -> dict[str, Any]:
    """Return each arm over the floor, and over torch's clip of the same kind."""
    gradients = gradients_of(parameters)
    every = {
        "floor": timed(floor_arm(gradients, library)),
        "rewrite": timed(floor_arm(gradients, library, writes=True)),
        "questions": timed(lambda: ask(parameters)),
        **arms(parameters),
    }
    counted = interleave(every, rounds)
    over_peer = {
        name: ratio(counted, name, "peer_clipped" if name.endswith("_clipped") else "peer_unclipped")
        for name in every
    }
    return {
        "floor_seconds": min(counted["floor"]),
        "over_floor": {name: ratio(counted, name, "floor") for name in every},
        "over_peer": over_peer,
    }


def grow(sizes: Mapping[int, list[tuple[int, ...]]], rounds: int) -> dict[str, Any]:
    """Return the least seconds of an unclipped step of each size, for torch's clip and for the drop-in."""
    results = {}
    for size, shapes in sizes.items():
        every = arms(make(shapes))
        chosen = {
            name: every[name]
            for name in every
            if name == "peer_unclipped" or name.endswith("drop_in_unclipped")
        }
        counted = interleave(chosen, rounds)
        results[str(size)] = {name: min(seconds) for name, seconds in counted.items()}
    return results


def on_cuda(rounds: int) -> dict[str, Any] | str:
    """Return the ratios on a CUDA device to a copy's bandwidth and to torch's clip."""
    if not torch.cuda.is_available():
        return "not run: no CUDA device here"
    parameters = make(gpt2_shapes(), "cuda")
    gradients = gradients_of(parameters)
    flat = torch.cat([gradient.view(-1) for gradient in gradients])
    target = torch.empty_like(flat)
    functions = {
        "copy": lambda: target.copy_(flat),
        "peer_unclipped": lambda: torch_clip(parameters, 1e9),
        "stats": lambda: gradient_stats(gradients),
        "stats_absmax": lambda: gradient_stats(gradients, absmax=True),
        "drop_in_unclipped": lambda: clip.clip_grad_norm_(parameters, 1e9),
    }
    counted = interleave({name: on_device(run) for name, run in functions.items()}, rounds)
    # A copy reads and writes: half of its time is what reading takes.
    return {
        "over_half_copy": {name: 2 * ratio(counted, name, "copy")["median"] for name in functions},
        "over_peer": {name: ratio(counted, name, "peer_unclipped") for name in functions},
    }


def on_device(run: Callable[[], object]) -> Callable[[], float]:
    """Return a function that runs once without ever waiting, and gives the device's seconds."""

    def once() -> float:
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        began.record()
        run()
        ended.record()
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        return began.elapsed_time(ended) / 1e3

    return once


def main() -> None:
    """Measure and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--skip-largest", action="store_true", help="leave out the 1 GB and 2 GB of gradients"
    )
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        library = build_floor(folder)
        results: dict[str, Any] = {
            "floor": "compiled" if library else "torch.sum: no compiler",
            "gpt2": compare(make(gpt2_shapes()), library, chosen.rounds),
            "small": compare(make([(64,)] * 1000), library, 10 * chosen.rounds),
        }
    results["targets"] = judge(results)
    largest = 10**8 if chosen.skip_largest else max(BYTES)
    results["seconds_by_tensors_of_64"] = grow({n: [(64,)] * n for n in TENSORS}, chosen.rounds)
    results["seconds_by_bytes_in_16_tensors"] = grow(
        {size: [(size // 64,)] * 16 for size in BYTES if size <= largest}, max(3, chosen.rounds // 3)
    )
    results["cuda"] = on_cuda(chosen.rounds)
    keep("clip", results)
    for one in results["targets"]:
        verdict = (
            "holds" if one["holds"] else "missed" if one["possible_here"] else "below what is possible here"
        )
        print(
            f"{one['target']}: {one['found']:.3f}, least possible {one['least_possible_here']:.3f}: {verdict}"
        )


if __name__ == "__main__":
    main()
