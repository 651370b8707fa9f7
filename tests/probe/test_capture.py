"""The probe sees what plain autograd sees, on models of every family, and says what it did not see."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unitygain._case import Case, CaseFailure
from unitygain.probe import Probe
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe
from unitygain.probe.record import Record


def rms(tensor: Tensor) -> float:
    return float(tensor.detach().double().square().mean().sqrt())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.attention(x, x, x, need_weights=False)[0])


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(3, 6, num_layers=2, batch_first=True)
        self.head = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)), (4, 5)),
    "in-place": (lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 2)), (4, 5)),
    "cnn": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten()),
        (2, 1, 6, 6),
    ),
    "rnn": (lambda: Recurrent(nn.RNN), (2, 5, 3)),
    "lstm": (lambda: Recurrent(nn.LSTM), (2, 5, 3)),
    "attention": (lambda: Attention(), (2, 5, 8)),
}


def naive(model: nn.Module, x: Tensor) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Outputs and gradients of the direct children by retain_grad, and the parameters' gradients."""
    outputs: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if name and not any(True for _ in module.children()):

            def keep(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
                outputs[name] = (output[0] if isinstance(output, tuple) else output).clone()

            handles.append(module.register_forward_hook(keep))
    model(x)
    for handle in handles:
        handle.remove()
    forward = {name: rms(value) for name, value in outputs.items()}
    gradients: dict[str, float] = {}
    for name in outputs:
        gradients[name] = _gradient_at(model, name, x)
    model.zero_grad()
    model(x).square().mean().backward()
    parameters = {name: rms(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    return forward, gradients, parameters


def _gradient_at(model: nn.Module, name: str, x: Tensor) -> float:
    """The gradient at one module's output, by adding a zero that requires one."""
    zero: list[Tensor] = []

    def add(module: nn.Module, args: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        zero.append(torch.zeros_like(first, requires_grad=True))
        moved = first + zero[0]
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = model.get_submodule(name).register_forward_hook(add)
    loss = model(x).square().mean()
    handle.remove()
    (gradient,) = torch.autograd.grad(loss, zero)
    return rms(gradient)


@pytest.mark.parametrize("family", FAMILIES)
def test_agrees_with_the_naive_twin(family: str) -> None:
    build, shape = FAMILIES[family]
    model, x = build().double(), torch.randn(*shape, dtype=torch.float64)
    with Probe(model) as probe:
        model(x).square().mean().backward()
    record = probe.record()
    model.zero_grad()
    forward, gradients, parameters = naive(model, x)
    seen = {str(s): v[0] for s, v in record.values["output.rms"].items()}
    seen_gradients = {str(s): v[0] for s, v in record.values["grad.rms"].items()}
    for name, value in forward.items():
        assert seen[name] == pytest.approx(value, rel=1e-12, abs=0), name
        assert seen_gradients[name] == pytest.approx(gradients[name], rel=1e-12, abs=0), name
    for site, values in record.values["parameter_grad.rms"].items():
        assert values[0] == pytest.approx(parameters[site.path], rel=1e-12, abs=0)
    assert len(record.values["parameter_grad.rms"]) == len(parameters)


def test_a_module_called_twice_has_two_sites() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.tanh(self.layer(x)))

    model = Twice()
    with Probe(model) as probe:
        model(torch.randn(3, 4)).sum().backward()
    assert [str(s) for s in probe.record().values["grad.rms"]] == ["layer#1", "layer#2"]


@dataclasses.dataclass
class Output:
    hidden: Tensor
    count: Tensor


class Wrapped(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner = Inner(wrap)

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x)
        if isinstance(out, Output):
            return out.hidden
        return out["a"]["b"] if isinstance(out, dict) else out[0]


class Inner(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(x * self.weight)


@pytest.mark.parametrize(
    ("wrap", "expected"),
    [
        (lambda t: (t, [t * 2]), ["inner", "inner[1][0]"]),
        (lambda t: {"a": {"b": t}, "n": torch.ones(1, dtype=torch.int64)}, ["inner"]),
        (lambda t: Output(t, torch.ones(2, dtype=torch.int64)), ["inner"]),
    ],
)
def test_all_floating_leaves_of_an_output_are_found(
    wrap: Callable[[Tensor], Any], expected: list[str]
) -> None:
    model = Wrapped(wrap)
    with Probe(model) as probe:
        model(torch.randn(2, 4)).sum().backward()
    record = probe.record()
    assert [str(s) for s in record.values["output.rms"]] == expected
    if expected == ["inner"]:
        assert any("int64" in skipped.reason for skipped in record.skipped)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if self.reentrant is None:
                x = torch.tanh(layer(x))
            else:
                x = torch.tanh(checkpoint(layer, x, use_reentrant=self.reentrant))
        return x


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_no_number(reentrant: bool) -> None:
    plain, kept = Checkpointed(None), Checkpointed(reentrant)
    kept.load_state_dict(plain.state_dict())
    x = torch.randn(2, 4, requires_grad=True)
    records = []
    for model in (plain, kept):
        with Probe(model) as probe:
            model(x).square().mean().backward()
        records.append(probe.record())
    assert records[0].values["output.rms"] == records[1].values["output.rms"]
    assert records[0].values["grad.rms"] == records[1].values["grad.rms"]


def test_frozen_and_unused_parts_are_listed() -> None:
    class Partial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Linear(4, 4).requires_grad_(False)
            self.used = nn.Linear(4, 4)
            self.lost = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.frozen(x)
            self.lost(x)
            return self.used(x)

    model = Partial()
    with Probe(model) as probe:
        model(torch.randn(2, 4)).sum().backward()
    reasons = {s.what: s.reason for s in probe.record().skipped}
    assert "does not require a gradient" in reasons["gradient at frozen"]
    assert "loss does not depend on it" in reasons["gradient at lost"]
    assert "None" in reasons["gradient of parameter lost.weight"]
    assert "gradient of parameter frozen.weight" not in reasons


def test_nothing_is_left_after_an_exception() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc1(x)

    case = Case(Broken(), loss=lambda m, x: m(x).sum(), data=[torch.randn(2, 5)])
    with (
        pytest.raises(CaseFailure, match=r"batch 0 in module 'fc1': RuntimeError: mat1 and mat2"),
        isolated(case) as (subject, _),
    ):
        observe(subject, ("output.rms",))
    for module in (*case.model.modules(), *subject.model.modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks


def test_identity_changes_no_neighbour() -> None:
    layers = [nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)]
    x = torch.randn(3, 4)

    def look(model: nn.Module) -> Record:
        model.zero_grad()
        with Probe(model) as probe:
            model(x).square().mean().backward()
        return probe.record()

    plain = look(nn.Sequential(*layers))
    longer = look(nn.Sequential(layers[0], nn.Identity(), *layers[1:]))
    for key in ("output.rms", "grad.rms"):
        before, after = list(plain.values[key].values()), list(longer.values[key].values())
        assert after[1] == after[0]
        assert [after[0], *after[2:]] == before


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"collect has 'output.median'; write signal.statistic"):
        Probe(nn.Linear(2, 2), ("output.median",))
    with pytest.raises(TypeError, match=r"model is a int"):
        Probe(3)  # type: ignore[arg-type]
    with Probe(nn.Linear(2, 2)) as probe:
        pass
    with pytest.raises(RuntimeError, match="saw no call"):
        probe.record()


def test_a_loss_without_gradient_is_refused() -> None:
    case = Case(nn.Linear(4, 1), loss=lambda m, x: m(x).detach().sum(), data=[torch.randn(2, 4)])
    with pytest.raises(CaseFailure, match="the loss has no gradient"), isolated(case) as (subject, _):
        observe(subject, ("output.rms",))


def test_a_model_without_a_trunk_says_so() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterList(torch.eye(3) for _ in range(5))

        def forward(self, x: Tensor) -> Tensor:
            for weight in self.weights:
                x = torch.tanh(x @ weight)
            return x

    with Probe(Bare()) as probe:
        probe._model(torch.ones(2, 3)).sum().backward()
    assert "gain over depth" in {gap.what for gap in probe.record().skipped}
    with Probe(nn.Sequential(*(nn.Linear(3, 3) for _ in range(5)))) as probe:
        probe._model(torch.ones(2, 3)).sum().backward()
    assert "gain over depth" not in {gap.what for gap in probe.record().skipped}


class Cut(torch.autograd.Function):
    """Passes its input on and hands back no gradient at all: None, which autograd takes for zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        return None


class CutNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(Cut.apply(self.first(x)))


def test_a_gradient_that_autograd_leaves_out_is_zero():
    case = Case(CutNet(), loss=lambda m, x: m(x).square().mean(), data=[torch.randn(4, 3)])
    seen = observe(case, ["grad.rms"]).values["grad.rms"]
    found = {site.path: numbers[0] for site, numbers in seen.items()}
    assert found["first"] == 0.0
    assert found["last"] > 0
