"""The values of options: read from text, checked before anything heavy is imported."""

import re
from collections.abc import Collection

from unitygain.cli._faults import Fault, did_you_mean, plain, quote, usage

DTYPES = ("float32", "bfloat16", "float16", "float64")
DEVICES = ("cpu", "cuda", "cuda:0", "mps")
KINDS = ("cpu", "cuda", "mps", "xpu")
LEVELS = ("error", "warning", "never")
LARGEST_SEED = 2**63 - 1
SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def whole_number(option: str, text: str, *, least: int = 1, most: int = 2**31 - 1) -> int:
    """Return the integer in `text`.

    Raises:
        Fault: If it is none, or outside `least` .. `most`.
    """
    digits = text.strip()
    number = int(digits[:25]) if digits.isascii() and digits.isdigit() else least - 1
    if least <= number <= most:
        return number
    limit = f"<= {most}" if number > most else f">= {least}"
    raise usage(f"{option} must be an integer {limit}, got {quote(text)}")


def dtype_name(text: str | None) -> str | None:
    """Return the name of a dtype to measure in, or None where none was given.

    Raises:
        Fault: If it is not one of the four.
    """
    if text is None or text in DTYPES:
        return text
    raise usage(f"unknown dtype {quote(text)}; one of {', '.join(DTYPES)}")


def device_name(text: str | None) -> str | None:
    """Return the name of a device that is well formed; whether it is there is not looked at.

    Raises:
        Fault: If it names no kind of device.
    """
    if text is None:
        return None
    kind, colon, index = text.partition(":")
    if kind in KINDS and (not colon or (index.isascii() and index.isdigit() and len(index) < 4)):
        return text
    raise usage(f"unknown device {quote(text)}; one of {', '.join(DEVICES)}")


def available_device(name: str | None) -> str | None:
    """Return `name` if this torch has that device.

    Raises:
        Fault: If it has not.
    """
    if name is None:
        return None
    import torch

    kind, _, index = name.partition(":")
    module = getattr(torch, kind) if kind != "cpu" else None
    if module is not None and not module.is_available():
        known = {"cuda": "CUDA"}.get(kind, kind)
        raise Fault(
            f"{known} is not available (torch {plain(torch.__version__)})",
            name="E-DEVICE",
            fix="--device cpu, or a torch that was built for the device",
        )
    count = module.device_count() if module is not None else 1
    if index and int(index) >= count:
        raise Fault(f"no device {quote(name)}; this machine has {count} of that kind", name="E-DEVICE")
    return name


def codes(option: str, text: str | None, known: Collection[str]) -> tuple[str, ...]:
    """Return the rule codes in a list separated by commas.

    Raises:
        Fault: If one of them is not the code of a rule.
    """
    found = [part.strip().upper() for part in (text or "").split(",") if part.strip()]
    for code in found:
        if code not in known:
            raise usage(
                f"unknown code {quote(code)} in {option}{did_you_mean(code, known)}",
                fix="unitygain rules  lists the codes",
            )
    return tuple(dict.fromkeys(found))


def level(text: str) -> str:
    """Return a level of ``--fail-on``.

    Raises:
        Fault: If it is not one of the three.
    """
    if text in LEVELS:
        return text
    raise usage(f"unknown level {quote(text)} in --fail-on; one of {', '.join(LEVELS)}")


def duration(option: str, text: str) -> float:
    """Return the seconds in a text such as ``90``, ``90s``, ``2m`` or ``1.5h``.

    Raises:
        Fault: If it is no duration above 0.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text.strip())
    seconds = float(found[1]) * SECONDS[found[2]] if found and len(text) < 25 else 0.0
    if seconds > 0:
        return seconds
    raise usage(f"{option} must be a duration such as 60s, 2m or 1h, got {quote(text)}")
