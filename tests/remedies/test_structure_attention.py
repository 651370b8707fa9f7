"""Attention that is changed computes what its formula says, and torch's own written out is torch's own."""

import math
import pickle

import pytest
import torch
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.remedies import calm_attention, qk_norm, restore_logit_scale, soft_cap
from unitygain.remedies._attend import OpenAttention
from unitygain.remedies._capped import attend

WIDTH, HEADS, LENGTH = 16, 4, 5
X = torch.randn(2, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0)).double()
ROOT = (WIDTH // HEADS) ** 0.5


class Separate(nn.Module):
    """Three maps and a softmax that is written out."""

    packed = ()

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.scale = scale

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.q(x), self.k(x), self.v(x)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(y.unflatten(-1, (HEADS, -1)).transpose(1, 2) for y in self.maps(x))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q @ k.transpose(-1, -2)) * self.scale
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
        return torch.softmax(scores, dim=-1) @ v

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(*self.heads(x)).transpose(1, 2).flatten(-2)


class Packed(Separate):
    """One map for all three, and torch's fused attention."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(x).chunk(3, -1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)


class Interleaved(Packed):
    """One map whose output holds the three of each head together."""

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(x).unflatten(-1, (HEADS, 3, -1)).transpose(1, 2).unbind(-2)


class Grouped(Packed):
    """One map for all three, with half as many heads of keys and values, each read by two of queries."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale)
        self.qkv = nn.Linear(WIDTH, 2 * WIDTH)

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(x).split((WIDTH, WIDTH // 2, WIDTH // 2), -1)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        q, k, v = (y.unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2) for y in self.maps(x))
        return q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)


class GroupedAtOnce(Grouped):
    """The same, where torch's fused attention repeats the keys."""

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(y.unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2) for y in self.maps(x))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=self.scale, enable_gqa=True
        )


def case_of(make, *given: float) -> Case:
    torch.manual_seed(0)
    return Case(nn.Sequential(make(*given), make(*given)).double(), lambda m, x: m(x).square().sum(), [X])


