"""The commands that read: a saved report, the tables, a rule's page. None of them needs torch."""

import json
import os

import pytest

from unitygain._registry import MEASURES, RULES, Rule
from unitygain._types import Profile, Site
from unitygain.cli import _catalogue
from unitygain.report import Report

GAIN = Profile("backward_gain", "ratio", (Site("a"), Site("b")), (0.5, float("nan")))
REPORT = Report({"name": "small \x1b[31m net"}, {"backward_gain": GAIN}, (), (), 0.2)
PAGE = "UG101: the gradient shrinks by the block.\n\nWhat it sees:\n    The slope.\n"


@pytest.fixture
def rules(monkeypatch):
    made = {
        code: Rule(code, name, "error", (), (), lambda profiles: (), PAGE)
        for code, name in (("UG101", "vanishing-gradient"), ("UG401", "vanishing-over-time"))
    }
    monkeypatch.setattr(_catalogue, "rules", lambda: made)
    return made


def test_report_is_printed(call, write):
    write("r.json", REPORT.to_json())
    answer = call("report", "r.json")
    assert answer.code == 0
    assert "small" in answer.out
    assert "\x1b" not in answer.out


def test_report_is_written_as_a_page(call, write, tmp_path):
    write("r.json", REPORT.to_json())
    answer = call("report", "r.json", "--html", "r.html")
    assert (answer.code, answer.out) == (0, "")
    assert (tmp_path / "r.html").read_text() == REPORT.to_html()


def test_report_missing(call, write):
    write("report.json", REPORT.to_json())
    answer = call("report", "repotr.json")
    assert answer.first == "error: no report at 'repotr.json'; did you mean 'report.json'?"
    assert answer.code == 3


def test_report_is_a_folder(call, tmp_path):
    answer = call("report", tmp_path)
    assert answer.code == 3
    assert answer.first.endswith("is not a file")


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"\x00" * 99, b"[]", b"{}", b"[" * 99_999, b'{"kind": 3}']
)
def test_not_our_file(call, tmp_path, content):
    (tmp_path / "r.json").write_bytes(content)
    answer = call("report", "r.json")
    assert answer.code == 3
    assert answer.first.startswith("error: r.json: this is not a unitygain report")


def test_report_of_a_newer_schema(call, write):
    tree = json.loads(REPORT.to_json())
    write("r.json", json.dumps(tree | {"schema": 99}))
    answer = call("report", "r.json")
    assert answer.code == 3
    assert "schema 99" in answer.first
    assert "upgrade" in answer.first


@pytest.mark.parametrize("key", ["case", "profiles", "findings", "skipped", "seconds"])
def test_damaged_report(call, write, key):
    tree = json.loads(REPORT.to_json())
    write("r.json", json.dumps(tree | {key: "x"}))
    answer = call("report", "r.json")
    assert answer.code == 3
    assert "damaged" in answer.first


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_report(call, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert call("report", "pipe").code == 3


def test_rules_are_listed(call, rules):
    answer = call("rules")
    assert answer.code == 0
    assert answer.out.splitlines()[0].split() == ["code", "name", "severity", "what", "it", "sees"]
    assert "UG101  vanishing-gradient" in answer.out
    assert "the gradient shrinks by the block." in answer.out


@pytest.mark.parametrize("word", ["UG101", "ug101", "vanishing-gradient"])
def test_a_rule_is_explained(call, rules, word):
    answer = call("explain", word)
    assert answer.code == 0
    head = "UG101 vanishing-gradient (error): the gradient shrinks by the block."
    assert answer.out == f"{head}\n\nWhat it sees:\n    The slope.\n"


@pytest.mark.parametrize(
    ("word", "guess"), [("UG110", "UG101"), ("UG40", "UG401"), ("vanishing-gradeint", "vanishing-gradient")]
)
def test_an_unknown_rule_has_a_guess(call, rules, word, guess):
    answer = call("explain", word)
    assert (answer.code, answer.first) == (2, f"error: no rule '{word}'; did you mean '{guess}'?")
    assert answer.fix == f"  fix: unitygain explain {guess}"


def test_the_table_of_measures_is_the_registry():
    import unitygain.measures  # noqa: F401 (importing the room fills the registry)

    ours = {name: m for name, m in MEASURES.items() if m.compute.__module__.startswith("unitygain.")}
    table = {entry.name: entry for entry in _catalogue.measures()}
    assert set(table) == set(ours)
    for name, measure in ours.items():
        entry = table[name]
        assert (entry.unit, entry.passes, entry.summary) == (measure.unit, measure.passes, measure.summary)


def test_every_rule_has_a_summary():
    for rule in _catalogue.rules().values():
        assert _catalogue.summary(rule) != rule.name, f"{rule.code} needs a first line that says what it sees"
    assert _catalogue.rules() == dict(sorted(RULES.items()))


def test_a_long_table_stays_within_its_width():
    rows = [("UG101", "a", " ".join(["word"] * 60)), ("UG102", "bcd", "short")]
    lines = _catalogue.table(("code", "name", "what"), rows, 60).splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[1].startswith("UG101  a     word")
    assert lines[2].startswith(" " * 13 + "word")
