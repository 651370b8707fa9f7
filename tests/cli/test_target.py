"""TARGET: what is loaded, and the words for everything that cannot be."""

import sys

import pytest

from unitygain.report import Report


def test_missing_target(call):
    answer = call("diagnose")
    assert (
        answer.first
        == "error: missing target: give `module:callable`, `path/to/file.py:callable` or `hf:DIR`"
    )
    assert answer.code == 2


def test_a_file_without_a_callable_names_the_likely_one(call, write):
    write("train.py", "def main(): ...\ndef build_case(): ...\n")
    answer = call("diagnose", "train.py")
    assert answer.first == "error: 'train.py' is a file; use train.py:build_case"
    assert answer.fix == "  fix: unitygain diagnose train.py:build_case"
    assert answer.code == 2


def test_a_module_without_a_callable(call):
    answer = call("diagnose", "train")
    assert (answer.code, answer.first) == (2, "error: 'train' names no callable; use train:callable")


def test_a_folder_of_a_model_is_pointed_to_hf(call, write):
    write("gpt/config.json", "{}")
    answer = call("diagnose", "gpt")
    assert (answer.code, answer.first) == (2, "error: 'gpt' is a folder")
    assert answer.fix == "  fix: unitygain diagnose hf:gpt"


def test_a_pickle_is_refused(call, write):
    write("model.pt", "")
    answer = call("diagnose", "model.pt")
    assert answer.first == "error: 'model.pt' is a pickle, which runs code when it is read; refused"
    assert answer.code == 3


def test_module_not_found(call, write):
    write("train.py")
    answer = call("diagnose", "trian:make_case")
    expected = "error: cannot import 'trian' (searched: ., site-packages); did you mean 'train'?"
    assert (answer.code, answer.first) == (3, expected)


def test_file_not_found(call, write):
    write("train.py")
    answer = call("diagnose", "./trian.py:make_case")
    assert (answer.code, answer.first) == (3, "error: no file './trian.py'; did you mean 'train.py'?")


def test_attribute_missing(call, write):
    write("train.py")
    answer = call("diagnose", "train:make_csae")
    assert answer.first == "error: no attribute 'make_csae' in module 'train' (train.py)"
    assert answer.fix == "  fix: did you mean 'make_case'?  unitygain diagnose train:make_case"
    assert answer.code == 3


def test_target_not_callable(call, write):
    write("train.py", "cfg = {}\n")
    answer = call("diagnose", "train:cfg")
    expected = "error: train:cfg is a dict; expected a function that returns a unitygain.Case"
    assert (answer.code, answer.first) == (3, expected)


def test_builder_needs_arguments(call, write):
    write("train.py", "def make_case(cfg, depth, width=3, **rest): ...\n")
    answer = call("diagnose", "train:make_case")
    assert (answer.code, answer.first) == (3, "error: make_case() needs 'cfg', 'depth'")


def test_user_module_raises_on_import(call, write):
    write("train.py", "import os\n\nimport no_such_package_xyz\n")
    answer = call("diagnose", "train.py:make_case")
    expected = "error: train.py raised ModuleNotFoundError: No module named 'no_such_package_xyz' (line 3)"
    assert (answer.code, answer.first) == (4, expected)
    assert "  at train.py:3 in <module>" in answer.err
    assert "Traceback" not in answer.err
    assert "importlib" not in answer.err


def test_a_missing_import_of_the_module_is_not_a_missing_module(call, write):
    write("train.py", "import no_such_package_xyz\n")
    assert call("diagnose", "train:make_case").code == 4


def test_user_module_with_a_syntax_error(call, write):
    write("train.py", "x = 1\ndef (\n")
    answer = call("diagnose", "train.py:make_case")
    assert answer.code == 4
    assert answer.first.startswith("error: train.py raised SyntaxError: ")
    assert answer.first.endswith("(line 2)")


