"""Whether a safetensors file is what its header says, read without torch and without trusting it."""

import json
import os
from pathlib import Path
from typing import Any

from unitygain.cli._faults import Fault, plain, quote

HEADER_CAP = 100 * 10**6
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64,
    "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


def check(path: Path) -> None:
    """Check that the tensors of the file at `path` fill it exactly.

    Raises:
        Fault: If the header is too large, no JSON, or disagrees with itself or with the file's size.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        declared = int.from_bytes(file.read(8), "little")
        if size < 8 or declared > size - 8 or declared > HEADER_CAP:
            raise _bad(path, f"declares a header of {bytes_of(declared)} in {bytes_of(size)}")
        header = _parse(path, file.read(declared))
    header.pop("__metadata__", None)
    spans = sorted(_span(path, name, entry) for name, entry in header.items())
    end = 0
    for first, last, name in spans:
        if first != end:
            raise _bad(path, f"has a gap or an overlap before {quote(name)}")
        end = last
    if end != size - 8 - declared:
        raise _bad(path, f"declares {bytes_of(end)} of tensors in {bytes_of(size - 8 - declared)}")


def bytes_of(count: int) -> str:
    """Return a number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.4g} {unit}"
        count = count / 1024  # type: ignore[assignment]
    raise AssertionError("unreachable")


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise _bad(path, "has a header that is not JSON") from None
    if not isinstance(header, dict):
        raise _bad(path, "has a header that is not a JSON object")
    return header


def _span(path: Path, name: str, entry: Any) -> tuple[int, int, str]:
    """Where a tensor lies, after its shape, dtype and place were found to agree."""
    try:
        bits, shape, (first, last) = BITS[entry["dtype"]], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise _bad(path, f"does not say dtype, shape and place of {quote(name)}") from None
    numbers = [first, last, *(shape if isinstance(shape, list) else [None])]
    if any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
        raise _bad(path, f"gives {quote(name)} a shape or place that is no whole number")
    needed = bits
    for n in shape:
        needed *= n
    if needed != 8 * (last - first):
        raise _bad(
            path, f"gives {quote(name)} {bytes_of(last - first)} for a shape of {bytes_of(needed // 8)}"
        )
    return first, last, name


def _bad(path: Path, what: str) -> Fault:
    return Fault(
        f"{plain(path.name)} {what}; refused",
        name="E-CHECKPOINT",
        why="the file is truncated or damaged, or was made to mislead",
        fix="fetch it again and compare its checksum",
    )
