"""What happens inside operations: attention, activations, gates and the loss, against explicit formulas."""

import math
from collections.abc import Callable

import pytest
import torch
from measures.reading import by_name, measured, squares
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unitygain._case import Case
from unitygain.probe import Probe

RTOL = 1e-10
Q, D = 5, 8


class Attend(nn.Module):
    """One head of attention, with the softmax computed in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(D, D) for _ in range(3))
        self.way = way
        self.logits: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        blocked = torch.ones(Q, Q, dtype=torch.bool).triu(1)
        logits = q @ k.transpose(-1, -2) / math.sqrt(D)
        self.logits = logits.detach()
        if self.way == "fused":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        if self.way == "fused with a mask":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=~blocked)
        fill = {"minus infinity": -math.inf, "lowest": torch.finfo(x.dtype).min, "einsum": -1e9}
        p = logits.masked_fill(blocked, fill.get(self.way, -math.inf)).softmax(-1)
        if self.way == "dropout":
            p = F.dropout(p, 0.1)
        return torch.einsum("bqk,bkd->bqd", p, v) if self.way == "einsum" else p @ v


@pytest.mark.parametrize(
    "way", ["fused", "fused with a mask", "minus infinity", "lowest", "einsum", "dropout"]
)
def test_attention_is_seen_however_it_is_written(way: str) -> None:
    model = Attend(way)
    case = squares(model, 3, Q, D)
    seen = measured(case, "attention_logit_absmax", "attention_entropy")
    assert model.logits is not None
    open_ = torch.ones(Q, Q, dtype=torch.bool).tril()
    logits = model.logits.masked_fill(~open_, -math.inf)
    p = logits.softmax(-1)
    entropy = -torch.where(p > 0, p * p.log(), 0.0).sum(-1)[:, 1:] / torch.arange(2.0, Q + 1).double().log()
    assert by_name(seen["attention_logit_absmax"]) == {
        "(model).(softmax)": pytest.approx(float(model.logits[:, open_].abs().max()), rel=RTOL, abs=0)
    }
    assert seen["attention_entropy"].values == pytest.approx((float(entropy.mean()),), rel=RTOL, abs=0)


@pytest.mark.parametrize("weights", [True, False])
def test_multihead_attention_is_seen_in_train_and_eval_mode(weights: bool) -> None:
    for training in (True, False):
        model = nn.MultiheadAttention(D, 2, batch_first=True).train(training)
        x = torch.randn(3, Q, D)

        def loss(model: nn.Module, x: Tensor, weights: bool = weights) -> Tensor:
            return model(x, x, x, need_weights=weights)[0].square().mean()

        case = Case(model, loss=loss, data=[x])
        seen = measured(case, "attention_logit_absmax")["attention_logit_absmax"]
        q, k = (F.linear(x, model.in_proj_weight[i * D : (i + 1) * D]).view(3, Q, 2, D // 2) for i in (0, 1))
        top = (torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(D // 2)).abs().max()
        # float32 sums of D products, twice.
        assert seen.values == pytest.approx((float(top.detach()),), rel=1e-5, abs=0)


def test_a_frozen_encoder_in_eval_mode_takes_no_shortcut() -> None:
    layer = nn.TransformerEncoderLayer(D, 2, 16, batch_first=True).requires_grad_(False).eval()
    case = squares(nn.Sequential(nn.Linear(D, D), layer), 3, Q, D)
    assert str(measured(case, "attention_entropy")["attention_entropy"].sites[0]) == "1.self_attn.(softmax)"


def test_a_softmax_that_is_the_output_or_a_hidden_layer_is_no_attention() -> None:
    hidden = nn.Sequential(nn.Linear(D, D), nn.Softmax(-1), nn.Linear(D, D), nn.Softmax(-1))
    assert measured(squares(hidden, 3, D), "attention_entropy") == {}
    with Probe(hidden, ["softmax.absmax"]) as probe:
        hidden(torch.randn(3, D, dtype=torch.float64))
    assert [place.type for place in probe.record().of("softmax")] == ["hidden", "output"]


def test_attention_that_pools_with_a_product_of_entries_is_attention() -> None:
    class Pool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(D, 1)

        def forward(self, x: Tensor) -> Tensor:
            return (self.score(x).softmax(1) * x).sum(1)

    assert len(measured(squares(Pool(), 3, Q, D), "attention_entropy")["attention_entropy"]) == 1


def test_uniform_and_one_hot_attention_have_entropy_one_and_zero() -> None:
    for scale, expected in ((0.0, 1.0), (1e4, 0.0)):
        model = Attend("minus infinity")
        with torch.no_grad():
            model.q.weight.mul_(scale)
            model.q.bias.mul_(scale)
        entropy = measured(squares(model, 3, Q, D), "attention_entropy")["attention_entropy"].values[0]
        # ln n is rounded once on each side; with logits of 1e4 a row's second entry is below e^-10.
        assert entropy == pytest.approx(expected, abs=1e-3 if scale else 1e-12)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "gelu with tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "elu": lambda x: F.elu(x, 0.5),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 2.0),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hardtanh": F.hardtanh,
    "relu6": F.relu6,
    "clamp": lambda x: x.clamp(-1, 2),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "softplus": lambda x: F.softplus(x, 2.0),
    "logsigmoid": F.logsigmoid,
    "hardshrink": F.hardshrink,
    "softshrink": lambda x: F.softshrink(x, 0.25),
    "sin": torch.sin,
    "erf": torch.erf,
    "relu in place": lambda x: F.relu_(x.clone()),
    "silu in place": lambda x: F.silu(x.clone(), inplace=True),
}


class Bend(nn.Module):
    def __init__(self, bend: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.head = nn.Linear(6, 50), nn.Linear(50, 1)
        self.bend = bend

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bend(6 * self.linear(x)))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_saturation_is_that_of_autograd_s_own_slope(name: str) -> None:
    bend = ACTIVATIONS[name]
    case = squares(Bend(bend), 20, 6)
    profile = measured(case, "act_frac_saturated")["act_frac_saturated"]
    x = (6 * case.model.get_submodule("linear")(case.batches[0])).detach().requires_grad_()
    (slope,) = torch.autograd.grad(bend(x).sum(), x)
    grid = torch.linspace(-30, 30, 60001, dtype=torch.float64, requires_grad=True)
    top = float(torch.autograd.grad(bend(grid).sum(), grid)[0].abs().max())
    assert len(profile) == 1
    assert str(profile.sites[0]).startswith("(model).(")
    assert profile.values[0] == float((slope.abs() < 0.01 * top).double().mean())
    spread, opened = profile.rows[0]
    # hardsigmoid's own backward multiplies by 1/6 rounded to float32.
    assert spread == pytest.approx(float(slope.square().mean().sqrt()), rel=1e-7, abs=0)
    assert opened == pytest.approx(float((slope.abs() >= 0.5 * top).double().mean()), abs=1 / 1000)


class Quick(nn.Module):
    """x·sigmoid(1.7·x), written by hand."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.7 * x)


