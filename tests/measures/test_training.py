"""The optimizer's step, what learns, number ranges, and the first number that is not finite."""

import copy
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from measures.reading import by_name, gradients, measured, rms, squares
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from unitygain.probe.loss_graph import read_graph
from unitygain.probe.trace import Gap
from unitygain.stats import UNDERFLOW_DTYPES

RTOL = 1e-10
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-2),
}


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_update_is_that_of_the_optimizer_itself(kind: str, clipped: bool) -> None:
    clip = (lambda p: nn.utils.clip_grad_norm_(p, 1e-3)) if clipped else None
    case = squares(_net(), 4, 5, optimizer=OPTIMIZERS[kind], clip=clip)
    before = {name: p.detach().clone() for name, p in case.model.named_parameters()}
    profile = measured(case, "update_ratio")["update_ratio"]
    assert all(torch.equal(p, before[name]) for name, p in case.model.named_parameters())
    twin = copy.deepcopy(case.model)
    optimizer = OPTIMIZERS[kind](twin.parameters())
    case.loss(twin, case.batches[0]).backward()
    if clip is not None:
        clip(twin.parameters())
    optimizer.step()
    for name, parameter in twin.named_parameters():
        expected = rms(parameter - before[name]) / rms(before[name])
        # The update is a difference of numbers 1e3 times as large at most: 1e3 roundings of 2^-53.
        assert by_name(profile)[name] == pytest.approx(expected, rel=1e-9, abs=0)
    assert profile.facts["optimizer"] == type(optimizer).__name__


def test_an_optimizer_with_state_goes_on_from_it() -> None:
    case = squares(_net(), 4, 5)
    optimizer = torch.optim.Adam(case.model.parameters(), 1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        case.compute_loss(case.batches[0]).backward()
        optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    case.optimizer = optimizer
    value = measured(case, "update_ratio")["update_ratio"].values[0]
    assert optimizer.state_dict()["state"][0]["step"] == state["state"][0]["step"]
    weight = case.model.get_parameter("0.weight")
    before = weight.detach().clone()
    optimizer.step()
    assert value == pytest.approx(rms(weight - before) / rms(before), rel=1e-9, abs=0)


def test_a_step_and_a_schedule_of_the_case_s_own_are_respected() -> None:
    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 100)

    plain = squares(_net(), 4, 5, optimizer=OPTIMIZERS["sgd"])
    warm = squares(_net(), 4, 5, optimizer=OPTIMIZERS["sgd"], schedule=schedule)
    full, slow = (measured(case, "update_ratio")["update_ratio"] for case in (plain, warm))
    assert by_name(slow)["0.weight"] != by_name(full)["0.weight"]
    assert slow.facts["learning_rate"] == pytest.approx(1e-3, rel=1e-12)

    def step(case: Case, batch: Tensor) -> Tensor:
        optimizer = case.build_optimizer()
        assert optimizer is not None
        for _ in range(2):
            optimizer.zero_grad()
            loss = case.compute_loss(batch)
            loss.backward()
            optimizer.step()
        return loss

    own = squares(_net(), 4, 5, optimizer=lambda p: torch.optim.SGD(p, 1e-6), step=step)
    one = squares(_net(), 4, 5, optimizer=lambda p: torch.optim.SGD(p, 1e-6))
    twice, once = (by_name(measured(c, "update_ratio")["update_ratio"])["0.weight"] for c in (own, one))
    # The models are drawn apart; on each alone a second step of 1e-6 is the first again to about 1e-5.
    again = measured(
        Case(own.model, loss=own.loss, data=own.batches, optimizer=own.optimizer), "update_ratio"
    )["update_ratio"]
    assert twice == pytest.approx(2 * by_name(again)["0.weight"], rel=1e-3)
    assert once > 0


def test_an_optimizer_that_asks_for_more_than_a_gradient_is_named_with_what_to_do() -> None:
    case = squares(_net(), 4, 5, optimizer=lambda p: torch.optim.LBFGS(p, 1e-3))
    with pytest.raises(Gap, match=r"^LBFGS\.step needs a closure; declare the step: Case\(\.\.\., step="):
        measured(case, "update_ratio")

    def step(case: Case, batch: object) -> Tensor:
        def closure() -> Tensor:
            case.optimizer.zero_grad()
            loss = case.compute_loss(batch)
            loss.backward()
            return loss

        return case.optimizer.step(closure)

    case.step = step
    assert measured(case, "update_ratio")["update_ratio"].values[0] > 0


