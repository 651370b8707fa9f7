"""The wheel, installed into a fresh environment, gives the library and the command.

The environment sees torch and what torch requires from here, so that nothing large is downloaded. It sees
nothing else: a dependency that the wheel forgets to name is missing there.
"""

import importlib.metadata as metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from meta.tree import ROOT

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(600)]

COMPILES = sys.platform != "win32" and any(map(shutil.which, ("cc", "gcc", "clang")))
TARGET = """
import torch
from torch import nn
from unitygain import Case

def sick():
    model = nn.Sequential(*(m for _ in range(20) for m in (nn.Linear(32, 32), nn.Sigmoid())))
    return Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.randn(16, 32)])
"""


def requirements(name: str, seen: dict[str, metadata.Distribution]) -> dict[str, metadata.Distribution]:
    """Return the distributions that `name` requires here, itself included, by their names."""
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return seen
    if name not in seen:
        seen[name] = distribution
        for line in distribution.requires or ():
            if "extra ==" not in line:
                requirements(re.split(r"[^\w.-]", line, maxsplit=1)[0].lower(), seen)
    return seen


def show_torch(folder: Path) -> None:
    """Fill `folder` with links to torch and what it requires."""
    folder.mkdir()
    for distribution in requirements("torch", {}).values():
        tops = {
            file.parts[0] for file in distribution.files or () if file.parts[0] not in {"..", "__pycache__"}
        }
        for top in tops:
            source = Path(str(distribution.locate_file(top)))
            if source.exists() and not (folder / top).exists():
                (folder / top).symlink_to(source)


def run(*command: str | Path, cwd: Path, status: int = 0, **settings: str) -> str:
    environment = {**os.environ, **settings}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, env=environment
    )
    assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("unitygain-*.whl")
    return built


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory) -> Path:
    """The folder of the commands of an environment in which only the wheel was installed."""
    home = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", home / "env", cwd=home)
    show_torch(home / "torch")
    packages = next((home / "env" / "lib").glob("python*")) / "site-packages"
    (packages / "torch_from_outside.pth").write_text(f"{home / 'torch'}\n")
    pinned = home / "constraints.txt"
    pinned.write_text(f"torch=={metadata.version('torch')}\n")
    python = home / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--constraint", pinned, wheel, cwd=home)
    return python.parent


def test_wheel_holds_what_the_library_reads(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    kept = (ROOT / "src").rglob("*")
    files = {
        file.relative_to(ROOT / "src").as_posix()
        for file in kept
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert "unitygain/py.typed" in files
    assert files <= inside
    assert [file for file in inside if file.endswith("licenses/LICENSE")]
    assert not [file for file in inside if file.startswith(("tests/", "docs/"))]


def test_wheel_with_a_kernel_names_its_platform_and_one_without_none(wheel, tmp_path):
    inside = zipfile.ZipFile(wheel).namelist()
    kernel = "unitygain/stats/_gradients.so"
    assert inside.count(kernel) == COMPILES
    assert wheel.stem.endswith("-py3-none-any") != COMPILES
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--wheel-dir",
        tmp_path,
        ROOT,
        cwd=tmp_path,
        CC="false",
    )
    (pure,) = tmp_path.glob("unitygain-*.whl")
    assert pure.stem.endswith("-py3-none-any")
    assert kernel not in zipfile.ZipFile(pure).namelist()


@pytest.mark.skipif(not COMPILES, reason="no C compiler here")
def test_fresh_environment_reads_gradients_with_the_kernel(fresh, tmp_path):
    code = (
        "import torch; from unitygain.stats import gradient_stats as g; print(g([torch.ones(4)]).norm.item())"
    )
    assert run(fresh / "python", "-c", code, cwd=tmp_path, UNITYGAIN_STATS="native").split() == ["2.0"]


def test_fresh_environment_imports_the_installed_library(fresh, tmp_path):
    code = "import torch, unitygain as ug; print(torch.__version__); print(ug.Case.__module__, ug.__file__)"
    version, where = run(fresh / "python", "-c", code, cwd=tmp_path).splitlines()
    assert version == metadata.version("torch")
    assert str(fresh.parent) in where


def test_fresh_environment_has_every_dependency(fresh, tmp_path):
    assert "No broken requirements" in run(fresh / "python", "-m", "pip", "check", cwd=tmp_path)


def test_command_answers(fresh, tmp_path):
    assert "diagnose" in run(fresh / "unitygain", "--help", cwd=tmp_path)
    assert "UG101" in run(fresh / "unitygain", "rules", cwd=tmp_path)


def test_command_diagnoses_a_file(fresh, tmp_path):
    (tmp_path / "target.py").write_text(TARGET)
    printed = run(fresh / "unitygain", "diagnose", "target.py:sick", "--html", "out.html", cwd=tmp_path)
    assert "UG101" in printed
    assert "<html" in (tmp_path / "out.html").read_text(encoding="utf-8")[:1000]
    failed = run(
        fresh / "unitygain", "diagnose", "target.py:sick", "--fail-on", "error", cwd=tmp_path, status=1
    )
    assert "UG101" in failed
