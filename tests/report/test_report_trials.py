"""The trials in text, page and JSON: every number has its place, and what is not known leaves a gap."""

import dataclasses
import json
import math
import re

import pytest
from report import odd_reports, sample_trials

from unitygain._trial import VERDICTS, Trial, conclude
from unitygain.report import Report, render_text
from unitygain.report._before_after import before_after
from unitygain.report._trials import HEADS, rows_of

TREATED = sample_trials.make_treated_report()


def section(text: str) -> str:
    return text[text.index("\ntrials: ") + 1 : text.index("\nnot looked at")]


def test_a_stranger_reads_what_was_tried_at_100_columns() -> None:
    lines = section(render_text(TREATED, width=100)).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith(
        "trials: pre_norm works here: loss 2.12 instead of 2.91 after 120 steps (3 seeds"
    )
    text = "\n".join(lines)
    assert re.search(r"^ +loss +lower by \(95 %\) +gain/block +trunk dB +slope dB +step$", text, re.MULTILINE)
    assert "\n  verified   pre_norm()\n" in text
    assert re.search(
        r"^ +2\.12 +0\.79 \(0\.71 to 0\.87\) +0\.98 \(0\.99\) +−4\.2 \(−2\.1\) +−0\.2 +1x$", text, re.M
    )
    assert "3 seeds of 120 steps; changes architecture; backward_gain.gain_per_block 0.62 -> 0.98;" in text
    assert "\n  leads      scale_branch(sites=<24 patterns>, factor=0.144) + warm_up(steps=40)\n" in text
    assert "predicted 0.85..0.95; UG601 gone, UG101 left" in " ".join(text.split())
    assert "\n  not tried  swap_loss(variant='wgan')\n" in text
    assert "no variant 'wgan' (declared: none); give Case(variants=...)" in text
    assert re.search(r"^ +breaks +1x$", text, re.MULTILINE)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_sentences_keep_the_width(width: int) -> None:
    text = section(render_text(TREATED, width=width))
    sentences = [line for line in text.splitlines() if ";" in line]
    assert max(map(len, sentences)) <= width


def test_every_verdict_has_a_row_in_order() -> None:
    rows = rows_of(TREATED.trials, TREATED.profiles)
    assert [row.verdict for row in rows] == list(VERDICTS)
    assert len(rows[0].cells()) == len(HEADS)
    plain = TREATED.profiles["backward_gain"].facts
    assert rows[0].gain == f"{plain['gain_per_block']:.3g}"


def test_what_is_not_known_leaves_no_column() -> None:
    bare = Trial(("zero_biases",), ({},), (), "leads", 1.0, 0.5, None, 1, 10, 0.1)
    plain = Trial((), (), (), "untreated", 1.5, seeds=1, steps=10, seconds_per_step=0.1)
    text = str(Report({}, {}, (), (), 0.1, (plain, bare), "x"))
    assert "loss  lower by (95 %)  step" in text
    assert "gain/block" not in text


def test_the_page_holds_the_table_the_code_and_the_charts() -> None:
    page = TREATED.to_html()
    assert page.count('<th scope="row"><code>') == len(TREATED.trials)
    assert "Pre_norm works here: loss 2.12 instead of 2.91" in page
    assert "undo = ug.remedies.pre_norm(case)" in page
    assert 'id="chart-trial2"' in page
    assert 'id="chart-trial3"' in page
    assert 'id="chart-trial4"' not in page
    assert "The change moves or renames blocks: they are compared in their order." in page


def test_before_and_after_are_the_gains_of_both() -> None:
    charts = before_after(TREATED.trials, TREATED.profiles)
    assert list(charts) == [1, 2]
    before, after = charts[1].panels[0].series
    gains = TREATED.profiles["backward_gain"].values
    assert list(before.values) == [20 * math.log10(value) for value in gains]
    assert list(after.values) == pytest.approx([-0.175 + 0.0864 * (k % 3 - 1) for k in range(24)], abs=1e-3)
    assert [len(chart.panels) for chart in charts.values()] == [2, 2]
    fewer = dataclasses.replace(TREATED.trials[1], profiles=sample_trials.gains(10, 0.9, 0.9))
    (chart,) = before_after([fewer], TREATED.profiles).values()
    assert math.isnan(chart.panels[0].series[1].values[10])
    more = dataclasses.replace(TREATED.trials[1], profiles=sample_trials.gains(30, 0.9, 0.9))
    (chart,) = before_after([more], TREATED.profiles).values()
    assert (len(chart.names), chart.names[29]) == (30, "block 29")


