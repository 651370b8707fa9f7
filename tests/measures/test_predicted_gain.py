"""predicted_gain: theory beside the measured gain on networks of known design, and what it cannot tell."""

import math
from collections.abc import Callable

import pytest
import torch
from measures.wide_families import FAMILIES, WIDTH, draw, linear, mean_square
from torch import Tensor, nn
from zoo import flows, texts
from zoo.patient import classify

import unitygain.rules  # noqa: F401 (fills the table)
from unitygain._case import Case
from unitygain._registry import RULES
from unitygain._types import Profile
from unitygain.measures.predicted_gain import predicted_gain
from unitygain.measures.rms_gain import rms_gain
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe
from unitygain.stats.layouts import covers

F = nn.functional
# Of 95 % intervals at least this many must hold; blocks of one network are not quite independent.
COVERED = 0.93


def read(case: Case, seed: int = 0) -> tuple[Profile, Profile]:
    """Return the predicted and the measured gains of a case."""
    with isolated(case, seed) as (subject, _):
        record = observe(subject, [], seed=seed)
        predicted, measured = predicted_gain(subject, record), rms_gain(subject, record)
    assert predicted is not None
    assert measured is not None
    return predicted, measured


def deviations(name: str, seed: int) -> list[float]:
    """Return ln(measured/predicted) of every block, in halves of the stated 95 % interval."""
    predicted, measured = read(draw(name, seed), seed)
    assert predicted.sites == measured.sites
    assert not any(predicted.labels), predicted.labels
    assert predicted.interval is not None
    assert measured.error is not None
    found = []
    for k, value in enumerate(predicted.values):
        low, high = predicted.interval[k]
        reach = math.hypot(math.log(high / low) / 2, 1.96 * measured.error[k] / measured.values[k])
        found.append(math.log(measured.values[k] / value) / reach)
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_every_block_of_a_known_design_is_predicted(name):
    found = deviations(name, 0)
    assert len(found) >= 6
    assert max(map(abs, found)) < 2.0


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_stated_interval_holds_over_twenty_seeds(name):
    found = [one for seed in range(20) for one in deviations(name, seed)]
    inside = sum(abs(one) <= 1 for one in found)
    assert inside >= COVERED * len(found), f"{inside} of {len(found)}"


def chain(*blocks: nn.Module, data: Tensor | None = None) -> Case:
    """Return blocks in a row."""
    torch.manual_seed(5)
    return Case(nn.Sequential(*blocks), mean_square, [torch.randn(32, WIDTH) if data is None else data])


def test_without_activations_the_prediction_is_exact():
    """‖W‖_F/√rows needs no theory."""
    layers = [nn.Linear(WIDTH, width, bias=False) for width in (WIDTH, WIDTH, WIDTH)]
    predicted, _ = read(chain(*layers))
    exact = [float(layer.weight.detach().double().norm()) / math.sqrt(WIDTH) for layer in layers]
    assert predicted.values == pytest.approx(exact, rel=1e-6)


class Written(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def after_maps(activation: Callable[[], nn.Module]) -> Case:
    torch.manual_seed(2)
    return chain(*(nn.Sequential(linear(1.4), activation()) for _ in range(5)))


WRITTEN_OUT = {
    "silu": (lambda x: x * torch.sigmoid(x), nn.SiLU),
    "silu as a quotient": (lambda x: x / (1 + torch.exp(-x)), nn.SiLU),
    "mish": (lambda x: x * torch.tanh(F.softplus(x)), nn.Mish),
    "gelu": (
        lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3)))),
        lambda: nn.GELU("tanh"),
    ),
    "hard swish": (lambda x: x * F.relu6(x + 3) / 6, nn.Hardswish),
    "softplus": (lambda x: torch.log(1 + torch.exp(x)), nn.Softplus),
    "tanh": (lambda x: 2 * torch.sigmoid(2 * x) - 1, nn.Tanh),
    "relu": (lambda x: 1 - (1 - (x + x.abs()) / 2), nn.ReLU),
}


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_an_activation_that_is_written_out_is_the_one_that_it_is(name):
    function, module = WRITTEN_OUT[name]
    written, _ = read(after_maps(lambda: Written(function)))
    named, _ = read(after_maps(module))
    assert written.values == pytest.approx(named.values, rel=1e-4)
    assert [row[1] for row in written.rows] == pytest.approx([row[1] for row in named.rows], rel=1e-4)


