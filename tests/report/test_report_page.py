"""The page without a browser: its structure, its policy, and what hostile input and huge input turn into."""

import base64
import hashlib
import json
import math
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from report import odd_reports, sample_report

from unitygain._types import Profile, Site, Skipped
from unitygain.report import Report
from unitygain.report._heat import heats
from unitygain.report._panels import charts
from unitygain.report._tables import tables

VOID = frozenset(["meta", "link", "br", "hr", "img", "input", "circle", "path", "rect", "line", "col"])
OPEN_ENDED = frozenset(("li", "td", "th", "tr"))
DRAWN = ("backward_gain", "forward_gain", "act_rms", "grad_rms", "gain_parts", "log_spectrum", "token_cosine")
DRAWN += (
    "effective_rank",
    "time_grad_rms",
    "update_ratio",
    "jacobian_sigma_max",
    "grad_exponents",
    "chain_gain",
    "phase_point",
)


class Outline(HTMLParser):
    """Every element with its attributes, and the text of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self.stack: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID and tag not in OPEN_ENDED:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in OPEN_ENDED:
            assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self.stack[-1:] == ["script"] else self.text).append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


PAGE = sample_report.make_report().to_html()
OUTLINE = Outline(PAGE)


def test_the_page_is_closed_and_has_its_parts() -> None:
    assert OUTLINE.stack == []
    assert [a["class"] for a in OUTLINE.named("section") if "class" in a] == ["hero error"]
    assert [a.get("id") for a in OUTLINE.named("section")] == [
        None,
        "findings",
        "charts",
        "tables",
        "skipped",
        None,
    ]
    figures = [a["id"] for a in OUTLINE.named("figure")]
    names = [
        "gain",
        "depth",
        "parts",
        "sigma",
        "spectrum",
        "chain",
        "phase",
        "rank",
        "time",
        "exponents",
        "update",
    ]
    assert figures == [f"chart-{name}" for name in names]
    assert len(OUTLINE.named("article")) == 4
    assert len(OUTLINE.named("canvas")) == 2
    assert OUTLINE.named("html") == [{"lang": "en"}]


def test_ids_are_unique_and_references_resolve() -> None:
    ids = [a["id"] for _, a in OUTLINE.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in OUTLINE.elements:
        for key in ("aria-labelledby", "href"):
            target = attributes.get(key) or ""
            if key == "aria-labelledby" or target.startswith("#"):
                assert not target or target.removeprefix("#") in ids


def test_the_policy_allows_this_script_alone() -> None:
    (policy,) = [
        a["content"] for a in OUTLINE.named("meta") if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    data, _, script = OUTLINE.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    for part in (
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ):
        assert part in policy
    assert json.loads(data)["items"].keys() == {
        "gain",
        "depth",
        "parts",
        "spectrum",
        "rank",
        "time",
        "update",
        "exponents",
        "sigma",
    }


def test_nothing_is_loaded_from_elsewhere() -> None:
    for tag, attributes in OUTLINE.elements:
        assert not [key for key in attributes if key.startswith("on")], tag
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attributes.get(key) or "#").startswith(("#", "data:,")), (tag, attributes)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", PAGE)


def test_a_typical_page_is_small() -> None:
    assert 60_000 < len(PAGE.encode()) < 150_000


def test_every_profile_is_in_a_table() -> None:
    report = sample_report.make_report()
    text = " ".join(OUTLINE.text)
    for name, profile in report.profiles.items():
        assert name in text
        assert profile.unit.split(" ")[0] in text
    drawn = tables(report.profiles)
    assert sum(len(table.profiles) for table in drawn) == len(report.profiles)
    assert all(len(row) == len(table.headings) for table in drawn for row in table.rows)


def packed_rows(page: Outline) -> list[list[list[str]]]:
    return json.loads(zlib.decompress(base64.b64decode(page.scripts[1])))


def test_the_packed_rows_are_those_of_the_tables() -> None:
    drawn = tables(sample_report.make_report().profiles)
    assert packed_rows(OUTLINE) == [[table.headings, *table.rows] for table in drawn]
    assert [a["data-table"] for a in OUTLINE.named("details") if "data-table" in a] == [
        str(k) for k in range(len(drawn))
    ]


def test_hostile_names_make_no_element() -> None:
    page = odd_reports.make_hostile_report().to_html()
    hostile = Outline(page)
    assert hostile.stack == []
    assert len(hostile.named("script")) == 3
    assert hostile.named("img") == []
    assert not [a for _, a in hostile.elements if any(key.startswith("on") for key in a)]
    text = "".join(hostile.text) + str(packed_rows(hostile))
    assert "</script><script>window.hacked=1</script>" in text
    assert "{{ 7 * 7 }}{% raw %}" in text
    assert "a" * 4001 not in page
    rows = json.dumps(packed_rows(hostile), ensure_ascii=False)
    for bad in ("\x1b", "\u202e", "\u2028", "\u200b", "\x07", "\ud800"):
        assert bad not in page
        assert bad not in rows
    assert "<" not in hostile.scripts[0] + hostile.scripts[1]
    json.loads(hostile.scripts[0])


def test_a_notebook_gets_a_sandboxed_frame() -> None:
    frame = Outline(odd_reports.make_hostile_report()._repr_html_())
    ((tag, attributes),) = frame.elements
    assert tag == "iframe"
    assert attributes["sandbox"] == "allow-scripts"
    assert attributes["srcdoc"] == odd_reports.make_hostile_report().to_html()


def test_values_that_are_not_numbers_are_marked_and_listed() -> None:
    page = odd_reports.make_broken_report().to_html()
    assert page.count('class="gap') >= 4
    assert "activation rms: 3 not finite (dashed lines): NaN at net.1, inf at net.2, -inf at net.5." in page
    assert "activation rms: 1 zero or below (marks on the axis): 0 at net.3." in page
    assert "4 of 6 sites hold zeros or values that are not finite; their cells are red." in page


def test_reports_without_findings_or_profiles_have_a_page() -> None:
    healthy = Outline(odd_reports.make_healthy_report().to_html())
    assert "No findings" in healthy.text
    assert len(healthy.named("figure")) == 1
    empty = Outline(Report({}, {}, (), (), math.nan).to_html())
    assert empty.named("figure") == []
    assert "unknown time" in " ".join(empty.text)


def huge(count: int) -> Report:
    sites = tuple(Site(f"net.{k}") for k in range(count))
    values = tuple(1e9 if k == 77_777 else 1.0 + 0.1 * math.sin(k) for k in range(count))
    names = ("act_rms", "grad_rms", "backward_gain", "update_ratio")
    profiles = {name: Profile(name, "", sites, values) for name in names}
    profiles["jacobian_sigma_max"] = Profile(
        "jacobian_sigma_max", "", sites, values, rows=tuple((v,) for v in values)
    )
    return Report({}, profiles, (), tuple(Skipped(f"m{k}", "why") for k in range(1000)), 1.0)


def test_a_hundred_thousand_sites_are_thinned_and_it_is_said() -> None:
    page = huge(100_000).to_html()
    assert len(page) < 600_000
    assert re.search(r"[\d,]+ of 100,000 places are drawn", page)
    assert "of 100,000 sites are listed" in page
    assert "and 800 more in the JSON report" in page
    assert "net.77777" in page
    assert any("net.77777" in row for table in packed_rows(Outline(page)) for row in table)


@st.composite
def odd_profiles(draw: st.DrawFn) -> dict[str, Profile]:
    """Profiles under the names that are drawn, of any length and any value."""
    found = {}
    for name in draw(st.lists(st.sampled_from(DRAWN), max_size=4, unique=True)):
        count = draw(st.integers(0, 5))
        sites = tuple(Site(f"b.{k}", time=k if "time" in name else None) for k in range(count))
        values = draw(st.tuples(*[st.floats()] * count))
        rows = draw(
            st.just(()) | st.tuples(*[st.lists(st.floats(), min_size=1, max_size=3).map(tuple)] * count)
        )
        columns = draw(st.just(()) | st.just(("weights", "skip")))
        found[name] = Profile(name, "", sites, values, rows=rows, columns=columns)
    return found


@settings(max_examples=150, deadline=None)
@given(odd_profiles())
def test_odd_values_can_be_drawn(profiles: dict[str, Profile]) -> None:
    outline = Outline(Report({}, profiles, (), (), 0.0).to_html())
    assert outline.stack == []
    assert len(outline.named("figure")) >= len(charts(profiles)) + len(heats(profiles))
    for attributes in outline.named("path"):
        assert not re.search("nan|inf", attributes.get("d") or "")


def test_reading_and_drawing_need_no_torch() -> None:
    code = (
        "import sys; from unitygain.report import Report; "
        "r = Report({}, {}, (), (), 0.0); str(r); r.to_html(); Report.from_json(r.to_json()); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("blocks", [1, 2, 100])
def test_any_depth_has_a_page(blocks: int) -> None:
    assert Outline(sample_report.make_report(blocks).to_html()).stack == []
