"""Build hook: compiles the CPU kernel where there is a C compiler; without one the wheel is pure Python.

Nothing here stops an installation: what goes wrong is said, and the library then reads gradients in torch.
UNITYGAIN_STATS=torch at build time leaves the kernel out.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("src/unitygain/stats/gradients.c")
LIBRARY = "_gradients.so"
FLAGS = ("-std=gnu11", "-O3", "-fopenmp-simd", "-shared", "-fPIC")
# Not every C library can choose among versions of a function when it loads; the second try needs none.
TRIES = ((), ("-DUNITYGAIN_ONE_TARGET",))


class KernelHook(BuildHookInterface):
    """Puts the kernel beside its source in an editable installation, and into the wheel otherwise."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the platform in the wheel's tag if that worked."""
        beside = Path(self.root, SOURCE).with_name(LIBRARY)
        self.folder = tempfile.mkdtemp(prefix="unitygain-build-")
        built = compile_kernel(Path(self.root, SOURCE), Path(self.folder, LIBRARY))
        if isinstance(built, str):
            self.app.display_warning(f"the CPU kernel is left out, gradients are read in torch: {built}")
        if version == "editable":
            beside.unlink(missing_ok=True)
            if isinstance(built, Path):
                # Moved, not written over: a process may be running the old one.
                shutil.move(built, beside)
        elif isinstance(built, Path):
            build_data["force_include"][str(built)] = f"unitygain/stats/{LIBRARY}"
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the folder that the kernel was built in."""
        shutil.rmtree(self.folder, ignore_errors=True)


def compile_kernel(source: Path, library: Path) -> Path | str:
    """Compile `source` and return `library`, or why that cannot be done here."""
    if os.environ.get("UNITYGAIN_STATS") == "torch":
        return "UNITYGAIN_STATS=torch"
    if sys.platform == "win32":
        return "it is written for POSIX threads"
    compiler = (
        shlex.split(os.environ.get("CC", ""))
        or [name for name in ("cc", "gcc", "clang") if shutil.which(name)][:1]
    )
    if not compiler:
        return "no C compiler; install gcc or clang, or set CC"
    said = ""
    for further in TRIES:
        command = [*compiler, *FLAGS, *further, "-o", str(library), str(source), "-lm", "-pthread"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as failure:
            return f"{shlex.join(compiler)} did not run: {failure}"
        if done.returncode == 0 and library.exists():
            return library
        said = done.stderr.strip() or f"exit code {done.returncode}"
    return f"{shlex.join(compiler)} failed: {said[-500:]}"
