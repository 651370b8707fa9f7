"""JSON round trips: nothing that a report holds is lost, and nothing else is taken for one."""

import dataclasses
import enum
import json
import math
from collections.abc import Mapping
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from report import odd_reports, sample_report

from unitygain._trial import VERDICTS, Trial
from unitygain._types import SEVERITIES, Cause, Finding, Profile, Site, Skipped
from unitygain.report import Report

TEXT = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(odd_reports.HOSTILE)
FLOAT = st.floats() | st.integers(-(2**70), 2**70)
SITE = st.builds(Site, TEXT, st.integers(0, 9), TEXT, st.none() | st.integers(0, 9))
PLAIN = st.recursive(
    st.none() | st.booleans() | FLOAT | TEXT,
    lambda inner: (
        st.tuples(inner, inner) | st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2)
    ),
    max_leaves=4,
)
FACTS = st.dictionaries(TEXT, FLOAT | TEXT, max_size=3)
PAIR = st.tuples(FLOAT, FLOAT)


def per_site(element: st.SearchStrategy[Any], count: int) -> st.SearchStrategy[Any]:
    return st.tuples(*[element] * count)


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    count = draw(st.integers(0, 4))
    rows = st.lists(FLOAT, max_size=3).map(tuple)
    return Profile(
        name=draw(TEXT),
        unit=draw(TEXT),
        sites=draw(per_site(SITE, count)),
        values=draw(per_site(FLOAT, count)),
        error=draw(st.none() | per_site(FLOAT, count)),
        expected=draw(st.none() | per_site(FLOAT, count)),
        interval=draw(st.none() | per_site(PAIR, count)),
        p_value=draw(st.none() | per_site(FLOAT, count)),
        columns=draw(st.lists(TEXT, max_size=3).map(tuple)),
        rows=draw(st.just(()) | per_site(rows, count)),
        labels=draw(st.just(()) | per_site(TEXT, count)),
        facts=draw(FACTS),
        note=draw(TEXT),
    )


CAUSE = st.builds(
    Cause,
    TEXT,
    st.none() | TEXT,
    st.dictionaries(TEXT, PLAIN, max_size=2),
    st.none() | PAIR,
    st.sampled_from(("confirmed", "refuted", "not tested")),
    st.none() | FLOAT,
    TEXT,
)
FINDING = st.builds(
    Finding,
    TEXT,
    TEXT,
    st.sampled_from(SEVERITIES),
    TEXT,
    st.lists(SITE, max_size=2).map(tuple),
    TEXT,
    FLOAT,
    TEXT,
    FLOAT,
    TEXT,
    st.none() | PAIR,
    st.none() | FLOAT,
    st.none() | FLOAT,
    st.lists(CAUSE, max_size=2).map(tuple),
    FACTS,
    TEXT,
)
WORDS = st.lists(TEXT, max_size=2).map(tuple)


@st.composite
def trials(draw: st.DrawFn) -> Trial:
    remedies = draw(WORDS)
    return Trial(
        remedies=remedies,
        parameters=draw(per_site(st.dictionaries(TEXT, PLAIN, max_size=2), len(remedies))),
        treats=draw(WORDS),
        verdict=draw(st.sampled_from(VERDICTS)),
        loss=draw(FLOAT),
        better=draw(FLOAT),
        interval=draw(st.none() | PAIR),
        seeds=draw(st.integers(0, 9)),
        steps=draw(st.integers(0, 999)),
        seconds_per_step=draw(FLOAT),
        quantity=draw(TEXT),
        before=draw(FLOAT),
        after=draw(FLOAT),
        predicted=draw(st.none() | PAIR),
        cleared=draw(WORDS),
        left=draw(WORDS),
        code=draw(TEXT),
        note=draw(TEXT),
        changes=draw(TEXT),
        first=draw(FLOAT),
        profiles=draw(st.dictionaries(TEXT | st.just("backward_gain"), profiles(), max_size=2)),
    )


REPORT = st.builds(
    Report,
    FACTS,
    st.dictionaries(TEXT | st.just("backward_gain"), profiles(), max_size=2),
    st.lists(FINDING, max_size=2).map(tuple),
    st.lists(st.builds(Skipped, TEXT, TEXT), max_size=2).map(tuple),
    st.floats(),
    st.lists(trials(), max_size=2).map(tuple),
    TEXT,
)


def bare(value: Any) -> Any:
    """The value with kinds and NaN made comparable."""
    if dataclasses.is_dataclass(value):
        return (type(value), [bare(getattr(value, field.name)) for field in dataclasses.fields(value)])
    if isinstance(value, Mapping):
        return ("map", [(key, bare(item)) for key, item in value.items()])
    if isinstance(value, (list, tuple)):
        return (type(value), [bare(item) for item in value])
    return (type(value), "NaN" if isinstance(value, float) and math.isnan(value) else value)


@settings(max_examples=150, deadline=None)
@given(REPORT)
def test_round_trip_keeps_everything(report: Report) -> None:
    text = report.to_json()
    assert text.isascii()
    assert bare(Report.from_json(text)) == bare(report)