def test_a_model_that_cannot_be_copied_is_named_with_the_reason() -> None:
    model = _net()
    model.lock = threading.Lock()
    with pytest.raises(Gap, match=r"a step is only taken on a copy \(TypeError: cannot pickle"):
        measured(squares(model, 4, 5, optimizer=OPTIMIZERS["sgd"]), "update_ratio")


def test_a_parameter_of_zeros_has_no_ratio_and_is_left_out() -> None:
    model = nn.Linear(5, 2)
    nn.init.zeros_(model.bias)
    profile = measured(squares(model, 4, 5, optimizer=OPTIMIZERS["sgd"]), "update_ratio")["update_ratio"]
    assert set(by_name(profile)) == {"weight"}
    assert "left out" in profile.note
    assert measured(squares(_net(), 4, 5), "update_ratio") == {}


def test_parameters_that_do_not_learn_are_told() -> None:
    model = _net()
    model.get_parameter("0.bias").requires_grad_(False)
    stranger = nn.Parameter(torch.zeros(1))
    held = [model.get_parameter("0.weight"), model.get_parameter("0.bias"), stranger]
    case = squares(model, 4, 5, optimizer=torch.optim.SGD(held, 0.1))
    profile = measured(case, "param_trainable")["param_trainable"]
    assert by_name(profile) == {"0.weight": 1.0, "0.bias": 0.0, "2.weight": 1.0, "2.bias": 1.0}
    assert profile.labels == ("in optimizer", "in optimizer", "not in optimizer", "not in optimizer")
    facts = {name: profile.facts[name] for name in ("trainable_not_held", "frozen_held", "held_elsewhere")}
    assert facts == {"trainable_not_held": 2, "frozen_held": 1, "held_elsewhere": 1}
    bare = measured(squares(_net(), 4, 5), "param_trainable")["param_trainable"]
    assert set(bare.labels) == {"no optimizer"}


def test_underflow_counts_what_each_dtype_rounds_to_zero() -> None:
    case = squares(nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 2)), 16, 5)
    plain = case.loss
    case.loss = lambda model, x: plain(model, x) * 1e-6
    seen = measured(case, "grad_frac_underflow", "grad_exponents")
    profile = seen["grad_frac_underflow"]
    twin = gradients(case, lambda name, module: bool(name))
    for (site, value), row in zip(profile.items(), profile.rows, strict=True):
        gradient = twin[str(site)][1]
        assert value == row[0]
        for dtype, fraction in zip(UNDERFLOW_DTYPES, row, strict=True):
            lost = (gradient.to(getattr(torch, dtype)).double() == 0) & (gradient != 0)
            assert fraction == pytest.approx(float(lost.sum() / (gradient != 0).sum()), rel=1e-12)
    assert max(row[0] for row in profile.rows) > 0
    assert all(row[1] == 0 for row in profile.rows)
    scale = float(profile.facts["loss_scale_float16"])
    for _, gradient in twin.values():
        repaired = (gradient * scale).half()
        # All but the smallest percent, by the power of two, are kept; none overflows.
        assert (repaired == 0).double().mean() <= 0.01
        assert repaired.isfinite().all()
    counts = seen["grad_exponents"].rows[0]
    exponents = torch.frexp(twin["0"][1])[1] - 1
    assert counts[160 - 25] == int((exponents == -25).sum())
    assert sum(counts) == twin["0"][1].numel()


def test_a_scale_that_would_overflow_is_no_repair() -> None:
    case = Case(
        nn.Linear(1, 1), loss=lambda m, x: (m(x) * torch.tensor([1.0, 1e-30])).sum(), data=[torch.ones(1, 1)]
    )
    case.loss = lambda m, x: m(x)[0, 0] * 1e4 + m(x)[0, 0] * 1e-30
    facts = measured(case, "grad_frac_underflow")["grad_frac_underflow"].facts
    assert math.isnan(float(facts["loss_scale_float16"]))
    assert facts["loss_scale_bfloat16"] == 1


