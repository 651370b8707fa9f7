"""The documents are there, their links lead somewhere, their code runs, what is generated is current."""

import doctest
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from meta.tree import ROOT

NEEDED = [
    *("README.md", "LICENSE", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *(
        "docs/architecture.md",
        "docs/limitations.md",
        "docs/log.md",
        "docs/measures.md",
        "docs/rules/README.md",
    ),
]
WRITTEN = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
EVERY = sorted([*WRITTEN, *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(
    r"(?P<unrun><!-- not run: [^>]+-->\n+)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


def name(path: Path) -> str:
    """Return the path of `path` as it stands in messages."""
    return path.relative_to(ROOT).as_posix()


# The README treats its patient, which takes a minute.
EXECUTED = [
    pytest.param(path, id=name(path), marks=pytest.mark.cure if path.name == "README.md" else [])
    for path in WRITTEN
    if BLOCK.search(path.read_text("utf-8"))
]


def load_generator() -> ModuleType:
    """Return docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", NEEDED)
def test_document_is_there_and_says_something(path):
    assert len((ROOT / path).read_text(encoding="utf-8").split()) > 20


def test_generated_pages_are_current():
    pages = load_generator().pages()
    stale = [
        name(path) for path, text in pages.items() if not path.is_file() or path.read_text("utf-8") != text
    ]
    assert not stale, "run make docs"
    for folder in ("rules", "remedies"):
        assert set((ROOT / "docs" / folder).glob("*.md")) <= set(pages), f"a page of {folder} is of nothing"


@pytest.mark.parametrize("path", EXECUTED)
def test_code_in_a_document_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = path.read_text(encoding="utf-8")
    shared: dict[str, object] = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        if block["unrun"] is None:
            first = text[: block.start("code")].count("\n")
            exec(compile("\n" * first + block["code"], str(path), "exec"), shared)


@pytest.mark.cure
@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "remedies").glob("[a-z]*.md")), ids=name)
def test_the_example_of_a_remedys_page_runs_by_itself(path):
    [example] = re.findall(r"^```pycon\n(.*?)^```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    parsed = doctest.DocTestParser().get_doctest(example, {"__name__": "__main__"}, path.stem, str(path), 0)
    assert doctest.DocTestRunner(verbose=False).run(parsed).failed == 0


@pytest.mark.parametrize("path", EVERY, ids=name)
def test_links_lead_somewhere(path):
    # In code m["critic"](x) is no link.
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
    assert not [target for target in targets if not (path.parent / target).exists()]


def test_changelog_names_the_version():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert version is not None
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{version[1]}]" in changes
    assert "## [Unreleased]" in changes


def test_log_is_dated_and_in_order():
    dates = re.findall(
        r"^## (\d{4}-\d\d-\d\d)", (ROOT / "docs" / "log.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert dates
    assert dates == sorted(dates), "the log is append-only: newest last"


def test_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
