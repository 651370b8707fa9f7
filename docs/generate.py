"""Write docs/rules, docs/remedies and docs/measures.md from the docstrings of rules, remedies and measures.

Run ``make docs`` after a change to one of them; a test compares.
"""

import inspect
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import unitygain
from unitygain._registry import MEASURES, REMEDIES, RULES, Measure, Remedy, Rule

DOCS = Path(__file__).parent
HEADINGS = (
    "What it sees",
    "Why it matters",
    "When it is a false alarm",
    "Remedies",
    "References",
    "A firing example",
    "A silent example",
)
REMEDY_HEADINGS = ("What it changes", "Why it helps", "When it does not help", "What it costs", "References")
MADE = "<!-- Made by docs/generate.py from the docstrings; change those. -->\n"


def pages() -> dict[Path, str]:
    """Return the text of every generated page by its path."""
    assert unitygain.rules
    assert unitygain.measures
    assert unitygain.remedies
    rules = {DOCS / "rules" / f"{rule.code}.md": rule_page(rule) for rule in own_rules()}
    remedies = {DOCS / "remedies" / f"{r.name}.md": remedy_page(r) for r in own_remedies()}
    indices = {
        DOCS / "rules" / "README.md": rule_index(),
        DOCS / "remedies" / "README.md": remedy_index(),
        DOCS / "measures.md": measure_table(),
    }
    return rules | remedies | indices


def own_rules() -> list[Rule]:
    """Return the library's own rules by code; others may have been registered beside them."""
    return [rule for _, rule in sorted(RULES.items()) if rule.judge.__module__.startswith("unitygain.")]


def own_remedies() -> list[Remedy]:
    """Return the library's own remedies by name."""
    return [r for _, r in sorted(REMEDIES.items()) if r.apply.__module__.startswith("unitygain.")]


def split(page: str, headings: tuple[str, ...]) -> list[str]:
    """Return what stands before the first heading, then headings and their sections in turn."""
    return re.split(rf"^#* *({'|'.join(headings)}):?\n(?:[-=~]{{3,}}\n)?", page + "\n", flags=re.MULTILINE)


def rule_page(rule: Rule) -> str:
    """Return the page of one rule: its facts, then the sections of its docstring."""
    before, *sections = split(rule.page, HEADINGS)
    facts = [f"Severity: up to **{rule.severity}**", f"Reads: {names(rule.needs)}"]
    facts += [f"Reads where there: {names(rule.wants)}"] if rule.wants else []
    first = before.removeprefix(f"{rule.code}: ")
    parts = [MADE + f"# {rule.code} {rule.name}", prose(first[:1].upper() + first[1:]), " · ".join(facts)]
    for heading, body in zip(sections[::2], sections[1::2], strict=True):
        parts += [f"## {heading}", prose(body)]
    return "\n\n".join(part for part in parts if part) + "\n"


def remedy_page(remedy: Remedy) -> str:
    """Return the page of one remedy: its facts, then the sections of its docstring."""
    before, *sections = split(remedy.page, REMEDY_HEADINGS)
    codes = ", ".join(f"[{code}](../rules/{code}.md)" for code in remedy.treats)
    facts = [f"Changes: **{remedy.changes}**"] if remedy.changes else []
    facts += [f"Treats: {codes}"] if codes else ["Treats: no finding; to be applied by hand"]
    facts += [f"Tried where a cause names: {names(remedy.instead_of)}"] if remedy.instead_of else []
    first = before.removeprefix(f"{remedy.name}: ")
    parts = [MADE + f"# {remedy.name}", prose(first[:1].upper() + first[1:]), " · ".join(facts)]
    for heading, body in zip(sections[::2], sections[1::2], strict=True):
        parts += [f"## {heading}", prose(body)]
    parts += ["## In code", *in_code(remedy)]
    return "\n\n".join(part for part in parts if part) + "\n"


