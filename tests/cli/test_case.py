"""A case that cannot be diagnosed: whose fault it is, and in which words. Nothing here is a stand-in."""

import pytest

HEAD = """
import torch
from torch import nn
import unitygain as ug

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(12, 4)

    def forward(self, x):
        return self.fc1(x)

def loss(model, x):
    return model(x).square().mean()
"""


def diagnose(call, write, body: str, more: str = ""):
    path = write("train.py", HEAD)
    path.write_text(path.read_text() + f"{more}\ndef make_case():\n    return {body}\n")
    return call("diagnose", "train.py:make_case", "--quiet")


def test_forward_fails_on_the_input(call, write):
    answer = diagnose(call, write, "ug.Case(Net(), loss, [torch.ones(8, 10)])")
    expected = (
        "error: model raised on input 8x10: "
        "mat1 and mat2 shapes cannot be multiplied (8x10 and 12x4) (layer 'fc1')"
    )
    assert (answer.code, answer.first) == (4, expected)
    assert "  at train.py:12 in forward" in answer.err
    assert "torch/nn" not in answer.err
    assert "Traceback" not in answer.err


def test_debug_adds_the_traceback(call, write):
    path = write("train.py", HEAD)
    path.write_text(
        path.read_text() + "\ndef make_case():\n    return ug.Case(Net(), loss, [torch.ones(8, 10)])\n"
    )
    answer = call("diagnose", "train.py:make_case", "--debug")
    assert answer.code == 4
    assert "Traceback (most recent call last)" in answer.err


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nn.ReLU()", "nothing to diagnose: 0 of 0 parameters require a gradient"),
        ("Net().requires_grad_(False)", "nothing to diagnose: 0 of 2 parameters require a gradient"),
    ],
)
def test_nothing_to_diagnose(call, write, model, said):
    answer = diagnose(call, write, f"ug.Case({model}, loss, [torch.ones(8, 12)])")
    assert (answer.code, answer.first) == (3, f"error: {said}")


def test_loss_of_whole_numbers(call, write):
    answer = diagnose(call, write, "ug.Case(Net(), lambda m, x: m(x).sum().long(), [torch.ones(8, 12)])")
    expected = "error: the loss has dtype torch.int64, which has no gradient; give a floating loss"
    assert (answer.code, answer.first) == (3, expected)


def test_loss_without_a_graph(call, write):
    answer = diagnose(call, write, "ug.Case(Net(), lambda m, x: m(x).sum().detach(), [torch.ones(8, 12)])")
    assert answer.code == 3
    assert answer.first.startswith("error: the loss has no gradient: ")


def test_model_of_whole_numbers(call, write):
    model = "nn.Sequential(Net(), Rounded())"
    answer = diagnose(
        call,
        write,
        f"ug.Case({model}, lambda m, x: m(x).float().mean(), [torch.ones(8, 12)])",
        "class Rounded(nn.Module):\n    def forward(self, x): return x.argmax(-1)\n",
    )
    expected = "error: the model's output of dtype int64 has no gradient; give the loss what it was made from"
    assert (answer.code, answer.first) == (3, expected)


def test_parameters_on_meta_give_a_static_report(call, write):
    model = "nn.Sequential(*(nn.Linear(12, 12) for _ in range(30))).to('meta')"
    answer = diagnose(call, write, f"ug.Case({model}, loss, [torch.ones(8, 12)])")
    assert answer.code == 0, answer.err
    assert "predicted, not measured: the gradient shrinks" in answer.out
    assert "the model is on meta" in answer.out


def test_a_branch_on_data_on_meta(call, write):
    answer = diagnose(
        call,
        write,
        "ug.Case(nn.Sequential(Net(), Branch()).to('meta'), loss, [torch.ones(8, 12)])",
        "class Branch(nn.Module):\n    def forward(self, x): return x if x.sum() > 0 else -x\n",
    )
    expected = (
        "error: module '1' asks for a number of a tensor on meta, which has none (a branch on data, .item() "
        "or bool()); build the model on a device, or leave that branch out"
    )
    assert (answer.code, answer.first) == (3, expected)


def test_lazy_parameters_are_materialised_by_the_first_forward(call, write):
    model = "nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(2))"
    answer = diagnose(call, write, f"ug.Case({model}, loss, [torch.ones(8, 12)])")
    assert answer.code == 0, answer.err


def test_lazy_parameters_that_no_forward_reaches(call, write):
    model = "nn.ModuleDict({'used': Net(), 'idle': nn.LazyLinear(3)})"
    answer = diagnose(call, write, f"ug.Case({model}, lambda m, x: loss(m['used'], x), [torch.ones(8, 12)])")
    expected = "error: 2 of 4 parameters are uninitialised (lazy) and no forward pass reaches them"
    assert (answer.code, answer.first) == (3, expected)


def test_factory_raises(call, write):
    answer = diagnose(call, write, "ug.Case(lambda: 1 / 0, loss, [torch.ones(8, 12)])")
    expected = "error: the model's factory raised ZeroDivisionError: division by zero"
    assert (answer.code, answer.first) == (4, expected)


def test_factory_returns_no_model(call, write):
    answer = diagnose(call, write, "ug.Case(lambda: {}, loss, [torch.ones(8, 12)])")
    assert answer.code == 3
    assert "returned dict; expected an nn.Module" in answer.first


def test_data_raises(call, write):
    answer = diagnose(call, write, "ug.Case(Net(), loss, (1 / 0 for _ in range(3)))")
    assert (answer.code, answer.first) == (4, "error: the data raised ZeroDivisionError: division by zero")


def test_data_is_empty(call, write):
    answer = diagnose(call, write, "ug.Case(Net(), loss, [])")
    assert answer.code == 3
    assert answer.first.startswith("error: data gave no batch")


def test_backward_fails_inside_torch(call, write):
    loss = "lambda m, x: (lambda y: (y.exp() + y.add_(1) * 0).sum())(m(x).exp())"
    answer = diagnose(call, write, f"ug.Case(Net(), {loss}, [torch.ones(8, 12)])")
    assert answer.code == 4
    assert answer.first.startswith("error: model raised on input 8x12: one of the variables needed")


def test_forward_exits(call, write):
    answer = diagnose(call, write, "ug.Case(Net(), lambda m, x: exit(3), [torch.ones(8, 12)])")
    assert answer.code == 4
    assert "SystemExit" in answer.first


def test_hostile_message_is_inert(call, write):
    loss = "lambda m, x: (_ for _ in ()).throw(ValueError('\\x1b[2J\\nsecond' + 'x' * 9999))"
    answer = diagnose(call, write, f"ug.Case(Net(), {loss}, [torch.ones(8, 12)])")
    assert answer.code == 4
    assert "\x1b" not in answer.err
    assert max(map(len, answer.err.splitlines())) < 400
