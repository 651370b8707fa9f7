"""The root is named before its symptom, on models that are drawn by seed.

A skip path that is missing, attention that does not average, a router's softmax that has chosen, a loop that
adds its branch whole.
"""

import math

import pytest
import torch
from rules.profiles import judged, profile
from torch import Tensor, nn
from torch.nn import functional as F
from zoo.dice import Dice

import unitygain as ug
from unitygain._case import Case
from unitygain._types import Finding, Profile, Site
from unitygain.rules.ug205_rank_collapse import no_skip


def drawn(seed: int) -> Dice:
    """Return the dice of a seed, by which weights and data are drawn as well."""
    torch.manual_seed(seed)
    return Dice("roots", seed)


def find(case: Case, code: str) -> Finding | None:
    return next(iter(ug.diagnose(case, only=[code]).findings), None)


def classes(model: nn.Module, x: Tensor, count: int = 5) -> Case:
    """Return a case that tells classes by the mean over tokens, or by rows."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        out = model(batch[0])
        return F.cross_entropy(out.mean(1) if out.ndim == 3 else out, batch[1])

    return Case(model, loss, [(x, torch.arange(len(x)) % count)])


class Block(nn.Module):
    """Attention and an MLP, with a norm before each, and skip paths or none."""

    def __init__(self, width: int, *, skip: bool, act: nn.Module) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), act, nn.Linear(2 * width, width))
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x)).chunk(3, -1)
        a = self.out((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v)
        x = x + a if self.skip else a
        m = self.mlp(self.norms[1](x))
        return x + m if self.skip else m


def stacked(seed: int, *, skip: bool) -> Case:
    dice = drawn(seed)
    width, depth = dice.one_of(24, 32), dice.whole(7, 10)
    act = dice.one_of(nn.GELU, nn.ReLU, nn.Tanh)()
    blocks = [Block(width, skip=skip, act=act) for _ in range(depth)]
    return classes(nn.Sequential(nn.Linear(8, width), *blocks, nn.Linear(width, 5)), torch.randn(12, 9, 8))


@pytest.mark.parametrize("seed", range(3))
def test_attention_without_skip_paths_wants_one(seed):
    finding = find(stacked(seed, skip=False), "UG205")
    assert finding is not None
    first = finding.causes[0]
    assert first.text.startswith("no skip path: ")
    assert (first.remedy, first.status) == ("add_residual", "confirmed")
    assert "x + block(x)" in finding.fix


@pytest.mark.parametrize("seed", range(5))
def test_the_same_blocks_with_skip_paths_keep_their_tokens_apart(seed):
    assert find(stacked(seed, skip=True), "UG205") is None


@pytest.mark.parametrize(
    ("skips", "said"),
    [
        ((math.nan,) * 5, True),
        ((math.nan, math.nan, math.nan, 1.0, 1.0), True),
        ((1.0,) * 5, False),
        ((0.7,) * 5, False),
        ((math.nan, math.nan, 1.0, 1.0, 1.0), False),
    ],
    ids=["none", "most", "skip paths", "halved ones", "a few blocks without"],
)
def test_most_blocks_must_lack_a_skip_path(skips, said):
    sites = [Site(str(index)) for index in range(5)]
    columns, rows = ("normalisation", "skip"), tuple((1.0, skip) for skip in skips)
    parts = Profile("gain_parts", "x", tuple(sites), (1.0,) * 5, columns=columns, rows=rows)
    assert bool(list(no_skip({"gain_parts": parts}, sites, 0.5, (-1.0, 0.9)))) is said


def test_blocks_that_could_not_be_followed_say_nothing_of_a_skip_path():
    sites = [Site(str(index)) for index in range(5)]
    columns, rows = ("normalisation", "skip"), ((math.nan, math.nan),) * 5
    parts = Profile("gain_parts", "x", tuple(sites), (1.0,) * 5, columns=columns, rows=rows)
    assert not list(no_skip({"gain_parts": parts}, sites, 0.5, (-1.0, 0.9)))
    assert not list(no_skip({}, sites, 0.5, (-1.0, 0.9)))


class Linear(nn.Module):
    """Attention by a positive feature map in the place of the softmax, divided by the weights' sum or not."""

    def __init__(self, width: int, feature: str, *, divided: bool, causal: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.feature, self.divided, self.causal = feature, divided, causal

    def forward(self, x: Tensor) -> Tensor:
        phi = {"elu": lambda z: F.elu(z) + 1, "exp": torch.exp, "relu": lambda z: F.relu(z) + 0.1}[
            self.feature
        ]
        q, k, v = phi(self.q(x)), phi(self.k(x)), self.v(x)
        if not self.causal:
            out, whole = q @ (k.mT @ v), q @ k.sum(1)[..., None]
        else:
            weights = torch.tril(q @ k.mT)
            out, whole = weights @ v, weights.sum(-1, keepdim=True)
        return self.o(out / whole if self.divided else out)


class Performer(nn.Module):
    """Blocks of linear attention beside a stream, and a head."""

    def __init__(self, attentions: list[Linear], width: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(12, width), nn.Linear(width, 5)
        self.attns = nn.ModuleList(attentions)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in attentions)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embed(words)
        for norm, attn in zip(self.norms, self.attns, strict=True):
            x = x + attn(norm(x))
        return self.head(x)


def linear_attention(seed: int, *, divided: bool) -> Case:
    dice = drawn(seed)
    width, feature = dice.one_of(32, 48), ("elu", "exp", "relu")[seed % 3]
    made = [Linear(width, feature, divided=divided, causal=seed % 2 == 0) for _ in range(dice.whole(2, 4))]
    return classes(Performer(made, width), torch.randint(12, (10, dice.whole(40, 60))))


@pytest.mark.parametrize("seed", range(3))
def test_attention_whose_weights_do_not_sum_to_1_is_blamed_before_the_head(seed):
    finding = find(linear_attention(seed, divided=False), "UG605")
    assert finding is not None
    first = finding.causes[0]
    assert first.text.startswith("attention: attns.0 sums its values with weights")
    assert "whose own gain" in first.text
    assert (first.remedy, first.status) == ("scale_branch", "confirmed")
    assert "attns.1" in first.parameters["sites"]
    assert "weights.sum" in finding.fix


@pytest.mark.parametrize("seed", range(5))
def test_attention_that_is_divided_by_the_sum_of_its_weights_starts_well(seed):
    assert find(linear_attention(seed, divided=True), "UG605") is None


def loud(sizes: dict[str, float], gains: dict[str, float], **more: Profile) -> list[Finding]:
    facts = {"kind": "cross_entropy", "row_mean": 400.0, "expected": 2.3, "softmax_before_loss": 0.0}
    given = (profile("loss_value", {"": 400.0}, facts=facts), profile("act_rms", sizes))
    return judged("UG605", *given, profile("weight_gain", gains), *more.values())


@pytest.mark.parametrize(
    ("sizes", "gains", "word", "remedy"),
    [
        (
            {"0": 1.0, "1": 200.0, "head": 120.0},
            {"0": 1.0, "1": 2e2, "head": 0.6},
            "signal",
            "rescale_weights",
        ),
        ({"0": 1.0, "1": 90.0, "head": 54.0}, {"0": 1.0, "1": 0.6, "head": 0.6}, "signal", None),
        (
            {"a.q": 0.6, "a.k": 0.6, "a.v": 0.6, "head": 90.0},
            {"a.v": 0.6, "head": 0.6},
            "attention",
            "scale_branch",
        ),
        ({"a.q": 0.6, "a.r": 0.6, "head": 90.0}, {"a.q": 0.6, "head": 0.6}, "signal", None),
        ({"0": 1.0, "1": 1.0, "head": 90.0}, {"0": 1.0, "1": 1.0, "head": 90.0}, "head", "scale_head"),
        ({"0": 1.0, "1": 1.1, "head": 5.0}, {"0": 1.0, "1": 1.0, "head": 0.6}, "head", "scale_head"),
        ({"0": 1.0, "1": 1.0, "head": 90.0}, {"0": 1.0, "1": 1.0}, "head", "scale_head"),
        ({"0": 7.0, "1": 49.0, "head": 340.0}, {"0": 7.0, "1": 7.0, "head": 1.9}, "head", "scale_head"),
        ({"wte": 30.0, "head": 30.0}, {"head": 1.0}, "head", "scale_head"),
    ],
    ids=[
        "a layer's weights",
        "between modules",
        "attention",
        "no keys",
        "a loud head",
        "little enters",
        "not known",
        "step by step",
        "from the start",
    ],
)
def test_where_the_signal_first_grows_is_said_before_an_ordinary_head(sizes, gains, word, remedy):
    [finding] = loud(sizes, gains)
    assert finding.causes[0].text.startswith(f"{word}: ")
    assert finding.causes[0].remedy == remedy
    assert "scale_head" in [cause.remedy for cause in finding.causes]


def test_attention_with_a_softmax_is_not_said_to_have_none():
    softmax = Profile("attention_entropy", "x", (Site("a", leaf=".(softmax)"),), (0.9,))
    sizes, gains = {"a.q": 0.6, "a.k": 0.6, "a.v": 0.6, "head": 90.0}, {"a.v": 0.6, "head": 0.6}
    [finding] = loud(sizes, gains, softmax=softmax)
    assert finding.causes[0].text.startswith("signal: ")


class Mixture(nn.Module):
    """Experts that a softmax over a router's logits weighs; the router may read columns of its own."""

    def __init__(self, features: int, experts: int, *, deep: bool, times: float) -> None:
        super().__init__()
        self.router, self.times = nn.Linear(features, experts), times
        make = (lambda: nn.Sequential(nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, 5))) if deep else None
        self.experts = nn.ModuleList(make() if make else nn.Linear(features, 5) for _ in range(experts))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        weights = (self.times * self.router(context)).softmax(-1)
        return (weights[..., None] * torch.stack([expert(x) for expert in self.experts], 1)).sum(1)


