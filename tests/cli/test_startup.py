"""Commands that read start at once: no torch, and little time, each in a fresh interpreter."""

import json
import subprocess
import sys

import pytest

from unitygain._registry import RULES
from unitygain.report import Report

# A person waits half a second. Processor time, so that a busy machine does not count against us.
SECONDS = 0.5
HEAVY = ("torch", "numpy", "scipy", "transformers", "jaxtyping")
PROGRAM = """
import json, sys, time
from unitygain.cli._app import invoke
code = invoke(sys.argv[1:])
seconds = time.process_time()
sys.stderr.write("\\n" + json.dumps([code, seconds, sorted(set(sys.modules) & set({heavy}))]))
"""


def start(*argv: str) -> tuple[int, float, list[str], str]:
    """Return exit code, processor seconds since the start, what heavy was imported, and stderr."""
    program = PROGRAM.format(heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, timeout=120)
    said, _, facts = done.stderr.rpartition("\n")
    code, seconds, heavy = json.loads(facts)
    return code, seconds, heavy, said


@pytest.mark.parametrize(
    "argv",
    [
        ("--help",),
        ("--version",),
        ("diagnose", "--help"),
        ("rules",),
        ("rules", "--measures"),
        ("explain",),
        ("report",),
    ],
    ids=" ".join,
)
def test_reading_commands_start_at_once(argv, tmp_path):
    if argv == ("report",):
        (tmp_path / "r.json").write_text(Report({"name": "small"}, {}, (), (), 0.1).to_json())
        argv = ("report", str(tmp_path / "r.json"))
    if argv == ("explain",):
        import unitygain.rules  # noqa: F401 (importing the room fills the registry)

        argv = ("explain", min(RULES))
    code, seconds, heavy, said = start(*argv)
    assert (code, heavy, said) == (0, [], "")
    assert seconds < SECONDS


def test_a_refused_command_line_starts_at_once():
    code, _, heavy, said = start("diagnose", "train.py:make_case", "--dtype", "fp8")
    assert (code, heavy) == (2, [])
    assert said.startswith("error: unknown dtype 'fp8'")


def test_the_module_is_the_command(tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('hidden')\n")
    command = [sys.executable, "-m", "unitygain", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("unitygain ")