def test_relative_import_says_to_name_the_package(call, write):
    write("train.py", "from .model import net\n")
    answer = call("diagnose", "train.py:make_case")
    assert answer.code == 4
    assert "package.module:callable" in answer.fix


@pytest.mark.parametrize(
    ("exit_call", "shown"), [("sys.exit(0)", "0"), ("exit()", "0"), ("sys.exit('no')", "no")]
)
def test_user_module_exits(call, write, exit_call, shown):
    write("train.py", f"import sys\n{exit_call}\n")
    answer = call("diagnose", "train.py:make_case")
    assert (answer.code, answer.first) == (4, f"error: train.py exited with {shown} while importing")
    assert answer.fix == '  fix: guard what runs with: if __name__ == "__main__":'


def test_builder_raises(call, write):
    write("train.py", "def make_case():\n    return {}['x']\n")
    answer = call("diagnose", "train.py:make_case")
    assert (answer.code, answer.first) == (4, "error: make_case() raised KeyError: 'x' (line 2)")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("None", "make_case() returned None; expected a unitygain.Case"),
        ("(1, 2)", "train:make_case returned tuple; expected a unitygain.Case"),
        ("{}", "train:make_case returned dict; expected a unitygain.Case"),
    ],
)
def test_builder_returns_no_case(call, write, value, said):
    write("train.py", f"def make_case():\n    return {value}\n")
    answer = call("diagnose", "train:make_case")
    assert (answer.code, answer.first) == (3, f"error: {said}")
    assert "unitygain.Case(model" in answer.fix


@pytest.mark.parametrize(
    "target", ["train.py:make_case", "train:make_case", "train:ready", "train:Holder.make"]
)
def test_what_is_a_target(call, write, stand_in, target):
    text = "ready = make_case()\nclass Holder:\n    make = staticmethod(make_case)\n"
    path = write("train.py")
    path.write_text(path.read_text() + text)
    answer = call("diagnose", target)
    assert answer.code == 0, answer.err
    assert "importing ./train.py" in answer.err or "importing train\n" in answer.err
    assert type(stand_in.asked["case"]).__name__ == "Case"


def test_a_report_names_no_absolute_path(call, write, stand_in):
    path = write("train.py")
    answer = call("diagnose", f"{path}:make_case", "--json", "-")
    assert Report.from_json(answer.out).case["target"] == "train.py:make_case"
    assert str(path.parent) not in answer.out


def test_a_neighbour_is_found_only_while_the_command_runs(call, write, stand_in):
    write("deep/net.py", "WIDTH = 4\n")
    path = write("deep/train.py")
    path.write_text("from net import WIDTH\n" + path.read_text())
    before = list(sys.path)
    assert call("diagnose", "deep/train.py:make_case").code == 0
    assert sys.path == before


def test_the_current_folder_hides_nothing_of_the_standard_library(call, write, stand_in):
    write("colorsys.py", "raise SystemExit('hidden')\n")
    sys.modules.pop("colorsys", None)
    path = write("train.py")
    path.write_text("import colorsys\n" + path.read_text())
    answer = call("diagnose", "train:make_case")
    assert answer.code == 0, answer.err


def test_only_the_named_module_is_imported(call, write, stand_in):
    write("conftest.py", "raise SystemExit('picked up')\n")
    write("sitecustomize.py", "raise SystemExit('picked up')\n")
    write("train.py")
    assert call("diagnose", "train.py:make_case").code == 0


def test_what_the_module_prints_does_not_mix_with_the_report(call, write, stand_in):
    path = write("train.py")
    path.write_text(path.read_text() + "print('loading data')\n")
    answer = call("diagnose", "train.py:make_case", "--json", "-")
    assert answer.out.startswith("{")
    assert "loading data" in answer.err


@pytest.mark.parametrize(
    "target", ["train.py:make case", "tr\x1bain:x", "a/b.py:1x", "1train:make", ":", "x:"]
)
def test_names_that_cannot_be(call, target):
    answer = call("diagnose", target)
    assert answer.code == 2
    assert "\x1b" not in answer.err