@pytest.mark.parametrize("module", [Quick(), nn.Softsign(), nn.Tanhshrink()], ids=lambda m: type(m).__name__)
def test_a_module_that_acts_on_entries_alone_is_one_activation(module: nn.Module) -> None:
    case = squares(nn.Sequential(nn.Linear(6, 40), module, nn.Linear(40, 1)), 10, 6)
    with torch.no_grad():
        case.model.get_submodule("0").weight.mul_(20)  # pyright: ignore[reportCallIssue]
    profile = measured(case, "act_frac_saturated")["act_frac_saturated"]
    x = case.model.get_submodule("0")(case.batches[0]).detach().requires_grad_()
    (slope,) = torch.autograd.grad(module(x).sum(), x)
    assert profile.labels == (type(module).__name__,)
    assert str(profile.sites[0]) == "1"
    assert profile.rows[0][0] == pytest.approx(float(slope.square().mean().sqrt()), rel=RTOL, abs=0)
    assert measured(case, "gate_mean") == {}


@pytest.mark.parametrize(
    "module", [nn.Identity(), nn.Dropout(0.5), nn.Softmax(-1), nn.LayerNorm(40)], ids=str
)
def test_what_is_no_function_of_single_entries_is_no_activation(module: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(6, 40), module, nn.Linear(40, 1))
    assert measured(squares(model, 10, 6), "act_frac_saturated") == {}


