"""Every profile as a table: profiles over the same sites share one, a column each."""

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from unitygain._types import Profile, Site
from unitygain.report._heat import FIRST_EXPONENT
from unitygain.report._panels import names_of
from unitygain.report._show import number, probability, show
from unitygain.report._thin import keep

ROWS = 300
_WIDEST = 16


@dataclass(frozen=True)
class Table:
    """One table: headings, rows of texts (the site first), the profiles in it, and what was left out."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    profiles: list["About"]
    sites: int
    note: str


@dataclass(frozen=True)
class About:
    """What stands beside a profile's column: its unit, its facts, its note."""

    name: str
    unit: str
    facts: list[tuple[str, str]]
    note: str


def tables(profiles: Mapping[str, Profile]) -> list[Table]:
    """Return one table for each set of sites, in the order in which they first appear."""
    groups: dict[tuple[Site, ...], list[Profile]] = {}
    for profile in profiles.values():
        groups.setdefault(profile.sites, []).append(profile)
    return [_table(sites, members) for sites, members in groups.items()]


def pack(drawn: Sequence[Table]) -> str:
    """Return the headings and rows of all tables as compressed JSON in base64, which holds no markup."""
    text = json.dumps([[table.headings, *table.rows] for table in drawn], separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _table(sites: tuple[Site, ...], members: list[Profile]) -> Table:
    kept = keep([profile.values for profile in members], len(sites), ROWS)
    names = names_of([sites[k] for k in kept])
    columns = [column for profile in _labelled(members) for column in _columns(profile, kept)]
    rows = [[name, *cells] for name, *cells in zip(names, *(cells for _, cells in columns), strict=True)]
    note = "" if len(kept) == len(sites) else (
        f"{len(kept)} of {len(sites):,} sites are listed: every stretch's smallest and largest values. "
        "The JSON report holds all of them."
    )  # fmt: skip
    title = ", ".join(show(profile.name, 60) for profile in members)
    about = [About(show(p.name), show(p.unit), _facts(p), show(p.note, 400)) for p in members]
    return Table(title, ["site", *(heading for heading, _ in columns)], rows, about, len(sites), note)


def _facts(profile: Profile) -> list[tuple[str, str]]:
    return [(show(key), number(value)) for key, value in profile.facts.items()]


def _labelled(members: list[Profile]) -> Iterator[Profile]:
    """The profiles, without labels that an earlier column already shows."""
    seen: set[tuple[str, ...]] = set()
    for profile in members:
        yield profile if profile.labels not in seen else _unlabelled(profile)
        seen.add(profile.labels)


def _unlabelled(profile: Profile) -> Profile:
    from dataclasses import replace

    return replace(profile, labels=())


def _columns(profile: Profile, kept: list[int]) -> Iterator[tuple[str, list[str]]]:
    name = show(profile.name, 60)
    if profile.labels:
        yield "label", [show(profile.labels[k], 40) for k in kept]
    if profile.name == "grad_exponents" and profile.rows:
        yield from _occupied(profile, kept)
        return
    if not _heads(profile):
        yield name, [number(profile.values[k]) for k in kept]
    for field, word in (("error", "± error"), ("expected", "expected")):
        entries = getattr(profile, field)
        if entries:
            yield f"{name}: {word}", [number(entries[k]) for k in kept]
    if profile.p_value:
        least = profile.facts.get("p_least")
        yield f"{name}: p", [probability(profile.p_value[k], least) for k in kept]
    if profile.interval:
        yield f"{name}: interval", [" .. ".join(map(number, profile.interval[k])) for k in kept]
    yield from _rest(profile, kept)


def _heads(profile: Profile) -> bool:
    """Whether the first column of `rows` is the values once more."""
    return bool(profile.rows) and all(
        row and row[0] == value for row, value in zip(profile.rows, profile.values, strict=True)
    )


def _rest(profile: Profile, kept: list[int]) -> Iterator[tuple[str, list[str]]]:
    """The columns of `rows`, up to sixteen."""
    width = max((len(row) for row in profile.rows), default=0)
    for column in range(min(width, _WIDEST)):
        heading = profile.columns[column] if column < len(profile.columns) else str(column + 1)
        more = f" (first {_WIDEST} of {width})" if column == 0 and width > _WIDEST else ""
        cells = [number(row[column]) if column < len(row) else "" for row in (profile.rows[k] for k in kept)]
        yield f"{show(profile.name, 30)}: {show(heading, 40)}{more}", cells


def _occupied(profile: Profile, kept: list[int]) -> Iterator[tuple[str, list[str]]]:
    """Where the entries of a gradient lie: a histogram's lowest, fullest and highest power of two."""
    used = [[k for k, count in enumerate(profile.rows[site]) if count > 0] for site in kept]
    fullest = [
        max(range(len(row)), key=row.__getitem__, default=0) for row in (profile.rows[k] for k in kept)
    ]
    for word, places in (
        ("lowest", [row[0] if row else None for row in used]),
        ("fullest", [at if row else None for at, row in zip(fullest, used, strict=True)]),
        ("highest", [row[-1] if row else None for row in used]),
    ):
        yield f"entries: {word}", ["" if at is None else f"2^{at + FIRST_EXPONENT}" for at in places]
