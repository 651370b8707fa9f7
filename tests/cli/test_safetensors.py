"""A safetensors file whose header and size disagree is refused before anything reads it."""

import json
from pathlib import Path

import pytest

from unitygain.cli._faults import Fault
from unitygain.cli._safetensors import HEADER_CAP, check

GOOD = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def file_of(tmp_path: Path, header: object, data: bytes = b"\0" * 24, declared: int | None = None) -> Path:
    """Write a safetensors file; `declared` is the header's length as the file gives it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes((len(text) if declared is None else declared).to_bytes(8, "little") + text + data)
    return path


def entry(**changes: object) -> dict:
    return {"w": GOOD["w"] | changes}


def test_what_is_right_passes(tmp_path):
    check(file_of(tmp_path, GOOD | {"__metadata__": {"format": "pt"}}))
    empty = {"none": {"dtype": "F16", "shape": [0, 3], "data_offsets": [24, 24]}}
    check(file_of(tmp_path, GOOD | empty))


def test_what_the_library_writes_passes(tmp_path):
    torch_files = pytest.importorskip("safetensors.torch")
    import torch

    tensors = {"a": torch.randn(3, 5), "b": torch.zeros(0), "c": torch.ones(7, dtype=torch.bfloat16)}
    torch_files.save_file(tensors, tmp_path / "model.safetensors")
    check(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        (GOOD, b"\0" * 20, "declares 24 bytes of tensors in 20 bytes"),
        (GOOD, b"\0" * 25, "declares 24 bytes of tensors in 25 bytes"),
        (
            entry(shape=[100, 1024, 1024], data_offsets=[0, 419430400]),
            b"\0" * 24,
            "declares 400 MiB of tensors in 24",
        ),
        (entry(shape=[2**40, 2**40]), b"\0" * 24, "gives 'w' 24 bytes for a shape of"),
        (entry(shape=[2, -3]), b"\0" * 24, "no whole number"),
        (entry(shape="2x3"), b"\0" * 24, "no whole number"),
        (entry(data_offsets=[0, True]), b"\0" * 24, "no whole number"),
        (entry(data_offsets=[0]), b"\0" * 24, "does not say dtype, shape and place of 'w'"),
        (entry(dtype="F33"), b"\0" * 24, "does not say dtype"),
        (entry(dtype=["F32"]), b"\0" * 24, "does not say dtype"),
        ({"w": 3}, b"", "does not say dtype"),
        (entry(data_offsets=[8, 32]), b"\0" * 32, "has a gap or an overlap before 'w'"),
        (GOOD | {"v": GOOD["w"]}, b"\0" * 24, "has a gap or an overlap before"),
        (b"{not json", b"", "has a header that is not JSON"),
        (b"[" * 90_000, b"", "has a header that is not JSON"),
        ([1], b"", "has a header that is not a JSON object"),
    ],
)
def test_what_disagrees_is_refused(tmp_path, header, data, said):
    with pytest.raises(Fault) as caught:
        check(file_of(tmp_path, header, data))
    assert said in caught.value.message
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("declared", [2**63, 10**6, HEADER_CAP + 1])
def test_header_longer_than_the_file(tmp_path, declared):
    with pytest.raises(Fault, match=r"^model\.safetensors declares a header of "):
        check(file_of(tmp_path, GOOD, declared=declared))


def test_header_above_the_cap_in_a_file_that_holds_it(tmp_path):
    path = file_of(tmp_path, GOOD, declared=HEADER_CAP + 1)
    with open(path, "r+b") as file:
        file.truncate(HEADER_CAP + 100)
    with pytest.raises(Fault, match=r"declares a header of 95\.37 MiB"):
        check(path)


@pytest.mark.parametrize("content", [b"", b"\0\0\0"])
def test_file_shorter_than_a_length(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(Fault, match="declares a header of"):
        check(tmp_path / "model.safetensors")
