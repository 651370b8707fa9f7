"""jacobian_log_det against dense Jacobians of real flows, and what is taken for a flow and what is not."""

import math

import numpy as np
import pytest
import torch
from measures.reading import measured
from torch import Tensor, nn
from zoo import flows

from unitygain._case import Case
from unitygain._types import Profile
from unitygain.measures.jacobian_log_det import jacobian_log_det
from unitygain.probe.observe import observe
from unitygain.probe.trace import NoGraph
from unitygain.theory.volumes import least_condition

BLOCKS = {
    "additive": (lambda: flows.Additive(6, 9, 2.0), (5, 6), "triangular"),
    "reversible": (lambda: flows.Reversible(4, 1.0), (3, 4, 2, 2), "keeps volume"),
    "mixed": (lambda: flows.Step(6, 9, 2.0), (5, 6), "has an inverse"),
    "masked": (lambda: flows.Masked(6, 0.8), (5, 6), "triangular"),
}


def look(model: nn.Module, x: Tensor) -> Profile | None:
    case = Case(model, flows.energy, [x])
    return measured(case, "jacobian_log_det").get("jacobian_log_det")


@pytest.mark.parametrize("name", BLOCKS)
def test_volumes_and_stretch_are_those_of_dense_jacobians(name):
    block, shape, label = BLOCKS[name]
    model, x = flows.stack(block, 5).double(), torch.randn(shape).double()
    profile = look(model, x)
    assert profile is not None
    assert profile.labels == (label,) * 5
    here, product = x[:1], torch.eye(x[0].numel(), dtype=torch.float64)
    for layer, volume, row in zip(model, profile.values, profile.rows, strict=True):
        dense = torch.autograd.functional.jacobian(layer, here).reshape(product.shape)
        here, product = layer(here).detach(), dense @ product
        singular = torch.linalg.svdvals(dense)
        assert volume == pytest.approx(float(torch.linalg.slogdet(dense)[1]), abs=1e-12)
        assert row == pytest.approx((float(singular[0]), float(singular[-1])), rel=1e-9)
    largest, volume = math.log(torch.linalg.svdvals(product)[0]), float(torch.linalg.slogdet(product)[1])
    n = len(product)
    assert profile.facts["dimension"] == n
    assert profile.facts["log_det"] == pytest.approx(volume, abs=1e-10)
    # 64 sweeps leave a pair of close singular values wrong by at most 0.19/63 nat.
    assert profile.facts["stretch"] == pytest.approx(math.exp(largest - volume / n), rel=0.003)
    assert profile.facts["least_condition"] == pytest.approx(least_condition(largest, volume, n), rel=0.004)


class Louder(flows.Additive):
    """A coupling that is shear and scale in one."""

    factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * super().forward(x)


def test_a_scale_moves_the_volume_and_not_the_stretch():
    """Metamorphic: the last block scaled by 10, in all directions."""
    model, x = flows.stack(lambda: Louder(6, 9, 2.0), 4).double(), torch.randn(5, 6).double()
    plain = look(model, x)
    model[3].factor = 10.0  # type: ignore[index]
    scaled = look(model, x)
    assert plain is not None
    assert scaled is not None
    assert plain.facts["log_det"] == pytest.approx(0.0, abs=1e-12)
    assert scaled.facts["log_det"] == pytest.approx(6 * math.log(10), rel=1e-9)
    assert scaled.facts["stretch"] == pytest.approx(plain.facts["stretch"], rel=1e-6)


class Normed(nn.Module):
    """A coupling behind batch normalisation, and the way back that its class promises."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.coupling = nn.BatchNorm1d(4), flows.Additive(4, 5, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.coupling(self.norm(x))

    def inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError


def test_a_coupled_batch_is_one_sample():
    profile = look(flows.stack(Normed, 3).double(), torch.randn(6, 4).double())
    assert profile is not None
    assert profile.facts["dimension"] == 24
    assert "coupled" in profile.note


def residual() -> nn.Module:
    block = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))

    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = block

        def forward(self, x: Tensor) -> Tensor:
            return x + 0.1 * self.branch(x)

    return Added()


class Scales(nn.Module):
    """A layer of one factor per feature: it can be inverted, and stretches nothing beside what it scales."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.linspace(0.5, 2.0, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


