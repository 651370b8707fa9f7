"""What the architecture tests read: the project's files, as text and as syntax trees."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "unitygain"
VENDORED = PACKAGE / "report" / "vendor"


def modules(*rooms: str) -> list[Path]:
    """Return the Python files of the package, or of the named rooms (files or folders) alone."""
    roots = [PACKAGE / room for room in rooms] or [PACKAGE]
    files = [
        file
        for root in roots
        for file in (root.rglob("*.py") if root.is_dir() else [root.with_suffix(".py")])
    ]
    return sorted(file for file in files if file.is_file())


def name(file: Path) -> str:
    """Return the path of `file` as it stands in messages and test names."""
    return file.relative_to(ROOT).as_posix()


@cache
def parse(file: Path) -> ast.Module:
    """Return the syntax tree of `file`."""
    return ast.parse(file.read_text(encoding="utf-8"), filename=name(file))


def imports(file: Path) -> set[str]:
    """Return the top-level packages that `file` imports anywhere."""
    found = set()
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def project_files() -> list[Path]:
    """Return every text file of the project that git would keep; all files where there is no git."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        hidden = {".git", ".venv", "build", "dist", "__pycache__"}
        files = [file for file in ROOT.rglob("*") if not hidden & set(file.relative_to(ROOT).parts)]
    else:
        files = [ROOT / line for line in listing.stdout.splitlines()]
    return sorted(file for file in files if file.is_file() and VENDORED not in file.parents)
