"""A report from JSON: strict in what it reads, patient with fields that it does not know."""

import json
import math
from typing import Any, cast

from unitygain._trial import VERDICTS, Trial, Verdict
from unitygain._types import SEVERITIES, Cause, Finding, Profile, Severity, Site, Skipped, Status
from unitygain.report._encode import KIND, SCHEMA
from unitygain.report._node import Node, numbers_of, pair_of, pairs_of, texts_of
from unitygain.report._show import show

_STATUSES: tuple[Status, ...] = ("confirmed", "refuted", "not tested")


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
        "conclusion": here.text("conclusion", ""),
    }


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
    what, *rest = texts_of(node) or ("",)
    if len(rest) != 1:
        raise node.wrong("[what, reason]")
    return Skipped(what, rest[0])


def _to_profile(node: Node) -> Profile:
    fields = {
        "sites": _to_sites(node.at("sites")),
        "values": numbers_of(node.at("values")),
        "error": node.maybe("error", numbers_of),
        "expected": node.maybe("expected", numbers_of),
        "interval": node.maybe("interval", pairs_of),
        "p_value": node.maybe("p_value", numbers_of),
        "columns": node.maybe("columns", texts_of) or (),
        "rows": tuple(numbers_of(row) for row in node.nodes("rows")),
        "labels": node.maybe("labels", texts_of) or (),
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
        predicted=node.maybe("predicted", pair_of),
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
        interval=node.maybe("interval", pair_of),
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
        remedies=texts_of(node.at("remedies")),
        parameters=tuple(item.as_plain_map() for item in node.nodes("parameters")),
        treats=texts_of(node.at("treats")),
        verdict=cast("Verdict", verdict),
        loss=node.number("loss"),
        better=node.number("better"),
        interval=node.maybe("interval", pair_of),
        seeds=node.at("seeds").as_index(),
        steps=node.at("steps").as_index(),
        seconds_per_step=node.number("seconds_per_step"),
        quantity=node.text("quantity", ""),
        before=node.number("before"),
        after=node.number("after"),
        predicted=node.maybe("predicted", pair_of),
        cleared=node.maybe("cleared", texts_of) or (),
        left=node.maybe("left", texts_of) or (),
        code=node.text("code", ""),
        note=node.text("note", ""),
        changes=node.text("changes", ""),
        first=math.nan if node.at("first").value is None else node.number("first"),
        profiles=node.maybe("profiles", _to_profiles) or {},
    )


def _to_profiles(node: Node) -> dict[str, Profile]:
    assert node.above is not None
    return {name: _to_profile(item) for name, item in node.above.children("profiles")}
