"""The CUDA kernel, run on CPU tensors under Triton's interpreter; `make triton` installs Triton for it."""

import importlib.util
import math
import os
import subprocess
import sys

import pytest
import torch
from stats.twins import make, samples_of, twin_norm
from torch import Tensor

from unitygain.stats import gradient_stats

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") is not None
triton = pytest.mark.triton


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read with the Triton kernel."""
    if not INTERPRETED:
        if os.environ.get("CI") == "true" and sys.platform == "linux":
            pytest.fail("no Triton under TRITON_INTERPRET=1; run make triton", pytrace=False)
        pytest.skip("no Triton under TRITON_INTERPRET=1; run make triton")
    monkeypatch.setenv("UNITYGAIN_STATS", "triton")


def assert_read(tensors: list[Tensor]) -> None:
    found = gradient_stats(tensors, absmax=True)
    assert found.absmax is not None
    for tensor, norm, absmax in zip(tensors, found.norm.tolist(), found.absmax.tolist(), strict=True):
        length, scale = twin_norm(samples_of(tensor))
        assert norm == pytest.approx(length * scale, rel=1e-12, abs=0.0)
        assert absmax == max((abs(number) for number in samples_of(tensor)), default=0.0)


@triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_every_magnitude(forced: None, dtype: torch.dtype, place: float) -> None:
    lengths = (1, 31, 2047, 2048, 2049, 0, 5000)
    made = [make(dtype, (length,), "strided", place, place, 0.2, length) for length in lengths]
    assert_read([tensor for tensor in made if tensor is not None])


@triton
def test_pieces_and_mixed_dtypes(forced: None) -> None:
    lengths = (16_383, 16_384, 16_385, 40_000)
    tensors = [
        torch.randn(length).to(dtype) for length in lengths for dtype in (torch.float32, torch.bfloat16)
    ]
    assert_read([
        *tensors,
        torch.tensor([3e20, 4e20]),
        torch.zeros(0),
        torch.full((4,), 1e200, dtype=torch.float64),
    ])


@triton
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_not_finite(forced: None, bad: float, dtype: torch.dtype) -> None:
    tensor = torch.ones(20_000, dtype=dtype)
    tensor[17_000] = bad
    found = gradient_stats([torch.ones(3, dtype=dtype), tensor], absmax=True)
    assert found.finite.tolist() == [True, False]
    assert found.absmax is not None
    for row in (found.norm, found.absmax):
        assert row[1].isnan() if math.isnan(bad) else row[1] == math.inf


def test_without_triton_the_switch_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch; from unitygain.stats import gradient_stats; gradient_stats([torch.ones(2)])"
    )
    environment = {**os.environ, "UNITYGAIN_STATS": "triton", "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "UNITYGAIN_STATS=triton, but" in done.stderr
    assert "install triton" in done.stderr
