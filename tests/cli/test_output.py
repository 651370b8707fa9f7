"""Files and streams that a command writes to: tried early, written whole or not at all."""

import errno
import io
import json
import os
import subprocess
import sys
import tempfile

import pytest

from unitygain.report import Report

RUN = ("diagnose", "train.py:make_case")


@pytest.fixture
def case(write, stand_in):
    write("train.py")
    return stand_in


def fail_with(code: int):
    def _fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return _fail


def test_writes_page_and_json(call, case, tmp_path):
    answer = call(*RUN, "--html", "r.html", "--json", "r.json")
    assert answer.code == 0
    assert answer.err.splitlines()[-2:] == ["wrote r.html", "wrote r.json"]
    assert (tmp_path / "r.html").read_text().lower().startswith("<!doctype html>")
    assert Report.from_json((tmp_path / "r.json").read_text()).case["target"] == "train.py:make_case"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_json_on_stdout_is_all_there_is(call, case):
    answer = call(*RUN, "--json", "-")
    assert Report.from_json(answer.out).case["name"] == "Linear"


def test_an_older_report_is_replaced(call, case, tmp_path):
    assert call(*RUN, "--html", "r.html").code == 0
    (tmp_path / "r.html").chmod(0o600)
    assert call(*RUN, "--html", "r.html").code == 0
    assert (tmp_path / "r.html").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_no_report_is_spared(call, case, tmp_path):
    before = (tmp_path / "train.py").read_text()
    answer = call(*RUN, "--html", "train.py")
    expected = "error: cannot write train.py: it exists and is no report of unitygain"
    assert (answer.code, answer.first) == (3, expected)
    assert (tmp_path / "train.py").read_text() == before
    assert not case.asked, "the output is tried before the long work"


def test_output_is_a_folder(call, case, tmp_path):
    (tmp_path / "out").mkdir()
    answer = call(*RUN, "--json", "out")
    assert (answer.code, answer.first) == (3, "error: cannot write out: it is a folder")
    assert not case.asked


def test_output_in_no_folder(call, case, tmp_path):
    answer = call(*RUN, "--json", "nowhere/r.json")
    assert answer.code == 3
    assert answer.first.startswith("error: cannot write nowhere/r.json: there is no folder '")
    assert not case.asked


def test_output_not_writable(call, case, monkeypatch):
    monkeypatch.setattr(tempfile, "mkstemp", fail_with(errno.EACCES))
    answer = call(*RUN, "--json", "r.json")
    assert (answer.code, answer.first) == (3, "error: cannot write r.json: Permission denied")
    assert not case.asked


def test_disk_full_leaves_the_old_file(call, case, tmp_path, monkeypatch):
    assert call(*RUN, "--json", "r.json").code == 0
    before = (tmp_path / "r.json").read_bytes()
    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    answer = call(*RUN, "--json", "r.json")
    expected = "error: cannot write r.json: No space left on device (nothing was overwritten)"
    assert (answer.code, answer.first) == (3, expected)
    assert (tmp_path / "r.json").read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".unitygain")]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_device_is_written_to_and_not_replaced(call, case):
    answer = call(*RUN, "--json", "/dev/full")
    assert answer.code == 3
    assert answer.first.startswith("error: cannot write /dev/full: No space left on device")
    assert not os.path.isfile("/dev/full")


def test_one_file_for_both(call, case):
    answer = call(*RUN, "--html", "r", "--json", "./r")
    assert (answer.code, answer.first) == (2, "error: --html and --json both name 'r'")


def test_a_fault_is_one_object_where_json_was_asked_for(call):
    answer = call(*RUN, "--json", "-")
    assert answer.code == 3
    error = json.loads(answer.out)["error"]
    assert error["code"] == "E-TARGET-NOT-FOUND"
    assert error["message"] == "no file 'train.py'"


class Closed(io.StringIO):
    """A stdout whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize(
    "argv", [("--help",), ("diagnose", "--help"), ("rules",), RUN, (*RUN, "--json", "-")]
)
def test_closed_stdout_is_silent_in_every_command(call, case, monkeypatch, argv):
    monkeypatch.setattr(sys, "stdout", Closed())
    answer = call(*argv, *(["--quiet"] if argv[0] == "diagnose" and "--help" not in argv else []))
    assert (answer.code, answer.err) == (0, "")


def test_closed_stdout_is_silent_to_the_end_of_the_process():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "unitygain", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_streams_that_were_closed_before_the_start(call, case, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert call("rules").code == 0
    assert call("reprot").code == 2
    sys.stdout.close()
    sys.stderr.close()


def test_a_terminal_without_utf8_gets_escapes(call, case, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    answer = call("diagnose", "train.py:größe")
    assert answer.code == 3
    sys.stderr.flush()
    assert b"gr\\xf6\\xdfe" in sys.stderr.buffer.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_no_colour_without_a_terminal(call, case):
    assert "\x1b" not in call(*RUN).out


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colour_on_a_terminal(call, case, monkeypatch, environment, coloured):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    case.severities = ("error",)
    monkeypatch.setattr(sys, "stdout", terminal)
    call(*RUN)
    assert ("\x1b[" in terminal.getvalue()) is coloured


def test_the_bar_is_for_terminals(call, case, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert call(*RUN).code == 0
    assert "act_rms" in terminal.getvalue()
    quiet = Terminal()
    monkeypatch.setattr(sys, "stderr", quiet)
    assert call(*RUN, "--quiet").code == 0
    assert quiet.getvalue() == ""
