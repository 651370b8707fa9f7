"""Make the virtual environment of the Makefile around the torch that this Python already has.

Usage: python3 .ci/environment.py FOLDER CONSTRAINTS

Where this Python has torch 2.6 or newer, the environment sees it and FOLDER/constraints.txt pins that very
version; otherwise the version in CONSTRAINTS is pinned and installed. Nothing replaces it later.
"""

import sys

NEEDED = (3, 11)
if sys.version_info < NEEDED:
    sys.exit(
        "unitygain needs Python 3.11 or newer and {} is Python {}.{}; name a newer one, such as: "
        "make PYTHON=python3.12 demo".format(sys.executable, *sys.version_info[:2])
    )

import importlib.metadata  # noqa: E402
import subprocess  # noqa: E402
import sysconfig  # noqa: E402
import venv  # noqa: E402
from pathlib import Path  # noqa: E402


def main(folder: Path, constraints: Path) -> None:
    """Make or refresh the environment in `folder`."""
    found = find_torch()
    try:
        venv.create(
            folder, system_site_packages=found is not None, with_pip=True, symlinks=sys.platform != "win32"
        )
    except subprocess.CalledProcessError:
        sys.exit(
            f"{sys.executable} cannot make an environment with pip; on Debian: apt-get install python3-venv"
        )
    pinned = folder / "constraints.txt"
    pinned.write_text(f"torch=={found}\n" if found else constraints.read_text())
    if found and sys.prefix != sys.base_prefix:
        see_outer_environment(folder)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--constraint", str(pinned)]
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
    if not found:
        subprocess.run([*pip, "torch"], check=True)


def find_torch() -> str | None:
    """Return the version of the torch that this Python has, if it is new enough."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
    major, minor = (int(part) for part in version.split(".")[:2])
    return version if (major, minor) >= (2, 6) else None


def see_outer_environment(folder: Path) -> None:
    """Let the new environment see the one that this Python runs in; by itself it sees only the system."""
    target = next((folder / "lib").glob("python*")) / "site-packages"
    (target / "outer_environment.pth").write_text(sysconfig.get_path("purelib") + "\n")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except subprocess.CalledProcessError as failure:
        sys.exit(f"pip failed with exit code {failure.returncode}; its own message is above")
