"""The scale of attention logits, read from what runs, in the ways in which people write it."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unitygain as ug
from unitygain._types import Profile, Site
from unitygain.measures.attention_scale import attention_scale
from unitygain.probe.observe import observe
from unitygain.rules.ug701_attention_logits import judge

WIDTH, HEADS, TOKENS = 32, 2, 6
EACH = WIDTH // HEADS

Scores = Callable[[Tensor, Tensor], Tensor]


class Attention(nn.Module):
    """Attention by hand whose maps have names that tell nothing."""

    def __init__(self, scores: Scores, gain: float = 1.0) -> None:
        super().__init__()
        self.left, self.right, self.mixed = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.scores = scores
        nn.init.normal_(self.left.weight, std=gain * WIDTH**-0.5)
        nn.init.normal_(self.right.weight, std=gain * WIDTH**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            f(x).view(*x.shape[:2], HEADS, EACH).transpose(1, 2) for f in (self.left, self.right, self.mixed)
        )
        return (torch.softmax(self.scores(q, k), -1) @ v).transpose(1, 2).reshape(x.shape)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.view(*x.shape[:2], HEADS, EACH).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)


def case_of(model: nn.Module, scale: float = 1.0) -> ug.Case:
    data = [scale * torch.randn(3, TOKENS, WIDTH)]
    return ug.Case(model, lambda m, x: m(x).square().mean(), data)


def measured(model: nn.Module) -> Profile | None:
    case = case_of(model)
    return attention_scale(case, observe(case, ["softmax.absmax"]))


def rotated(q: Tensor, k: Tensor) -> Tensor:
    """Rotary places: they turn queries and keys, and keep their lengths."""
    angles = torch.arange(TOKENS)[:, None] * 0.3 ** torch.arange(EACH // 2)

    def turn(x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)

    return turn(q) @ turn(k).mT / EACH**0.5


def masked(q: Tensor, k: Tensor) -> Tensor:
    later = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
    return (q @ k.mT / math.sqrt(EACH)).masked_fill(later, -torch.inf)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        pytest.param(lambda q, k: q @ k.mT, EACH**0.5, id="none"),
        pytest.param(lambda q, k: q @ k.mT / EACH**0.5, 1.0, id="divided"),
        pytest.param(lambda q, k: (q * EACH**-0.5) @ k.mT, 1.0, id="on the queries"),
        pytest.param(lambda q, k: (q * EACH**-0.25) @ (k * EACH**-0.25).mT, 1.0, id="on both"),
        pytest.param(lambda q, k: q @ k.mT / EACH, EACH**-0.5, id="muP"),
        pytest.param(lambda q, k: q @ k.mT * EACH**0.5, EACH, id="the wrong way"),
        pytest.param(
            lambda q, k: torch.einsum("bhid,bhjd->bhij", q, k) / EACH**0.5, 1.0, id="einsum divided"
        ),
        pytest.param(lambda q, k: torch.einsum("bhid,bhjd->bhij", q, k), EACH**0.5, id="einsum without"),
        pytest.param(rotated, 1.0, id="rotary"),
        pytest.param(masked, 1.0, id="causal"),
    ],
)
def test_the_scale_is_read_however_it_is_written(scores, expected):
    torch.manual_seed(0)
    profile = measured(Attention(scores))
    assert profile is not None
    assert profile.values == pytest.approx((expected,), rel=1e-4)
    assert profile.rows == ((EACH,),)


def test_fused_attention_with_one_map_for_all_three_is_scaled():
    torch.manual_seed(0)
    profile = measured(Packed())
    assert profile is not None
    assert profile.values == pytest.approx((1.0,), rel=1e-4)


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param(lambda q, k: F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * 10, id="norm"),
        pytest.param(
            lambda q, k: q @ k.mT / EACH**0.5 + torch.arange(TOKENS, dtype=torch.float32), id="bias"
        ),
        pytest.param(lambda q, k: 5 * torch.tanh(q @ k.mT), id="cap"),
    ],
)
def test_where_it_is_no_one_number_it_is_not_a_number(scores):
    torch.manual_seed(0)
    profile = measured(Attention(scores, gain=2.0))
    assert profile is not None
    assert math.isnan(profile.values[0])


def test_there_is_none_without_attention_or_without_maps_of_its_own():
    assert measured(nn.Linear(WIDTH, WIDTH)) is None

    class Torch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x)[0]

    assert measured(Torch()) is None


def test_the_missing_scale_is_the_first_cause_and_is_confirmed():
    torch.manual_seed(0)
    report = ug.diagnose(case_of(Attention(lambda q, k: q @ k.mT), 2.0), only=["UG701", "UG702"])
    (finding,) = report.findings
    first = finding.causes[0]
    assert (finding.code, finding.threshold) == ("UG701", 10.0)
    assert first.text.startswith("scale: products of queries and keys of 16 numbers per head")
    assert (first.remedy, first.status) == ("restore_logit_scale", "confirmed")


def test_weights_that_are_too_large_are_another_cause():
    torch.manual_seed(0)
    scaled = Attention(lambda q, k: q @ k.mT / EACH**0.5, gain=8.0)
    report = ug.diagnose(case_of(scaled), only=["UG701"])
    (finding,) = report.findings
    assert finding.causes[0].text.startswith("weights:")
    assert finding.causes[0].status == "confirmed"
    assert not any(cause.text.startswith("scale:") for cause in finding.causes)


def test_the_larger_of_both_is_the_first_cause():
    torch.manual_seed(0)
    for gain, first in ((1.5, "scale:"), (8.0, "weights:")):
        (finding,) = ug.diagnose(case_of(Attention(lambda q, k: q @ k.mT, gain)), only=["UG701"]).findings
        assert finding.causes[0].text.startswith(first)


def profiles(logits: float, entropy: float, scale: float) -> dict[str, Profile]:
    site = (Site("a", 0, ".(softmax)"),)
    return {
        "attention_logit_absmax": Profile("attention_logit_absmax", "logits", site, (logits,)),
        "attention_entropy": Profile("attention_entropy", "of its maximum", site, (entropy,)),
        "attention_scale": Profile(
            "attention_scale", "x", site, (scale,), columns=("numbers_per_head",), rows=((64.0,),)
        ),
    }


@pytest.mark.parametrize(
    ("logits", "entropy", "scale", "fires"),
    [
        (11.0, 0.4, 8.0, True),
        (9.0, 0.4, 8.0, False),
        (11.0, 0.6, 8.0, False),
        (11.0, 0.4, 1.0, False),
        (11.0, 0.4, math.nan, False),
        (101.0, 0.4, 1.0, True),
    ],
)
def test_logits_without_a_scale_have_a_lower_limit(logits, entropy, scale, fires):
    assert len(list(judge(profiles(logits, entropy, scale)))) == fires
