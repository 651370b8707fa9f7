"""Setting up: one constraint, a torch that is there is kept, and make works from anywhere."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
from meta.tree import ROOT
from packaging.requirements import Requirement


@pytest.fixture
def environment():
    spec = importlib.util.spec_from_file_location("environment", ROOT / ".ci" / "environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plan(*targets: str) -> str:
    """Return the commands that make would run from another folder."""
    make = ["make", "-n", "-f", str(ROOT / "Makefile"), *targets]
    done = subprocess.run(make, cwd=os.sep, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_constraint_pins_a_torch_that_the_library_accepts():
    (line,) = (ROOT / "constraints.txt").read_text().split()
    pinned = Requirement(line)
    assert pinned.name == "torch"
    accepted = next(
        requirement
        for text in importlib.metadata.requires("unitygain") or ()
        if (requirement := Requirement(text)).name == "torch"
    )
    assert next(iter(pinned.specifier)).version in accepted.specifier


@pytest.mark.parametrize(
    ("there", "used"), [("2.6.0", "2.6.0"), ("2.9.1+cu128", "2.9.1+cu128"), ("2.5.1", None)]
)
def test_a_torch_that_is_new_enough_is_used(environment, monkeypatch, there, used):
    monkeypatch.setattr(environment.importlib.metadata, "version", lambda name: there)
    assert environment.find_torch() == used


def test_without_torch_the_constraint_decides(environment, monkeypatch):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(environment.importlib.metadata, "version", missing)
    assert environment.find_torch() is None


def test_an_old_python_is_told_what_to_do(tmp_path):
    script = (ROOT / ".ci" / "environment.py").read_text()
    (tmp_path / "old.py").write_text("import sys\nsys.version_info = (3, 10, 4)\n" + script)
    done = subprocess.run([sys.executable, tmp_path / "old.py"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert "is Python 3.10; name a newer one, such as: make PYTHON=" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_works_from_another_folder():
    assert f"cd {ROOT}" in plan("demo")
    assert "not slow and not cure and not real and not browser" in plan("test")
    assert "lint-imports" in plan("check")


def test_nothing_hides_the_closing_line_of_pytest():
    settings = (ROOT / "pyproject.toml").read_text()
    addopts = next(line for line in settings.splitlines() if line.startswith("addopts"))
    assert not {"-q", "--quiet", "-qq"} & set(addopts.replace('"', " ").split())
    assert " -q" not in (ROOT / "Makefile").read_text()


def test_the_script_that_guards_the_main_branch_is_well_formed():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    assert "set -euo pipefail" in script.read_text()
