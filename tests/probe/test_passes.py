"""A model that runs several times in one loss is several passes, of which the trunk is one."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unitygain import diagnose
from unitygain._case import Case
from unitygain._registry import MEASURES
from unitygain.measures.backward_gain import backward_gain
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe

WIDTH, DEPTH = 16, 3
KEYS = (*MEASURES["backward_gain"].needs, "exit.token_cosine")


def net() -> nn.Sequential:
    """Return blocks of one shape, with a norm, so that a second derivative is not zero."""
    parts = (nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Tanh())
    return nn.Sequential(*(nn.Sequential(*parts) for _ in range(DEPTH)))


def critic(width: int = WIDTH) -> nn.Sequential:
    """Return a critic of pieces that are straight, behind which no second derivative comes."""
    blocks = [
        part for _ in range(3) for part in (nn.Linear(width, width), nn.LayerNorm(width), nn.LeakyReLU(0.2))
    ]
    return nn.Sequential(*blocks, nn.Linear(width, 1))


def blocks(loss, model: nn.Module | None = None) -> list[str]:
    x = torch.randn(8, WIDTH)
    with isolated(Case(model or net(), loss, [x])) as (case, _):
        return [str(site) for site in observe(case, KEYS).blocks]


def penalty(model: nn.Module, x: Tensor) -> Tensor:
    between = x.clone().requires_grad_()
    slope = torch.autograd.grad(model(between).sum(), between, create_graph=True)[0]
    return (slope.norm(dim=1) - 1).square().mean()


def numbered(call: int) -> list[str]:
    return [f"{block}#{call}" for block in range(DEPTH)]


@pytest.mark.parametrize(
    ("loss", "call"),
    [
        (lambda m, x: (m(x) * m(x.flip(0))).mean(), 2),
        (lambda m, x: m(x).mean() - m(x + 1).mean() + penalty(m, x), 2),
        (lambda m, x: penalty(m, x) + m(x).mean() - m(x + 1).mean(), 3),
        (lambda m, x: m(x).mean() + penalty(m, x), 1),
        (lambda m, x: (m(x) * m(x.flip(0)).detach()).mean(), 1),
        (lambda m, x: (unseen(m, x) - m(x)).square().mean(), 2),
    ],
    ids=["pair", "penalty-last", "penalty-first", "penalty-of-two", "detached", "target-first"],
)
def test_one_pass_is_taken_whose_gradient_comes_the_usual_way(loss, call):
    assert blocks(loss) == numbered(call)


def unseen(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


def test_what_goes_on_from_its_own_output_is_one_pass():
    def unrolled(model: nn.Module, x: Tensor) -> Tensor:
        for _ in range(2):
            x = x + 0.1 * model(x)
        return x.square().mean()

    assert blocks(unrolled) == [*numbered(1), *numbered(2)]


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_shared_block_under_checkpoints_is_one_pass(reentrant):
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = net()[0]

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(4):
                x = checkpoint(self.block, x, use_reentrant=reentrant)
            return x

    assert blocks(lambda m, x: m(x).mean(), Again()) == [f"block#{call}" for call in range(1, 5)]


def test_an_encoder_that_a_model_runs_twice_is_two_passes():
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(net())

        def forward(self, x: Tensor) -> Tensor:
            ends = []
            for side in (x, x.flip(0)):
                for layer in self.layers:
                    side = layer(side)
                ends.append(side)
            return ends[0] * ends[1]

    assert blocks(lambda m, x: m(x).mean(), Pair()) == [f"layers.{block}#2" for block in range(DEPTH)]


def test_the_gains_are_those_of_the_pass_and_what_is_costly_is_there():
    torch.manual_seed(0)
    model, x = net(), torch.randn(8, WIDTH)

    def once(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).mean()

    def twice(model: nn.Module, x: Tensor) -> Tensor:
        return model(x + 3).mean().detach() + model(x).mean()

    found = []
    for loss in (once, twice):
        with isolated(Case(model, loss, [x])) as (case, _):
            record = observe(case, KEYS)
            found.append(backward_gain(case, record).values)
            assert len(record.values["exit.token_cosine"]) == DEPTH
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_a_penalty_on_slopes_is_no_lost_gradient():
    """The pass whose gradient was differentiated again has zeros where its pieces are straight."""

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).mean() - model(x + 1).mean() + 10 * penalty(model, x)

    report = diagnose(
        Case(critic(), loss, [torch.randn(32, WIDTH)]), only=["UG101", "UG102", "UG103", "UG104"]
    )
    assert not report.findings
