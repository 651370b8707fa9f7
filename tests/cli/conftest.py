"""The command line called in this process, in an empty folder, with or without a real diagnosis behind it."""

import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import unitygain._diagnose
from unitygain._types import Finding, Profile, Site
from unitygain.cli._app import invoke
from unitygain.report import Report

MODEL = """
    import torch
    from torch import nn
    import unitygain as ug

    def make_case():
        return ug.Case(nn.Linear(4, 1), lambda model, x: model(x).square().mean(), [torch.ones(2, 4)])
"""


@dataclass
class Answer:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def first(self) -> str:
        """The first line of the error, after what was said on the way."""
        return next((line for line in self.err.splitlines() if line.startswith("error: ")), "(no error)")

    @property
    def fix(self) -> str:
        return next((line for line in self.err.splitlines() if line.startswith("  fix: ")), "(no fix)")


@dataclass
class StandIn:
    """A diagnosis that measures nothing: it notes what it was asked, and answers with `severities`."""

    asked: dict[str, Any] = field(default_factory=dict)
    severities: tuple[Any, ...] = ()
    raises: BaseException | None = None

    def __call__(self, case: Any, **settings: Any) -> Report:
        self.asked = settings | {"case": case}
        settings["progress"](1, 4, "act_rms")
        if self.raises is not None:
            raise self.raises
        gain = Profile("backward_gain", "ratio", (Site("fc"),), (0.4,))
        findings = tuple(
            Finding("UG101", "vanishing-gradient", s, "m", (Site("fc"),), "backward_gain", 0.4, "ratio", 1.0)
            for s in self.severities
        )
        return Report({"name": "Linear"}, {"backward_gain": gain}, findings, (), 0.1)


Call = Callable[..., Answer]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a file into the current folder."""

    def _write(name: str, text: str = MODEL) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return _write


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Call]:
    """Call the command line in an empty folder; what it imported there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(sys.modules)

    def _call(*argv: object) -> Answer:
        code = invoke([str(word) for word in argv])
        return Answer(code, *capsys.readouterr())

    yield _call
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Replace the diagnosis."""
    double = StandIn()
    monkeypatch.setattr(unitygain._diagnose, "diagnose", double)
    return double
