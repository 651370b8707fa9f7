"""The compiled kernel: every bit pattern, any number of threads, a fork; and what happens without it."""

import ctypes
import importlib.util
import itertools
import logging
import math
import os
import platform
import shutil
import subprocess
import sys
import types
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from meta.tree import ROOT
from torch import Tensor

from unitygain.stats import backends, gradient_stats, native
from unitygain.stats.layouts import in_memory

COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
needs_kernel = pytest.mark.skipif(not native.LIBRARY.exists(), reason="the kernel was not built here")


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The build hook; hatchling itself is only there while pip builds."""
    interface = types.ModuleType("hatchling.builders.hooks.plugin.interface")
    vars(interface)["BuildHookInterface"] = object
    for name in itertools.accumulate(interface.__name__.split("."), "{}.{}".format):
        monkeypatch.setitem(sys.modules, name, interface)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An installation in which the kernel was not built."""
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "missing.so")
    native.load.cache_clear()
    backends.found_native.cache_clear()
    yield
    native.load.cache_clear()
    backends.found_native.cache_clear()


def read(tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
    memory = in_memory(tensors)
    assert memory is not None
    return native.reduce(memory)


@pytest.mark.skipif(os.environ.get("CI") != "true" or COMPILER is None, reason="asked for under CI alone")
def test_the_kernel_is_there_under_ci() -> None:
    native.load()


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_number_of_sixteen_bits(dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    singles = list(every.split(1))
    norms, tops = read(singles)
    expected = every.double().abs()
    torch.testing.assert_close(tops, expected, rtol=0.0, atol=0.0, equal_nan=True)
    torch.testing.assert_close(norms, expected, rtol=2**-52, atol=0.0, equal_nan=True)


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_number_of_threads_changes_no_bit(dtype: torch.dtype) -> None:
    tensors = [torch.randn(length).to(dtype) for length in (1, 65_535, 65_536, 65_537, 2_000_003, 0, 33)]
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            found.append(torch.stack(read(tensors)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)
    torch.testing.assert_close(
        found[0][0], torch.stack([t.double().norm() for t in tensors]), rtol=1e-13, atol=0.0
    )


@needs_kernel
def test_float64_beyond_its_squares() -> None:
    sizes = (5e-324, 3e-310, 1e-200, 1e-141, 1e140, 1e200, 1e308)
    tensors = [torch.full((4,), size, dtype=torch.float64) for size in sizes]
    tensors[-1] /= 2
    norms, tops = read(tensors)
    assert norms.tolist() == pytest.approx([2 * tensor[0].item() for tensor in tensors], rel=1e-15, abs=0.0)
    assert tops.tolist() == [tensor[0].item() for tensor in tensors]


@needs_kernel
def test_numbers_that_torch_was_told_to_flush_are_read() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush")
    try:
        norms, _ = read([torch.full((4,), 1e-40)])
        kept = torch.full((1,), 1e-40).mul_(1.0).item()
    finally:
        torch.set_flush_denormal(False)
    assert norms.item() == pytest.approx(2e-40, rel=1e-4)
    assert kept == 0.0, "the thread's own setting stays"


def multiplied(tensors: list[Tensor], factors: list[float]) -> list[Tensor]:
    """Copies of the tensors, multiplied by the kernel."""
    copies = [tensor.clone() for tensor in tensors]
    memory = in_memory(copies)
    assert memory is not None
    assert native.multiplies(memory)
    native.multiply(memory, array("d", factors))
    return copies


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_products_are_those_of_torch_bit_for_bit(dtype: torch.dtype, threads: int) -> None:
    lengths = (0, 1, 33, 65_535, 65_536, 65_537, 700_003)
    scales = (1.0, 1e-30, 1e30, 1e-38, 1.0, 1.0, 3e38)  # products that are subnormal, and infinite
    tensors = [torch.randn(n, dtype=dtype) * scale for n, scale in zip(lengths, scales, strict=True)]
    tensors[3][:3] = torch.tensor([math.inf, -0.0, math.nan])
    factors = [0.3, 0.7, 1.0, 1 / 3, 1.0, 0.0, 1.5]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = multiplied(tensors, factors)
    finally:
        torch.set_num_threads(before)
    for one, tensor, factor in zip(found, tensors, factors, strict=True):
        expected = tensor * torch.tensor(factor, dtype=dtype)
        assert one.numpy().tobytes() == expected.numpy().tobytes()


@needs_kernel
def test_torch_hears_of_what_the_kernel_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITYGAIN_STATS", "native")
    tensors = [torch.ones(3), torch.ones(3)]
    memory = in_memory(tensors)
    assert memory is not None
    versions = [tensor._version for tensor in tensors]
    assert backends.multiply(tensors, memory, [0.5, 1.0])
    assert [tensor._version - old for tensor, old in zip(tensors, versions, strict=True)] == [1, 0]
    weight = torch.ones(2, requires_grad=True)
    kept = weight.detach().clone()
    product = (weight * kept).sum()
    memory = in_memory([kept])
    assert memory is not None
    assert backends.multiply([kept], memory, [0.5])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@needs_kernel
@pytest.mark.parametrize("switch", ["native", "torch"])
def test_what_the_kernel_does_not_multiply_is_left_to_torch(
    monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    monkeypatch.setenv("UNITYGAIN_STATS", switch)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        tensors = [torch.ones(3, dtype=dtype)]
        memory = in_memory(tensors)
        assert memory is not None
        done = backends.multiply(tensors, memory, [0.5])
        assert done == (switch == "native" and dtype is torch.float32)
        assert tensors[0].tolist() == [0.5 if done else 1.0] * 3


@needs_kernel
def test_a_process_that_forks_goes_on_reading() -> None:
    code = (
        "import os, torch\n"
        "from unitygain.stats import gradient_stats\n"
        "tensor = torch.ones(4_000_000); torch.set_num_threads(4)\n"
        "print(gradient_stats([tensor]).norm.item(), flush=True)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    print(gradient_stats([tensor]).norm.item(), flush=True); os._exit(0)\n"
        "print(os.waitpid(child, 0)[1])"
    )
    environment = {**os.environ, "UNITYGAIN_STATS": "native"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["2000.0", "2000.0", "0"], done.stderr


def test_without_the_kernel_torch_reads_and_one_line_is_logged(
    no_kernel: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("UNITYGAIN_STATS", raising=False)
    with caplog.at_level(logging.INFO, "unitygain"):
        for _ in range(3):
            assert gradient_stats([torch.tensor([3.0, 4.0])]).norm.item() == 5.0
    (line,) = caplog.messages
    assert "read in torch" in line
    assert "not built" in line


def test_a_kernel_that_is_forced_and_missing_is_an_error(
    no_kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITYGAIN_STATS", "native")
    with pytest.raises(RuntimeError, match=r"UNITYGAIN_STATS=native, but .* not built .*; unset it"):
        gradient_stats([torch.ones(2)])


def test_an_unknown_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITYGAIN_STATS", "cuda")
    with pytest.raises(ValueError, match=r"UNITYGAIN_STATS=cuda .* native, torch or triton"):
        gradient_stats([torch.ones(2)])


@needs_kernel
def test_a_library_of_other_sources_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "INTERFACE", native.INTERFACE + 1)
    with pytest.raises(OSError, match="other sources; install unitygain again"):
        native.load.__wrapped__()


@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
@pytest.mark.parametrize("target", ["every", "one"])
def test_the_hook_builds_a_kernel_that_loads(build, tmp_path: Path, monkeypatch, target: str) -> None:
    monkeypatch.delenv("UNITYGAIN_STATS", raising=False)
    monkeypatch.delenv("CC", raising=False)
    if target == "one":
        monkeypatch.setattr(build, "TRIES", build.TRIES[1:])
    monkeypatch.setattr(native, "LIBRARY", build.compile_kernel(ROOT / build.SOURCE, tmp_path / "kernel.so"))
    native.load.cache_clear()
    tensor = torch.randn(70_001)
    norms, tops = read([tensor])
    native.load.cache_clear()
    assert norms.item() == pytest.approx(tensor.double().norm().item(), rel=1e-13)
    assert tops.item() == tensor.abs().max().item()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"CC": "false"}, "false failed: exit code 1"),
        ({"CC": "/no/such/compiler -m64"}, "did not run"),
        ({"CC": "", "PATH": "/nowhere"}, "no C compiler; install gcc or clang, or set CC"),
        ({"UNITYGAIN_STATS": "torch"}, "UNITYGAIN_STATS=torch"),
    ],
)
def test_a_build_that_fails_says_why_and_stops_nothing(
    build, tmp_path: Path, monkeypatch, settings, said
) -> None:
    monkeypatch.delenv("UNITYGAIN_STATS", raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert said in build.compile_kernel(ROOT / build.SOURCE, tmp_path / "kernel.so")


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_are_those_of_a_thread_that_flushes(dtype: torch.dtype) -> None:
    """Over several pieces, so that threads which the kernel starts multiply too."""
    small = torch.finfo(dtype).smallest_normal
    tensors = [torch.linspace(1, 1000, 300_000, dtype=dtype) * small]
    threads = torch.get_num_threads()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush")
    try:
        torch.set_num_threads(1)
        expected = tensors[0] * 2**-5
        torch.set_num_threads(2)
        (found,) = multiplied(tensors, [2**-5])
        kept = torch.full((1,), 2 * small, dtype=dtype).mul_(0.25).item()
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
    assert kept == 0.0, "the thread's own setting stays"
    assert torch.equal(found, expected)
    assert 0 < (found == 0).sum() < found.numel()


@needs_kernel
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the environment through glibc")
def test_the_floating_point_environment_stays() -> None:
    libm = ctypes.CDLL("libm.so.6")

    def environment() -> bytes:
        memory = ctypes.create_string_buffer(256)
        assert libm.fegetenv(memory) == 0
        return memory.raw

    downward = {"x86_64": 0x400, "aarch64": 0x800000}.get(platform.machine())
    if downward is None:
        pytest.skip("the name of a rounding direction is not known here")
    tensors = [torch.randn(200_000), torch.randn(5, dtype=torch.float64), torch.full((3,), 1e-40)]
    for direction in (0, downward):
        libm.fesetround(direction)
        try:
            before = environment()
            read(tensors)
            multiplied(tensors, [0.5, 1e-300, 0.5])
            after, kept = environment(), libm.fegetround()
        finally:
            libm.fesetround(0)
        assert kept == direction
        assert after == before
