"""The report as text: what stands where, and hostile names that stay inert."""

import math
import re
import unicodedata
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given
from report import odd_reports, sample_report

from unitygain._types import Cause, Profile, Site
from unitygain.report import Report, render_text, show, show_text
from unitygain.report._show import number, places, short_labels
from unitygain.report._staging import bar, group, staging_lines

ANY = st.text(st.characters(exclude_categories=()), max_size=400)


def hidden(text: str) -> list[str]:
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def test_a_finding_reads_like_a_linter_line() -> None:
    text = str(sample_report.make_report())
    assert re.search(r"^UG101 error    vanishing-gradient  encoder\.layers\.0\.\.23$", text, re.MULTILINE)
    assert "(a) normalisation after the sum (Post-LN)" in text
    assert re.search(r"\[confirmed: 0\.6\d+ -> 1 predicted 0\.9\.\.1\.1\]", text)
    assert "[not tested; no remedy takes this cause alone away]" in text
    assert "  fix:\n    encoder = nn.TransformerEncoder(\n" in text
    assert "  why: unitygain explain UG101" in text
    assert text.endswith("1 error, 2 warnings, 1 note from 35 profiles in 12.3 s, 2 not looked at")


def test_severities_and_skips() -> None:
    report = sample_report.make_report(3)
    assert report.worst == "error"
    assert "conv_operator_norm: the model has no convolution" in str(report)
    assert odd_reports.make_healthy_report().worst is None
    assert str(odd_reports.make_healthy_report()).endswith("no findings from 1 profile in 0.3 s")
    warned = replace(report, findings=report.findings[1:])
    assert (warned.worst, warned.count()) == ("warning", "2 warnings, 1 note")


@pytest.mark.parametrize("width", [1, 60, 80, 200])
def test_lines_keep_the_width(width: int) -> None:
    report = sample_report.make_report()
    lines = render_text(report, width=width).splitlines()
    assert max(len(line) for line in lines if "TransformerEncoderLayer" not in line) <= max(width, 60)


def test_colour_adds_nothing_but_colour() -> None:
    report = odd_reports.make_hostile_report()
    colored = render_text(report, color=True)
    assert "\x1b[1;31m" in colored
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert [line.rstrip() for line in stripped.splitlines()] == render_text(report).splitlines()


def test_hostile_names_stay_inert() -> None:
    text = str(odd_reports.make_hostile_report())
    assert set(hidden(text)) == {"\n"}
    assert "a" * 2000 not in text.replace("\n", "")
    assert "\\u202e" in text
    assert "\\ud800" in text
    text.encode("utf-8")


@given(ANY, st.integers(24, 200))
def test_show_is_one_bounded_visible_line(name: str, limit: int) -> None:
    shown = show(name, limit)
    assert len(shown) <= limit
    assert not hidden(shown)
    if len(name) <= limit // 10:
        assert "…+" not in shown or "…+" in name


def test_show_counts_what_it_leaves_out() -> None:
    assert show("b" * 10_000) == "b" * 114 + "…+9886"
    assert len(show("\x00" * 10_000)) <= 120
    assert show("plain.name#2[0]@7") == "plain.name#2[0]@7"
    assert show("naïve.层") == "naïve.层"
    assert show(object()) == "<object>"
    assert show_text("a\nb\x07") == "a\nb\\x07"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (0.41234, "0.4123"),
        (65536.0, "65,536"),
        (1e8, "1e8"),
        (5.12e-19, "5.12e-19"),
        (float("-inf"), "-inf"),
        (True, "<bool>"),
        (3, "3"),
        (10**30, "integer of 100 bits"),
        ("x\n", "x\\x0a"),
    ],
)
def test_numbers(value: object, text: str) -> None:
    assert number(value) == text


def test_places_in_few_words() -> None:
    assert places(()) == "the model"
    assert places([Site("a.0.x"), Site("a.1.x"), Site("a.2.x")]) == "a.0..2.x"
    assert places([Site("a.0"), Site("a.2")]) == "a.0, a.2"
    assert places([Site("a.0"), Site("b.1")]) == "a.0, b.1"
    assert places([Site("a.0", call=1), Site("a.1", call=1)]) == "a.0#1, a.1#1"
    assert short_labels([Site("m.layers.0.f"), Site("m.layers.1.f")]) == ["0", "1"]
    assert short_labels([Site("m.x")]) == ["m.x"]
    assert short_labels([Site("a"), Site("a.b")]) == ["a", "a.b"]


def chain(gains: list[float]) -> Profile:
    return Profile("backward_gain", "", tuple(Site(f"b.{k}") for k in range(len(gains))), tuple(gains))


def test_the_chart_sums_from_the_loss() -> None:
    rows, size = group(chain([0.1, 1.0, 10.0, 0.1]), None)
    assert size == 1
    assert [round(row.back, 9) for row in rows] == [-20, 0, 20, -20]
    assert [round(row.total, 9) for row in rows] == [-20, 0, 0, -20]


@pytest.mark.parametrize(
    ("blocks", "size", "count"), [(24, 1, 24), (25, 2, 13), (600, 25, 24), (100_000, 4167, 24)]
)
def test_many_blocks_are_grouped_and_it_is_said(blocks: int, size: int, count: int) -> None:
    rows, each = group(chain([0.1] * blocks), None)
    assert (each, len(rows)) == (size, count)
    assert all(abs(row.back + 20) < 1e-9 for row in rows)
    text = "".join(piece for line in staging_lines(chain([0.1] * blocks), None, 100) for piece, _ in line)
    assert (f"{blocks} blocks, {size} to a row" in text) == (size > 1)


def test_bars() -> None:
    assert bar(-6.0, 4, 6.0) == ("████", "    ")
    assert bar(3.0, 4, 6.0) == ("    ", "██  ")
    assert bar(-0.75, 4, 6.0) == ("   ▐", "    ")
    assert bar(float("nan"), 4, 6.0)[0] == " NaN"
    assert bar(float("inf"), 4, 6.0)[1] == " >>>"
    assert bar(float("-inf"), 4, 6.0)[0] == "<<< "


def test_values_that_are_not_numbers_are_written_out() -> None:
    text = str(odd_reports.make_broken_report())
    assert len(re.findall(r"NaN", text)) >= 4
    assert ">>>" in text
    assert "<<<" in text
    assert "unknown time" in text


def test_a_cause_without_numbers_is_only_its_status() -> None:
    report = sample_report.make_report(2)
    finding = replace(report.findings[0], causes=(Cause("bare"),))
    assert "[not tested]" in str(Report({}, {}, (finding,), (), 0.0))


def test_an_empty_report_still_says_what_it_is() -> None:
    assert str(Report({}, {}, (), (), 0.0)) == "unitygain  a model\n\nno findings from 0 profiles in 0.0 s"


def test_theory_stands_beside_the_gain_and_says_whose_it_is() -> None:
    sites = tuple(Site(f"blocks.{k}") for k in range(3))
    gain = Profile("backward_gain", "", sites, (0.5, 1.0, 2.0))
    theory = Profile("predicted_gain", "", sites, (1.0, math.nan, 10.0))
    text = str(Report({}, {"backward_gain": gain, "predicted_gain": theory}, (), (), 1.0)).splitlines()
    (head,) = [line for line in text if line.endswith("theory")]
    rows = text[text.index(head) + 1 :][:4]
    assert [row.split()[-1] for row in rows[:3]] == ["0.0", "+6.0", "+20.0"]
    assert rows[3].startswith("  theory: what a random gradient would have")
