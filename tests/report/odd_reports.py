"""Reports at the edges: healthy, broken, hostile, huge."""

import math

from report.sample_report import make_report

from unitygain._types import Cause, Finding, Profile, Site, Skipped
from unitygain.report import Report

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    '"><img src=x onerror=window.hacked=1>',
    "\x1b[31mred\x1b[0m\x07\r\n",
    "a" * 10_000,
    "abc\u202egnp.exe\u2066\u200b",
    "[link=https://example.org]click[/link][/x]",
    "{{ 7 * 7 }}{% raw %}",
    "\ud800 lone",
    "line\u2028separator\u0085",
    "<!-- --> ]]> &lt; &amp;",
)


def make_healthy_report() -> Report:
    """Return a small report without findings."""
    sites = tuple(Site(f"net.{k}") for k in range(4))
    gain = Profile("backward_gain", "ratio", sites, (1.0, 0.98, 1.03, 1.01), facts={"gain_per_block": 1.005})
    return Report({"name": "healthy-mlp", "parameters": 4242}, {"backward_gain": gain}, (), (), 0.31)


def make_broken_report() -> Report:
    """Return a report whose gains hold NaN, infinity, zero and nothing."""
    sites = tuple(Site(f"net.{k}") for k in range(6))
    values = (1.0, math.nan, math.inf, 0.0, 0.5, -math.inf)
    profiles = {
        name: Profile(name, "ratio", sites, values)
        for name in ("forward_gain", "backward_gain", "act_rms", "grad_rms")
    }
    profiles["jacobian_sigma_max"] = Profile(
        "jacobian_sigma_max", "ratio", sites, values, rows=tuple((v, v) for v in values)
    )
    profiles["rms_gain"] = Profile("rms_gain", "ratio", (), ())
    return Report({"name": "broken"}, profiles, (), (), math.nan)


def make_hostile_report() -> Report:
    """Return a report in which every text is hostile."""
    report = make_report(len(HOSTILE))
    names = [Site(f"{text}.{k}") for k, text in enumerate(HOSTILE)]
    profiles = dict(report.profiles)
    for name in ("forward_gain", "backward_gain", "rms_gain", "jacobian_sigma_max", "gain_parts"):
        old = profiles[name]
        profiles[name] = Profile(
            name,
            HOSTILE[0],
            tuple(names),
            old.values,
            rows=old.rows,
            columns=old.columns,
            labels=HOSTILE,
            facts={HOSTILE[1]: HOSTILE[0], **old.facts},
            note=HOSTILE[1],
        )
    profiles[HOSTILE[0]] = Profile(HOSTILE[0], HOSTILE[1], tuple(names), profiles["rms_gain"].values)
    found = tuple(
        Finding(
            text,
            text,
            "error",
            text,
            tuple(names),
            text,
            1.0,
            text,
            1.0,
            text,
            causes=(Cause(text, text, {text: text}, note=text),),
            evidence={text: text},
            fix=text,
        )
        for text in HOSTILE
    )
    skipped = tuple(Skipped(text, text) for text in HOSTILE)
    return Report({text: text for text in HOSTILE} | {"name": HOSTILE[0]}, profiles, found, skipped, 1.0)