class Sick(nn.Module):
    def __init__(self, way: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        self.middle = Middle(way)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


class Middle(nn.Module):
    def __init__(self, way: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(x)


BREAKS: dict[str, tuple[Callable[[Tensor], Tensor], str, str]] = {
    "root of a negative": (lambda x: (-x.abs() - 1).sqrt(), "sqrt", "forward"),
    "log of zero": (lambda x: (0 * x).log(), "log", "forward"),
    "division": (lambda x: x / (x - x), "div", "forward"),
    "overflow": (lambda x: (1e4 * x.abs() + 1e3).exp(), "exp", "forward"),
    "all masked": (
        lambda x: x.masked_fill(torch.ones_like(x) > 0, -math.inf).softmax(-1),
        "_softmax",
        "forward",
    ),
    "slope of the root at zero": (lambda x: (0 * x).sqrt(), "SqrtBackward0", "backward"),
    "slope of the norm at zero": (lambda x: x * (0 * x).square().sum().sqrt(), "SqrtBackward0", "backward"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_first_operation_that_breaks_is_named(name: str) -> None:
    way, operation, direction = BREAKS[name]
    case = squares(Sick(way), 3, 4)
    profile = measured(case, "nonfinite_origin")["nonfinite_origin"]
    assert [str(site) for site in profile.sites] == ["middle"]
    assert str(profile.facts["operation"]).split(" ")[0] == operation
    assert profile.facts["direction"] == direction
    if direction == "forward":
        file, _, line = str(profile.facts["line"]).rpartition(":")
        assert file.endswith("test_training.py")
        assert int(line) > 0


def test_a_batch_or_a_parameter_that_was_broken_before_is_named_itself() -> None:
    case = squares(_net(), 3, 5)
    case.batches[0][0, 0] = math.nan
    profile = measured(case, "nonfinite_origin")["nonfinite_origin"]
    assert [str(site) for site in profile.sites] == ["(model)(input 0)"]
    case = squares(_net(), 3, 5)
    with torch.no_grad():
        case.model.get_parameter("2.bias").fill_(math.inf)
    profile = measured(case, "nonfinite_origin")["nonfinite_origin"]
    assert [str(site) for site in profile.sites] == ["2.bias"]
    assert profile.labels == ("parameter",)


def test_masks_are_no_origin_and_a_finite_pass_has_none() -> None:
    def masked(x: Tensor) -> Tensor:
        blocked = torch.eye(x.shape[-1], dtype=torch.bool)[0]
        return x.masked_fill(blocked, -math.inf).softmax(-1) + (1 - blocked.double()).log().exp()

    assert measured(squares(Sick(masked), 3, 4), "nonfinite_origin") == {}
    broken = Sick(lambda x: masked(x) / (x - x))
    profile = measured(squares(broken, 3, 4), "nonfinite_origin")["nonfinite_origin"]
    assert profile.facts["operation"] == "div"


@pytest.mark.parametrize(
    ("way", "operation", "then"),
    [
        (lambda label: label * label.log(), "log", "mul"),
        (lambda label: label.logit() - label.logit().relu(), "logit", "sub"),
        (lambda label: (1 / label)[None].transpose(0, 1) * label, "reciprocal", "mul"),
    ],
    ids=["log", "logit", "reciprocal"],
)
def test_the_infinity_is_named_that_a_nan_was_made_of(way: Callable, operation: str, then: str) -> None:
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        label = torch.tensor([0.0, 0.5, 1.0], dtype=x.dtype)
        return (way(label) * model(x).mean()).sum()

    case = Case(Sick(lambda x: x), loss, [torch.randn(8, 4)])
    facts = measured(case, "nonfinite_origin")["nonfinite_origin"].facts
    assert (facts["operation"], facts["kind"], facts["then"]) == (operation, "infinity", then)
    assert "test_training.py" in str(facts["line"])


def test_an_infinity_that_was_written_has_no_operation_that_made_it() -> None:
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        blocked = torch.full((3,), -math.inf)
        return (model(x).mean() * (blocked - blocked)).sum()

    facts = measured(Case(Sick(lambda x: x), loss, [torch.randn(8, 4)]), "nonfinite_origin")[
        "nonfinite_origin"
    ].facts
    assert (facts["operation"], facts["kind"], facts["fed"]) == ("sub", "NaN", 1.0)


class Energy(nn.Module):
    """A layer behind a norm by hand, whose sum of squares leaves float16."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size
        self.first, self.last = nn.Linear(4, 64), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.size * self.first(x)
        return self.last(torch.relu(x / (x * x).sum(1, keepdim=True).sqrt()))


@pytest.mark.parametrize(("size", "operation"), [(1.0, None), (120.0, "sum")])
def test_an_infinity_in_float16_that_ends_in_zeros_is_found(size: float, operation: str | None) -> None:
    case = Case(
        Energy(size),
        lambda m, x: m(x).float().square().mean(),
        [torch.ones(8, 4)],
        precision="float16",
    )
    found = measured(case, "nonfinite_origin").get("nonfinite_origin")
    assert (found and found.facts["operation"]) == operation


def test_looking_for_the_origin_changes_nothing() -> None:
    case = squares(Sick(lambda x: (0 * x).log()), 3, 4)
    before = copy.deepcopy(case.model.state_dict())
    measured(case, "nonfinite_origin")
    after = case.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in case.model.modules())


def test_an_expected_loss_beside_the_measured_one() -> None:
    target = torch.arange(6) % 5
    model = nn.Linear(4, 5)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    case = Case(model, loss=lambda m, x: F.cross_entropy(m(x), target), data=[torch.randn(6, 4)])
    profile = measured(case, "loss_value")["loss_value"]
    # ln 5 in float32.
    assert profile.values[0] == pytest.approx(float(profile.facts["expected"]), rel=2e-7)


@pytest.mark.parametrize("most", [1e-6, 0.5, 1e6])
def test_what_a_clip_leaves_of_the_gradient_is_its_norm_after_over_before(most: float) -> None:
    case = squares(
        _net(), 4, 5, optimizer=OPTIMIZERS["sgd"], clip=lambda p: nn.utils.clip_grad_norm_(p, most)
    )
    twin = copy.deepcopy(case.model)
    case.loss(twin, case.batches[0]).backward()
    whole = math.sqrt(sum(float(p.grad.square().sum()) for p in twin.parameters() if p.grad is not None))
    # torch's clip adds 1e-6 to the norm that it divides by.
    expected = min(1.0, most / (whole + 1e-6))
    assert measured(case, "update_ratio")["update_ratio"].facts["clipped"] == pytest.approx(
        expected, rel=1e-9
    )


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
@pytest.mark.parametrize("size", [0.1, 1e5])
def test_the_reduction_of_squares_by_hand_is_read_from_the_gradient(scale: float, size: float) -> None:
    """The loss s·mean((y - t)²) has the gradient 2s(y - t)/n: n²·mean(g²)/(4·loss) is s, for any targets."""
    torch.manual_seed(1)
    inputs, targets = torch.randn(6, 5), size * torch.randn(6, 2)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return scale * (model(batch[0]) - batch[1]).pow(2).mean()

    case = Case(_net(), loss, [(inputs, targets)])
    # float32: a mean of twelve squares, and one of the gradient.
    assert measured(case, "loss_value")["loss_value"].facts["reduction"] == pytest.approx(scale, rel=1e-5)


@pytest.mark.parametrize("errors", [F.l1_loss, F.smooth_l1_loss, lambda y, t: (y - t).abs().pow(4).mean()])
@pytest.mark.parametrize("size", [0.01, 1e3])
def test_the_reduction_of_other_errors_is_not_read_as_if_they_were_squares(errors, size: float) -> None:
    """A mean of absolute errors of 1e3 has a gradient that squares divided by 4000 would have."""
    torch.manual_seed(1)
    batch = torch.randn(6, 5), size * torch.randn(6, 2)
    case = Case(_net(), lambda model, batch: errors(model(batch[0]), batch[1]), [batch])
    assert math.isnan(float(measured(case, "loss_value")["loss_value"].facts["reduction"]))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda e: (e * e).sum(), True),
        (lambda e: (torch.ones(3) * e.square()).mean() / 2 + 0.1 * F.mse_loss(e, torch.ones(3)), True),
        (lambda e: torch.stack([part**2 for part in e]).mean(), True),
        (lambda e: e.square().mean() + e.abs().mean(), False),
        (lambda e: (e * e.detach().exp()).sum(), False),
        (lambda e: e.square().mean().sqrt(), False),
        (lambda e: e.pow(3).mean(), False),
        (lambda e: (e[0] * e[1]).sum(), False),
    ],
)
def test_squares_are_known_from_the_graph(loss, expected: bool) -> None:
    graph = read_graph(loss(torch.randn(3, requires_grad=True)), None)
    assert graph["loss_of_squares"] == expected


def test_squares_of_a_code_that_no_output_depends_on_count_for_nothing() -> None:
    x = torch.randn(3, requires_grad=True)
    code = x.exp()
    output = code * 2
    loss = (output - 1).square().mean() + code.abs().mean()
    assert read_graph(loss, output.grad_fn._sequence_nr())["loss_of_squares"] == 1
    assert read_graph(loss, code.grad_fn._sequence_nr())["loss_of_squares"] == 0
    assert read_graph(loss, None)["loss_of_squares"] == 0


def test_a_loss_that_is_a_parameter_has_no_graph() -> None:
    assert read_graph(torch.nn.Parameter(torch.tensor(2.0)), None)["loss_of_squares"] == 0


@pytest.mark.parametrize(("how", "times"), [("mean", 1.0), ("sum", 6.0)])
def test_the_reduction_of_a_cross_entropy_is_the_loss_over_its_mean(how: str, times: float) -> None:
    torch.manual_seed(1)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction=how)

    case = Case(_net(), loss, [(torch.randn(6, 5), torch.randint(2, (6,)))])
    assert measured(case, "loss_value")["loss_value"].facts["reduction"] == pytest.approx(times, rel=1e-5)


class Adapter(nn.Module):
    """A branch behind two weights of zeros or one, beside a skip path, and a head that may be zero."""

    def __init__(self, *zeros: str) -> None:
        super().__init__()
        self.a, self.b, self.head = (nn.Linear(5, 5, bias=False) for _ in range(3))
        for name in zeros:
            nn.init.zeros_(getattr(self, name).weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + self.b(torch.tanh(self.a(x))))


@pytest.mark.parametrize(
    ("zeros", "expected"),
    [
        ((), None),
        (("b",), {"a.weight": 1.0}),
        (("head",), {"a.weight": 1.0, "b.weight": 1.0}),
        (("b", "head"), {"a.weight": 2.0, "b.weight": 1.0}),
        (("a", "b"), {"a.weight": math.inf, "b.weight": math.inf}),
        (("a", "b", "head"), {"a.weight": math.inf, "b.weight": math.inf}),
    ],
)
def test_the_delay_of_a_gradient_is_the_number_of_zeros_behind_it(zeros, expected) -> None:
    case = squares(Adapter(*zeros), 4, 5)
    case.loss = lambda model, x: (model(x) - x).square().mean()
    before = {name: (p.data_ptr(), p.detach().clone()) for name, p in case.model.named_parameters()}
    profile = measured(case, "param_grad_delay").get("param_grad_delay")
    assert (by_name(profile) if profile else None) == expected
    for name, p in case.model.named_parameters():
        assert p.data_ptr() == before[name][0]
        assert torch.equal(p, before[name][1])
    if profile:
        sizes = [rms(case.model.get_parameter(name)) for name in expected or ()]
        assert [row[0] for row in profile.rows] == pytest.approx(sizes, rel=1e-12)
        assert {row[1] for row in profile.rows} == {2.0}


def test_a_table_of_zeros_with_sparse_gradients_is_moved_too() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word, self.context = (nn.Embedding(4, 3, sparse=True) for _ in range(2))
            nn.init.zeros_(self.context.weight)

        def forward(self, x: Tensor) -> Tensor:
            return (self.word(torch.arange(4)) * self.context(torch.arange(4))).sum(-1) * x.mean() - 1

    assert by_name(measured(squares(Pairs(), 2, 3), "param_grad_delay")["param_grad_delay"]) == {
        "word.weight": 1.0
    }


def test_the_mean_of_weights_in_units_of_their_spread() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3, 2, bias=False))
    nn.init.uniform_(model[0].weight, -1, 0)
    nn.init.constant_(model[2].weight, -0.5)
    profile = measured(squares(model, 4, 2, 3, 3), "weight_mean")["weight_mean"]
    flat = model[0].weight.detach().flatten()
    expected = 18**0.5 * float(flat.mean() / flat.std(correction=0))
    assert by_name(profile)["0"] == pytest.approx(expected, rel=1e-12)
    assert by_name(profile)["2"] == -math.inf
    assert profile.note


class Hiding(nn.Module):
    """Layers in plain containers: some trained, one frozen, one registered elsewhere, one not used."""

    def __init__(self) -> None:
        super().__init__()
        self.known = nn.Linear(4, 4, bias=False)
        self.listed = [nn.Linear(4, 4), self.known]
        self.named = {"a": (nn.Sequential(nn.Linear(4, 4, bias=False)), 3)}
        self.still = [nn.Linear(4, 4).requires_grad_(False)]
        self.spare = [nn.Linear(4, 4)]
        self.noted = [torch.zeros(2, requires_grad=True), "x"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.known(self.listed[0](x)) + self.named["a"][0](x)
        return self.still[0](x)


def hide(case: Case) -> Case:
    """Cast what `squares` could not: the model does not know of it."""
    model: Any = case.model
    for part in (model.listed[0], model.named["a"][0], model.still[0]):
        part.double()
    return case


def test_parameters_in_plain_containers_are_found_by_their_gradient() -> None:
    case = hide(squares(Hiding(), 3, 4))
    profile = measured(case, "unregistered_grad_rms")["unregistered_grad_rms"]
    model: Any = case.model
    expected = {
        "(model).listed[0].weight": model.listed[0].weight,
        "(model).listed[0].bias": model.listed[0].bias,
        "(model).named['a'][0].0.weight": model.named["a"][0][0].weight,
    }
    inputs = list(expected.values())
    found = torch.autograd.grad(case.loss(model, case.batches[0]), inputs)
    sizes = {name: rms(gradient) for name, gradient in zip(expected, found, strict=True)}
    assert by_name(profile) == pytest.approx(sizes, rel=1e-12)
    assert profile.labels == ("no optimizer",) * 3
    assert profile.facts == {"not_held": 3.0, "containers": "listed, named"}


def test_a_hidden_parameter_that_the_optimizer_holds_is_told_from_one_that_it_does_not() -> None:
    case = hide(squares(Hiding(), 3, 4))
    model: Any = case.model
    case.optimizer = torch.optim.SGD([*model.parameters(), *model.listed[0].parameters()], 0.1)
    profile = measured(case, "unregistered_grad_rms")["unregistered_grad_rms"]
    assert profile.labels == ("in optimizer", "in optimizer", "not in optimizer")
    assert profile.facts == {"not_held": 1.0, "containers": "named"}


def test_a_model_without_plain_containers_has_no_hidden_parameters() -> None:
    assert measured(squares(_net(), 4, 5), "unregistered_grad_rms") == {}


def _thawed_head(*, norm: bool = False) -> nn.Sequential:
    middle = [nn.BatchNorm1d(32)] if norm else []
    body = nn.Sequential(nn.Linear(12, 32), *middle, nn.Tanh(), nn.Linear(32, 6))
    return nn.Sequential(body.requires_grad_(False), nn.Linear(6, 2))


def test_frozen_weights_are_told_from_trained_ones() -> None:
    drawn = measured(squares(_thawed_head(), 8, 12), "frozen_drawn")["frozen_drawn"]
    assert by_name(drawn) == {"0.0.weight": 1.0, "0.2.weight": 1.0}
    assert drawn.facts["features"] == 8 * 6
    assert drawn.facts["inputs"] == 8 * 12
    assert drawn.facts["share"] == (12 * 32 + 32 * 6) / (13 * 32 + 33 * 6 + 7 * 2)
    case = squares(_thawed_head(), 64, 12)
    case.model.requires_grad_(True)
    optimizer = torch.optim.Adam(case.model.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        case.compute_loss(case.batches[0]).backward()
        optimizer.step()
    case.model[0].requires_grad_(False)  # type: ignore[index]
    assert 0.0 in by_name(measured(case, "frozen_drawn")["frozen_drawn"]).values()


@pytest.mark.parametrize("mark", ["statistics", "scale", "offset"])
def test_what_else_is_frozen_tells_of_training(mark: str) -> None:
    case = squares(_thawed_head(norm=True), 8, 12)
    assert set(by_name(measured(case, "frozen_drawn")["frozen_drawn"]).values()) == {1.0}
    norm: Any = case.model.get_submodule("0.1")
    if mark == "statistics":
        norm.num_batches_tracked += 100
    elif mark == "scale":
        norm.weight.data[3] = 2.0
    else:
        case.model.get_submodule("0.3").bias.data[1] = 9.0
    assert set(by_name(measured(case, "frozen_drawn")["frozen_drawn"]).values()) == {0.0}


def test_frozen_weights_behind_what_trains_have_no_features() -> None:
    model = nn.Sequential(nn.Linear(12, 16), nn.Linear(16, 8).requires_grad_(False), nn.Linear(8, 2))
    facts = measured(squares(model, 8, 12), "frozen_drawn")["frozen_drawn"].facts
    assert math.isnan(float(facts["features"]))
    assert measured(squares(_net(), 4, 5), "frozen_drawn") == {}


def _facts(model: nn.Module, loss: Callable[[Any, Any], Tensor], *batch: Tensor) -> Any:
    return measured(Case(model, loss, [batch]), "loss_value")["loss_value"].facts


ENDS: dict[str, tuple[nn.Module, float, float]] = {
    "relu": (nn.ReLU(), 0.0, math.inf),
    "softplus": (nn.Softplus(), 0.0, math.inf),
    "sigmoid": (nn.Sigmoid(), 0.0, 1.0),
    "hardsigmoid": (nn.Hardsigmoid(), 0.0, 1.0),
    "tanh": (nn.Tanh(), -1.0, 1.0),
    "softmax": (nn.Softmax(-1), 0.0, 1.0),
}
ERRORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "huber": F.huber_loss,
    "smooth": F.smooth_l1_loss,
    "by hand": lambda y, t: (t - y).square().mean(),
    "picked": lambda y, t: F.mse_loss(y.gather(1, torch.zeros(6, 1).long()).squeeze(1), t[:, 0]),
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("end", ENDS)
def test_targets_beyond_the_range_of_the_last_activation_are_counted(end: str, error: str) -> None:
    torch.manual_seed(2)
    module, low, high = ENDS[end]
    inputs, targets = torch.randn(6, 5), 2 * torch.randn(6, 2)
    facts = _facts(nn.Sequential(_net(), module), lambda m, b: ERRORS[error](m(b[0]), b[1]), inputs, targets)
    seen = (targets[:, 0] if error == "picked" else targets).double().numpy()
    expected = ((seen - seen.clip(low, high)) ** 2).mean() / seen.var()
    assert (facts["beyond"], facts["bounded_by"]) == (pytest.approx(expected, rel=RTOL), end)


class Difference(nn.Module):
    """A model that subtracts its input from a bounded number by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(torch.tanh(self.map(x)) - x)


@pytest.mark.parametrize("model", [_net(), Difference(), nn.Sequential(_net(), nn.LeakyReLU())])
def test_where_nothing_bounds_the_prediction_no_target_is_beyond(model: nn.Module) -> None:
    inputs, targets = torch.randn(6, 5), 9 * torch.randn(6, 5)
    facts = _facts(model, lambda m, b: F.mse_loss(m(b[0])[:, :2], b[1][:, :2]), inputs, targets)
    assert math.isnan(facts["beyond"])


SHAPES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], str]] = {
    "column": (lambda y: y[:, :1], lambda t: t[:, 0], "column"),
    "row": (lambda y: y[:, 0], lambda t: t[:, :1], "row"),
    "put in": (lambda y: y[:, 0], lambda t: t[:, 0].unsqueeze(1), "row"),
}
DIFFERENCES = {**ERRORS, "absolute": F.l1_loss, "other way": lambda y, t: (y - t).abs().sum()}
del DIFFERENCES["picked"]


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("error", DIFFERENCES)
@pytest.mark.parametrize("shapes", SHAPES)
def test_predictions_that_meet_all_targets_are_counted(shapes: str, error: str) -> None:
    of_prediction, of_target, which = SHAPES[shapes]
    facts = _facts(
        _net(),
        lambda m, b: DIFFERENCES[error](of_prediction(m(b[0])), of_target(b[1])),
        torch.randn(6, 5),
        torch.randn(6, 2),
    )
    assert (facts["pairs"], facts["prediction"]) == (6.0, which)


def _no_pairs(name: str, y: Tensor, t: Tensor) -> Tensor:
    """Differences whose shapes are meant."""
    column, row = y[:, :1], y[:, 0]
    return {
        "alike": lambda: (column - t[:, :1]).square(),
        "pairs asked for": lambda: y[:, None] - t[None],
        "rows asked for": lambda: column - t[None, :, 0],
        "a dimension put in": lambda: row[:, None] - t[:, 0],
        "expanded": lambda: row[:, None].expand(6, 6) - t[None, :, 0].expand(6, 6),
        "both learn": lambda: column - row,
        "with itself": lambda: column - row.detach(),
        "one sample": lambda: column[:1] - t[:1, 0],
        "other counts": lambda: column - t[:4, 0],
        "a mean": lambda: column - t[0, 0],
        "columns": lambda: y - t[0],
    }[name]().sum()


@pytest.mark.parametrize(
    "name",
    [
        *("alike", "pairs asked for", "rows asked for", "a dimension put in", "expanded", "both learn"),
        *("with itself", "one sample", "other counts", "a mean", "columns"),
    ],
)
def test_differences_whose_shapes_are_meant_are_no_pairs(name: str) -> None:
    facts = _facts(_net(), lambda m, b: _no_pairs(name, m(b[0]), b[1]), torch.randn(6, 5), torch.randn(6, 2))
    assert math.isnan(facts["pairs"])


def test_the_smallest_product_of_the_loss_is_read_and_none_where_there_is_none() -> None:
    def product(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        return -torch.softmax(model(batch[0]), -1).prod(0).sum()

    inputs = torch.randn(6, 5)
    model = _net()
    expected = torch.softmax(model(inputs), -1).prod(0).max().item()
    # A product of six float32 numbers.
    assert _facts(model, product, inputs)["smallest_product"] == pytest.approx(expected, rel=1e-6)
    assert math.isnan(_facts(model, lambda m, b: m(b[0]).sum(), inputs)["smallest_product"])


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 1.0), (-1.0, -1.0)])
def test_the_pull_at_the_output_has_the_sign_of_what_the_loss_asks_for(sign: float, expected: float) -> None:
    facts = _facts(_net(), lambda m, b: sign * m(b[0]).mean(), torch.randn(6, 5))
    assert facts["output_pull"] == pytest.approx(expected, rel=1e-6)
    assert facts["output_rms"] > 0