def mixture(seed: int, middle: float, times: float = 1.0) -> Case:
    dice = drawn(seed)
    features, experts = dice.whole(6, 10), dice.whole(6, 8)
    x = torch.randn(128, features)
    model = Mixture(features, experts, deep=False, times=times)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return F.cross_entropy(model(*batch[:2]), batch[2])

    return Case(model, loss, [(x, middle + max(middle / 200, 1.0) * x, torch.arange(128) % 5)])


@pytest.mark.parametrize(("seed", "middle"), [(0, 1500.0), (1, 2500.0), (2, 800.0)])
def test_a_router_that_chose_one_expert_is_put_down_to_its_softmax(seed, middle):
    finding = find(mixture(seed, middle), "UG103")
    assert finding is not None
    first = finding.causes[0]
    assert first.text.startswith("softmax: the logits that it gets from router reach")
    assert "an input of rms" in first.text
    assert (first.remedy, first.status) == ("unit_inputs", "confirmed")


@pytest.mark.parametrize("seed", range(5))
def test_a_router_of_unit_inputs_passes_its_gradient(seed):
    assert find(mixture(seed, 0.0), "UG103") is None


@pytest.mark.parametrize(
    ("label", "logits", "entropy", "inputs", "remedy"),
    [
        ("blocks.3", 900.0, 0.0, 1500.0, "unit_inputs"),
        ("blocks.3", 900.0, 0.0, 1.0, None),
        ("blocks.3", 20.0, 0.0, 1.0, ""),
        ("blocks.3", 900.0, 0.4, 1.0, ""),
        ("blocks.5", 900.0, 0.0, 1500.0, ""),
    ],
    ids=["raw inputs", "a scale of its own", "small logits", "spread", "of another block"],
)
def test_a_softmax_is_blamed_where_it_chose_by_the_block_s_logits(label, logits, entropy, inputs, remedy):
    gains = {f"blocks.{k}": 1e-6 if k == 3 else 1.0 for k in range(7)}
    softmax = profile(
        "softmax_logit_absmax",
        {"(softmax)": logits},
        labels=(label,),
        columns=("softmax_logit_absmax", "entropy"),
        rows=((logits, entropy),),
    )
    entering = profile("input_rms", {"(input 0)": inputs})
    [finding] = judged("UG103", profile("backward_gain", gains), softmax, entering)
    assert finding.causes[0].text.startswith("softmax: ") is (remedy != "")
    assert finding.causes[0].remedy == (remedy or None)


