"""Token recursions against simulated stacks; the softmax's participation; limits."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unitygain.theory.transformers import (
    Transformer,
    attention_logits,
    rank_collapse_floor,
    transformer_gradient,
    transformer_tokens,
)


def gaussian(width: int, variance: float = 1.0) -> Tensor:
    return torch.randn(width, width, dtype=torch.float64) * math.sqrt(variance / width)


def covariance(x: Tensor) -> float:
    n, width = x.shape
    return float((x.sum(0).square().sum() - x.square().sum()) / (n * (n - 1) * width))


def simulate(stack: Transformer, width: int, p: float) -> list[float]:
    """q, p, g and r of one random stack, with one head as wide as the model."""
    shared, own = (
        torch.randn(width, dtype=torch.float64),
        torch.randn(stack.tokens, width, dtype=torch.float64),
    )
    x = (math.sqrt(p) * shared + math.sqrt(1 - p) * own).requires_grad_()

    def norm(h: Tensor) -> Tensor:
        if stack.norm == "erf":
            return torch.erf(stack.alpha * h)
        return (h - h.mean(1, keepdim=True)) / h.std(1, keepdim=True, unbiased=False)

    h = x
    for _ in range(stack.depth):
        t = norm(h)
        query, key = (
            t @ gaussian(width, math.sqrt(stack.sigma_qk2)),
            t @ gaussian(width, math.sqrt(stack.sigma_qk2)),
        )
        attention = torch.softmax(query @ key.T / math.sqrt(width), -1)
        h = h + attention @ t @ gaussian(width) @ gaussian(width, stack.sigma_ov2)
        h = h + torch.relu(norm(h) @ gaussian(width)) @ gaussian(width, stack.sigma_mlp2)
    (gradient,) = torch.autograd.grad((h * torch.randn_like(h)).sum(), x)
    end = h.detach()
    return [
        float(end.square().mean()),
        covariance(end),
        float(gradient.square().mean()),
        covariance(gradient),
    ]


@pytest.mark.parametrize(
    "stack",
    [
        Transformer(8, 5),
        Transformer(8, 5, sigma_mlp2=2.0, sigma_ov2=0.5),
        Transformer(4, 5, norm="erf", alpha=0.7),
        Transformer(8, 5, sigma_qk2=0.1),
    ],
    ids=["plain", "weighted", "erf", "attentive"],
)
def test_both_recursions_match_simulated_stacks(stack):
    found = np.array([simulate(stack, 128, 0.1) for _ in range(24)])
    tokens = transformer_tokens(stack, p=0.1)
    gradient = transformer_gradient(stack, tokens)
    expected = np.array([tokens.q[-1], tokens.p[-1], gradient.q[0], gradient.p[0]])
    error = found.std(axis=0, ddof=1) / math.sqrt(len(found))
    # Four standard errors, and 2·depth sublayers of relative order 1/width each.
    assert np.all(np.abs(found.mean(axis=0) - expected) < 4 * error + 2 * stack.depth / 128 * expected)
    assert np.all(error[:3] < 0.06 * expected[:3])


def test_strong_attention_is_followed_forward_only():
    stack = Transformer(8, 4, sigma_qk2=1.0)
    found = np.array([simulate(stack, 128, 0.1)[:2] for _ in range(24)])
    state = transformer_tokens(stack, p=0.1)
    error = found.std(axis=0, ddof=1) / math.sqrt(24)
    expected = np.array([state.q[-1], state.p[-1]])
    # Few tokens: the annealed softmax of the theory is off by the order 1/tokens of the attention's part.
    assert np.all(np.abs(found.mean(axis=0) - expected) < 4 * error + expected / 8)
    with pytest.raises(ValueError, match=r"sigma_qk2 is 1; the gradient recursion leaves out"):
        transformer_gradient(stack, state)


def test_strong_attention_prefers_the_token_itself():
    """One block at sigma_qk2 = 1, where uniform attention would leave q at 1.89 and not 1.96."""
    stack, found = Transformer(8, 1, sigma_qk2=1.0), []
    while len(found) < 50 or np.std(found) / math.sqrt(len(found)) > 0.012:
        found.append(simulate(stack, 128, 0.3)[0])
    expected = transformer_tokens(stack, p=0.3).q[-1]
    # Four error bars, which uniform attention misses.
    assert (
        abs(np.mean(found) - expected) < 0.048 < expected - transformer_tokens(Transformer(8, 1), p=0.3).q[-1]
    )


@pytest.mark.parametrize(
    "stack", [Transformer(5, 3, 0.7, 0.0, 1.4), Transformer(5, 3, norm="erf", alpha=1.3)]
)
def test_gradient_recursion_step_by_step(stack):
    """The same step written with probabilities: two ReLUs are open with 1/4 + asin(cosine)/2π."""
    state = transformer_tokens(stack, q=1.5, p=0.2)
    grid = np.arange(-8, 8, 0.05)
    g, r = 1.0, 0.0
    for sublayer in reversed(range(6)):
        q, p = state.q[sublayer], state.p[sublayer]
        qt, pt, same, across = 1.0, p / q, 1 / q, 1 / q
        if stack.norm == "erf":
            u, v = grid[:, None], grid
            c = p / q
            weight = 0.0025 * np.exp(-(u * u - 2 * c * u * v + v * v) / (2 - 2 * c * c))
            weight /= 2 * math.pi * math.sqrt(1 - c * c)
            x, y = (torch.from_numpy(math.sqrt(q) * z * 1.3) for z in (u, v))
            slope = [2.6 / math.sqrt(math.pi) * torch.exp(-t * t).numpy() for t in (x, y)]
            values = [torch.erf(t).numpy() for t in (x, y)]
            qt, pt = (np.sum(weight * a * b) for a, b in ((values[0], values[0]), (values[0], values[1])))
            same, across = (np.sum(weight * a * b) for a, b in ((slope[0], slope[0]), (slope[0], slope[1])))
        if sublayer % 2:
            g += g * stack.sigma_mlp2 * same / 2
            r += r * stack.sigma_mlp2 * across * (0.25 + math.asin(pt / qt) / (2 * math.pi))
        else:
            mean = (g + 4 * r) / 5
            g, r = g + stack.sigma_ov2 * same * mean, r + stack.sigma_ov2 * across * mean
    found = transformer_gradient(stack, state)
    assert found.q[0] == pytest.approx(g, rel=1e-9)
    assert found.p[0] == pytest.approx(r, rel=1e-9)


def test_uniform_attention_of_equal_tokens_is_a_feed_forward_pair():
    state = transformer_tokens(Transformer(16, 3), q=1.0, p=1.0)
    # All tokens equal: attention adds 1 and the MLP 1/2 per block to variance and covariance alike.
    np.testing.assert_allclose(state.q, [1, 2, 2.5, 3.5, 4, 5, 5.5], rtol=1e-12)
    np.testing.assert_allclose(state.cosine, np.ones(7), rtol=1e-12)


def test_the_scalar_recursion_is_too_low():
    stack = Transformer(8, 24)
    state = transformer_tokens(stack, p=0.1)
    scalar = 1.0
    for sublayer in reversed(range(48)):
        share = 1 / 8 if sublayer % 2 == 0 else 0.5
        scalar *= 1 + share / state.q[sublayer]
    assert transformer_gradient(stack, state).q[0] > 1.4 * scalar


def test_rank_collapse_leaves_one_over_n():
    assert rank_collapse_floor(32) == 1 / 32
    # Softmax attention over 32 equal tokens, its own derivative with it.
    tokens = torch.randn(200, dtype=torch.float64).expand(32, -1).clone().requires_grad_()
    attention = torch.softmax(tokens @ gaussian(200) @ tokens.T / math.sqrt(200), -1)
    found = []
    for _ in range(20):
        loss = torch.randn(32, 200, dtype=torch.float64)
        (gradient,) = torch.autograd.grad((attention @ tokens * loss).sum(), tokens, retain_graph=True)
        found.append(float(gradient.square().sum() / loss.square().sum()))
    # A mean of 20·200 squares: √(2/4000) = 2.2 %, three of them.
    assert np.mean(found) == pytest.approx(rank_collapse_floor(32), rel=0.07)


@pytest.mark.parametrize("scaled", [True, False])
def test_logit_variance_matches_a_sample(scaled):
    q, k = torch.randn(2, 20_000, 16, dtype=torch.float64)
    logits = (1.5 * q * k).sum(1) / (4 if scaled else 1)
    found = attention_logits(16, 64, query_variance=1.5, key_variance=1.5, scaled=scaled)
    # Relative error of a variance of 20,000 draws of kurtosis 3 + 6/16: 1.1 %; four of them.
    assert float(logits.var()) == pytest.approx(found.variance, rel=0.045)


def test_participation_matches_a_softmax_of_gaussian_logits():
    tokens, variance = 20_000, 0.8
    attention = torch.softmax(math.sqrt(variance) * torch.randn(200, tokens, dtype=torch.float64), 1)
    found = attention_logits(1, tokens, query_variance=variance).participation
    # Bias of the ratio: Var A²/n, about e^(4·0.8)/n = 0.1 %; the mean of 200 rows is finer.
    assert float(1 / attention.square().sum(1).mean()) == pytest.approx(found, rel=5e-3)


def test_the_formula_for_participation_ends_where_few_keys_take_all():
    """Up to variance (ln n)/2, Σ A² is the ratio of means; beyond it the few largest keys make it up."""
    tokens = 20_000
    draws = torch.randn(60, tokens, dtype=torch.float64)
    for share, holds in ((0.15, True), (0.45, True), (0.55, False), (1.0, False)):
        variance = share * math.log(tokens)
        found = attention_logits(1, tokens, query_variance=variance).participation
        assert (found is not None) == holds
        attention = torch.softmax(math.sqrt(variance) * draws, 1)
        ratio = float((1 / attention.square().sum(1)).median()) / (tokens * math.exp(-variance))
        # Near the end it comes slowly in the number of keys; well within, to some per cent; beyond, never.
        if share == 0.15:
            assert ratio == pytest.approx(1.0, rel=0.1)
        if share == 1.0:
            assert ratio > 3


def test_unscaled_logits_condense():
    found = attention_logits(64, 1024, scaled=False)
    assert found.participation is None
    attention = torch.softmax(8 * torch.randn(100, 1024, dtype=torch.float64), 1)
    assert float((1 / attention.square().sum(1)).median()) < 3


def test_bad_input_is_a_sentence():
    with pytest.raises(ValueError, match="tokens is 1; give a whole number of at least 2"):
        Transformer(1, 2)
    with pytest.raises(
        ValueError, match=r"the state has 3 places and the stack 7; give what transformer_tok"
    ):
        transformer_gradient(Transformer(4, 3), transformer_tokens(Transformer(4, 1)))
    with pytest.raises(
        ValueError, match=r"variance leaves float64 at sublayer 2 of 4: 5e\+299; lower sigma_ov2"
    ):
        transformer_tokens(Transformer(4, 2, sigma_mlp2=1e300))
    with pytest.raises(ValueError, match=r"alpha is 1e\+200; above 1e\+70 its square leaves float64"):
        Transformer(4, 2, norm="erf", alpha=1e200)
    with pytest.raises(ValueError, match="norm is 'batch'; use 'layer' or 'erf'"):
        Transformer(4, 2, norm="batch")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"p is 2; .* lies in \[0, 1\]"):
        transformer_tokens(Transformer(4, 2), p=2)