@pytest.mark.parametrize(
    "block",
    [
        residual,
        Scales,
        lambda: flows.Shuffle(8),
        lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU()),
        lambda: nn.utils.parametrizations.orthogonal(nn.Linear(8, 8)),
        lambda: nn.Linear(8, 8),
    ],
    ids=["residual", "scales", "half kept", "perceptron", "orthogonal", "linear"],
)
def test_what_is_no_flow_is_left_alone(block):
    for seed in range(5):
        torch.manual_seed(seed)
        assert look(flows.stack(block, 6), torch.randn(4, 8)) is None


def test_a_model_without_blocks_has_none():
    assert look(nn.Linear(4, 4), torch.randn(3, 4)) is None


def test_a_flow_that_changes_its_size_is_not_taken():
    class Widening(flows.Step):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([super().forward(x[..., :6]), x], -1)

    model = nn.Sequential(Widening(6, 4, 1.0), Widening(6, 4, 1.0), Widening(6, 4, 1.0))
    assert look(model, torch.randn(3, 6)) is None


def test_a_large_flow_says_that_it_is_too_large():
    case = Case(flows.stack(lambda: flows.Step(514, 4, 0.1), 3), flows.energy, [torch.randn(2, 514)])
    with pytest.raises(
        NoGraph, match="a sample of the flow has 514 numbers; determinants are taken up to 512"
    ):
        jacobian_log_det(case, observe(case, []))


def test_a_jacobian_that_is_not_finite_is_named():
    model = flows.stack(lambda: flows.Step(6, 4, 0.1), 3)
    nn.init.constant_(model[1].mix.weight, math.nan)  # type: ignore[index, arg-type]
    case = Case(model, flows.energy, [torch.randn(2, 6)])
    with pytest.raises(NoGraph, match=r"the Jacobian of 1 is not finite \(UG901\)"):
        jacobian_log_det(case, observe(case, []))


def test_a_singular_flow_stretches_without_bound():
    model = flows.stack(lambda: flows.Step(6, 4, 0.1), 3)
    nn.init.zeros_(model[1].mix.weight[0])  # type: ignore[index]
    profile = look(model, torch.randn(2, 6))
    assert profile is not None
    assert profile.values[1] == -math.inf
    assert profile.facts["stretch"] == math.inf
    assert np.isinf(profile.facts["least_condition"])


class Coder(nn.Module):
    """An autoencoder that returns its divergence beside what it rebuilt."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(size, 2), nn.Linear(2, size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder(x)
        return self.decoder(code), code.square().sum(1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: flows.Triangular(8, 0.7),
        lambda: flows.Triangular(6, 1.0, 0.5),
        lambda: flows.Coupled(8, 2.0),
        lambda: flows.Coupled(8, 0.01),
    ],
)
def test_a_flow_that_tells_its_volume_is_taken_as_a_whole(make):
    torch.manual_seed(2)
    model = make()
    x = torch.randn(
        5, model(torch.zeros(1, 8))[0].shape[1] if isinstance(model, flows.Coupled) else len(model.log_scale)
    )
    case = Case(model, flows.likelihood, [x])
    profile = measured(case, "jacobian_log_det")["jacobian_log_det"]
    assert profile.labels == ("tells its volume",)
    dense = torch.autograd.functional.jacobian(
        lambda row: model.double()(row[None])[0][0], x[0].double(), strict=True
    )
    singular = torch.linalg.svdvals(dense).log()
    assert profile.values[0] == pytest.approx(float(singular.sum()), abs=1e-9)
    assert math.log(float(profile.facts["stretch"])) == pytest.approx(
        float(singular[0] - singular.mean()), abs=1e-6
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: Coder(6),
        lambda: flows.Triangular(6, 0.5, 0.5, sign=2.0),
        lambda: flows.Triangular(6, 0.5, sign=math.inf),
    ],
)
def test_a_number_that_is_no_volume_makes_no_flow(make):
    torch.manual_seed(2)
    assert "jacobian_log_det" not in measured(
        Case(make(), flows.likelihood, [torch.randn(5, 6)]), "jacobian_log_det"
    )