def _bent(order: int) -> Callable[[nn.Module, Any], Tensor]:
    def loss(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        x = batch[0].detach().requires_grad_()
        value = model(x)
        for _ in range(order):
            (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        return (value - 1).square().mean()

    return loss


@pytest.mark.parametrize(
    ("activation", "order", "flat"),
    [
        (nn.ReLU(), 2, "ReLU"),
        (nn.LeakyReLU(0.2), 2, "LeakyReLU"),
        (nn.ReLU(), 1, ""),
        (nn.Tanh(), 2, ""),
        (nn.Softplus(), 2, ""),
    ],
)
def test_a_second_derivative_of_a_piecewise_linear_model_is_known_to_be_zero(activation, order, flat) -> None:
    model = nn.Sequential(nn.Linear(1, 8), activation, nn.Linear(8, 8), activation, nn.Linear(8, 1))
    facts = _facts(model, _bent(order), torch.rand(6, 1))
    assert facts["flat_activation"] == flat
    assert (facts["flat_products"] > 0) == bool(flat)


def test_a_penalty_on_the_gradient_through_relu_is_not_flat() -> None:
    def penalty(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        x = batch[0].detach().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return (slope.norm(dim=1) - 1).square().mean() + model(batch[0]).mean()

    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    assert _facts(model, penalty, torch.randn(6, 5))["flat_products"] == 0


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 50.0), (3.0, 50.0 / (1 + 3.0))])
def test_terms_beside_the_squares_lower_the_reduction(weight: float, expected: float) -> None:
    """They do not depend on the first output; the loss is larger by them, and the gradient there is not."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(5, 2), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.one(x), self.other(x)

    torch.manual_seed(1)
    inputs, targets = torch.randn(6, 5), 100 * torch.randn(6, 2)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        made, spread = model(batch[0])
        squares = 50 * (made - batch[1]).pow(2).mean()
        # A term of `weight` times the size of the squares.
        return squares + weight * squares.detach() * spread.exp().mean() / spread.exp().mean().detach()

    assert _facts(Two(), loss, inputs, targets)["reduction"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (torch.sign, "sign"),
        (torch.round, "round"),
        (torch.floor, "floor"),
        (torch.tanh, ""),
        (torch.relu, ""),
    ],
)
def test_a_function_of_steps_on_the_way_to_the_loss_is_known(function, expected) -> None:
    torch.manual_seed(1)
    facts = _facts(_net(), lambda m, b: function(m(b[0])).mean() + m(b[0]).mean(), torch.randn(6, 5))
    assert facts["step_function"] == expected


@pytest.mark.parametrize("turned", [False, True])
def test_targets_of_a_squared_error_have_their_rms_and_learnt_ones_none(turned: bool) -> None:
    inputs, targets = torch.randn(6, 5), 3 * torch.randn(6, 2) + 1

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        sides = (batch[1], model(batch[0])) if turned else (model(batch[0]), batch[1])
        return F.mse_loss(*sides)

    facts = _facts(_net(), loss, inputs, targets)
    assert facts["target_rms"] == pytest.approx(float(targets.double().square().mean().sqrt()), rel=1e-6)
    learnt = _facts(_net(), lambda m, b: F.mse_loss(m(b[0]), m(2 * b[0])), inputs, targets)
    assert math.isnan(float(learnt["target_rms"]))
