"""What cannot be treated is refused in a sentence before anything is measured, and is as it was."""

import random
import weakref
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import unitygain as ug
import unitygain._treat
from unitygain._treatable import require_treatable
from unitygain.report import Report


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 2))


def make(model=make_model, loss=lambda m, x: m(x).square().mean(), **more) -> ug.Case:
    given = {"data": [torch.ones(4, 6)], "optimizer": lambda params: torch.optim.SGD(params, 0.1)}
    return ug.Case(model, loss, **(given | more))


def refuse(case: ug.Case, sentence: str) -> None:
    """Treat the case, which must be refused, and compare every bit of it afterwards."""
    model = case.model
    before = {name: (id(p), p.detach().clone(), p.grad) for name, p in model.named_parameters()}
    attributes = {name: dict(vars(module)) for name, module in model.named_modules()}
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match=sentence):
        ug.treat(case, steps=2)
    assert torch.equal(state, torch.get_rng_state())
    assert case.model is model
    for name, parameter in model.named_parameters():
        known, value, grad = before[name]
        assert (id(parameter), parameter.grad) == (known, grad)
        assert parameter.is_meta or torch.equal(parameter, value)
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == attributes


def test_a_loss_that_differs_on_every_call():
    source = torch.Generator().manual_seed(3)

    def noisy(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return (model(x) - torch.randn(4, 2, generator=source)).square().mean()

    refuse(
        make(loss=noisy),
        r"the loss differs from call to call under one seed \(\d.*, then \d.*draw from torch",
    )


def test_randomness_that_the_global_seeds_rule_is_no_fault():
    def drawn(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        shift = random.random() + np.random.rand() + torch.rand(())  # noqa: NPY002
        return (model(x) - shift).square().mean()

    require_treatable(make(loss=drawn), 0)
    require_treatable(make(loss=lambda m, x: m(x).mean() * float("nan")), 0)


def test_a_model_that_holds_an_open_file(tmp_path):
    model = make_model()
    with open(tmp_path / "log.txt", "w") as model.log:
        refuse(
            make(model),
            r"cannot be copied, so nothing can be tried on it: TypeError: cannot pickle.*open files",
        )


class Graphed(nn.Module):
    """As CUDA graphs do it: the forward that was captured belongs to the original's parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 2)
        captured = self.inner
        self.forward = lambda x: captured(x)


def test_a_forward_that_is_bound_to_the_original():
    refuse(make(Graphed()), "does not run on its own parameters: its forward is bound to the original")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_model_with_cuda_graphs():
    x = torch.ones(4, 6, device="cuda")
    model = torch.cuda.make_graphed_callables(nn.Linear(6, 2).cuda(), (x,))
    refuse(make(model, data=[x]), "bound to the original|cannot be copied")


def test_a_factory_that_returns_the_same_model_every_time():
    model = make_model()
    refuse(make(lambda: model), "the model's factory returns the same parameters every time")


def test_a_model_on_several_devices():
    model = make_model()
    model[3].to("meta")
    refuse(make(model), r"the model's parameters lie on 2 devices \(cpu, meta\); trials train copies on one")


def test_a_case_without_an_optimizer_is_refused_before_anything_runs():
    def never(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the loss was called")

    with pytest.raises(ValueError, match=r"declares no optimizer, .* give Case\(optimizer="):
        ug.treat(make(loss=never, optimizer=None))


def test_an_unknown_remedy_is_refused_before_anything_runs():
    with pytest.raises(
        ValueError, match=r"no remedy is named 'make_it_work'; the names are .*rescale_weights"
    ):
        ug.treat(make(), also=["make_it_work"])


def test_what_raises_in_the_users_code_says_where():
    def wrong(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return model(x[:, :5]).mean()

    refuse(make(loss=wrong), "the model or loss raised on batch 0: RuntimeError: mat1 and mat2")


class Narrowing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(32 - 2 * k, 30 - 2 * k) for k in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = torch.relu(block(x))
        return x


def test_a_remedy_that_needs_what_the_case_has_not_is_not_tried_and_nothing_aborts(monkeypatch):
    monkeypatch.setattr(unitygain._treat, "diagnose", lambda case, **_: Report({}, {}, (), (), 0.0))
    case = make(Narrowing, data=[torch.randn(4, 32)])
    wanted = [("swap_loss", {"variant": "other"}), "bypass_norm", ("swap_activation", {"of": "Tanh"})]
    report = ug.treat(case, steps=2, seeds=1, also=wanted)
    assert {trial.verdict for trial in report.trials[1:]} == {"not tried"}
    notes = " ".join(trial.note for trial in report.trials)
    assert "no variant 'other'" in notes
    assert all(trial.code.startswith("import unitygain as ug\n\n#") for trial in report.trials[1:])
    assert report.conclusion.startswith("no remedy could be tried: ")


class Counted(nn.Module):
    """Every object of this class is known as long as it lives, copies too."""

    alive: ClassVar[weakref.WeakSet[nn.Module]] = weakref.WeakSet()

    def __new__(cls) -> "Counted":
        made = super().__new__(cls)
        cls.alive.add(made)
        return made

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(256, 256) for _ in range(4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)

    __hash__ = object.__hash__


def living() -> tuple[int, int]:
    """How many models are alive, and the bytes of their parameters, each storage once."""
    models = list(Counted.alive)
    storages = {p.untyped_storage().data_ptr(): p.nbytes for model in models for p in model.parameters()}
    return len(models), sum(storages.values())


@pytest.mark.parametrize("factory", [True, False])
def test_at_most_one_copy_lives_beside_the_model(monkeypatch, factory):
    seen: list[tuple[int, int]] = []

    def loss(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        seen.append(living())
        return model(x).square().mean()

    monkeypatch.setattr(unitygain._treat, "diagnose", lambda case, **_: Report({}, {}, (), (), 0.0))
    case = make(Counted if factory else Counted(), loss=loss, data=[torch.randn(4, 256)])
    size = sum(p.nbytes for p in case.model.parameters())
    ug.treat(case, steps=2, seeds=2, also=["zero_biases", ("rescale_weights", {"gain": 1.0})])
    assert len(seen) > 12
    assert max(seen) == (2, 2 * size)
    assert living() == (1, size)
