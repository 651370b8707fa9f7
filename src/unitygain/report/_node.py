"""A place in untrusted JSON: every read checks the kind, and every refusal names the place."""

import math
from collections.abc import Callable
from typing import Any, cast

from unitygain.report._encode import DEPTH
from unitygain.report._show import show

_NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Node:
    """A place in untrusted JSON: every read checks the kind, and every refusal names the place."""

    __slots__ = ("above", "key", "value")

    def __init__(self, value: Any, key: str, above: "Node | None" = None) -> None:
        self.value = value
        self.key = key
        self.above = above

    @property
    def where(self) -> str:
        """The path from the top to here, put together only when it is needed."""
        keys = [self.key]
        above = self.above
        while above is not None:
            keys.append(above.key)
            above = above.above
        return "".join(reversed(keys))

    def wrong(self, expected: str) -> ValueError:
        """Return the error that says what stands here and what was expected."""
        kinds = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "nothing"}
        seen = kinds.get(type(self.value), "a number")
        return ValueError(
            f"this unitygain report is damaged: {show(self.where)} is {seen}; expected {expected}"
        )

    def at(self, key: str) -> "Node":
        """Return the field `key` (nothing if it is absent) of the object here."""
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        return Node(self.value.get(key), f".{key}", self)

    def items(self) -> list["Node"]:
        """Return the entries of the list here."""
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        return [Node(value, f"[{index}]", self) for index, value in enumerate(self.value)]

    def nodes(self, key: str) -> list["Node"]:
        """Return the entries of the list in field `key`; an absent list is empty."""
        node = self.at(key)
        return [] if node.value is None else node.items()

    def children(self, key: str) -> list[tuple[str, "Node"]]:
        """Return (name, entry) of the object in field `key`."""
        node = self.at(key)
        if not isinstance(node.value, dict):
            raise node.wrong("an object")
        return [(name, Node(value, f".{name}", node)) for name, value in node.value.items()]

    def text(self, key: str, default: str | None = None) -> str:
        """Return the text in field `key`, or `default` where it is absent and a default is given."""
        node = self.at(key)
        if node.value is None and default is not None:
            return default
        return node.as_text()

    def as_text(self) -> str:
        """Return the text here."""
        if not isinstance(self.value, str):
            raise self.wrong("text")
        return self.value

    def as_number(self) -> float:
        """Return the number here; the words NaN, Infinity and -Infinity are numbers."""
        if isinstance(self.value, str) and self.value in _NONFINITE:
            return _NONFINITE[self.value]
        if type(self.value) not in (int, float):
            raise self.wrong("a number")
        if type(self.value) is int and self.value.bit_length() > 1023:
            raise self.wrong("a number below 1e308")
        return cast("float", self.value)

    def as_index(self) -> int:
        """Return the whole number here."""
        if type(self.value) is not int:
            raise self.wrong("a whole number")
        return self.value

    def number(self, key: str) -> float:
        """Return the number in field `key`."""
        return self.at(key).as_number()

    def maybe(self, key: str, read: Callable[["Node"], Any]) -> Any:
        """Return `read` of field `key`, or None where it is absent."""
        node = self.at(key)
        return None if node.value is None else read(node)

    def plain_map(self, key: str) -> dict[str, Any]:
        """Return the mapping in field `key`; an absent one is empty."""
        node = self.at(key)
        return {} if node.value is None else node.as_plain_map()

    def as_plain_map(self) -> dict[str, Any]:
        """Return the mapping here."""
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        return {name: _unplain(Node(value, f".{name}", self), 0) for name, value in self.value.items()}


def _unplain(node: Node, depth: int) -> Any:
    if depth > DEPTH:
        raise node.wrong(f"at most {DEPTH} levels")
    if isinstance(node.value, list):
        return tuple(_unplain(item, depth + 1) for item in node.items())
    if not isinstance(node.value, dict):
        return node.value
    if "float" in node.value:
        return node.number("float")
    if "list" in node.value:
        return [_unplain(item, depth + 1) for item in node.nodes("list")]
    if "map" in node.value:
        return {name: _unplain(child, depth + 1) for name, child in node.children("map")}
    return f"<{node.text('object', 'unknown')}>"


def numbers_of(node: Node) -> tuple[float, ...]:
    """Return the numbers of the list at `node`."""
    if isinstance(node.value, list) and all(type(value) is float for value in node.value):
        return tuple(node.value)
    return tuple(item.as_number() for item in node.items())


def pair_of(node: Node) -> tuple[float, float]:
    """Return the two numbers at `node`."""
    low, *rest = numbers_of(node) or (math.nan,)
    if len(rest) != 1:
        raise node.wrong("two numbers")
    return low, rest[0]


def pairs_of(node: Node) -> tuple[tuple[float, float], ...]:
    """Return the pairs of numbers of the list at `node`."""
    return tuple(pair_of(item) for item in node.items())


def texts_of(node: Node) -> tuple[str, ...]:
    """Return the texts of the list at `node`."""
    return tuple(item.as_text() for item in node.items())
