"""UG609: weight decay beside the gradient."""

import math

import pytest
import torch
from measures.reading import measured
from rules.profiles import judged, profile, severities
from torch import Tensor, nn
from zoo import mlp
from zoo.optimizers import coupled

import unitygain.rules  # noqa: F401 (fills the table)
from unitygain._case import Case

NAMES = ("0.weight", "1.weight", "2.weight")


def decay(ratios, taken, kind="coupled", optimizer="SGD", more=()):
    facts = {"optimizer": optimizer, "weight_decay": 0.5, "learning_rate": 0.1, "median_per_step": taken}
    ratio = profile(
        "decay_ratio", dict(zip(NAMES, ratios, strict=True)), labels=(kind,) * len(ratios), facts=facts
    )
    return judged("UG609", ratio, *more)


@pytest.mark.parametrize(
    ("ratios", "taken", "expected"),
    [
        ((0.5, 2.0, 9.0), 0.05, []),
        ((0.5, math.nextafter(2.0, 3.0), 9.0), 0.05, ["warning"]),
        ((0.03, 50.0, 90.0), 0.05, []),
        ((math.nextafter(0.03, 1.0), 50.0, 90.0), 0.05, ["warning"]),
        ((0.0625, 4.0, 9.0), 0.05, []),
        ((0.0625, math.nextafter(4.0, 5.0), 9.0), 0.05, ["warning"]),
        ((0.5, 5.0, 9.0), 0.002, []),
        ((0.5, 5.0, 9.0), math.nextafter(0.002, 1.0), ["warning"]),
    ],
)
def test_limits_of_ratio_and_speed(ratios, taken, expected):
    assert severities(decay(ratios, taken)) == expected


@pytest.mark.parametrize(("taken", "expected"), [(0.04, []), (math.nextafter(0.04, 1.0), ["warning"])])
def test_decoupled_decay_is_judged_by_its_speed_alone_too(taken, expected):
    found = decay((0.3, 0.4, 0.5), taken, "decoupled", "AdamW")
    assert severities(found) == expected
    assert decay((0.3, 0.4, 0.5), taken) == []
    for finding in found:
        assert finding.fact == "median_per_step"
        assert finding.causes[0].predicted == pytest.approx((0.99e-2 * taken, 1.01e-2 * taken))


def test_the_cause_names_kind_number_and_cure():
    [finding] = decay((5.0, 8.0, 9.0), 0.02, optimizer="Adam")
    assert finding.causes[0].text.startswith("weight decay: 0.5 in Adam (coupled, added to the gradient and")
    assert finding.causes[0].parameters == {"factor": pytest.approx(0.01)}
    assert finding.fix.startswith("torch.optim.AdamW(")
    [finding] = decay((5.0, 8.0, 9.0), 0.02)
    assert finding.fix == "weight_decay=0.005  # in the optimizer, which has 0.5"


def test_a_clip_and_a_small_loss_are_named_before_the_decay():
    update = profile("update_ratio", {"0.weight": 0.1}, facts={"clipped": 0.001})
    loss = profile("loss_value", {"(loss)": 1e-6}, facts={"reduction": 1e-6})
    [finding] = decay((5.0, 8.0, 9.0), 0.02, more=(update, loss))
    assert [cause.text.partition(":")[0] for cause in finding.causes] == [
        "clip",
        "loss",
        "weight decay",
        "gradient",
    ]


def test_where_depth_makes_the_gradient_small_an_ordinary_decay_is_not_blamed():
    case = mlp.case(mlp.plain(32, 12, nn.Sigmoid), 32)
    case.optimizer = coupled(1e-3, 1e-3)
    profile = measured(case, "decay_ratio")["decay_ratio"]
    assert sorted(profile.values)[len(profile) // 2] > 2, "the median alone would blame the decay"
    assert judged("UG609", profile) == []


class Factors(nn.Module):
    """Factors of users and items with a bias each."""

    def __init__(self, users: int, items: int, rank: int, spread: float) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, rank), nn.Embedding(items, rank)
        self.user_bias, self.item_bias = nn.Embedding(users, 1), nn.Embedding(items, 1)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.3)
        for bias in (self.user_bias, self.item_bias):
            nn.init.normal_(bias.weight, std=spread)

    def forward(self, pair: Tensor) -> Tensor:
        u, i = pair.T
        dot = (self.user(u) * self.item(i)).sum(-1)
        return dot + self.user_bias(u).squeeze(-1) + self.item_bias(i).squeeze(-1)


def factors(seed: int, weight_decay: float, spread: float = 0.0, *, kind=torch.optim.Adam) -> Case:
    """Return a case of factors that learn ratings; sizes are drawn by seed."""
    torch.manual_seed(seed)
    users, items, rank = (int(torch.randint(low, high, ())) for low, high in ((30, 60), (20, 50), (4, 10)))
    pairs = torch.stack([torch.randint(users, (256,)), torch.randint(items, (256,))], 1)
    stars = torch.randn(users)[pairs[:, 0]] * torch.randn(items)[pairs[:, 1]]
    return Case(
        Factors(users, items, rank, spread),
        lambda m, batch: nn.functional.mse_loss(m(batch[0]), batch[1]),
        [(pairs, stars)],
        lambda p: kind(p, 2e-2, weight_decay=weight_decay),
    )


def headed(seed: int, weight_decay: float) -> Case:
    """Return a classifier of a bag of words with a head that starts at zero beside one that does not."""
    torch.manual_seed(seed)
    width = int(torch.randint(8, 24, ()))

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.first, self.last = (
                nn.EmbeddingBag(50, width),
                nn.Linear(width, 3),
                nn.Linear(width, 3),
            )
            nn.init.zeros_(self.last.weight)

        def forward(self, x: Tensor) -> Tensor:
            h = self.words(x)
            return self.first(h) + self.last(h)

    x, y = torch.randint(50, (64, 6)), torch.randint(3, (64,))
    return Case(
        Two(), lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]), [(x, y)], coupled(1e-2, weight_decay)
    )


def said(case: Case) -> list[str]:
    return severities(judged("UG609", measured(case, "decay_ratio")["decay_ratio"]))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", [0.0, 1e-3, 0.01])
def test_biases_that_are_looked_up_do_not_hide_a_decay(seed, spread):
    assert said(factors(seed, 0.2, spread)) == ["warning"]
    profile = measured(factors(seed, 0.2, spread), "decay_ratio")["decay_ratio"]
    assert [str(site) for site in profile.sites] == ["user.weight", "item.weight"]


@pytest.mark.parametrize("seed", range(3))
def test_a_weight_that_starts_at_zero_does_not_hide_a_decay(seed):
    assert said(headed(seed, 1.0)) == ["warning"]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "make",
    [
        lambda seed: factors(seed, 1e-3),
        lambda seed: factors(seed, 1e-4, 0.01),
        lambda seed: factors(seed, 0.02, kind=torch.optim.SGD),
        lambda seed: factors(seed, 0.1, kind=torch.optim.AdamW),
        lambda seed: headed(seed, 1e-3),
        lambda seed: headed(seed, 1e-2),
    ],
)
def test_ordinary_decay_of_tables_is_left_alone(make, seed):
    assert said(make(seed)) == []