@settings(max_examples=60, deadline=None)
@given(REPORT)
def test_every_report_can_be_drawn(report: Report) -> None:
    assert str(report)
    assert report.to_html().endswith("</html>")


def test_is_strict_json_with_a_schema_number() -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    tree = json.loads(odd_reports.make_broken_report().to_json(), parse_constant=refuse)
    assert tree["schema"] == 1
    assert tree["profiles"]["act_rms"]["values"] == [1.0, "NaN", "Infinity", 0.0, 0.5, "-Infinity"]
    assert tree["profiles"]["act_rms"]["sites"][0] == ["net.0", 0, "", None]


def test_unknown_fields_are_ignored() -> None:
    report = sample_report.make_report(3)
    tree = json.loads(report.to_json())
    tree["later"] = {"x": 1}
    tree["findings"][0]["later"] = [1]
    tree["findings"][0]["causes"][0]["later"] = "x"
    tree["profiles"]["rms_gain"]["later"] = None
    tree["profiles"]["rms_gain"]["sites"][0].append("later")
    assert Report.from_json(json.dumps(tree)) == report


def test_numpy_numbers_are_numbers() -> None:
    profile = Profile(
        "x", "", (Site("a"),), (np.float32(0.5),), facts={"n": np.int64(7), "s": np.float64(0.25)}
    )
    back = Report.from_json(Report({}, {"x": profile}, (), (), 0.0).to_json())
    assert back.profiles["x"].values == (0.5,)
    assert dict(back.profiles["x"].facts) == {"n": 7, "s": 0.25}


class Trap:
    """Raises when anybody asks for its words or its items."""

    def __repr__(self) -> str:
        raise AssertionError("a foreign object was turned into text")

    __str__ = __repr__


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Trap(), "Trap"),
        (Colour.RED, "Colour"),
        ({1: 2}, "dict"),
        (tuple(range(10_001)), "tuple"),
        (b"x", "bytes"),
    ],
)
def test_foreign_objects_leave_only_their_type(value: object, kind: str) -> None:
    cause = Cause("x", "remedy", {"given": value})
    finding = dataclasses.replace(sample_report.make_report(2).findings[0], causes=(cause,))
    report = Report({}, {}, (finding,), (), 0.0)
    assert Report.from_json(report.to_json()).findings[0].causes[0].parameters["given"] == f"<{kind}>"
    assert "given" not in str(report)
    assert report.to_html()


def test_a_foreign_object_in_the_case_is_named_by_its_type() -> None:
    report = Report({"name": Trap(), "loss": Trap()}, {}, (), (), 0.0)  # type: ignore[dict-item]
    assert "<Trap>" in str(report)
    assert "&lt;Trap&gt;" in report.to_html()
    assert repr(report) == "<Report of <Trap>: no findings, 0 profiles>"


def damage(**change: Any) -> str:
    tree = json.loads(sample_report.make_report(2).to_json())
    for path, value in change.items():
        *parents, last = path.split("__")
        node = tree
        for parent in parents:
            node = node[int(parent) if parent.isdigit() else parent]
        node[int(last) if last.isdigit() else last] = value
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("PK\x03\x04\x00", "not JSON"),
        (b"\x7fELF\xff\xfe", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "not JSON"),
        ("[]", 'no "kind"'),
        ('{"kind": "a recipe"}', 'no "kind"'),
        (damage(schema=2), "has schema 2, this unitygain reads up to 1; upgrade"),
        (damage(schema="1"), "schema number is missing"),
        (damage(schema=True), "schema number is missing"),
        (damage(seconds="soon"), "report.seconds is text; expected a number"),
        (damage(profiles=[]), "report.profiles is a list; expected an object"),
        (damage(findings={}), "report.findings is an object; expected a list"),
        (
            damage(profiles__rms_gain__values__1=None),
            r"report.profiles.rms_gain.values\[1\] is nothing; expected a num",
        ),
        (damage(profiles__rms_gain__values=[1.0]), "rms_gain is an object; expected one entry per site"),
        (damage(profiles__rms_gain__values__0=10**400), "expected a number below 1e308"),
        (
            damage(profiles__rms_gain__sites__0=["x"]),
            r"sites\[0\] is a list; expected \[path, call, leaf, time\]",
        ),
        (
            damage(profiles__rms_gain__sites__0=["x", "y", "", 0]),
            r"sites\[0\]\[1\] is text; expected a whole number",
        ),
        (damage(findings__0__severity="fatal"), "severity is text; expected one of info, warning, error"),
        (damage(findings__0__causes__0__status="sure"), "expected one of confirmed, refuted, not tested"),
        (damage(findings__0__interval=[1.0]), "interval is a list; expected two numbers"),
        (damage(skipped__0=["x"]), r"skipped\[0\] is a list; expected \[what, reason\]"),
    ],
)
def test_what_is_not_a_report_is_refused_in_one_sentence(text: str | bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        Report.from_json(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_hostile_place_is_shown_inert() -> None:
    with pytest.raises(ValueError, match=r"profiles\.\\x1b\[31m") as caught:
        Report.from_json(damage(**{"profiles__\x1b[31m": {"name": 1, "sites": [], "values": []}}))
    assert "\x1b" not in str(caught.value)
