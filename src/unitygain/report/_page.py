"""The report as one HTML page: no network, no script from names, and a policy that forbids both."""

from collections.abc import Iterator
from dataclasses import replace
from html import escape as escape_html
from typing import TYPE_CHECKING, Any

from unitygain._types import Finding, Profile, Severity
from unitygain.report import _show
from unitygain.report._assets import asset, digest, inert_json, shared, template
from unitygain.report._before_after import before_after
from unitygain.report._chart import Chart
from unitygain.report._heat import Heat, heats
from unitygain.report._panels import charts, three_numbers
from unitygain.report._phase import Still, phase
from unitygain.report._ruler import Ruler, ruler
from unitygain.report._show import number, places, probability, show, show_text, signed
from unitygain.report._svg import draw
from unitygain.report._tables import pack, tables
from unitygain.report._text import duration, letter, outcome, split_skipped, unseen
from unitygain.report._trials import HEADS, rows_of

if TYPE_CHECKING:
    from unitygain.report._report import Report

_WORDS: dict[Severity, str] = {"error": "error", "warning": "warning", "info": "note"}
_SITES = 40
_ORDER = (
    "gain", "depth", "parts", "sigma", "spectrum", "chain", "phase", "rank", "time", "exponents", "update",
)  # fmt: skip


def render_page(report: "Report") -> str:
    """Return the whole page."""
    drawn = charts(report.profiles)
    painted = heats(report.profiles)
    staged = before_after(report.trials, report.profiles)
    script = asset("report.js")
    data = shared({item.key: item.payload() for item in (*drawn, *painted, *staged.values())})
    listed = tables(report.profiles)
    return template("report.html.j2").render(
        style=asset("report.css"),
        script=script,
        script_hash=digest(script),
        data=inert_json(data),
        name=show(report.case.get("name") or "a model", 80),
        case=[(show(key, 40), number(value)) for key, value in report.case.items() if key != "name"],
        worst=report.worst or "fine",
        count=report.count(),
        verdict=_verdict(report),
        tiles=list(_tiles(report)),
        findings=[_finding(finding) for finding in report.findings],
        words=_WORDS,
        trials=rows_of(report.trials, report.profiles),
        trial_heads=HEADS,
        conclusion=show_text(report.conclusion),
        stagings=staged,
        figures=_figures(
            drawn, painted, ruler(three_numbers(report.profiles)), phase(report.profiles.get("phase_point"))
        ),
        draw=draw,
        tables=listed,
        rows=pack(listed),
        skipped=_skipped(report),
        unseen=", ".join(unseen(report.skipped)),
        seconds=duration(report.seconds),
        profiles=len(report.profiles),
    )


def render_frame(report: "Report") -> str:
    """Return the page inside a sandboxed frame, for a notebook: it cannot reach the notebook around it."""
    page = escape_html(render_page(report), quote=True)
    return (
        f'<iframe title="unitygain report" sandbox="allow-scripts" srcdoc="{page}" '
        'style="width:100%;height:720px;border:1px solid #8884;border-radius:8px"></iframe>'
    )


def _figures(
    drawn: list[Chart], painted: list[Heat], three: Ruler | None, still: Still | None
) -> list[tuple[str, Any]]:
    """What is drawn, in the page's order; the last of an odd number of half ones is widened."""
    figures: dict[str, tuple[str, Any]] = {chart.key: ("chart", chart) for chart in drawn} | {
        heat.key: ("heat", heat) for heat in painted
    }
    if three is not None:
        figures["chain"] = ("ruler", three)
    if still is not None:
        figures["phase"] = ("still", still)
    halves = [key for key, (_, item) in figures.items() if not getattr(item, "wide", False)]
    widened = next((key for key in reversed(_ORDER) if key in halves and figures[key][0] == "chart"), None)
    if len(halves) % 2 and widened is not None:
        figures[widened] = ("chart", replace(figures[widened][1], wide=True))
    return [figures[key] for key in _ORDER if key in figures]