class Loop(nn.Module):
    """A state that a field moves again and again; a share of the field is added, or nothing beside it."""

    def __init__(self, width: int, act: nn.Module, steps: int, share: float, kept: float = 1.0) -> None:
        super().__init__()
        self.lift, self.read = nn.Linear(4, width), nn.Linear(width, 1)
        self.field = nn.Sequential(nn.Linear(width, width), act, nn.Linear(width, width))
        for layer in (self.lift, self.field[0], self.field[2]):
            nn.init.xavier_normal_(layer.weight)
        self.steps, self.share, self.kept = steps, share, kept

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)
        for _ in range(self.steps):
            h = self.kept * h + self.share * self.field(h)
        return self.read(h)


def loop(seed: int, *, share: float | None = None, kept: float = 1.0) -> Case:
    dice = drawn(seed)
    act, steps = (nn.ReLU, nn.Softplus, nn.GELU)[seed % 3](), dice.whole(32, 44)
    model = Loop(dice.one_of(16, 24), act, steps, 1 / steps if share is None else share, kept)
    data = [(torch.randn(64, 4), torch.randn(64, 1))]
    return Case(model, lambda m, b: (m(b[0]) - b[1]).square().mean(), data)


@pytest.mark.parametrize("seed", range(3))
def test_a_loop_that_adds_its_branch_whole_lacks_a_step_size(seed):
    finding = find(loop(seed, share=1.0), "UG402")
    assert finding is not None
    first = finding.causes[0]
    assert first.text.startswith("branch: ")
    assert "Euler step" in first.text
    assert (first.remedy, first.status) == ("scale_branch", "confirmed")
    assert first.parameters["sites"] == ("field.2",)
    assert finding.fix.startswith("h = h + f(h) / ")


