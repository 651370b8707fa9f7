"""Options: what reaches the diagnosis, and what is refused before anything is loaded."""

import pytest
import torch

from unitygain.cli._faults import nearest

RUN = ("diagnose", "train.py:make_case")


def test_options_reach_the_diagnosis(call, write, stand_in):
    write("train.py")
    options = ["--sites", "a.*", "--sites", "b", "--probes", "3", "--dtype", "float64", "--device", "cpu"]
    answer = call(*RUN, *options, "--seed", "7")
    assert answer.code == 0, answer.err
    asked = {key: value for key, value in stand_in.asked.items() if key not in {"case", "progress"}}
    assert asked == {
        "sites": ("a.*", "b"),
        "probes": 3,
        "seed": 7,
        "only": (),
        "skip": (),
        "dtype": "float64",
        "device": "cpu",
    }


def test_defaults(call, write, stand_in):
    write("train.py")
    assert call(*RUN).code == 0
    assert stand_in.asked["probes"] == 8
    assert stand_in.asked["seed"] == 0
    assert stand_in.asked["sites"] is None


def test_codes_are_split_and_known(call, write, stand_in, monkeypatch):
    known = {"UG101": None, "UG102": None, "UG301": None}
    monkeypatch.setattr("unitygain.cli._catalogue.rules", lambda: known)
    write("train.py")
    assert call(*RUN, "--only", "ug101, UG301", "--skip", "UG102").code == 0
    assert stand_in.asked["only"] == ("UG101", "UG301")
    assert stand_in.asked["skip"] == ("UG102",)
    answer = call(*RUN, "--skip", "UG10")
    assert answer.code == 2
    assert answer.first == "error: unknown code 'UG10' in --skip; did you mean 'UG101'?"


def test_device_without_the_hardware(call, write, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    write("train.py")
    answer = call(*RUN, "--device", "cuda")
    assert (answer.code, answer.first) == (3, f"error: CUDA is not available (torch {torch.__version__})")


def test_device_index_beyond_the_hardware(call, write, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    write("train.py")
    answer = call(*RUN, "--device", "cuda:2")
    assert (answer.code, answer.first) == (3, "error: no device 'cuda:2'; this machine has 2 of that kind")


def test_unknown_device(call):
    answer = call(*RUN, "--device", "gpu")
    assert (answer.code, answer.first) == (2, "error: unknown device 'gpu'; one of cpu, cuda, cuda:0, mps")


def test_unknown_dtype(call):
    answer = call(*RUN, "--dtype", "fp8")
    expected = "error: unknown dtype 'fp8'; one of float32, bfloat16, float16, float64"
    assert (answer.code, answer.first) == (2, expected)


def test_unknown_command(call):
    answer = call("reprot")
    assert (answer.code, answer.first) == (2, "error: unknown command 'reprot'; did you mean 'report'?")
    assert answer.fix == "  fix: unitygain report"


def test_unknown_option(call):
    answer = call("diagnose", "--prbes", "3")
    assert (answer.code, answer.first) == (2, "error: unknown option '--prbes'; did you mean '--probes'?")


def test_option_without_its_value(call):
    answer = call("diagnose", "--html")
    assert answer.code == 2
    assert answer.first.startswith("error: ")
    assert "--html" in answer.first


def test_argument_too_many(call):
    answer = call("rules", "everything")
    assert answer.code == 2
    assert "everything" in answer.first


@pytest.mark.parametrize("given", ["0", "-1", "nan", "1e", "2.5", "", "٣", "9" * 30])
def test_number_out_of_range(call, given):
    answer = call(*RUN, f"--probes={given}")
    limit = "<= 2147483647" if given.startswith("9") else ">= 1"
    assert (answer.code, answer.first) == (2, f"error: --probes must be an integer {limit}, got '{given}'")


@pytest.mark.parametrize("given", ["-1", str(2**63)])
def test_seed_out_of_range(call, given):
    answer = call(*RUN, f"--seed={given}")
    assert answer.code == 2
    assert answer.first.startswith("error: --seed must be an integer ")


def test_unknown_level(call):
    answer = call(*RUN, "--fail-on", "fatal")
    expected = "error: unknown level 'fatal' in --fail-on; one of error, warning, never"
    assert (answer.code, answer.first) == (2, expected)


def test_options_of_folders_do_not_go_with_code(call):
    answer = call(*RUN, "--batch-size", "3")
    expected = "error: --batch-size is for hf:DIR; the Case of train.py:make_case brings its own data"
    assert (answer.code, answer.first) == (2, expected)


@pytest.mark.parametrize(
    ("severities", "level", "code"),
    [
        ((), "warning", 0),
        (("info",), "warning", 0),
        (("warning",), "warning", 1),
        (("warning",), "error", 0),
        (("warning", "error"), "error", 1),
        (("error",), "never", 0),
    ],
)
def test_exit_code_follows_the_findings(call, write, stand_in, severities, level, code):
    write("train.py")
    stand_in.severities = severities
    assert call(*RUN, "--fail-on", level).code == code


def test_quiet_says_nothing_but_the_report(call, write, stand_in):
    write("train.py")
    answer = call(*RUN, "--quiet", "--html", "r.html")
    assert answer.err == ""
    assert "Linear" in answer.out


@pytest.mark.parametrize(
    ("word", "candidates", "guess"),
    [
        ("trian", ["train", "test"], "train"),
        ("UG110", ["UG101", "UG210"], "UG101"),
        ("ab", ["xy"], None),
        ("model", ["models_of"], None),
        ("reporting", ["report"], None),
        ("a" * 10_000, ["a" * 9_999], None),
    ],
)
def test_nearest_is_within_two_edits(word, candidates, guess):
    assert nearest(word, candidates) == guess
