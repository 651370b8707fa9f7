"""Imports go down the rooms only, judgement needs no torch, and importing the package costs nothing."""

import ast
import subprocess
import sys

import grimp
import pytest
from meta.tree import PACKAGE, ROOT, modules, name, parse

TORCH_FREE = ("_types", "_registry", "rules", "detectors", "report", "run", "dashboard")
HEAVY = ("torch", "numpy", "scipy", "typer", "rich", "jinja2", "jaxtyping")


def run(code: str) -> str:
    """Run `code` in a fresh interpreter, as a user would, and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_imports_go_down_the_rooms_only():
    # In a process of its own: it configures logging, which silences all loggers that are there already.
    code = (
        "import sys; from importlinter.cli import lint_imports; "
        f"sys.exit(lint_imports(config_filename={str(ROOT / 'pyproject.toml')!r}, no_cache=True))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_judgement_reaches_no_torch():
    graph = grimp.build_graph("unitygain", include_external_packages=True, cache_dir=None)
    judging = [f"unitygain.{room}" for room in TORCH_FREE if f"unitygain.{room}" in graph.modules]
    chains = {
        module: graph.find_shortest_chain(module, "torch")
        for module in graph.modules
        if any(module == room or module.startswith(f"{room}.") for room in judging)
    }
    assert len(chains) >= 2, "the graph lost the rooms that judge"
    assert not {module: chain for module, chain in chains.items() if chain}


@pytest.mark.parametrize("room", TORCH_FREE)
def test_importing_a_judging_room_leaves_torch_out(room):
    if not modules(room):
        pytest.skip(f"{room} is not built yet")
    assert run(f"import sys, unitygain.{room}; print('torch' in sys.modules)") == "False"


def test_importing_the_package_imports_nothing_heavy():
    loaded = run(f"import sys, unitygain; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded == "[]"


def test_a_public_name_is_imported_when_it_is_first_used():
    code = "import sys, unitygain; unitygain.Case; print('torch' in sys.modules)"
    assert run(code) == "True"


@pytest.mark.parametrize("file", modules(), ids=name)
def test_annotations_stay_objects(file):
    froms = [node for node in ast.walk(parse(file)) if isinstance(node, ast.ImportFrom)]
    banned = [node.lineno for node in froms if node.module == "__future__"]
    assert not banned, "annotations as strings switch off the checks of shapes under pytest"


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
