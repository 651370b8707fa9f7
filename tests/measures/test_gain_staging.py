"""Gain of blocks, its slope and its parts, against plain autograd and closed forms."""

import itertools
import math

import pytest
import torch
from contracts.small_cases import HEALTHY
from measures.reading import by_name, doubled, gradients, measured, squares
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from unitygain._case import Case
from unitygain.measures._staging import slope_facts

RTOL = 1e-10
FACTORS = ("weights", "activation", "normalisation", "attention", "merge", "other")


class Stack(nn.Module):
    """Blocks in a list, behind a stem and before a head."""

    def __init__(self, blocks: list[nn.Module], width: int) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = (
            nn.Linear(width, width),
            nn.ModuleList(blocks),
            nn.Linear(width, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class PreNorm(nn.Module):
    """x + W2 tanh(W1 LN(x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)

    def branch(self, x: Tensor) -> Tensor:
        return self.down(torch.tanh(self.up(self.norm(x))))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class PostNorm(PreNorm):
    """LN(x + W2 tanh(W1 x))."""

    def branch(self, x: Tensor) -> Tensor:
        return self.down(torch.tanh(self.up(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.branch(x))


class PreActivation(PreNorm):
    """x + W2 tanh(W1 relu(x)): the block begins with an operation that has no module."""

    def branch(self, x: Tensor) -> Tensor:
        return self.down(torch.tanh(self.up(F.relu(x))))


class TwoPreActivations(PreNorm):
    """x + W1 relu(x), and to that W2 tanh of it."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.up(F.relu(x))
        return x + self.down(torch.tanh(x))


class Shortcut(nn.Module):
    """A ResNet block, with functional ReLU and an optional convolution on the shortcut."""

    def __init__(self, down: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.down = nn.Conv2d(4, 4, 1) if down else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm2(self.second(F.relu(self.norm1(self.first(x)))))
        return F.relu(h + (x if self.down is None else self.down(x)))


def _images() -> Case:
    return squares(nn.Sequential(Shortcut(False), Shortcut(True), Shortcut(False)), 3, 4, 5, 5)


BLOCKS = [*(f"blocks.{k}" for k in range(4)), "(model)"]


@pytest.mark.parametrize("kind", [PreNorm, PostNorm])
def test_gains_equal_those_of_plain_autograd(kind: type[PreNorm]) -> None:
    case = squares(Stack([kind(6) for _ in range(4)], 6), 5, 6)
    seen = measured(case, "forward_gain", "backward_gain", "entry_rms", "entry_grad_rms")
    twin = gradients(case, lambda name, module: name == "stem" or isinstance(module, PreNorm))
    outputs = [twin[name] for name in ("stem", *BLOCKS[:4])]
    pairs = list(itertools.pairwise(outputs))
    forward = [float(b[0].norm() / a[0].norm()) for a, b in pairs]
    backward = [float(a[1].norm() / b[1].norm()) for a, b in pairs]
    assert seen["forward_gain"].values == pytest.approx(forward, rel=RTOL, abs=0)
    assert seen["backward_gain"].values == pytest.approx(backward, rel=RTOL, abs=0)
    sizes = [float(g.square().mean().sqrt()) for _, g in outputs]
    assert seen["entry_grad_rms"].values == pytest.approx(sizes, rel=RTOL, abs=0)
    assert [str(site) for site in seen["entry_grad_rms"].sites] == [*BLOCKS[:4], "blocks.3(out)"]


@pytest.mark.parametrize("family", HEALTHY)
def test_the_loop_gain_is_the_ratio_of_the_ends(family: str) -> None:
    seen = measured(doubled(family), "backward_gain", "forward_gain", "entry_rms", "entry_grad_rms")
    if not seen:
        assert family in {"rnn", "lstm"}
        return
    ends = seen["entry_grad_rms"].values
    loop = 20 * math.log10(ends[0] / ends[-1])
    # In these a block changes the width, and the gain is a ratio of norms.
    if family not in {"mlp", "game", "denoiser"}:
        assert seen["backward_gain"].facts["loop_db"] == pytest.approx(loop, rel=1e-9, abs=1e-9)
    ends = seen["entry_rms"].values
    forward = 20 * math.log10(ends[-1] / ends[0])
    assert seen["forward_gain"].facts["loop_db"] == pytest.approx(forward, rel=1e-9, abs=1e-9)


def test_the_slope_has_a_t_interval_and_predicts_other_depths() -> None:
    ratios = [0.5, 0.6, 0.4, 0.7, 0.45]
    facts = slope_facts(ratios)
    decibels = [20 * math.log10(ratio) for ratio in ratios]
    low, high = stats.t.interval(0.95, 4, loc=sum(decibels) / 5, scale=stats.sem(decibels))
    assert facts["slope_db"] == pytest.approx(sum(decibels) / 5, rel=1e-14)
    assert (facts["slope_db_low"], facts["slope_db_high"]) == pytest.approx((low, high), rel=1e-12)
    assert facts["gain_per_block"] == pytest.approx(math.prod(ratios) ** 0.2, rel=1e-14)
    assert facts["at_2x_db"] == pytest.approx(2 * float(facts["loop_db"]), rel=1e-14)
    half = float(facts["at_2x_db_high"]) - float(facts["at_2x_db"])
    spread = stats.tstd(decibels)
    assert half == pytest.approx(stats.t.ppf(0.975, 4) * spread * math.sqrt(10 + 100 / 5), rel=1e-12)


def test_the_prediction_for_another_depth_covers_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    hits, trials = 0, 1000
    for _ in range(trials):
        draws = (0.2 * torch.randn(24, generator=generator, dtype=torch.float64) - 0.1).exp().tolist()
        facts = slope_facts(draws[:8])
        truth = sum(20 * math.log10(ratio) for ratio in draws[8:])
        hits += float(facts["at_2x_db_low"]) <= truth <= float(facts["at_2x_db_high"])
    # Binomial(1000, 0.95) has standard deviation 6.9: four of them.
    assert abs(hits - 0.95 * trials) < 28


@pytest.mark.parametrize(("ratios", "left_out"), [([0.0, 0.5], 1), ([math.nan], 1), ([], 0), ([0.5], 0)])
def test_blocks_without_a_gain_are_counted_and_not_mixed_in(ratios: list[float], left_out: int) -> None:
    facts = slope_facts(ratios)
    assert facts["without_gain"] == left_out
    assert math.isnan(float(facts["slope_db_low"]))
    if 0.5 in ratios:
        assert facts["gain_per_block"] == pytest.approx(0.5, rel=1e-15)


def test_a_dead_gradient_is_no_gain() -> None:
    layers = [nn.Linear(4, 4) for _ in range(4)]
    with torch.no_grad():
        layers[1].weight.zero_()
    profile = measured(squares(nn.Sequential(*layers), 3, 4), "backward_gain")["backward_gain"]
    assert math.isnan(profile.values[0])
    assert profile.values[1] == 0
    assert profile.facts["without_gain"] == 2


def _rows(case: Case) -> list[dict[str, float]]:
    profile = measured(case, "gain_parts")["gain_parts"]
    assert profile.values == measured(case, "backward_gain")["backward_gain"].values
    return [dict(zip(profile.columns, row, strict=True)) for row in profile.rows]


@pytest.mark.parametrize("family", [name for name in HEALTHY if name not in {"rnn", "lstm"}] + ["images"])
def test_the_factors_multiply_to_the_gain(family: str) -> None:
    case = _images() if family == "images" else doubled(family)
    gains = measured(case, "backward_gain")["backward_gain"].values
    rows = _rows(case)
    if family == "game":  # nothing asks for the gradient of the generator's own input
        assert all(math.isnan(rows[0][name]) for name in FACTORS)
        rows, gains = rows[1:], gains[1:]
    for row, gain in zip(rows, gains, strict=True):
        assert math.prod(row[name] for name in FACTORS) == pytest.approx(gain, rel=RTOL, abs=0)


def test_a_plain_layer_splits_into_its_weight_and_its_activation() -> None:
    layers = [layer for _ in range(3) for layer in (nn.Linear(6, 6), nn.Tanh())]
    case = squares(nn.Sequential(*layers, nn.Linear(6, 6)), 4, 6)
    twin = gradients(case, lambda name, module: bool(name))
    norms = {name: float(gradient.norm()) for name, (_, gradient) in twin.items()}
    row = _rows(case)[1]
    assert row["activation"] == pytest.approx(norms["2"] / norms["3"], rel=RTOL, abs=0)
    assert row["weights"] == pytest.approx(norms["1"] / norms["2"], rel=RTOL, abs=0)
    assert row["merge"] == row["attention"] == row["normalisation"] == row["other"] == 1
    assert math.isnan(row["skip"])
    assert math.isnan(row["branch"])


@pytest.mark.parametrize("kind", [PreNorm, PostNorm, PreActivation])
def test_skip_and_branch_are_the_two_terms_of_the_block_s_derivative(kind: type[PreNorm]) -> None:
    model = Stack([kind(6) for _ in range(4)], 6)
    case = squares(model, 5, 6)
    rows = _rows(case)
    twin = gradients(case, lambda name, module: isinstance(module, PreNorm) or name == "stem")
    names = ["stem", *BLOCKS[:4]]
    for index, row in enumerate(rows):
        block = model.blocks[index]
        assert isinstance(block, PreNorm)
        x, out = twin[names[index]][0], twin[names[index + 1]][1]
        left, right = (x.clone().requires_grad_() for _ in range(2))
        total = left + block.branch(right)
        total = block.norm(total) if kind is PostNorm else total
        skip, branch = torch.autograd.grad(total, (left, right), out)
        assert row["skip"] == pytest.approx(float(skip.norm() / out.norm()), rel=1e-9, abs=0)
        assert row["branch"] == pytest.approx(float(branch.norm() / out.norm()), rel=1e-9, abs=0)
        assert row["merge"] == pytest.approx(float((skip + branch).norm() / branch.norm()), rel=1e-9, abs=0)
    if kind is not PostNorm:
        assert all(row["skip"] == pytest.approx(1, rel=1e-12) for row in rows)
    for row, gain in zip(rows, measured(case, "backward_gain")["backward_gain"].values, strict=True):
        assert math.prod(row[name] for name in FACTORS) == pytest.approx(gain, rel=RTOL, abs=0)


def test_a_block_that_begins_with_a_bare_activation_has_its_slope_as_a_factor() -> None:
    class Chain(PreActivation):
        def forward(self, x: Tensor) -> Tensor:
            return self.up(F.relu(x))

    model = Stack([Chain(6) for _ in range(4)], 6)
    rows = _rows(squares(model, 5, 6))
    assert [row["other"] for row in rows] == pytest.approx([1] * 4, rel=1e-12)
    assert all(0.3 < row["activation"] < 1 for row in rows)


def test_a_second_skip_path_behind_bare_operations_is_not_taken_for_a_branch() -> None:
    """The first path begins at the block's entry; the second at a sum that no module reads."""
    rows = _rows(squares(Stack([TwoPreActivations(6) for _ in range(4)], 6), 5, 6))
    assert all(row["skip"] > 0 for row in rows)


def test_a_functional_activation_between_two_modules_is_found() -> None:
    rows = _rows(_images())
    assert [row["activation"] != 1 for row in rows] == [True, True, True]
    assert [row["other"] for row in (rows[0], rows[2])] == pytest.approx([1, 1], rel=1e-12)
    assert 0.2 < rows[0]["open_fraction"] < 0.8
    # A convolution on the shortcut reads the block's input like any branch.
    assert [math.isnan(row["skip"]) for row in rows] == [False, True, False]


def test_attention_is_one_part_of_its_block() -> None:
    for row in _rows(doubled("attention")):
        assert row["attention"] not in {0.0, 1.0}
        assert row["skip"] == pytest.approx(1, rel=1e-12)


def test_open_fraction_of_relu_is_the_fraction_of_positive_inputs() -> None:
    layers = [layer for _ in range(3) for layer in (nn.Linear(6, 6), nn.ReLU())]
    case = squares(nn.Sequential(*layers, nn.Linear(6, 6)), 8, 6)
    outputs = gradients(case, lambda name, module: isinstance(module, nn.ReLU))
    fractions = [float((output > 0).double().mean()) for output, _ in outputs.values()]
    assert [row["open_fraction"] for row in _rows(case)][:3] == pytest.approx(fractions, rel=1e-12)


WEIGHTS: dict[str, tuple[nn.Module, tuple[int, ...], dict[str, float]]] = {
    "linear": (nn.Linear(6, 5), (2, 6), {"0": 6}),
    "conv": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5), {"0": 18}),
    "transposed": (nn.ConvTranspose1d(4, 6, 4, stride=2, groups=2), (2, 4, 5), {"0": 4}),
    "rnn": (nn.RNN(3, 5), (4, 2, 3), {"0.weight_ih_l0": 3, "0.weight_hh_l0": 5}),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weight_gain_is_the_root_of_fan_in_times_the_mean_square(kind: str) -> None:
    module, shape, fan_in = WEIGHTS[kind]
    case = squares(nn.Sequential(module), *shape)
    found = by_name(measured(case, "weight_gain")["weight_gain"])
    assert set(found) == set(fan_in)
    parameters = dict(case.model.named_parameters())
    for name, inputs in fan_in.items():
        weight = parameters[name if "weight" in name else f"{name}.weight"].detach()
        assert found[name] == pytest.approx(float((inputs * weight.square().mean()).sqrt()), rel=RTOL, abs=0)


@pytest.mark.parametrize("kind", ["linear", "conv", "transposed"])
def test_white_noise_is_amplified_by_the_weight_gain(kind: str) -> None:
    torch.manual_seed(0)
    make = {
        "linear": (lambda: nn.Linear(64, 64, bias=False), (4096, 64)),
        "conv": (lambda: nn.Conv2d(8, 16, 3, groups=2, bias=False), (64, 8, 18, 18)),
        "transposed": (lambda: nn.ConvTranspose2d(8, 16, 4, stride=2, bias=False), (64, 8, 18, 18)),
    }
    build, shape = make[kind]
    case = squares(nn.Sequential(build()), *shape)
    gain = measured(case, "weight_gain")["weight_gain"].values[0]
    out = case.model(case.batches[0]).detach()
    if kind == "transposed":
        out = out[..., 4:-4, 4:-4]  # at the rim fewer entries of the kernel meet
    # More than 1e5 output entries, in groups that share their input: the mean square varies by about 1 %.
    assert float(out.square().mean().sqrt()) == pytest.approx(gain, rel=0.03)


def test_packed_attention_and_the_activation_that_follows_are_named() -> None:
    case = doubled("attention")
    profile = measured(case, "weight_gain")["weight_gain"]
    labels = dict(zip(map(str, profile.sites), profile.labels, strict=True))
    assert labels["blocks.0.linear1"] == "Linear→relu"
    assert labels["blocks.0.linear2"] == "Linear"
    assert labels["blocks.0.self_attn.in_proj_weight"] == "MultiheadAttention"
    assert "embed" not in labels
    packed = by_name(profile)["blocks.0.self_attn.in_proj_weight"]
    # Glorot-uniform over the packed (3d, d) matrix: d·2/(d + 3d) = 1/2; 768 entries, uniform, whose mean
    # square has the relative standard deviation sqrt(4/5)/sqrt(768) = 3.2 %, and its root half of that.
    assert packed == pytest.approx(math.sqrt(0.5), rel=4 * 0.016)


def test_spectrally_normalised_weights_are_read_without_a_power_iteration() -> None:
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))
    case = squares(nn.Sequential(layer, nn.Tanh()), 3, 6)
    measured(case, "weight_gain")
    before = [buffer.clone() for buffer in layer.buffers()]
    from unitygain.measures._fan_in import weights_of

    weights_of(layer)
    assert all(torch.equal(a, b) for a, b in zip(before, layer.buffers(), strict=True))