def in_code(remedy: Remedy) -> list[str]:
    """Return how a remedy is called, what its arguments are, and the example of its docstring."""
    _, *parameters = inspect.signature(remedy.apply).parameters.values()
    given = [f"{p.name}={'...' if p.default is p.empty else repr(p.default)}" for p in parameters]
    line = f"undo = ug.remedies.{remedy.name}({', '.join(['case', *given])})"
    text = inspect.cleandoc(remedy.apply.__doc__ or "")
    said = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section(text, "Args"), flags=re.MULTILINE)
    arguments = [f"* `{name}`: {' '.join(words.split())}" for name, words in said]
    example = textwrap.dedent(section(text, "Example"))
    home = sys.modules[remedy.apply.__module__]
    used = [n for n in dir(home) if n != remedy.name and re.search(rf"\b{n}\(", example) and is_own(home, n)]
    imports = [">>> from unitygain import Case"] if "Case(" in example else []
    imports += [f">>> from unitygain.remedies import {remedy.name}"] if f"{remedy.name}(" in example else []
    imports += [f">>> from {home.__name__} import {n}" for n in used]
    call = f"```python\nimport unitygain as ug\n\n{line}\n```"
    return [call, "\n".join(arguments), prose("\n".join([*imports, example]))]


def is_own(home: ModuleType, name: str) -> bool:
    """Whether a file defines a function of that name itself."""
    return getattr(getattr(home, name), "__module__", "") == home.__name__


def section(docstring: str, heading: str) -> str:
    """Return the indented lines under a heading of a docstring."""
    found = re.search(rf"^{heading}:\n((?:    .*\n?|\n)+)", docstring, flags=re.MULTILINE)
    return found[1] if found else ""


def remedy_index() -> str:
    """Return the table of all remedies."""
    rows = [
        f"| [{r.name}]({r.name}.md) | {r.changes} | {', '.join(r.treats)} | {cell(lead(r.page, r.name))} |"
        for r in own_remedies()
    ]
    head = MADE + "# Remedies\n\n| remedy | changes | treats | what it does |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def lead(page: str, name: str) -> str:
    """Return the first sentence of a page without the name in front of it."""
    return page.split("\n\n")[0].removeprefix(f"{name}: ").replace("\n", " ").removesuffix(".")


def prose(text: str) -> str:
    """Return a section as Markdown: its indent taken away, its examples fenced."""
    lines: list[str] = []
    example = False
    for line in textwrap.dedent(text.strip("\n")).splitlines():
        if example != (line.startswith(">>>") or (example and bool(line))):
            lines += ["```"] if example else ["", "```pycon"]
            example = not example
        lines.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join([*lines, "```"] if example else lines)).strip()


def rule_index() -> str:
    """Return the table of all rules."""
    rows = [
        f"| [{rule.code}]({rule.code}.md) | {rule.name} | {rule.severity} | {names(rule.needs)} |"
        for rule in own_rules()
    ]
    head = MADE + "# Rules\n\n| code | name | severity | reads |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def measure_table() -> str:
    """Return the table of all measures."""
    rows = [
        "| " + " | ".join((f"`{m.name}`", cell(m.summary), cell(m.unit), needs(m), cell(m.passes))) + " |"
        for m in MEASURES.values()
        if m.compute.__module__.startswith("unitygain.")
    ]
    head = (
        "# Measures\n\n"
        "A measure that names what it needs is computed from the one forward and backward pass that the\n"
        "probe watches. One that needs the model itself runs it again; the cost is in backward passes.\n\n"
        "| profile | what it is | unit | needs | cost |\n|---|---|---|---|---|\n"
    )
    return MADE + head + "\n".join(rows) + "\n"


def needs(measure: Measure) -> str:
    """Return what `measure` needs from the probe."""
    return names(measure.needs) or "the model itself"


def names(words: tuple[str, ...]) -> str:
    """Return `words` as code, separated by commas."""
    return ", ".join(f"`{word}`" for word in words)


def cell(text: str) -> str:
    """Return `text` so that it stays inside its table cell."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for folder in ("rules", "remedies"):
        for path in set((DOCS / folder).glob("*.md")) - set(pages()):
            path.unlink()
