"""The words of the library as frozen values: where (Site), what (Profile, Frame), judged (Finding, Event)."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Severity = Literal["info", "warning", "error"]
Status = Literal["confirmed", "refuted", "not tested"]

# How the reason begins where a rule was given nothing to judge.
NOT_JUDGED = "not judged: "
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")
_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """A named place in a model.

    Args:
        path: Dotted module path, or a parameter's dotted name; the model itself is ``""``.
        call: Which call of a module that runs several times in one forward pass; 1 is the first,
            0 says that the module runs once.
        leaf: Which tensor of an output that holds several, such as ``[1][0]`` or ``.hidden``; the
            first floating tensor is ``""``.
        time: Time step for a quantity that is resolved in time.

    Example:
        >>> str(Site("encoder.layers.3", call=2, time=7))
        'encoder.layers.3#2@7'
    """

    path: str
    call: int = 0
    leaf: str = ""
    time: int | None = None

    def __str__(self) -> str:
        name = self.path or "(model)"
        call = f"#{self.call}" if self.call else ""
        time = "" if self.time is None else f"@{self.time}"
        return f"{name}{call}{self.leaf}{time}"


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was not observed, and why: silence is a bug."""

    what: str
    reason: str


@dataclass(frozen=True)
class Profile:
    """One quantity over sites, in forward order.

    Args:
        name: The quantity, ``<signal>_<statistic>``.
        unit: What over what, such as ``"rms dL/d(block input) over rms dL/d(block output)"``.
        sites: Where, in forward order.
        values: One number per site; NaN and infinity are values, a site not observed is absent.
        error: Standard error per site, where the value is an estimate.
        expected: What theory predicts per site, if it does.
        interval: Range per site in which the value is expected to lie.
        p_value: Chance per site of a value at least this far from ``expected``.
        columns: Labels of the columns of ``rows``.
        rows: Further numbers per site (all singular values, a histogram), whose head is ``values``.
        labels: A word per site (module type, dtype, ...).
        facts: Scalars that belong to the profile as a whole (slope, interval, depth, ...).
        note: A sentence on how it was measured or where it stops holding.

    Raises:
        ValueError: If a per-site field does not have one entry per site.
    """

    name: str
    unit: str
    sites: tuple[Site, ...]
    values: tuple[float, ...]
    error: tuple[float, ...] | None = None
    expected: tuple[float, ...] | None = None
    interval: tuple[tuple[float, float], ...] | None = None
    p_value: tuple[float, ...] | None = None
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[float, ...], ...] = ()
    labels: tuple[str, ...] = ()
    facts: Mapping[str, float | str] = field(default_factory=lambda: _EMPTY)
    note: str = ""

    def __post_init__(self) -> None:
        count = len(self.sites)
        for name in ("values", "error", "expected", "interval", "p_value", "rows", "labels"):
            entries = getattr(self, name)
            if entries and len(entries) != count:
                raise ValueError(
                    f"profile {self.name!r}: {name} has {len(entries)} entries for {count} sites; "
                    "give one per site"
                )

    def __len__(self) -> int:
        return len(self.sites)

    def items(self) -> Iterator[tuple[Site, float]]:
        """Yield (site, value) in forward order."""
        return zip(self.sites, self.values, strict=True)

    def at(self, site: Site) -> float:
        """Return the value at `site`; KeyError with the profile's name if it was not observed there."""
        for here, value in self.items():
            if here == site:
                return value
        raise KeyError(f"{self.name} was not observed at {site}")

    def finite(self) -> tuple[tuple[Site, float], ...]:
        """Return the (site, value) pairs whose value is a finite number."""
        return tuple((site, value) for site, value in self.items() if math.isfinite(value))


@dataclass(frozen=True)
class Cause:
    """A likely cause of a finding, with the experiment that can refute it.

    Args:
        text: The cause with its numbers, such as ``"weights: fan_in·var = 1/3 (PyTorch's default) ..."``.
        remedy: Name of the remedy that takes this cause alone away, where there is one.
        parameters: The remedy's arguments.
        predicted: Range in which the finding's value must lie once the cause is removed.
        status: Outcome of the removal: confirmed, refuted, or not tested.
        measured: The finding's value after the removal.
        note: Why it was not tested, or what else was seen.
    """

    text: str
    remedy: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    predicted: tuple[float, float] | None = None
    status: Status = "not tested"
    measured: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """A judgement, with all that is needed to dispute it.

    Args:
        code: Stable code, such as ``"UG101"``.
        name: Its short name, such as ``"vanishing-gradient"``.
        severity: ``info``, ``warning`` or ``error``.
        message: One sentence with the numbers in it.
        sites: Where, worst first.
        quantity: Name of the profile that was judged.
        fact: Key in that profile's ``facts`` that was judged; empty when it was the value at ``sites[0]``.
        value: The number that was judged.
        unit: Its unit.
        threshold: The number that it crossed.
        interval: Confidence interval of ``value``, if there is one.
        expected: What theory expects, if it does.
        p_value: Chance of such a value at random, if known.
        causes: Likely causes, likeliest first.
        evidence: Further numbers, by name.
        fix: Code to paste, for the first cause.
    """

    code: str
    name: str
    severity: Severity
    message: str
    sites: tuple[Site, ...]
    quantity: str
    value: float
    unit: str
    threshold: float
    fact: str = ""
    interval: tuple[float, float] | None = None
    expected: float | None = None
    p_value: float | None = None
    causes: tuple[Cause, ...] = ()
    evidence: Mapping[str, float | str] = field(default_factory=lambda: _EMPTY)
    fix: str = ""

    def reread(self, profiles: Mapping[str, Profile]) -> float:
        """Return the judged number as it stands in other `profiles` of the same model.

        A change may have put the judged part into a module that now stands in its place: what is observed
        there, if it is one thing, is that part.

        Raises:
            KeyError: If the quantity was not measured there.
        """
        profile = profiles[self.quantity]
        if self.fact:
            return float(profile.facts[self.fact])
        site = self.sites[0]
        inside = [value for here, value in profile.items() if here.path.startswith(f"{site.path}.")]
        if site not in profile.sites and len(inside) == 1:
            return inside[0]
        return profile.at(site)


@dataclass(frozen=True, slots=True)
class Frame:
    """The numbers of one training step, by name.

    Args:
        step: Which step: the number of batches seen until then, this one included.
        values: Numbers by name, such as ``loss``, ``grad_norm``, ``loss_scale``; NaN and infinity are values,
            what was not read is absent.
    """

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Event:
    """What a detector says of one step, with the numbers that it judged.

    Args:
        name: The detector's name, such as ``"spike"``.
        severity: ``info``, ``warning`` or ``error``.
        step: The frame's step.
        quantity: Name of the number that was judged.
        value: The number.
        threshold: What it crossed.
        message: One sentence with the numbers in it.

    Example:
        >>> Event("nonfinite", "error", 7, "loss", math.nan, math.inf, "the loss is NaN").message
        'the loss is NaN'
    """

    name: str
    severity: Severity
    step: int
    quantity: str
    value: float
    threshold: float
    message: str