def test_what_is_a_part_of_a_signal_times_another_function_of_it_is_refused():
    def function(x: Tensor) -> Tensor:
        return torch.cat([x[:, :32].tanh() * x.tanh()[:, :32], x[:, 32:]], 1)

    predicted, _ = read(after_maps(lambda: Written(function)))
    assert predicted.labels[0] == "mul in 0.1: a signal meets a function of itself, and which is not known"


class Dense(nn.Module):
    """Adds channels to those that enter."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.map = nn.BatchNorm2d(channels), nn.Conv2d(channels, 12, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.map.weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.map(F.relu(self.norm(x)))], 1)


class Horseshoe(nn.Module):
    """Down, up, and beside what entered."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(16, 16, 3, 2, 1), nn.ConvTranspose2d(16, 16, 2, 2)
        self.out = nn.Conv2d(32, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([self.up(F.relu(self.down(x))), x], 1))


class TwoMaps(nn.Module):
    """Two branches of different scale, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(WIDTH, WIDTH // 2), nn.Linear(WIDTH, WIDTH // 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.gelu(self.one(x)), 3 * self.other(x).tanh()], -1)


SIDE_BY_SIDE = {
    "dense": lambda: chain(*(Dense(16 + 12 * k) for k in range(5)), data=torch.randn(16, 16, 10, 10)),
    "u-net": lambda: chain(*(Horseshoe() for _ in range(4)), data=torch.randn(8, 16, 12, 12)),
    "two branches": lambda: chain(*(TwoMaps() for _ in range(6))),
}


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_what_is_put_side_by_side_keeps_its_own_gradient(name):
    torch.manual_seed(11)
    predicted, measured = read(SIDE_BY_SIDE[name]())
    assert predicted.values == pytest.approx(measured.values, rel=0.06)


def test_rows_of_different_length_have_the_mean_of_their_gains():
    """E φ'² of GELU bends with the variance, so that one length for all rows expects too much."""
    torch.manual_seed(4)
    scale = torch.linspace(-1.5, 1.5, 256).exp()[:, None]
    layers = [nn.Sequential(linear(1.0), nn.GELU()) for _ in range(3)]
    uneven, measured = read(chain(*layers, data=scale * torch.randn(256, WIDTH)))
    even, _ = read(chain(*layers, data=float(scale.square().mean().sqrt()) * torch.randn(256, WIDTH)))
    assert measured.values[0] < 0.95 * even.values[0]
    assert uneven.values[0] == pytest.approx(measured.values[0], rel=0.03)


class Branches(nn.Module):
    """Normalised branches around a skip path, row by row."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(count))
        self.maps = nn.ModuleList(linear(0.7) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        for norm, layer in zip(self.norms, self.maps, strict=True):
            x = x + layer(norm(x))
        return x


@pytest.mark.parametrize("quiet", [0.02, 0.2])
def test_a_few_short_rows_take_most_of_the_gradient(quiet):
    """A class token that starts near zero: a norm divides it by its own length, not by that of all rows."""
    torch.manual_seed(5)
    tokens = torch.randn(16, 10, WIDTH)
    tokens[:, 0] *= quiet
    predicted, measured = read(chain(*(Branches(1) for _ in range(3)), data=tokens))
    assert predicted.values == pytest.approx(measured.values, rel=0.06)
    # Of two norms in a row the second has given the short rows more already, which is not counted: 1.2x.
    predicted, measured = read(chain(*(Branches(2) for _ in range(3)), data=tokens))
    assert not list(RULES["UG105"].judge({"predicted_gain": predicted, "rms_gain": measured}))


def test_a_block_that_is_not_covered_leaves_the_others():
    class Step(nn.Module):
        def __init__(self, sort: bool) -> None:
            super().__init__()
            self.map, self.sort = linear(1.0), sort

        def forward(self, x: Tensor) -> Tensor:
            x = self.map(x)
            return x.sort(-1).values if self.sort else x.tanh()

    predicted, _ = read(chain(*(Step(k == 2) for k in range(5))))
    assert [bool(label) for label in predicted.labels] == [False, False, True, False, False]
    assert predicted.labels[2] == "sort in 2: no rule for it"
    assert predicted.facts["predicted"] == 4.0


class Attention(nn.Module):
    """Attention in three maps of the same tokens, each of which is a block of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = linear(1.0), linear(1.0), linear(1.0)

    def forward(self, x: Tensor) -> Tensor:
        query, keys = self.query(x), self.key(x)
        logits = 2 * query @ keys.transpose(-1, -2) / math.sqrt(WIDTH)
        return x + logits.softmax(-1) @ self.value(x)


