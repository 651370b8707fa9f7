"""Write docs/rules and docs/measures.md from what the rules and measures say of themselves.

Run ``make docs`` after a change to a rule's or a measure's docstring; a test compares.
"""

import re
import textwrap
from pathlib import Path

import unitygain
from unitygain._registry import MEASURES, RULES, Measure, Rule

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
HEADING = re.compile(rf"^#* *({'|'.join(HEADINGS)}):?\n(?:[-=~]{{3,}}\n)?", re.MULTILINE)
MADE = "<!-- Made by docs/generate.py from the docstrings; change those. -->\n"


def pages() -> dict[Path, str]:
    """Return the text of every generated page by its path."""
    assert unitygain.rules
    assert unitygain.measures
    texts = {DOCS / "rules" / f"{rule.code}.md": rule_page(rule) for rule in own_rules()}
    return texts | {DOCS / "rules" / "README.md": rule_index(), DOCS / "measures.md": measure_table()}


def own_rules() -> list[Rule]:
    """Return the library's own rules by code; others may have been registered beside them."""
    return [rule for _, rule in sorted(RULES.items()) if rule.judge.__module__.startswith("unitygain.")]


def rule_page(rule: Rule) -> str:
    """Return the page of one rule: its facts, then the sections of its docstring."""
    before, *sections = HEADING.split(rule.page + "\n")
    facts = [f"Severity: up to **{rule.severity}**", f"Reads: {names(rule.needs)}"]
    facts += [f"Reads where there: {names(rule.wants)}"] if rule.wants else []
    first = before.removeprefix(f"{rule.code}: ")
    parts = [MADE + f"# {rule.code} {rule.name}", prose(first[:1].upper() + first[1:]), " · ".join(facts)]
    for heading, body in zip(sections[::2], sections[1::2], strict=True):
        parts += [f"## {heading}", prose(body)]
    return "\n\n".join(part for part in parts if part) + "\n"


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
    stale = set((DOCS / "rules").glob("*.md")) - set(pages())
    for path in stale:
        path.unlink()
