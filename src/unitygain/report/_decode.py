"""A report from JSON: strict in what it reads, patient with fields that it does not know."""

import json
import math
from collections.abc import Callable
from typing import Any, cast

from unitygain._trial import VERDICTS, Trial, Verdict
from unitygain._types import SEVERITIES, Cause, Finding, Profile, Severity, Site, Skipped, Status
from unitygain.report._encode import DEPTH, KIND, SCHEMA
from unitygain.report._show import show

_STATUSES: tuple[Status, ...] = ("confirmed", "refuted", "not tested")
_NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def decode(text: str | bytes) -> dict[str, Any]:
    """Return the arguments of a Report from JSON text.

    Raises:
        ValueError: If the text is not JSON, not a report, damaged, or of a newer schema; one sentence.
    """
    try:
        tree = json.loads(text)
    except RecursionError:
        raise ValueError("this is not a unitygain report: its JSON is nested too deeply") from None
    except ValueError as problem:
        raise ValueError(f"this is not a unitygain report: not JSON ({show(str(problem))})") from None
    if not isinstance(tree, dict) or tree.get("kind") != KIND:
        raise ValueError(f'this is not a unitygain report: it has no "kind": "{KIND}"')
    schema = tree.get("schema")
    if type(schema) is not int or schema < 1:
        raise ValueError("this unitygain report is damaged: its schema number is missing")
    if schema > SCHEMA:
        raise ValueError(
            f"this report has schema {str(schema)[:20]}, this unitygain reads up to {SCHEMA}; upgrade it"
        )
    here = Node(tree, "report")
    return {
        "case": here.plain_map("case"),
        "profiles": {name: _to_profile(node) for name, node in here.children("profiles")},
        "findings": tuple(_to_finding(node) for node in here.nodes("findings")),
        "skipped": tuple(_to_skipped(node) for node in here.nodes("skipped")),
        "seconds": here.number("seconds"),
        "trials": tuple(_to_trial(node) for node in here.nodes("trials")),
    }


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


def _numbers(node: Node) -> tuple[float, ...]:
    if isinstance(node.value, list) and all(type(value) is float for value in node.value):
        return tuple(node.value)
    return tuple(item.as_number() for item in node.items())


def _pair(node: Node) -> tuple[float, float]:
    low, *rest = _numbers(node) or (math.nan,)
    if len(rest) != 1:
        raise node.wrong("two numbers")
    return low, rest[0]


def _pair_list(node: Node) -> tuple[tuple[float, float], ...]:
    return tuple(_pair(item) for item in node.items())


def _texts(node: Node) -> tuple[str, ...]:
    return tuple(item.as_text() for item in node.items())


def _to_site(node: Node) -> Site:
    match node.value:
        case [str(path), int(call), str(leaf), None] if type(call) is int:
            return Site(path, call, leaf)
    entries = node.items()
    if len(entries) < 4:
        raise node.wrong("[path, call, leaf, time]")
    path, call, leaf, time = entries[:4]
    step = None if time.value is None else time.as_index()
    return Site(path.as_text(), call.as_index(), leaf.as_text(), step)


def _to_sites(node: Node) -> tuple[Site, ...]:
    return tuple(_to_site(item) for item in node.items())


def _to_skipped(node: Node) -> Skipped:
    what, *rest = _texts(node) or ("",)
    if len(rest) != 1:
        raise node.wrong("[what, reason]")
    return Skipped(what, rest[0])


def _to_profile(node: Node) -> Profile:
    fields = {
        "sites": _to_sites(node.at("sites")),
        "values": _numbers(node.at("values")),
        "error": node.maybe("error", _numbers),
        "expected": node.maybe("expected", _numbers),
        "interval": node.maybe("interval", _pair_list),
        "p_value": node.maybe("p_value", _numbers),
        "columns": node.maybe("columns", _texts) or (),
        "rows": tuple(_numbers(row) for row in node.nodes("rows")),
        "labels": node.maybe("labels", _texts) or (),
        "facts": node.plain_map("facts"),
        "note": node.text("note", ""),
    }
    name, unit = node.text("name"), node.text("unit", "")
    try:
        return Profile(name=name, unit=unit, **fields)
    except ValueError:
        raise node.wrong("one entry per site in each of its lists") from None


def _to_cause(node: Node) -> Cause:
    status = node.text("status", "not tested")
    if status not in _STATUSES:
        raise node.at("status").wrong(f"one of {', '.join(_STATUSES)}")
    return Cause(
        text=node.text("text"),
        remedy=node.maybe("remedy", Node.as_text),
        parameters=node.plain_map("parameters"),
        predicted=node.maybe("predicted", _pair),
        status=cast("Status", status),
        measured=node.maybe("measured", Node.as_number),
        note=node.text("note", ""),
    )


def _to_finding(node: Node) -> Finding:
    severity = node.text("severity")
    if severity not in SEVERITIES:
        raise node.at("severity").wrong(f"one of {', '.join(SEVERITIES)}")
    return Finding(
        code=node.text("code"),
        name=node.text("name"),
        severity=cast("Severity", severity),
        message=node.text("message"),
        sites=_to_sites(node.at("sites")),
        quantity=node.text("quantity"),
        fact=node.text("fact", ""),
        value=node.number("value"),
        unit=node.text("unit", ""),
        threshold=node.number("threshold"),
        interval=node.maybe("interval", _pair),
        expected=node.maybe("expected", Node.as_number),
        p_value=node.maybe("p_value", Node.as_number),
        causes=tuple(_to_cause(item) for item in node.nodes("causes")),
        evidence=node.plain_map("evidence"),
        fix=node.text("fix", ""),
    )


def _to_trial(node: Node) -> Trial:
    verdict = node.text("verdict")
    if verdict not in VERDICTS:
        raise node.at("verdict").wrong(f"one of {', '.join(VERDICTS)}")
    return Trial(
        remedies=_texts(node.at("remedies")),
        parameters=tuple(item.as_plain_map() for item in node.nodes("parameters")),
        treats=_texts(node.at("treats")),
        verdict=cast("Verdict", verdict),
        loss=node.number("loss"),
        better=node.number("better"),
        interval=node.maybe("interval", _pair),
        seeds=node.at("seeds").as_index(),
        steps=node.at("steps").as_index(),
        seconds_per_step=node.number("seconds_per_step"),
        quantity=node.text("quantity", ""),
        before=node.number("before"),
        after=node.number("after"),
        predicted=node.maybe("predicted", _pair),
        cleared=node.maybe("cleared", _texts) or (),
        left=node.maybe("left", _texts) or (),
        code=node.text("code", ""),
        note=node.text("note", ""),
    )