@pytest.mark.parametrize("seed", range(5))
def test_euler_steps_do_not_grow(seed):
    assert find(loop(seed), "UG402") is None


@pytest.mark.parametrize(("skip", "said"), [(1.0, True), (0.9, False), (math.nan, False)])
def test_weights_are_blamed_where_no_identity_is_beside_them(skip, said):
    steps = [Site(name, time=t) for name in ("f.0", "f.2") for t in range(20)]
    values = tuple(1.6 ** (19 - t) for _ in range(2) for t in range(20))
    facts = {"module": "f.0", "slope_db_per_step": 4.08}
    time = Profile("time_grad_rms", "rms", tuple(steps), values, facts=facts)
    calls = [Site("lift"), *(Site(name, t + 1) for t in range(20) for name in ("f.0", "f.2")), Site("read")]
    outputs = Profile("act_rms", "rms", tuple(calls), (1.0,) * len(calls))
    gains = profile("weight_gain", {"lift": 0.6, "f.0": 0.9, "f.2": 1.2, "read": 0.6})
    blocks = (Site("lift"), Site("read"))
    rows = ((skip,), (math.nan,))
    parts = Profile("gain_parts", "x", blocks, (1.0, 1.0), columns=("skip",), rows=rows)
    [finding] = judged("UG402", time, outputs, gains, parts)
    assert finding.causes[0].text.startswith("branch: " if said else "recurrent weights: ")


def test_uneven_noise_levels_are_put_down_to_their_weighting():
    sites = {f"(sigma {k} to {k + 1})": share for k, share in enumerate((0.99, 0.01, *[0.0] * 6))}
    rows = tuple((16.0, share, share) for share in sites.values())
    facts = {"largest": 0.99, "groups": 8.0, "argument": "sigma", "variants": ""}
    columns = ("samples", "energy", "output_energy")
    [finding] = judged(
        "UG705", profile("timestep_grad_share", sites, rows=rows, columns=columns, facts=facts)
    )
    assert finding.causes[0].text.startswith("loss: its weighting over the noise levels")