def test_json_keeps_the_trials_and_reads_those_of_before() -> None:
    text = TREATED.to_json()
    back = Report.from_json(text)
    assert back.conclusion == TREATED.conclusion
    assert back.trials[1] == TREATED.trials[1]
    assert back.to_json() == text
    tree = json.loads(text)
    del tree["conclusion"]
    for trial in tree["trials"]:
        for name in ("changes", "first", "profiles"):
            del trial[name]
    older = Report.from_json(json.dumps(tree))
    assert older.conclusion == ""
    assert older.trials[1].profiles == {}
    assert math.isnan(older.trials[1].first)
    assert str(older)
    assert older.to_html()
    tree["trials"][1]["profiles"] = [1]
    with pytest.raises(ValueError, match=r"report\.trials\[1\]\.profiles is a list; expected an object"):
        Report.from_json(json.dumps(tree))


def hostile(text: str) -> Trial:
    gains = sample_trials.gains(3, 0.9, 0.9, text.replace("{", "").replace("}", ""))
    words = {"code": text, "note": text, "changes": text, "quantity": text}
    return Trial((text,), ({text: text},), (text,), "leads", 1.0, after=1.0, seeds=1, profiles=gains, **words)


def test_hostile_trials_stay_inert() -> None:
    trials = tuple(map(hostile, odd_reports.HOSTILE))
    whole = odd_reports.make_hostile_report()
    report = dataclasses.replace(whole, trials=trials, conclusion=odd_reports.HOSTILE[0])
    page = report.to_html()
    assert "<script>window.hacked" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in str(report)


PLAIN = Trial((), (), (), "untreated", 2.0, seeds=3, steps=60, first=2.3)


def told(*verdicts: str, plain: Trial = PLAIN, seeds: int = 3, cut: str = "") -> str:
    uneven = (-0.1, 0.3)
    treated = [Trial(("x",), ({},), ("UG101",), v, 1.9, 0.1, uneven, seeds, 60, note="why") for v in verdicts]  # type: ignore[arg-type]
    return conclude([plain, *treated], cut)


def test_what_came_of_it_is_said() -> None:
    assert told("verified", cut="too small").startswith("x works here: loss 1.9 instead of 2 after 60 steps")
    assert told("leads", cut="too small") == "too small"
    assert told("undecided", cut="too small") == "too small"
    assert told("leads", seeds=1) == "nothing is verified: x leads on 1 seed; a verdict takes 3 seeds"
    assert told("leads").endswith("x leads on 3 seeds; its gain is too uneven to exclude chance")
    assert told("failed", "not tried") == "no remedy could be tried: why"
    fine = "the plain model was fine: it trains (loss 2.3 -> 2 in 60 steps), and no remedy does better"
    assert told("no better", cut="too small") == fine
    stuck = dataclasses.replace(PLAIN, first=2.1)
    assert told("no better", "failed", plain=stuck).startswith(
        "no remedy helped: the untreated loss stays at 2,"
    )
    unasked = Trial(("x",), ({},), (), "verified", 1.9, 0.1, (0.08, 0.12), 3, 60)
    assert conclude([PLAIN, unasked]).startswith(
        "the plain model was fine: it trains (loss 2.3 -> 2 in 60 steps); x does better: loss 1.9"
    )
    much = dataclasses.replace(unasked, loss=1.6)
    assert conclude([PLAIN, much]).startswith("x works here: loss 1.6 instead of 2")
    broken = dataclasses.replace(PLAIN, loss=math.inf)
    assert "the untreated loss breaks" in told("no better", plain=broken)