def test_dead_units_are_found_in_functions_and_modules() -> None:
    model = Bend(F.relu)
    with torch.no_grad():
        model.linear.bias[:10] = -1e3
    profile = measured(squares(model, 8, 6), "act_frac_dead")["act_frac_dead"]
    output = F.relu(6 * model.linear(squares(model, 8, 6).batches[0]))
    assert profile.values == pytest.approx((float((output == 0).all(0).double().mean()),), rel=RTOL)
    assert profile.values[0] >= 0.2


def test_every_call_of_an_activation_is_a_site_of_its_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.act = nn.Linear(6, 6), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(torch.tanh(self.act(self.linear(self.act(self.linear(x))))))

    sites = measured(squares(Twice(), 4, 6), "act_frac_saturated")["act_frac_saturated"].sites
    assert [str(site) for site in sites] == ["act#1", "act#2", "(model)#1.(tanh)", "(model)#2.(tanh)"]


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_s_recomputation_is_not_counted_again(reentrant: bool) -> None:
    class Saved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.body, x, use_reentrant=reentrant)

    sites = measured(squares(Saved(), 4, 6), "act_frac_saturated")["act_frac_saturated"].sites
    assert [str(site) for site in sites] == ["body.1"]


def test_positions_and_masks_are_no_activations() -> None:
    class Place(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) + torch.sin(torch.arange(6.0)) + torch.relu(torch.ones(6))

    assert measured(squares(Place(), 4, 6), "act_frac_saturated") == {}


def test_gates_are_sigmoids_that_multiply_another_signal() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value, self.gate, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(20 * self.gate(x))
            mixed = gate * self.value(x) + (1 - gate) * x
            return torch.sigmoid(self.head(mixed * torch.sigmoid(mixed)))

    model = Gated()
    case = squares(model, 8, 6)
    seen = measured(case, "gate_mean", "gate_frac_closed", "act_frac_saturated")
    gate = torch.sigmoid(20 * model.gate(case.batches[0])).detach()
    assert by_name(seen["gate_mean"]) == {"(model).(sigmoid)": pytest.approx(float(gate.mean()), rel=RTOL)}
    assert seen["gate_frac_closed"].values == (float((gate < 0.05).double().mean()),)
    assert seen["act_frac_saturated"].labels == ("sigmoid", "sigmoid (output)")