def _verdict(report: "Report") -> tuple[str, str]:
    """The headline and the sentence under it."""
    if not report.findings:
        looked = f"{len(report.profiles)} profiles were judged, and no rule fired."
        return "No findings", looked
    first = report.findings[0]
    headline = show(first.name, 60).replace("-", " ")
    return headline[:1].upper() + headline[1:], show_text(first.message)


def _tiles(report: "Report") -> Iterator[tuple[str, str, str]]:
    """(name, number, detail) of the few numbers that say most."""
    for name, word in (("backward_gain", "Backward gain"), ("forward_gain", "Forward gain")):
        profile = report.profiles.get(name)
        if profile is None or "gain_per_block" not in profile.facts:
            continue
        yield f"{word} per block", _factor(profile.facts["gain_per_block"]), _slope(profile)
        if "loop_db" in profile.facts:
            blocks = number(profile.facts.get("depth", len(profile)))
            yield f"{word}, whole trunk", f"{_decibels(profile.facts['loop_db'])}", f"over {blocks} blocks"
    loss = report.profiles.get("loss_value")
    if loss is not None and len(loss):
        expected = loss.facts.get("expected")
        yield "Loss", number(loss.values[0]), "" if expected is None else f"chance level {number(expected)}"


def _decibels(value: float | str) -> str:
    return f"{signed(value)} dB" if isinstance(value, (int, float)) else show(value, 40)


def _slope(profile: Profile) -> str:
    facts = profile.facts
    if "slope_db" not in facts:
        return ""
    if "slope_db_low" not in facts or "slope_db_high" not in facts:
        return _decibels(facts["slope_db"])
    low, high = (_decibels(facts[key]).removesuffix(" dB") for key in ("slope_db_low", "slope_db_high"))
    return f"{_decibels(facts['slope_db'])} ({low} to {high})"


def _factor(value: float | str) -> str:
    """A plain ratio, with two decimals where they say enough."""
    if isinstance(value, (int, float)) and 0.1 <= value < 100:
        return f"{value:.2f}×"
    return f"{number(value)}×"


def _finding(finding: Finding) -> dict[str, Any]:
    """A finding as texts, each of them inert."""
    return {
        "code": show(finding.code, 24),
        "name": show(finding.name, 60),
        "severity": finding.severity,
        "message": show_text(finding.message),
        "places": places(finding.sites),
        "sites": [show(str(site)) for site in finding.sites[:_SITES]],
        "more": max(0, len(finding.sites) - _SITES),
        "evidence": list(_evidence(finding)),
        "causes": [
            {
                "letter": letter(index),
                "text": show_text(cause.text),
                "status": cause.status,
                "outcome": outcome(cause, finding.value)
                .removeprefix(cause.status)
                .removeprefix(": ")
                .replace("->", "→"),
                "note": show_text(cause.note, 400),
            }
            for index, cause in enumerate(finding.causes)
        ],
        "fix": _show.show_text(finding.fix, 4000),
    }


def _evidence(finding: Finding) -> Iterator[tuple[str, str]]:
    yield (
        show(finding.quantity, 60) + (f": {show(finding.fact, 60)}" if finding.fact else ""),
        number(finding.value),
    )
    if finding.interval:
        yield "interval", " to ".join(map(number, finding.interval))
    yield "threshold", number(finding.threshold)
    if finding.expected is not None:
        yield "expected", number(finding.expected)
    if finding.p_value is not None:
        yield "p-value", probability(finding.p_value, finding.evidence.get("p_least"))
    yield "unit", show(finding.unit)
    yield from ((show(key, 60), number(value)) for key, value in finding.evidence.items())


def _skipped(report: "Report") -> list[tuple[str, str]]:
    others, silent = split_skipped(report.skipped)
    listed = [(show(item.what), show_text(item.reason, 400)) for item in others]
    return [*listed, silent] if silent else listed
