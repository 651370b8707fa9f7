"""Static reports: models on the meta device, which are predicted and not measured."""

import math
import resource

import pytest
import torch
from torch import Tensor, nn

import unitygain as ug
from unitygain._case import Case
from unitygain._types import Profile
from unitygain.measures.rms_gain import rms_gain
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe
from unitygain.report import Report

WIDTH, DEPTH = 128, 24
F = nn.functional


class He(nn.Linear):
    """A linear layer that draws He's weights."""

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        nn.init.zeros_(self.bias)


def mlp(device: str, layer: type[nn.Linear] = nn.Linear) -> nn.Sequential:
    with torch.device(device):
        blocks = (part for _ in range(DEPTH) for part in (layer(WIDTH, WIDTH), nn.ReLU()))
        return nn.Sequential(*blocks, nn.Linear(WIDTH, 10))


def entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def labelled(device: str = "cpu") -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(32, WIDTH).to(device), torch.randint(0, 10, (32,)).to(device)


def predicted(report: Report) -> Profile:
    return report.profiles["predicted_gain"]


def measured(case: Case) -> Profile:
    with isolated(case, 0) as (subject, _):
        profile = rms_gain(subject, observe(subject, []))
    assert profile is not None
    return profile


def covered(theory: Profile, measurement: Profile) -> float:
    """Fraction of the blocks whose measured gain lies in the stated interval."""
    assert theory.interval is not None
    assert theory.sites == measurement.sites
    inside = [low <= v <= high for v, (low, high) in zip(measurement.values, theory.interval, strict=True)]
    return sum(inside) / len(inside)


@pytest.fixture(scope="module")
def default() -> Report:
    return ug.diagnose(Case(mlp("meta"), entropy, [labelled()]))


def test_the_decay_of_default_weights_is_the_one_that_a_cpu_shows(default):
    torch.manual_seed(0)
    found = measured(Case(mlp("cpu"), entropy, [labelled()]))
    theory = predicted(default)
    assert covered(theory, found) >= 0.95
    loop = math.fsum(20 * math.log10(value) for value in found.values)
    assert theory.facts["loop_db_low"] < loop < theory.facts["loop_db_high"] < -150


def test_the_finding_says_that_nothing_was_measured(default):
    [finding] = default.findings
    assert (finding.code, finding.severity) == ("UG101", "error")
    assert finding.message.startswith("predicted, not measured: the gradient shrinks towards the input: 0.4")
    assert finding.causes[0].text.startswith("weights: sqrt(fan_in·var) = 0.57")
    assert {cause.status for cause in finding.causes} == {"not tested"}
    assert "loss" not in default.case
    assert default.case["device"] == "meta"


def test_what_was_not_measured_is_listed(default):
    silent = {note.what for note in default.skipped if note.reason.startswith("not judged")}
    assert {"UG103", "UG201", "UG901"} <= silent
    assert not silent & {"UG101", "UG102", "UG604"}
    [note] = [note for note in default.skipped if note.what == "measurement"]
    assert "rms_gain" in note.reason
    assert set(default.profiles) == {
        "param_rms",
        "param_trainable",
        "weight_gain",
        "phase_point",
        "predicted_gain",
    }


def test_the_report_survives_a_file(default, tmp_path):
    default.save(tmp_path / "static.json")
    default.save(tmp_path / "static.html")
    assert "predicted, not measured" in (tmp_path / "static.html").read_text()
    assert "predicted, not measured" in str(default)


def test_weights_that_suit_the_activation_are_silent_and_at_the_edge():
    report = ug.diagnose(Case(mlp("meta", He), entropy, [labelled()]))
    assert report.findings == ()
    assert predicted(report).facts["gain_per_block"] == pytest.approx(1.0, abs=0.03)
    assert report.profiles["weight_gain"].values[:DEPTH] == pytest.approx([math.sqrt(2)] * DEPTH, rel=0.03)


def test_growth_is_foretold_as_well():
    class Loud(He):
        def reset_parameters(self) -> None:
            nn.init.normal_(self.weight, std=3 / math.sqrt(WIDTH))
            nn.init.zeros_(self.bias)

    report = ug.diagnose(Case(mlp("meta", Loud), entropy, [labelled()]))
    assert [finding.code for finding in report.findings] == ["UG102"]


def test_batches_on_meta_are_taken_to_have_unit_variance():
    theory = predicted(ug.diagnose(Case(mlp("meta"), entropy, [labelled("meta")])))
    assert "unit variance was assumed to enter the model (nothing" in theory.note
    here = predicted(ug.diagnose(Case(mlp("meta"), entropy, [labelled()])))
    assert theory.values == pytest.approx(here.values, rel=0.01)


def transformer(device: str) -> nn.Sequential:
    with torch.device(device):
        layers = (nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, norm_first=True) for _ in range(6))
        return nn.Sequential(nn.Embedding(100, 64), *layers, nn.Linear(64, 100))


def next_token(model: nn.Module, ids: Tensor) -> Tensor:
    return F.cross_entropy(model(ids).transpose(1, 2), ids)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_pre_norm_transformer_is_predicted_from_its_tokens_on(device):
    torch.manual_seed(0)
    ids = torch.randint(0, 100, (8, 12))
    report = ug.diagnose(Case(transformer("meta"), next_token, [ids.to(device)]))
    assert report.findings == ()
    assert covered(predicted(report), measured(Case(transformer("cpu"), next_token, [ids]))) == 1.0