@pytest.mark.parametrize("width", [6, 16, 64])
def test_a_gate_stays_one_where_the_signal_takes_the_memory_of_what_entered_it(width: int) -> None:
    """What enters the sigmoid is freed, and the allocator hands its storage to what is multiplied."""

    class Excited(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value, self.gate = nn.Linear(width, width), nn.Linear(width, width)

        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(self.gate(x))
            return x + gate * self.value(x).relu()

    model = nn.Sequential(*(Excited() for _ in range(6)), nn.Linear(width, 1))
    for _ in range(8):
        assert len(measured(squares(model, 8, width), "gate_mean")["gate_mean"]) == 6


def test_glu_s_second_half_is_its_gate() -> None:
    case = squares(nn.Sequential(nn.Linear(6, 8), nn.GLU(), nn.Linear(4, 1)), 8, 6)
    gate = case.model.get_submodule("0")(case.batches[0])[:, 4:].sigmoid().detach()
    profile = measured(case, "gate_mean")["gate_mean"]
    assert profile.values == pytest.approx((float(gate.mean()),), rel=RTOL, abs=0)


def test_gates_of_an_lstm_are_those_of_its_equations() -> None:
    lstm = nn.LSTM(3, 4, batch_first=True)
    case = squares(lstm, 5, 7, 3)
    with torch.no_grad():
        lstm.bias_hh_l0[4:8] += 5
    seen = by_name(measured(case, "gate_mean")["gate_mean"])
    x, h, c = case.batches[0], torch.zeros(5, 4).double(), torch.zeros(5, 4).double()
    forgets = []
    for t in range(7):
        total = x[:, t] @ lstm.weight_ih_l0.T + lstm.bias_ih_l0 + h @ lstm.weight_hh_l0.T + lstm.bias_hh_l0
        i, f, g, o = total.detach().split(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        forgets.append(f.sigmoid())
    assert list(seen) == ["(model).(input)", "(model).(forget)", "(model).(output)"]
    assert seen["(model).(forget)"] == pytest.approx(float(torch.stack(forgets).mean()), rel=RTOL, abs=0)


def test_every_layer_and_direction_has_its_gates_and_so_has_every_call_of_a_cell() -> None:
    both = squares(nn.GRU(3, 4, num_layers=2, bidirectional=True), 6, 2, 3)
    names = list(by_name(measured(both, "gate_mean")["gate_mean"]))
    assert len(names) == 8
    assert names[:3] == ["(model).(reset l0)", "(model).(update l0)", "(model).(reset l0_reverse)"]

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = None
            for step in x:
                h = self.cell(step, h)
            assert h is not None
            return h

    names = list(by_name(measured(squares(Loop(), 3, 2, 3), "gate_mean")["gate_mean"]))
    assert names[:4] == ["cell#1.(reset)", "cell#1.(update)", "cell#2.(reset)", "cell#2.(update)"]


def _labelled(loss: Callable[[Tensor], Tensor], *layers: nn.Module, width: int = 4) -> Case:
    model = nn.Sequential(nn.Linear(6, width), *layers).double()
    return Case(model, loss=lambda m, x: loss(m(x)), data=[torch.randn(8, 6, dtype=torch.float64)])


TARGET = torch.arange(8) % 4
SOFT = torch.rand(8, 4, dtype=torch.float64).softmax(-1)
LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "cross_entropy": (lambda y: F.cross_entropy(y, TARGET), "cross_entropy"),
    "smoothed": (lambda y: F.cross_entropy(y, TARGET, label_smoothing=0.1), "cross_entropy"),
    "ignored": (lambda y: F.cross_entropy(y, torch.where(TARGET > 1, -100, TARGET)), "cross_entropy"),
    "in two steps": (lambda y: F.nll_loss(F.log_softmax(y, -1), TARGET), "cross_entropy"),
    "log of softmax": (lambda y: F.nll_loss(y.softmax(-1).log(), TARGET), "cross_entropy"),
    "gathered": (
        lambda y: -y.log_softmax(-1).gather(1, TARGET[:, None]).mean(),
        "cross_entropy",
    ),
    "indexed": (lambda y: -y.log_softmax(-1)[torch.arange(8), TARGET].mean(), "cross_entropy"),
    "probabilities": (lambda y: F.cross_entropy(y, SOFT), "soft_cross_entropy"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_p_minus_y_is_the_gradient_of_the_logits(name: str) -> None:
    loss, kind = LOSSES[name]
    case = _labelled(loss)
    torch.manual_seed(1)
    seen = measured(case, "logit_grad_absmax", "loss_value")
    p = case.model(case.batches[0]).softmax(-1).detach()
    y = SOFT if name == "probabilities" else F.one_hot(TARGET, 4).double()
    kept = TARGET <= 1 if name == "ignored" else torch.ones(8, dtype=torch.bool)
    profile = seen["logit_grad_absmax"]
    assert profile.values == pytest.approx((float((p - y)[kept].abs().max()),), rel=RTOL, abs=0)
    assert profile.facts["kind"] == seen["loss_value"].facts["kind"] == kind
    assert profile.facts["rows"] == int(kept.sum())
    assert seen["loss_value"].facts["expected"] == pytest.approx(math.log(4), rel=1e-15)
    assert seen["loss_value"].facts["softmax_before_loss"] == 0.0


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 5, 7)])
def test_classes_are_the_second_dimension_of_images_and_sequences(shape: tuple[int, ...]) -> None:
    target = torch.randint(3, (shape[0], *shape[2:]))
    model = nn.Conv1d(3, 3, 1) if len(shape) == 3 else nn.Conv2d(3, 3, 1)
    case = Case(model, loss=lambda m, x: F.cross_entropy(m(x), target), data=[torch.randn(shape)])
    profile = measured(case, "logit_grad_absmax")["logit_grad_absmax"]
    p = model(case.batches[0]).softmax(1).detach()
    residual = (p - F.one_hot(target, 3).movedim(-1, 1)).abs().max()
    # 1 - p from log p, both in float32 from the same logits.
    assert profile.values == pytest.approx((float(residual),), rel=1e-5, abs=0)
    assert profile.facts["classes"] == 3


