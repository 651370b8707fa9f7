"""The tables of rules and measures, and a rule's page, without torch."""

import ast
import itertools
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from unitygain._registry import RULES, Rule
from unitygain.cli._faults import ExitCode, Fault, nearest, quote

WIDEST = 24
MEASURES_ROOM = Path(__file__).parent.parent / "measures"


class MeasureEntry(NamedTuple):
    """What the table says about a measure."""

    name: str
    unit: str
    passes: str
    summary: str


def rules() -> dict[str, Rule]:
    """Return every rule by its code."""
    import unitygain.rules  # noqa: F401 (importing the room fills the registry)

    return dict(sorted(RULES.items()))


def summary(rule: Rule) -> str:
    """Return the first sentence of the rule's page, without the code that may stand before it."""
    line = rule.page.splitlines()[0] if rule.page else ""
    for prefix in (rule.code, rule.name):
        line = line.removeprefix(prefix).lstrip(" :,.·-")
    return line or rule.name


def measures() -> list[MeasureEntry]:
    """Return what the measures say about themselves, read from their source and not run.

    A measure is torch code, and a table of names is not worth the seconds that importing torch takes. The
    arguments of ``@measure`` are literals, and a test holds this table against the registry.
    """
    entries: list[MeasureEntry] = []
    for file in sorted(MEASURES_ROOM.glob("*.py")):
        constants: dict[str, Any] = {}
        for node in ast.parse(file.read_bytes()).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                constants |= {
                    target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)
                }
            if isinstance(node, ast.FunctionDef):
                entries += [_entry(node, call, constants) for call in _decorators(node)]
    return sorted(entries)


def explain(word: str) -> str:
    """Return the page of the rule with the code or name `word`.

    Raises:
        Fault: If there is none.
    """
    known = rules()
    by_name = {rule.name: rule for rule in known.values()}
    rule = known.get(word.upper()) or by_name.get(word.lower())
    if rule is None:
        guess = nearest(word.upper(), known) or nearest(word.lower(), by_name)
        raise Fault(
            f"no rule {quote(word)}" + (f"; did you mean {quote(guess)}?" if guess else ""),
            name="E-RULE-NOT-FOUND",
            exit_code=ExitCode.USAGE,
            fix=f"unitygain explain {guess}" if guess else "unitygain rules  lists the codes",
        )
    rest = "\n".join(rule.page.splitlines()[1:])
    return f"{rule.code} {rule.name} ({rule.severity}): {summary(rule)}\n{rest}\n"


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]], width: int) -> str:
    """Return a plain table: middle columns are wrapped to `WIDEST`, the last one to what `width` leaves."""
    longest = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    sizes = [longest[0], *(min(size, WIDEST) for size in longest[1:-1])]
    sizes.append(max(WIDEST, width - sum(sizes) - 2 * len(sizes)))
    lines = []
    for row in (heads, *rows):
        cells = [textwrap.wrap(cell, size) for cell, size in zip(row, sizes, strict=True)]
        lines += [_line(parts, sizes) for parts in itertools.zip_longest(*cells, fillvalue="")]
    return "\n".join(lines) + "\n"


def _line(parts: tuple[str, ...], sizes: list[int]) -> str:
    return "  ".join(f"{part:<{size}}" for part, size in zip(parts, sizes, strict=True)).rstrip()


def _decorators(node: ast.FunctionDef) -> list[ast.Call]:
    calls = [item for item in node.decorator_list if isinstance(item, ast.Call)]
    return [call for call in calls if ast.unparse(call.func).rpartition(".")[2] == "measure"]


def _entry(node: ast.FunctionDef, call: ast.Call, constants: dict[str, Any]) -> MeasureEntry:
    shown = [item for item in call.keywords if item.arg in {"unit", "passes"}]
    given = {item.arg: _literal(item.value, constants) for item in shown}
    text = (ast.get_docstring(node) or "").splitlines()
    return MeasureEntry(node.name, given["unit"], given.get("passes", "0"), text[0] if text else "")


def _literal(node: ast.expr, constants: dict[str, Any]) -> Any:
    return constants[node.id] if isinstance(node, ast.Name) else ast.literal_eval(node)
