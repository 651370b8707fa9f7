"""Whose fault it is: ours is said to be ours, an interruption is no fault, and old versions are named."""

import re
import sys
from pathlib import Path

import pytest
import torch

import unitygain.cli
from unitygain.cli._blame import is_theirs

RUN = ("diagnose", "train.py:make_case")


def test_our_fault_says_so_and_what_to_send(call, write, stand_in, monkeypatch):
    write("train.py")
    stand_in.raises = KeyError("lost")
    # The stand-in is a file of the tests, which the command line would take for the user's code.
    assert call(*RUN).code == 4
    monkeypatch.setattr("unitygain.cli._replay.failure", lambda *args: None)
    answer = call(*RUN)
    assert (answer.code, answer.first) == (5, "error: KeyError: 'lost'")
    assert "  why: this is a fault of unitygain, not of your model or your code" in answer.err
    assert "Traceback" not in answer.err
    sent = re.search(r"send (\S+) ", answer.fix)
    assert sent is not None
    text = Path(sent[1]).read_text()
    assert "KeyError: 'lost'" in text
    assert f"torch {torch.__version__}" in text
    assert Path(sent[1]).stat().st_mode & 0o777 == 0o600


def test_a_fault_in_our_own_frames_is_ours(call, write, monkeypatch):
    def _broken(*args, **kwargs):
        compile_as_ours("def fail():\n    return {}['lost']\n")["fail"]()

    monkeypatch.setattr("unitygain._diagnose.diagnose", _broken)
    write("train.py")
    assert call(*RUN).code == 5


def test_a_sentence_of_ours_to_the_user_is_about_the_input(call, write, monkeypatch):
    import unitygain._diagnose as ours

    def _refuse(case, **settings):
        return ours.choose_rules(["UG000"], ())

    monkeypatch.setattr("unitygain._diagnose.diagnose", _refuse)
    write("train.py")
    answer = call(*RUN)
    assert answer.code == 3
    assert answer.first.startswith("error: no rule has the code 'UG000'")


def compile_as_ours(text: str) -> dict:
    """Return what `text` defines, as if it stood in a file of unitygain."""
    scope: dict = {}
    exec(compile(text, str(Path(unitygain.cli.__file__).with_name("made_up.py")), "exec"), scope)
    return scope


def test_interrupt_during_the_diagnosis(call, write, stand_in):
    write("train.py")
    stand_in.raises = KeyboardInterrupt()
    answer = call(*RUN, "--html", "r.html")
    expected = "error: interrupted while act_rms (1 of 4); no report was written"
    assert (answer.code, answer.first) == (130, expected)
    assert not Path("r.html").exists()


def test_interrupt_while_importing(call, write):
    # A test run that was started in the background ignores the signal; the handler of a shell's child is set.
    handler = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    kill = "os.kill(os.getpid(), signal.SIGINT)"
    write("train.py", f"import os, signal\n{handler}\n{kill}\nfor _ in range(10**9): ...\n")
    answer = call(*RUN)
    expected = "error: interrupted while importing ./train.py; no report was written"
    assert (answer.code, answer.first) == (130, expected)


def test_old_torch(call, write, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.0.1")
    write("train.py")
    answer = call(*RUN)
    assert (answer.code, answer.first) == (3, "error: needs torch >= 2.6, found 2.0.1")


def test_no_torch(call, write, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    write("train.py")
    answer = call(*RUN)
    assert answer.code == 3
    assert answer.first.startswith("error: torch cannot be imported: ")


def test_old_python(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    with pytest.raises(SystemExit) as stop:
        unitygain.cli.main()
    assert stop.value.code == 3
    assert capsys.readouterr().err.splitlines()[0] == "error: needs Python >= 3.11, found 3.10.4"


def test_whose_file_it_is(tmp_path):
    assert is_theirs(str(tmp_path / "train.py"))
    assert not is_theirs(torch.__file__)
    assert is_theirs(torch.__file__, [str(Path(torch.__file__).parent)])
    assert not is_theirs(re.__file__)
    assert not is_theirs(unitygain.cli.__file__)
    assert not is_theirs("<string>")
