"""A re-entrant checkpoint passes a gradient where one is asked for, and the probe does not ask for it."""

import pytest
import torch
from torch import Tensor, nn
from zoo.checkpoints import Residual, Thrifty, asked, mlp, plain, reentrant

from unitygain._case import Case
from unitygain.measures.param_trainable import param_trainable
from unitygain.probe.capture import DEFAULT
from unitygain.probe.observe import observe


def without_gradient(case: Case) -> list[str]:
    return [name for name, p in case.model.named_parameters() if p.grad is None]


def test_parameters_get_what_training_gives_them():
    case = mlp(reentrant)
    record = observe(case, DEFAULT)
    seen = without_gradient(case)
    case.model.zero_grad(set_to_none=True)
    case.compute_loss(case.batches[0]).backward()
    assert seen == without_gradient(case) == [n for n, _ in case.model.named_parameters() if "trunk" in n]
    assert record.facts["checkpoint"] == "(model)"
    assert {site.path for site in record.values["call.reentrant"]} >= {"trunk", "trunk.1.net.1"}
    facts = param_trainable(case, record).facts
    assert facts["checkpointed"] == facts["without_gradient"] == len(seen)


@pytest.mark.parametrize("run", [plain, asked])
def test_what_gets_a_gradient_is_read_with_the_input_s(run):
    case = mlp(run)
    record = observe(case, (*DEFAULT, "input_grad.rms"))
    assert not without_gradient(case)
    assert "checkpointed" not in param_trainable(case, record).facts
    assert all(value > 0 for (value,) in record.values["input_grad.rms"].values())


def test_a_training_that_raises_by_itself_is_read_with_inputs_that_require_a_gradient():
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return reentrant(self.net, x)

    case = Case(Whole(), lambda m, x: m(x).square().mean(), [torch.randn(2, 3)])
    observe(case, DEFAULT)
    assert not without_gradient(case)


def test_the_module_that_calls_the_checkpoint_is_named():
    inner = Thrifty(nn.Identity(), Residual(4), nn.Linear(4, 4), reentrant)
    case = Case(nn.Sequential(inner, nn.Linear(4, 1)), lambda m, x: m(x).mean(), [torch.randn(2, 4)])
    assert observe(case, DEFAULT).facts["checkpoint"] == "0"


def test_no_grad_is_no_checkpoint():
    class Teacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.teacher = nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                told = self.teacher(x)
            return self.student(x) - told

    case = Case(Teacher(), lambda m, x: m(x).square().mean(), [torch.randn(2, 3)])
    record = observe(case, DEFAULT)
    assert not record.values["call.reentrant"]
    assert param_trainable(case, record).facts["without_gradient"] == 2