def test_binary_losses_and_squared_errors() -> None:
    target = (torch.arange(8) % 2).double()[:, None]
    for layers, function, kind in (
        ((), F.binary_cross_entropy_with_logits, "binary_cross_entropy_with_logits"),
        ((nn.Sigmoid(),), F.binary_cross_entropy, "binary_cross_entropy"),
    ):
        case = _labelled(lambda y, f=function: f(y, target), *layers, width=1)
        seen = measured(case, "logit_grad_absmax", "loss_value")
        p = case.model.get_submodule("0")(case.batches[0]).sigmoid().detach()
        assert seen["logit_grad_absmax"].values == pytest.approx(
            (float((p - target).abs().max()),), rel=RTOL, abs=0
        )
        assert seen["loss_value"].facts["kind"] == kind
        assert seen["loss_value"].facts["expected"] == pytest.approx(math.log(2), rel=1e-15)
        assert seen["loss_value"].facts["softmax_before_loss"] == 0.0
    case = _labelled(lambda y: F.mse_loss(y, target), width=1)
    facts = measured(case, "loss_value")["loss_value"].facts
    assert facts["kind"] == "mse"
    assert facts["expected"] == pytest.approx(0.25, rel=1e-15)


def test_a_second_softmax_or_sigmoid_is_told() -> None:
    doubled = _labelled(lambda y: F.cross_entropy(y, TARGET), nn.Softmax(-1))
    assert measured(doubled, "loss_value")["loss_value"].facts["softmax_before_loss"] == 1.0
    target = torch.ones(8, 1).double()
    binary = _labelled(lambda y: F.binary_cross_entropy_with_logits(y, target), nn.Sigmoid(), width=1)
    assert measured(binary, "loss_value")["loss_value"].facts["softmax_before_loss"] == 1.0


def test_a_hand_written_loss_is_unknown_and_still_has_its_value() -> None:
    case = _labelled(lambda y: (y - 1).abs().pow(1.5).mean())
    profile = measured(case, "loss_value", "logit_grad_absmax")
    assert list(profile) == ["loss_value"]
    assert profile["loss_value"].facts["kind"] == "unknown"
    assert profile["loss_value"].values == pytest.approx(
        (float(case.compute_loss(case.batches[0]).detach()),), rel=RTOL, abs=0
    )


def test_a_zero_that_passes_the_gradient_is_not_dead() -> None:
    model = Bend(torch.tanh)
    nn.init.zeros_(model.linear.weight)
    nn.init.zeros_(model.linear.bias)
    assert measured(squares(model, 8, 6), "act_frac_dead")["act_frac_dead"].values == (0.0,)
    model.bend = F.relu
    assert measured(squares(model, 8, 6), "act_frac_dead")["act_frac_dead"].values == (1.0,)


def test_a_hinge_of_the_loss_is_no_activation_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1)).double()

    def hinge(model: nn.Module, x: Tensor) -> Tensor:
        return F.relu(model(x) - 1e3).mean()

    case = Case(model, loss=hinge, data=[torch.ones(4, 6, dtype=torch.float64)])
    assert by_name(measured(case, "act_frac_dead")["act_frac_dead"]).keys() == {"1"}


class Gated(nn.Module):
    """A map with a learned gate of one number without a dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.gate = nn.Linear(6, 6), nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.gate) * torch.relu(self.map(x))


def test_an_activation_without_a_dimension_has_no_units_and_the_profile_says_so() -> None:
    profile = measured(squares(Gated(), 8, 6), "act_frac_dead")["act_frac_dead"]
    assert dict(zip(profile.labels, map(math.isnan, profile.values), strict=True)) == {
        "tanh (output)": True,
        "relu": False,
    }
    assert profile.note.startswith("NaN where an activation gives one number")
    relu = measured(squares(nn.Sequential(nn.Linear(6, 6), nn.ReLU()), 8, 6), "act_frac_dead")[
        "act_frac_dead"
    ]
    assert relu.note == ""


def test_a_function_between_two_calls_of_the_loss_is_one_of_the_model() -> None:
    model = nn.ModuleDict({"low": nn.Linear(6, 6), "high": nn.Linear(6, 1)}).double()

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(model, nn.ModuleDict)
        return model["high"](F.relu(model["low"](x))).mean()

    case = Case(model, loss=loss, data=[torch.ones(4, 6, dtype=torch.float64)])
    assert [str(s) for s in measured(case, "act_frac_dead")["act_frac_dead"].sites] == ["(model).(relu)"]
