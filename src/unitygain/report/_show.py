"""Untrusted text and numbers on one visible line: names come from models, and models from strangers."""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from unitygain._types import Site

NAME_LIMIT = 120
TEXT_LIMIT = 1500
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def show(name: object, limit: int = NAME_LIMIT) -> str:
    r"""Return `name` as one visible line of at most `limit` characters.

    Control characters, invisible and bidirectional format characters, line separators and lone
    surrogates become escapes; what does not fit is counted.

    Args:
        name: A string; of anything else only the type is named, since its ``str`` may be unbounded.
        limit: Longest result, at least 24.

    Example:
        >>> show("fc\x1b[31m")
        'fc\\x1b[31m'
        >>> show("a" * 10_000, limit=24)
        'aaaaaaaaaaaaaaaaaa…+9982'
    """
    if not isinstance(name, str):
        return f"<{show(type(name).__name__)}>"
    return _visible(name, limit, "")


def show_text(text: object, limit: int = TEXT_LIMIT) -> str:
    """Return `text` with its line breaks kept and everything else as in `show`, bounded by `limit`."""
    if not isinstance(text, str):
        return show(text)
    return _visible(text, limit, "\n\t")


def _visible(text: str, limit: int, kept: str) -> str:
    pieces: list[str] = []
    used = 0
    for index, char in enumerate(text):
        piece = char if char in kept else _escape(char)
        if used + len(piece) > limit:
            return _cut(pieces, len(text), index, limit)
        pieces.append(piece)
        used += len(piece)
    return "".join(pieces)


def _cut(pieces: list[str], total: int, taken: int, limit: int) -> str:
    used = sum(map(len, pieces))
    while pieces and used + len(f"…+{total - taken}") > limit:
        used -= len(pieces.pop())
        taken -= 1
    return "".join(pieces) + f"…+{total - taken}"


def _escape(char: str) -> str:
    if char.isascii() and char.isprintable():
        return char
    if unicodedata.category(char) not in _HIDDEN:
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def probability(p: float, least: object = None) -> str:
    """Return a p-value, as a bound where it is `least`, the smallest that its draws can tell.

    Example:
        >>> probability(0.0312, 0.001), probability(0.001, 0.001), probability(0.001)
        ('0.0312', '< 0.001', '0.001')
    """
    bound = isinstance(least, (int, float)) and p <= least
    return f"< {number(p)}" if bound else number(p)


def number(value: object) -> str:
    """Return a number with up to four significant digits; text goes through `show`.

    What rounds to 1 without being 1 is written by its distance: a cosine of all but 1 is not one of 1.

    Example:
        >>> number(0.41234), number(5.1e-19), number(7100416), number(float("nan")), number(-0.5)
        ('0.4123', '5.1e-19', '7,100,416', 'NaN', '-0.5')
        >>> number(1.0), number(1 - 3.14e-6), number(1 + 2e-5), number(1 - 2**-50)
        ('1', '1-3.1e-6', '1+2e-5', '1-8.9e-16')
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return show(value)
    if isinstance(value, int):
        return f"{value:,}" if value.bit_length() < 64 else f"integer of {value.bit_length()} bits"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if 1e4 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        text = f"{value + 0.0:.4g}"
        return (
            text if text != "1" or value == 1 else f"1{'+' if value > 1 else '-'}{_power(abs(value - 1), 1)}"
        )
    return _power(value, 2)


def _power(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def power(exponent: int, root: int = 10) -> str:
    """Return a power of ten (or of another root) for an axis.

    Example:
        >>> power(-5), power(10, 2)
        ('10⁻⁵', '2¹⁰')
    """
    return str(root) + str(exponent).translate(_SUPERSCRIPT)


def decibel(ratio: float) -> float:
    """Return ``20·log10`` of a plain ratio: -inf for 0, NaN for a negative ratio or NaN."""
    if math.isnan(ratio) or ratio < 0:
        return math.nan
    return -math.inf if ratio == 0 else (20 * math.log10(ratio) if ratio < math.inf else math.inf)


def signed(value: float) -> str:
    """Return decibels with their sign and one decimal, with a true minus sign."""
    if not math.isfinite(value):
        return number(value).replace("-", "−")
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "−")


def places(sites: Sequence[Site], limit: int = 3) -> str:
    """Return where a finding is, in few words.

    Example:
        >>> places([Site(f"layers.{k}") for k in (2, 0, 1)])
        'layers.0..2'
        >>> places([Site("a"), Site("b"), Site("c"), Site("d"), Site("e")])
        'a, b, c and 2 more'
    """
    if not sites:
        return "the model"
    span = _span(sites)
    if span:
        return span
    named = ", ".join(show(str(site), 60) for site in sites[:limit])
    return named if len(sites) <= limit else f"{named} and {len(sites) - limit} more"


def _span(sites: Sequence[Site]) -> str:
    """``layers.0..23`` where the paths differ in one running number alone."""
    if len(sites) < 2 or any(s.call or s.leaf or s.time is not None for s in sites):
        return ""
    split = [_running(site.path) for site in sites]
    heads = {head for head, _, _ in split}
    numbers = sorted(count for _, count, _ in split)
    if len(heads) != 1 or len({tail for _, _, tail in split}) != 1 or numbers[0] < 0:
        return ""
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return ""
    head, _, tail = split[0]
    return f"{show(head, 60)}{numbers[0]}..{numbers[-1]}{show(tail, 60)}"


def _running(path: str) -> tuple[str, int, str]:
    parts = path.split(".")
    for at in range(len(parts) - 1, -1, -1):
        if parts[at].isascii() and parts[at].isdigit() and len(parts[at]) < 10:
            head = ".".join(parts[:at])
            tail = ".".join(parts[at + 1 :])
            return (head and head + "."), int(parts[at]), (tail and "." + tail)
    return path, -1, ""


def short_labels(sites: Iterable[Site], limit: int = 14) -> list[str]:
    """Return the sites' names without the dotted beginning and end that all of them share."""
    names = [str(site) for site in sites]
    parts = [name.split(".") for name in names]
    head = _shared(parts)
    tail = _shared([row[head:][::-1] for row in parts])
    kept = [".".join(row[head : len(row) - tail or None]) for row in parts]
    return [show(text or name, max(limit, 24)) for text, name in zip(kept, names, strict=True)]


def _shared(parts: list[list[Any]]) -> int:
    if len(parts) < 2:
        return 0
    count = 0
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return min(count, min(len(row) for row in parts) - 1)