def turned(first, second) -> Tensor:
    """The model's formula with its queries and keys, and logits, passed through functions."""

    def one(attention: Separate, x: Tensor) -> Tensor:
        y = x
        if isinstance(attention, Packed):
            maps = attention.qkv if isinstance(attention.qkv, nn.Linear) else innermost(attention.qkv)
            sizes = (WIDTH, *2 * ((innermost(maps).out_features - WIDTH) // 2,))
            q, k, v = maps(y).split(sizes, -1)
        else:
            q, k, v = (innermost(part)(y) for part in (attention.q, attention.k, attention.v))
        q, k, v = (part.unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2) for part in (q, k, v))
        k, v = (part.repeat_interleave(HEADS // part.shape[1], 1) for part in (k, v))
        logits = second(first(q) @ first(k).mT * attention.scale)
        logits = logits.masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), -math.inf)
        return x + (torch.softmax(logits, -1) @ v).transpose(1, 2).flatten(-2)

    return one


def innermost(module: nn.Module) -> nn.Module:
    while hasattr(module, "held"):
        module = module.held
    return module


def by_hand(model: nn.Sequential, first=lambda x: x, second=lambda x: x) -> Tensor:
    x = X
    for part in model:
        x = turned(first, second)(innermost(part), x)
    return x


@pytest.mark.parametrize("make", [Packed, Grouped, GroupedAtOnce])
def test_queries_in_a_packed_map_are_multiplied_and_nothing_else(make):
    case = case_of(make)
    before = case.model(X)
    undo = calm_attention(case, factor=0.25)
    changed = case.model(X)
    undo()
    assert torch.equal(case.model(X), before)
    expected = by_hand(case.model, second=lambda logits: 0.25 * logits)
    torch.testing.assert_close(changed, expected, atol=0, rtol=1e-9)


def test_packed_queries_that_are_not_in_front_or_never_ran_are_refused():
    case = case_of(Interleaved)
    before = case.model(X)
    with pytest.raises(ValueError, match=r"the first part of what 0\.qkv returns does not scale its logits"):
        calm_attention(case, factor=0.25)
    assert torch.equal(case.model(X), before)
    case.loss = lambda m, x: sum(p.sum() for p in m.parameters())
    case.model[1].qkv = nn.Linear(WIDTH, 2 * WIDTH).double()
    with pytest.raises(ValueError, match=r"1\.qkv packs queries .* 32 numbers of 16, and no pass showed"):
        calm_attention(case, factor=0.25)


@pytest.mark.parametrize("make", [Separate, Packed, Grouped])
def test_logits_without_their_scale_get_it(make):
    case = case_of(make)
    before = case.model(X)
    undo = restore_logit_scale(case)
    expected = by_hand(case.model, second=lambda logits: logits / ROOT)
    torch.testing.assert_close(case.model(X), expected, atol=0, rtol=1e-9)
    undo()
    assert torch.equal(case.model(X), before)


@pytest.mark.parametrize("make", [Separate, Packed])
def test_logits_with_their_scale_are_left(make):
    with pytest.raises(ValueError, match=r"no chosen attention lacks its scale of 1/sqrt\(d\) \(0: 0.5 for"):
        restore_logit_scale(case_of(make, 1 / ROOT))


@pytest.mark.parametrize("make", [Separate, Packed, Grouped, GroupedAtOnce])
def test_queries_and_keys_of_every_head_are_normalised(make):
    case = case_of(make)
    case.optimizer = torch.optim.SGD(case.model.parameters(), lr=0.1)
    undo = qk_norm(case)
    norm = nn.RMSNorm(WIDTH // HEADS).double()
    torch.testing.assert_close(case.model(X), by_hand(case.model, first=norm), atol=0, rtol=1e-9)
    held = {id(p) for group in case.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in case.model.parameters()} == held
    undo()
    assert len(case.optimizer.param_groups) == 1


def test_heads_that_are_interleaved_are_refused_and_left():
    for change, message in (
        (qk_norm, "the heads of 0 could not be told apart in what its maps return"),
        (restore_logit_scale, "the queries of 0 are not the first part of what one map returns"),
    ):
        case = case_of(Interleaved)
        before = case.model(X)
        with pytest.raises(ValueError, match=message):
            change(case)
        assert torch.equal(case.model(X), before)
        assert isinstance(case.model[0].qkv, nn.Linear)


@pytest.mark.parametrize("make", [Separate, Packed])
def test_logits_are_bounded_and_masks_stay(make):
    case = case_of(make, 8.0)
    undo = soft_cap(case, cap=2.0)
    expected = by_hand(case.model, second=lambda logits: 2 * torch.tanh(logits / 2))
    torch.testing.assert_close(case.model(X), expected, atol=0, rtol=1e-9)
    undo()
    assert type(case.model[0]) is make


def test_a_softmax_module_gets_its_bound_in_front():
    class Modular(Separate):
        def __init__(self, scale: float = 1.0) -> None:
            super().__init__(scale)
            self.softmax = nn.Softmax(-1)

        def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return self.softmax(q @ k.mT * self.scale) @ v

    case = case_of(Modular, 8.0)
    plain = case.model[0].mix(*case.model[0].heads(X))
    undo = soft_cap(case, cap=2.0)
    q, k, v = case.model[0].heads(X)
    expected = torch.softmax(2 * torch.tanh(q @ k.mT * 8 / 2), -1) @ v
    torch.testing.assert_close(case.model[0].mix(q, k, v), expected, atol=0, rtol=1e-12)
    undo()
    assert torch.equal(case.model[0].mix(q, k, v), plain)


MASKS = {
    "none": {},
    "additive": {"attn_mask": torch.randn(LENGTH, LENGTH).double()},
    "bool": {"attn_mask": torch.ones(LENGTH, LENGTH).triu(1).bool()},
    "per head": {"attn_mask": torch.randn(2 * HEADS, LENGTH, LENGTH).double()},
    "padding": {"key_padding_mask": torch.tensor([[False] * 3 + [True] * 2, [False] * 5])},
    "causal hint": {"attn_mask": torch.ones(LENGTH, LENGTH).triu(1).bool(), "is_causal": True},
    "weights of each head": {"average_attn_weights": False},
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(
    "given", [{}, {"batch_first": True}, {"bias": False}, {"kdim": 8, "vdim": 8}], ids=str
)
def test_torch_attention_written_out_is_the_same(name, given):
    torch.manual_seed(0)
    held = nn.MultiheadAttention(WIDTH, HEADS, **given).double()
    memory = X[..., : given.get("kdim", WIDTH)]
    q, m = (X, memory) if given.get("batch_first") else (X.transpose(0, 1), memory.transpose(0, 1))
    opened = OpenAttention(held, nn.Identity(), nn.Identity())
    for value, expected in zip(opened(q, m, m, **MASKS[name]), held(q, m, m, **MASKS[name]), strict=True):
        torch.testing.assert_close(value, expected, atol=1e-14, rtol=1e-9)
    if name == "none":
        single = q[0] if given.get("batch_first") else q[:, 0]
        other = m[0] if given.get("batch_first") else m[:, 0]
        for value, expected in zip(opened(single, other, other), held(single, other, other), strict=True):
            torch.testing.assert_close(value, expected, atol=1e-14, rtol=1e-9)


@pytest.mark.parametrize("train", [True, False])
def test_layers_of_torch_use_what_stands_in_for_their_attention(train):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, 0.0, batch_first=True).double()
    case = Case(nn.Sequential(layer).train(train), lambda m, x: m(x).square().sum(), [X])
    before = case.model(X)
    undo_cap = soft_cap(case, cap=1e9)
    with torch.no_grad():
        torch.testing.assert_close(case.model(X), before, atol=0, rtol=1e-7)
    undo_cap()
    undo = qk_norm(case)
    changed = case.model(X)
    assert not torch.allclose(changed, before, rtol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(case.model(X), changed, atol=0, rtol=1e-9)
    twin = pickle.loads(pickle.dumps(case.model))
    assert torch.equal(twin(X), changed)
    undo()
    assert torch.equal(case.model(X), before)


@pytest.mark.parametrize("given", [{}, {"is_causal": True}, {"scale": 0.3}, {"enable_gqa": True}], ids=str)
def test_fused_attention_written_out_is_the_same(given):
    q = torch.randn(2, HEADS, LENGTH, 3).double()
    few = 2 if "enable_gqa" in given else HEADS
    k, v = torch.randn(2, 2, few, LENGTH, 3).double()
    expected = nn.functional.scaled_dot_product_attention(q, k, v, **given)
    torch.testing.assert_close(attend(1e9, q, k, v, **given), expected, atol=1e-14, rtol=1e-7)
    keep = torch.ones(LENGTH, LENGTH).tril().bool()
    for mask in (keep, torch.zeros(LENGTH, LENGTH).double().masked_fill(~keep, -math.inf)):
        expected = nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)
        torch.testing.assert_close(attend(1e9, q, q, q, attn_mask=mask), expected, atol=1e-14, rtol=1e-7)


@pytest.mark.parametrize("change", [restore_logit_scale, qk_norm, soft_cap])
@pytest.mark.parametrize("make", [Separate, Packed])
def test_copies_and_pickles_compute_the_same(change, make):
    case = case_of(make)
    change(case)
    expected = case.model(X)
    for twin in (case.copy().model, pickle.loads(pickle.dumps(case.model))):
        assert torch.equal(twin(X), expected)


def test_models_that_do_not_attend_are_refused():
    case = Case(nn.Sequential(nn.Linear(WIDTH, 3), nn.Softmax(-1)).double(), lambda m, x: m(x).sum(), [X])
    for change, message in (
        (restore_logit_scale, "no maps of queries were found"),
        (qk_norm, "no chosen module attends with queries and keys"),
        (soft_cap, "no chosen module runs a softmax of products"),
    ):
        with pytest.raises(ValueError, match=message):
            change(case)
    with pytest.raises(ValueError, match="cap is 0; give a positive number"):
        soft_cap(case, cap=0)
