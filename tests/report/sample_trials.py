"""A made-up but realistic treatment: the sick transformer of the sample, and what was tried on it."""

import dataclasses
import math

from report.sample_report import make_report

from unitygain._trial import Trial, conclude
from unitygain._types import Profile, Site
from unitygain.report import Report

CODE = """import unitygain as ug

# Changes the case; undo() puts it back, bit for bit.
undo = ug.remedies.{name}(case)"""


def gains(blocks: int, each: float, theory: float, path: str = "encoder.layers.{}") -> dict[str, Profile]:
    """Return the profiles that a trial keeps."""
    sites = tuple(Site(path.format(k)) for k in range(blocks))

    def profile(name: str, value: float) -> Profile:
        slope = 20 * math.log10(value)
        facts = {"gain_per_block": value, "loop_db": slope * blocks, "slope_db": slope, "depth": blocks}
        facts |= {"predicted": blocks} if name == "predicted_gain" else {}
        return Profile(
            name, "ratio", sites, tuple(value * 1.01 ** (k % 3 - 1) for k in range(blocks)), facts=facts
        )

    return {
        "forward_gain": profile("forward_gain", 1.02),
        "backward_gain": profile("backward_gain", each),
        "predicted_gain": profile("predicted_gain", theory),
    }


def make_trials(blocks: int = 24) -> tuple[Trial, ...]:
    """Return one trial of every verdict."""
    untreated = Trial((), (), (), "untreated", 2.91, seeds=3, steps=120, seconds_per_step=0.2, first=4.61)
    sites = tuple(f"encoder.layers.{k}" for k in range(blocks))
    judged = {"quantity": "backward_gain.gain_per_block", "before": 0.62}
    return (
        untreated,
        Trial(
            ("pre_norm",),
            ({},),
            ("UG101",),
            "verified",
            2.12,
            0.79,
            (0.71, 0.87),
            3,
            120,
            0.21,
            **judged,
            after=0.98,
            cleared=("UG101",),
            code=CODE.format(name="pre_norm"),
            changes="architecture",
            first=4.62,
            profiles=gains(blocks, 0.98, 0.99, "encoder.layers.{}.block"),
        ),
        Trial(
            ("scale_branch", "warm_up"),
            ({"sites": sites, "factor": 0.144}, {"steps": 40}),
            ("UG101", "UG601"),
            "leads",
            2.7,
            0.21,
            (-0.1, 0.52),
            3,
            120,
            0.2,
            **judged,
            after=0.91,
            predicted=(0.85, 0.95),
            cleared=("UG601",),
            left=("UG101",),
            code=CODE.format(name="scale_branch"),
            changes="initial weights, optimizer",
            first=4.6,
            profiles=gains(blocks, 0.91, 0.9),
        ),
        Trial(("orthogonal_init",), ({},), ("UG101",), "undecided", math.nan, math.nan, note="set aside"),
        Trial(("clip_gradients",), ({},), ("UG101",), "no better", math.inf, -math.inf, None, 1, 40, 0.2),
        Trial(("lsuv",), ({},), ("UG101",), "failed", math.nan, math.nan, note="RuntimeError: half way"),
        Trial(
            ("swap_loss",),
            ({"variant": "wgan"},),
            ("UG704",),
            "not tried",
            math.nan,
            math.nan,
            note="no variant 'wgan' (declared: none); give Case(variants=...)",
            code=CODE.format(name="swap_loss"),
        ),
    )


def make_treated_report(blocks: int = 24) -> Report:
    """Return the sample report with its trials."""
    trials = make_trials(blocks)
    return dataclasses.replace(make_report(blocks), trials=trials, conclusion=conclude(trials))
