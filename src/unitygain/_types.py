"""The words of the library as frozen values: where (Site), what (Profile, Frame), judged (Finding, Event)."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal

Severity = Literal["info", "warning", "error"]
Verdict = Literal["verified", "leads", "no better", "undecided", "failed", "untreated"]
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

        Raises:
            KeyError: If the quantity was not measured there.
        """
        profile = profiles[self.quantity]
        return float(profile.facts[self.fact]) if self.fact else profile.at(self.sites[0])


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


@dataclass(frozen=True)
class Trial:
    """One change tried on copies of a case: measured again, trained for a short budget, compared.

    Args:
        remedies: Names of the remedies that were applied together, in order; empty for the untreated case.
        parameters: Their arguments, one mapping for each.
        treats: Codes of the findings whose causes they take away.
        verdict: ``verified`` (all seeds trained, and the interval of `better` excludes no change), ``leads``
            (better on every seed, too few of them or too uneven to exclude chance), ``no better``,
            ``undecided`` (the budget ended first), ``failed`` (see `note`), or ``untreated``.
        loss: Mean loss after the training, over the seeds, under the case's own loss; infinite if one broke.
        better: By how much that is below the untreated case's, on the same seeds.
        interval: 95 % interval of `better` over the seeds; None where one seed was trained.
        seeds: How many seeds were trained.
        steps: Steps of each training.
        seconds_per_step: Median over the seeds.
        quantity: Name of the number that was judged, and measured again on the changed model.
        before: It, before the change.
        after: It, after the change, before any training.
        predicted: Range in which theory put `after`.
        cleared: Codes that the diagnosis does not find any more.
        left: Codes that it still finds.
        code: What to paste.
        note: What else is to be known.
    """

    remedies: tuple[str, ...]
    parameters: tuple[Mapping[str, Any], ...]
    treats: tuple[str, ...]
    verdict: Verdict
    loss: float
    better: float = 0.0
    interval: tuple[float, float] | None = None
    seeds: int = 0
    steps: int = 0
    seconds_per_step: float = math.nan
    quantity: str = ""
    before: float = math.nan
    after: float = math.nan
    predicted: tuple[float, float] | None = None
    cleared: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    code: str = ""
    note: str = ""

    @property
    def name(self) -> str:
        """The remedies with their arguments as they are called, joined by ``+``; ``untreated`` for none."""
        calls = [
            f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})"
            for name, given in zip(self.remedies, self.parameters, strict=True)
        ]
        return " + ".join(calls) or "untreated"

    def apply(self, case: Any) -> Callable[[], None]:
        """Apply the remedies to `case` and return what undoes them all, in reverse order.

        Raises:
            ValueError: If a remedy is unknown here, as in a report from elsewhere, or cannot be applied; the
                case is then as it was.
        """
        # By name, and only here: a trial that was read from a file needs torch when it is applied.
        import_module("unitygain.remedies")
        known = import_module("unitygain._registry").REMEDIES
        undos: list[Callable[[], None]] = []
        try:
            for name, given in zip(self.remedies, self.parameters, strict=True):
                if name not in known:
                    raise ValueError(f"no remedy is named {name!r}; the names are {', '.join(sorted(known))}")
                undos.append(known[name].apply(case, **given))
        except BaseException:
            for undo in reversed(undos):
                undo()
            raise

        def undo_all() -> None:
            for undo in reversed(undos):
                undo()

        return undo_all
