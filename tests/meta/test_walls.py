"""Who may touch what: hooks are set in one file, tensors are reduced in one room, measures do not judge."""

import ast
import re

import pytest
from meta.tree import PACKAGE, imports, modules, name, parse

HOOK_FILE = PACKAGE / "probe" / "hooks.py"
REDUCTIONS = {
    *("norm", "vector_norm", "matrix_norm", "_foreach_norm", "count_nonzero", "logsumexp"),
    *("mean", "nanmean", "sum", "nansum", "std", "var", "std_mean", "var_mean"),
    *("max", "min", "amax", "amin", "aminmax", "median", "nanmedian", "quantile"),
}
ARRAYS = {"np", "numpy", "math", "statistics", "itertools", "scipy", "stats"}

# "path:function" -> why a reduction may stand there and not in stats/.
MAY_REDUCE = {
    "src/unitygain/cli/_tokens.py:draw": "token ids are input, not a signal",
}


def reductions(file) -> dict[str, list[str]]:
    """Return the calls of `file` that reduce a tensor, by the outermost function around them."""
    found: dict[str, list[str]] = {}
    for top in parse(file).body:
        for place in top.body if isinstance(top, ast.ClassDef) else [top]:
            where = f"{name(file)}:{getattr(place, 'name', '(module)')}"
            for call in (node for node in ast.walk(place) if isinstance(node, ast.Call)):
                if isinstance(call.func, ast.Attribute) and call.func.attr in REDUCTIONS:
                    owner = call.func.value
                    if not (isinstance(owner, ast.Name) and owner.id in ARRAYS):
                        found.setdefault(where, []).append(f"line {call.lineno}: .{call.func.attr}()")
    return found


TENSOR_FILES = [
    file
    for file in modules()
    if "torch" in imports(file) and not {"stats", "theory"} & set(file.relative_to(PACKAGE).parts[:1])
]


@pytest.mark.parametrize("file", modules(), ids=name)
def test_only_one_file_registers_hooks(file):
    calls = [
        f"line {node.lineno}: {node.attr}"
        for node in ast.walk(parse(file))
        if isinstance(node, ast.Attribute) and re.fullmatch(r"_?register_\w*hook\w*", node.attr)
    ]
    if file == HOOK_FILE:
        assert calls, "the file that registers hooks moved; tell this test where to"
    else:
        assert not calls, "ask probe/hooks.py for a hook"


@pytest.mark.parametrize("file", TENSOR_FILES, ids=name)
def test_only_stats_reduces_tensors(file):
    found = reductions(file)
    assert not {where: calls for where, calls in found.items() if where not in MAY_REDUCE}


def test_every_exception_is_still_needed():
    used = {where for file in TENSOR_FILES for where in reductions(file)}
    assert set(MAY_REDUCE) <= used


@pytest.mark.parametrize("file", modules("measures", "probe"), ids=name)
def test_measuring_rooms_do_not_judge(file):
    text = file.read_text(encoding="utf-8")
    assert not re.findall(r"\w*(?:vanish|explod|explosion)\w*", text, re.IGNORECASE)


@pytest.mark.parametrize("file", modules("rules", "detectors"), ids=name)
def test_rules_know_only_profiles(file):
    named = {node.module or "" for node in ast.walk(parse(file)) if isinstance(node, ast.ImportFrom)}
    inside = {module.split(".")[1] for module in named if module.startswith("unitygain.")}
    assert inside <= {"_types", "_registry", "rules", "detectors"}
