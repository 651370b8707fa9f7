"""The tables of measures, rules, remedies and detectors, and the decorators that fill them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from unitygain._types import SEVERITIES, Finding, Profile, Severity

Judge = Callable[[Mapping[str, Profile]], Iterable[Finding]]


@dataclass(frozen=True)
class Measure:
    """A quantity: how it is computed, what it needs from the probe, what it costs.

    Args:
        name: The function's name, which is the profile's name.
        unit: Unit of the values.
        compute: ``(case, record) -> Profile``, or ``None`` where the quantity does not apply to the model.
        needs: What the probe has to reduce, as ``signal.statistic``; empty for an active measure.
        passes: Cost in backward-equivalents as words, such as ``"0"`` or ``"probes x blocks"``.
        active: Whether it runs the model again.
        summary: First line of the docstring.
    """

    name: str
    unit: str
    compute: Callable[..., Profile | None]
    needs: tuple[str, ...]
    passes: str
    active: bool
    summary: str


@dataclass(frozen=True)
class Rule:
    """A judgement: its code, the profiles that it reads, and its page (the docstring of its file)."""

    code: str
    name: str
    severity: Severity
    needs: tuple[str, ...]
    wants: tuple[str, ...]
    judge: Judge
    page: str
    static: tuple[str, ...] = ()


@dataclass(frozen=True)
class Remedy:
    """A reversible change to a Case.

    Args:
        name: The function's name.
        treats: Codes of the findings that it treats.
        apply: ``(case, **parameters) -> undo``.
        page: The docstring of its file.
        changes: What it changes, in a word or two, such as ``"initial weights"`` or ``"architecture"``.
        instead_of: Remedies that name a cause, for which this one is tried as well, with its defaults.
    """

    name: str
    treats: tuple[str, ...]
    apply: Callable[..., Callable[[], None]]
    page: str
    changes: str = ""
    instead_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Detector:
    """A streaming judgement: its name, the numbers of a frame that it reads, and the class that judges."""

    name: str
    needs: tuple[str, ...]
    make: type
    page: str


MEASURES: dict[str, Measure] = {}
RULES: dict[str, Rule] = {}
REMEDIES: dict[str, Remedy] = {}
DETECTORS: dict[str, Detector] = {}


def measure(*, unit: str, needs: tuple[str, ...] = (), passes: str = "0") -> Callable[[Any], Any]:
    """Register ``(case, record) -> Profile`` as a measure under the function's name.

    Args:
        unit: Unit of the values: what over what.
        needs: Statistics that the probe must reduce (``"grad.rms"``); a measure with none is active
            and runs the model itself.
        passes: Cost in backward-equivalents, in words.

    Raises:
        ValueError: If the name is taken.
    """

    def register(compute: Callable[..., Profile | None]) -> Callable[..., Profile | None]:
        name = compute.__name__
        if name in MEASURES:
            raise ValueError(f"a measure named {name!r} exists; choose another name")
        summary = (compute.__doc__ or "").strip().splitlines()[0] if compute.__doc__ else ""
        MEASURES[name] = Measure(name, unit, compute, needs, passes, not needs, summary)
        return compute

    return register


def rule(
    *,
    code: str,
    name: str,
    severity: Severity,
    needs: tuple[str, ...],
    wants: tuple[str, ...] = (),
    static: tuple[str, ...] = (),
) -> Callable[[Judge], Judge]:
    """Register ``profiles -> findings`` as a rule.

    Args:
        code: Stable code, never reused.
        name: Short name in kebab case.
        severity: The highest severity that it gives.
        needs: Profiles without which it does not run.
        wants: Profiles that it reads if they are there.
        static: Profiles from which alone it judges a model without weights, on the meta device.

    Raises:
        ValueError: If the code is taken or the severity unknown.
    """
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity!r} of {code} is unknown; use one of {', '.join(SEVERITIES)}")

    def register(judge: Judge) -> Judge:
        if code in RULES:
            raise ValueError(f"a rule with code {code} exists ({RULES[code].name}); codes are never reused")
        RULES[code] = Rule(code, name, severity, needs, wants, judge, _page(judge), static)
        return judge

    return register


def remedy(
    *, treats: tuple[str, ...], changes: str = "", instead_of: tuple[str, ...] = ()
) -> Callable[[Any], Any]:
    """Register ``(case, **parameters) -> undo`` as a remedy under the function's name.

    Args:
        treats: Codes of the findings that it treats.
        changes: What it changes, in a word or two: ``"initial weights"``, ``"architecture"``,
            ``"parametrisation"``, ``"optimizer"``, ``"gradient"``, ``"loss"``, ``"data"``, ``"precision"``.
        instead_of: Remedies by which causes are checked, in whose place this one is tried too, with its
            defaults: a removal shows that a cause is one, and these are what people would do about it. With
            its own name among them it is tried over the whole model where a cause names places.

    Raises:
        ValueError: If the name is taken.
    """

    def register(apply: Callable[..., Callable[[], None]]) -> Callable[..., Callable[[], None]]:
        name = apply.__name__
        if name in REMEDIES:
            raise ValueError(f"a remedy named {name!r} exists; choose another name")
        REMEDIES[name] = Remedy(name, treats, apply, _page(apply), changes, instead_of)
        return apply

    return register


def detector(*, name: str, needs: tuple[str, ...]) -> Callable[[type], type]:
    """Register a class as a detector; its objects need no argument.

    A detector has ``judge(frame) -> Event | None``, ``learn(frame)`` for frames that nobody complained of,
    ``state_dict()`` in plain Python values, and ``load_state_dict(state)``.

    Args:
        name: The name that its events carry.
        needs: Numbers of a frame that it reads, by default.

    Raises:
        ValueError: If the name is taken.
    """

    def register(make: type) -> type:
        if name in DETECTORS:
            raise ValueError(f"a detector named {name!r} exists; choose another name")
        DETECTORS[name] = Detector(name, needs, make, _page(make))
        return make

    return register


def _page(function: Callable[..., Any]) -> str:
    """The page of a rule, remedy or detector is the docstring of the file that holds it."""
    import sys

    return (sys.modules[function.__module__].__doc__ or "").strip()
