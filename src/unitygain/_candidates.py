"""Candidates: what is worth trying against the findings, chosen by their causes."""

import ast
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unitygain._registry import REMEDIES
from unitygain._types import Cause, Finding

# Causes of one finding that are tried, changes that are tried at most, and combinations of two.
CAUSES, MOST_ARMS, PAIRS = 2, 12, 2
Call = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Arm:
    """A change to be tried.

    Args:
        calls: (remedy, arguments) in order; none is the untreated case.
        findings: What it treats.
        causes: The removals by which the causes are checked that it goes at.
        predicted: Range in which the first finding's number lies afterwards, where this removes its cause.
    """

    calls: tuple[Call, ...] = ()
    findings: tuple[Finding, ...] = ()
    causes: frozenset[str] = frozenset()
    predicted: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """The remedies in a few words."""
        return " + ".join(name for name, _ in self.calls) or "untreated"

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes of the findings, each once."""
        return tuple(dict.fromkeys(finding.code for finding in self.findings))

    @property
    def changes(self) -> str:
        """What changes in the model, as the remedies declare it."""
        known = [REMEDIES[name].changes for name, _ in self.calls if name in REMEDIES]
        return ", ".join(dict.fromkeys(filter(None, known)))

    @property
    def code(self) -> str:
        """What to paste: it runs where ``case`` is the Case."""
        return paste(self.calls)

    def joined(self, other: "Arm") -> "Arm":
        """This change and another one after it."""
        calls = self.calls + other.calls
        # Neither prediction is one of both together.
        return Arm(calls, _both(self, other), self.causes | other.causes)


def choose_arms(
    findings: Sequence[Finding], also: Iterable[str | Call] = (), most: int = MOST_ARMS
) -> tuple[list[Arm], list[Arm]]:
    """Return what to try, each change once, and what is beyond the bound.

    For each of the likeliest causes of a finding: its removal, with the arguments that the cause gives, and
    the remedies that are registered in the place of that removal, with their defaults. First come the
    removals of first causes, then what people would do about them, then the second causes. A cause that its
    removal refuted is left out, and so are findings that are notes. A finding none of whose causes has a
    removal gets the remedies that treat its code and need no argument. A change that several findings name
    treats them all.

    Args:
        findings: Of the diagnosis, most severe first.
        also: Further remedies, by name or as (name, arguments); they come first.
        most: How many at most, those of `also` not counted.

    Raises:
        ValueError: If no remedy has the name of one in `also`.
    """
    grave = [finding for finding in findings if finding.severity != "info"]
    asked = [_asked(entry, grave) for entry in also]
    found: list[tuple[tuple[int, int], Arm]] = [entry for finding in grave for entry in _of_finding(finding)]
    found.sort(key=lambda entry: entry[0])
    arms: dict[str, Arm] = {}
    for arm in (*asked, *(arm for _, arm in found)):
        known = arms.setdefault(_key(arm), arm)
        if known is not arm:
            causes = known.causes | arm.causes
            arms[_key(arm)] = replace(known, findings=_both(known, arm), causes=causes)
    listed = list(arms.values())
    bound = most + len({_key(arm) for arm in asked})
    return listed[:bound], listed[bound:]


def pairs_of(helped: Sequence[Arm]) -> list[Arm]:
    """Return combinations of two changes whose causes differ, of `helped` from the best to the worst."""
    apart = (
        one.joined(other)
        for one, other in itertools.combinations(helped, 2)
        if one.causes and other.causes and not one.causes & other.causes
    )
    return list(itertools.islice(apart, PAIRS))


def paste(calls: Sequence[Call]) -> str:
    """Return code that applies the remedies to ``case`` and keeps what undoes them.

    An argument that no code can spell, such as an array, is written as a variable of its name, and said.

    Example:
        >>> print(paste([("zero_biases", {"sites": ("0",)})]))
        import unitygain as ug
        <BLANKLINE>
        # Changes the case; undo() puts it back, bit for bit.
        undo = ug.remedies.zero_biases(case, sites=('0',))
    """
    if not calls:
        return ""
    imports = {"import unitygain as ug"}
    written: list[str] = []
    unspelt: dict[str, str] = {}
    for name, given in calls:
        home = REMEDIES[name].apply.__module__ if name in REMEDIES else "unitygain.remedies"
        ours = home.startswith("unitygain.remedies.") or home == "unitygain.remedies"
        imports |= set() if ours else {f"from {home} import {name}"}
        spelt = {key: _literal(value) for key, value in given.items()}
        unspelt |= {key: type(given[key]).__name__ for key, text in spelt.items() if text is None}
        arguments = "".join(f", {key}={key if text is None else text}" for key, text in spelt.items())
        written.append(f"{'ug.remedies.' if ours else ''}{name}(case{arguments})")
    wanted = [f"# {key} is the {kind} that the trial was given." for key, kind in unspelt.items()]
    head = "\n".join([*sorted(imports, reverse=True), *wanted])
    if len(written) == 1:
        return f"{head}\n\n# Changes the case; undo() puts it back, bit for bit.\nundo = {written[0]}"
    body = "\n".join(f"    {line}," for line in written)
    note = "# Each changes the case; undone in reverse order it is back, bit for bit."
    return f"{head}\n\n{note}\nundos = [\n{body}\n]"


def _literal(value: Any) -> str | None:
    """Return code that gives the value, or None where its repr is none."""
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else f'float("{value}")'
    try:
        ast.literal_eval(repr(value))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return repr(value)


def _both(one: Arm, other: Arm) -> tuple[Finding, ...]:
    """The findings of two arms, each once; findings have no hash."""
    return one.findings + tuple(finding for finding in other.findings if finding not in one.findings)


def _key(arm: Arm) -> str:
    return repr([(name, sorted(dict(given).items(), key=lambda item: item[0])) for name, given in arm.calls])


def _of_finding(finding: Finding) -> Iterator[tuple[tuple[int, int], Arm]]:
    """Yield ((rank of the cause, how indirect), arm)."""
    causes = [cause for cause in finding.causes if cause.remedy in REMEDIES]
    open_ones = [cause for cause in causes if cause.status != "refuted"][:CAUSES]
    for rank, cause in enumerate(open_ones):
        removal = str(cause.remedy)
        yield (rank, 0), Arm(_call(cause), (finding,), frozenset({removal}), cause.predicted)
        for name, entry in REMEDIES.items():
            if removal in entry.instead_of and finding.code in entry.treats:
                yield (rank, 1), Arm(((name, {}),), (finding,), frozenset({removal}))
    if not causes:
        for name, entry in REMEDIES.items():
            if finding.code in entry.treats and entry.instead_of:
                yield (CAUSES, 1), Arm(((name, {}),), (finding,), frozenset(entry.instead_of))


def _call(cause: Cause) -> tuple[Call, ...]:
    return ((str(cause.remedy), dict(cause.parameters)),)


def _asked(entry: str | Call, findings: Sequence[Finding]) -> Arm:
    name, given = (entry, {}) if isinstance(entry, str) else entry
    if name not in REMEDIES:
        raise ValueError(f"no remedy is named {name!r}; the names are {', '.join(sorted(REMEDIES))}")
    treated = tuple(finding for finding in findings if finding.code in REMEDIES[name].treats)
    causes = frozenset(REMEDIES[name].instead_of or (name,))
    return Arm(((name, dict(given)),), treated, causes)