class GatedMaps(nn.Module):
    """Two maps of what enters, one times the other."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.map, self.out = linear(1.0), linear(1.0), linear(1.0)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x).tanh()
        return self.out(gate * self.map(x))


@pytest.mark.parametrize(("kind", "shut"), [(Attention, {"value"}), (GatedMaps, {"map"})])
def test_a_block_whose_input_also_goes_past_it_is_not_predicted(kind, shut):
    """Its measured gain has the ways through queries, keys and gates in it, its own operations do not."""
    torch.manual_seed(3)
    model = nn.Sequential(kind(), kind())
    case = Case(model, mean_square, [torch.randn(8, 16, WIDTH)])
    predicted, measured = read(case)
    reasons = {str(site): label for site, label in zip(predicted.sites, predicted.labels, strict=True)}
    for site, reason in reasons.items():
        past = reason == "what enters it also goes past it, by what ran before"
        assert past == (site.rpartition(".")[2] in shut), reasons
    for k, label in enumerate(predicted.labels):
        assert label or predicted.values[k] == pytest.approx(measured.values[k], rel=0.1), reasons


def test_the_other_half_of_a_coupling_is_not_what_enters_its_net():
    """Both halves are views of one memory; a slice of what enters is still a part of it."""
    torch.manual_seed(3)
    predicted, _ = read(flows.told(lambda: flows.Coupled(8, 0.5), 8))
    assert set(predicted.labels[:-1]) == {
        "it reads on in the memory of what enters it, as of the other half of a coupling"
    }


@pytest.mark.parametrize(
    ("part", "inside"),
    [
        (lambda x: x[:, :4], True),
        (lambda x: x[:, 1:3].t(), True),
        (lambda x: x[2:, :4].reshape(-1, 2, 2), True),
        (lambda x: x[:, 4:], False),
        (lambda x: x[:, 3:5], False),
        (lambda x: x, False),
    ],
)
def test_memory_is_told_apart_entry_by_entry(part, inside: bool):
    x = torch.randn(6, 8)
    assert covers(x[:, :4], part(x)) is inside


def test_a_gradient_that_is_changed_on_its_way_back_shows_at_its_block_alone():
    class Step(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.map, self.factor = linear(math.sqrt(2)), factor

        def forward(self, x: Tensor) -> Tensor:
            x = self.map(x)
            if x.requires_grad:
                x.register_hook(lambda gradient: self.factor * gradient)
            return x.relu()

    predicted, measured = read(chain(*(Step(0.1 if k == 3 else 1.0) for k in range(8))))
    ratios = [m / p for m, p in zip(measured.values, predicted.values, strict=True)]
    assert ratios[3] == pytest.approx(0.1, rel=0.2)
    assert [abs(math.log(ratio)) < 0.25 for ratio in ratios] == [True] * 3 + [False] + [True] * 4


def test_positive_weights_on_positive_signals_are_not_what_they_claim():
    """Sigmoids get what all inputs share, which weights of mean zero would not pass."""
    layers = [nn.Linear(WIDTH, WIDTH) for _ in range(5)]
    nn.init.uniform_(layers[2].weight, 0, 0.4)
    predicted, measured = read(chain(*(nn.Sequential(layer, nn.Sigmoid()) for layer in layers)))
    ratios = [m / p for m, p in zip(measured.values, predicted.values, strict=True)]
    assert ratios[2] < 0.1
    assert all(0.8 < ratio < 1.25 for k, ratio in enumerate(ratios) if k != 2)


def test_the_scale_of_the_data_does_not_change_what_relu_is_expected_to_do():
    layers = [nn.Sequential(linear(math.sqrt(2)), nn.ReLU()) for _ in range(4)]
    x = torch.randn(32, WIDTH)
    one, other = (read(chain(*layers, data=scale * x))[0] for scale in (1.0, 1e3))
    assert one.values == pytest.approx(other.values, rel=1e-6)


def test_an_identity_changes_nothing():
    layers = [linear(1.2) for _ in range(4)]
    plain = chain(*(nn.Sequential(layer, nn.Tanh()) for layer in layers))
    padded = chain(*(nn.Sequential(layer, nn.Identity(), nn.Tanh(), nn.Identity()) for layer in layers))
    assert read(plain)[0].values == read(padded)[0].values


def test_grouped_strided_and_transposed_convolutions_are_counted():
    torch.manual_seed(0)
    blocks = [
        nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, bias=False),
    ]
    predicted, measured = read(chain(*blocks, data=torch.randn(4, 8, 12, 12)))
    assert predicted.values == pytest.approx(measured.values, rel=0.1)


def test_no_trunk_no_prediction():
    with isolated(chain(nn.Linear(WIDTH, 3)), 0) as (case, _):
        assert predicted_gain(case, observe(case, [])) is None


def test_random_states_and_weights_stay(monkeypatch):
    case = draw("transformer dropout", 1)
    before = torch.get_rng_state()
    weights = [parameter.detach().clone() for parameter in case.model.parameters()]
    read(case)
    assert torch.equal(before, torch.get_rng_state())
    assert all(map(torch.equal, weights, case.model.parameters()))


class InWords(nn.Module):
    """A block in the words of functions: a fused map, an in-place activation, a gate, a residual."""

    def __init__(self, *, inplace: bool, fused: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.inplace, self.fused = inplace, fused

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            value, gate = self.up(x).chunk(2, -1)
        else:
            halves = zip(self.up.weight.chunk(2), self.up.bias.chunk(2), strict=True)
            value, gate = (nn.functional.linear(x, weight, bias) for weight, bias in halves)
        gate = nn.functional.relu(gate, inplace=self.inplace)
        return x + self.down(value * gate)


@pytest.mark.parametrize(("inplace", "fused"), [(False, True), (False, False), (True, False)])
def test_how_a_block_is_written_does_not_matter(inplace, fused):
    """Gated branches: two signals are multiplied, each of which passes a gradient."""
    torch.manual_seed(1)
    plain = [InWords(inplace=False, fused=False) for _ in range(5)]
    blocks = [InWords(inplace=inplace, fused=fused) for _ in range(5)]
    for block, twin in zip(blocks, plain, strict=True):
        block.load_state_dict(twin.state_dict())
    predicted, measured = read(chain(*blocks))
    assert predicted.values == pytest.approx(read(chain(*plain))[0].values, rel=2e-3)
    assert predicted.values == pytest.approx(measured.values, rel=0.05)


def test_a_block_that_runs_again_is_predicted_at_each_call():
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(linear(1.3), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(5):
                x = self.block(x)
            return x

    predicted, measured = read(chain(Again()))
    assert [str(site) for site in predicted.sites] == [f"0.block#{k}" for k in range(1, 6)]
    assert predicted.values == pytest.approx(measured.values, rel=0.1)


class Recurring(nn.Module):
    """A map in, then one map twice: over what it made itself, or both times over what came in."""

    def __init__(self, *, onward: bool) -> None:
        super().__init__()
        self.into, self.again, self.onward = linear(1.0), linear(1.0), onward

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        state = self.again(x).tanh()
        return state + self.again(state if self.onward else x.relu()).tanh()


@pytest.mark.parametrize("onward", [True, False])
def test_weights_that_run_over_what_they_made_are_not_taken_for_new_ones(onward):
    predicted, _ = read(chain(*(Recurring(onward=onward) for _ in range(3))))
    labels = {
        label
        for site, label in zip(predicted.sites, predicted.labels, strict=True)
        if site.path.isdigit() or site.path.endswith("into")
    }
    again = "it runs over the same weights again, where theory takes new ones"
    assert labels == ({again} if onward else {""})


def test_running_statistics_are_read_in_eval_mode():
    case = draw("convolution batch norm", 3)
    with torch.no_grad():
        for _ in range(40):
            case.compute_loss(case.batches[0])
    case.model.eval()
    buffers = [buffer.clone() for buffer in case.model.buffers()]
    predicted, measured = read(case)
    assert predicted.values == pytest.approx(measured.values, rel=0.15)
    assert all(map(torch.equal, buffers, case.model.buffers()))


def test_a_causal_mask_leaves_each_query_fewer_keys():
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.maps(x).chunk(3, -1)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return x + 3 * self.out(mixed)

    predicted, measured = read(chain(*(Causal() for _ in range(4)), data=torch.randn(8, 16, WIDTH)))
    assert predicted.values == pytest.approx(measured.values, rel=0.05)


@pytest.mark.parametrize("keep", [texts.words, texts.pads, None], ids=["words", "padding", "all"])
def test_attention_is_predicted_by_the_size_of_what_its_mask_lets_it_read(keep):
    """Padding enters far smaller than words: where it alone is read, the norm behind amplifies it."""
    torch.manual_seed(0)
    case = Case(texts.Encoder(keep, 48, 3), classify, data=texts.texts())
    predicted, measured = read(case)
    assert measured.values[0] == pytest.approx(predicted.values[0], rel=0.25)
