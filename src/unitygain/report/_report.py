"""Report: what was measured and judged, ready to be read, saved and read back."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unitygain._trial import Trial
from unitygain._types import SEVERITIES, Finding, Profile, Severity, Skipped
from unitygain.report._decode import decode
from unitygain.report._encode import encode
from unitygain.report._show import show
from unitygain.report._write import replace_file

SUFFIXES = (".html", ".json", ".txt")


@dataclass(frozen=True)
class Report:
    """What a diagnosis found. Printing it gives text; a notebook shows the page; `save` writes a file.

    Args:
        case: What was diagnosed and how: name, parameters, batch, loss, seed, torch, dtype, device, ...
        profiles: Every quantity that was measured, by name.
        findings: The judgements, most severe first.
        skipped: What was not looked at, and why.
        seconds: Wall time of the diagnosis.
        trials: What was tried, the untreated case first, then best first; empty where nothing was.
        conclusion: What came of the trials, in a sentence; empty where there was no treatment.

    Example:
        >>> from unitygain._types import Profile, Site
        >>> gain = Profile("backward_gain", "ratio", (Site("a"), Site("b")), (0.5, 0.25))
        >>> report = Report({"name": "mlp"}, {"backward_gain": gain}, (), (), 0.2)
        >>> Report.from_json(report.to_json()) == report
        True
        >>> report
        <Report of mlp: no findings, 1 profile>
    """

    case: Mapping[str, str | float | int]
    profiles: Mapping[str, Profile]
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    seconds: float
    trials: tuple[Trial, ...] = ()
    conclusion: str = ""

    @property
    def best(self) -> Trial | None:
        """The best trial that is verified, or None."""
        return next((trial for trial in self.trials if trial.verdict == "verified"), None)

    @property
    def worst(self) -> Severity | None:
        """The highest severity among the findings, or None without findings."""
        found = {finding.severity for finding in self.findings}
        return next((severity for severity in reversed(SEVERITIES) if severity in found), None)

    def count(self) -> str:
        """Return the findings by severity in words, such as ``"2 errors, 1 warning"``."""
        counts = Counter(finding.severity for finding in self.findings)
        words: list[tuple[Severity, str]] = [("error", "error"), ("warning", "warning"), ("info", "note")]
        named = [f"{counts[s]} {word}{'s' * (counts[s] > 1)}" for s, word in words if counts[s]]
        return ", ".join(named) or "no findings"

    def to_json(self) -> str:
        """Return the report as JSON (schema 1); NaN and infinity are the words NaN and ±Infinity.

        Values of a remedy's parameters that JSON has no kind for keep only their type's name.
        """
        told = (self.findings, self.skipped, self.seconds, self.trials, self.conclusion)
        return encode(self.case, self.profiles, *told)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Report":
        """Return the report that `to_json` wrote. Fields that this version does not know are ignored.

        Raises:
            ValueError: If `text` is not a report, is damaged, or has a newer schema.
        """
        return cls(**decode(text))

    def to_html(self) -> str:
        """Return the report as one HTML page that needs no network."""
        from unitygain.report._page import render_page

        return render_page(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report to `path`: a page, JSON or text, by the suffix .html, .json or .txt.

        The file appears whole or not at all, and an older file stays as it was until then.

        Args:
            path: Where to write; an existing file is replaced.

        Returns:
            The path that was written.

        Raises:
            ValueError: If the suffix is another one.
            OSError: If the file cannot be written; the sentence says why, and that nothing was overwritten.
        """
        target = Path(path)
        suffix = target.suffix.lower()
        if suffix not in SUFFIXES:
            raise ValueError(f"cannot write {show(target.name)}: the name must end in {', '.join(SUFFIXES)}")
        text = {".html": self.to_html, ".json": self.to_json, ".txt": self.__str__}[suffix]()
        try:
            replace_file(Path(os.path.realpath(target)), text.encode("utf-8", "backslashreplace"))
        except (OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or "the path is not valid"
            kind = type(problem) if isinstance(problem, OSError) else OSError
            raise kind(f"cannot write {show(str(target))}: {reason} (nothing was overwritten)") from problem
        return target

    def __str__(self) -> str:
        from unitygain.report._text import render_text

        return render_text(self)

    def __repr__(self) -> str:
        count = len(self.profiles)
        name = show(self.case.get("name") or "a model", 60)
        return f"<Report of {name}: {self.count()}, {count} profile{'s' * (count != 1)}>"

    def _repr_html_(self) -> str:
        from unitygain.report._page import render_frame

        return render_frame(self)