def test_a_causal_mask_is_computed_and_its_keys_are_counted():
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps, self.out = nn.Linear(64, 192), nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.maps(x).chunk(3, -1)
            return x + 3 * self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def build(device: str) -> nn.Sequential:
        with torch.device(device):
            return nn.Sequential(*(Causal() for _ in range(4)))

    torch.manual_seed(3)
    data = [torch.randn(8, 16, 64)]
    report = ug.diagnose(Case(build("meta"), lambda m, x: m(x).square().mean(), data))
    found = measured(Case(build("cpu"), lambda m, x: m(x).square().mean(), data))
    assert predicted(report).values == pytest.approx(found.values, rel=0.06)


class Experts(nn.Module):
    """Many weights, one of which runs."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        return self.experts[0](x).relu()


@pytest.mark.slow
def test_a_terabyte_of_weights_takes_the_memory_of_one_module():
    with torch.device("meta"):
        model = nn.Sequential(*(Experts(256, 8192) for _ in range(16)))
    assert 4 * sum(parameter.numel() for parameter in model.parameters()) > 2**40
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = ug.diagnose(Case(model, lambda m, x: m(x).square().mean(), [torch.randn(4, 8192)]))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < 2**30
    assert predicted(report).facts["gain_per_block"] == pytest.approx(math.sqrt(1 / 6), rel=0.01)


@pytest.mark.parametrize(
    "loss",
    [
        lambda m, b: F.cross_entropy(m(b[0]), b[1]),
        lambda m, b: F.nll_loss(m(b[0]).log_softmax(-1), b[1]),
        lambda m, b: F.mse_loss(m(b[0]), F.one_hot(b[1], 10).float()),
        lambda m, b: F.binary_cross_entropy_with_logits(m(b[0]), F.one_hot(b[1], 10).float()),
        lambda m, b: F.huber_loss(m(b[0]).mean(-1), b[1].float()),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_losses_run_on_meta(loss, device):
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 10))
    report = ug.diagnose(Case(model, loss, [labelled(device)]))
    assert all(value > 0 for value in predicted(report).values)


def branch(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return branch(self.map(x))


@pytest.mark.parametrize(
    ("layer", "loss", "where"),
    [
        (Branch, lambda m, x: m(x).mean(), "module '0' asks for a number"),
        (lambda: nn.Linear(8, 8), lambda m, x: branch(m(x)).mean(), "the model or loss asks for a number"),
        (lambda: nn.Linear(8, 8), lambda m, x: m(x)[m(x) > 0].mean(), "the model or loss asks for a number"),
    ],
)
def test_what_depends_on_numbers_is_refused_with_what_to_do(layer, loss, where):
    with torch.device("meta"):
        model = nn.Sequential(layer(), layer(), layer())
    with pytest.raises(RuntimeError, match=rf"{where} of a tensor on meta.*build the model on a device"):
        ug.diagnose(Case(model, loss, [torch.ones(4, 8)]))


def test_a_model_without_weights_is_neither_moved_nor_treated():
    case = Case(mlp("meta"), entropy, [labelled()], optimizer=lambda p: torch.optim.SGD(p, 0.1))
    with pytest.raises(RuntimeError, match="no weights to move to cpu; build it there"):
        ug.diagnose(case, device="cpu")
    with pytest.raises(RuntimeError, match="on meta: trials train it, which takes weights"):
        ug.treat(case, steps=1)


def test_an_optimizer_that_holds_other_weights_is_found():
    case = Case(mlp("meta"), entropy, [labelled()], optimizer=torch.optim.SGD(mlp("meta").parameters(), 0.1))
    assert "UG604" in [finding.code for finding in ug.diagnose(case).findings]


def test_weights_that_nothing_draws_are_listed_and_their_blocks_not_predicted():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(16, 16))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.weight).relu()

    with torch.device("meta"):
        model = nn.Sequential(*(Own() for _ in range(4)))
    report = ug.diagnose(Case(model, lambda m, x: m(x).mean(), [torch.ones(4, 16)]))
    assert predicted(report).labels[2] == "nothing is known of 2.weight on meta"
    reasons = {note.what: note.reason for note in report.skipped}
    assert reasons["weight 2.weight"] == "not drawn: Own has no reset_parameters"
    assert report.findings == ()


def test_the_case_and_the_random_states_stay():
    model = mlp("meta")
    case = Case(model, entropy, [labelled()])
    weights, state = list(model.parameters()), torch.get_rng_state()
    ug.diagnose(case)
    assert all(one is other for one, other in zip(weights, model.parameters(), strict=True))
    assert all(weight.is_meta and weight.grad is None for weight in weights)
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_weights_that_have_numbers_are_read_as_they_stand():
    model = mlp("meta")
    torch.manual_seed(0)
    model[4] = nn.Linear(WIDTH, WIDTH)
    nn.init.normal_(model[4].weight, std=2 / math.sqrt(WIDTH))
    theory = predicted(ug.diagnose(Case(model, entropy, [labelled()])))
    assert theory.values[2] == pytest.approx(math.sqrt(2), rel=0.03)
    assert theory.values[1] == pytest.approx(math.sqrt(1 / 6), rel=0.03)
