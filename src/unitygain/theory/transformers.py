"""Pre-LN transformers at initialisation: token variance and covariance forward, gradients backward.

Forward state (q, p): variance of a token's features and covariance of two tokens' features. Backward
state (g, r): the same two numbers of the gradient. Bidirectional attention, infinite width and heads.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unitygain.theory._given import require_count, require_finite, require_positive, require_variance

Norm = Literal["layer", "erf"]
WEAK_ATTENTION = 0.1
# Above it squares leave float64.
LARGEST, STEEPEST = 1e150, 1e70


@dataclass(frozen=True)
class Transformer:
    """A stack of blocks x += Attention(N(x)), x += W₂·relu(W₁·N(x)).

    Args:
        tokens: Tokens per sequence, at least 2.
        depth: Blocks.
        sigma_ov2: Squared gain of the output and value projections together.
        sigma_qk2: Variance of a logit of two equal normalised tokens; 0 is uniform attention.
        sigma_mlp2: Squared gain of the two feed-forward matrices together, before relu halves it.
        norm: ``layer`` (LayerNorm, RMSNorm) or ``erf``, the pointwise erf(alpha·x) (Derf, close to DyT).
        alpha: Slope parameter of ``erf``.

    Raises:
        ValueError: If a number is out of range.
    """

    tokens: int
    depth: int
    sigma_ov2: float = 1.0
    sigma_qk2: float = 0.0
    sigma_mlp2: float = 1.0
    norm: Norm = "layer"
    alpha: float = 1.0

    def __post_init__(self) -> None:
        require_count("tokens", self.tokens, 2)
        require_count("depth", self.depth)
        for name in ("sigma_ov2", "sigma_qk2", "sigma_mlp2"):
            require_variance(name, getattr(self, name))
        if require_positive("alpha", self.alpha) > STEEPEST:
            raise ValueError(f"alpha is {self.alpha:g}; above {STEEPEST:g} its square leaves float64")
        if self.norm not in {"layer", "erf"}:
            raise ValueError(f"norm is {self.norm!r}; use 'layer' or 'erf'")


@dataclass(frozen=True)
class TokenState:
    """Variance and covariance of tokens before each of the 2·depth sublayers, and after the last.

    Args:
        q: Variance, shape (2·depth + 1,).
        p: Covariance of two tokens, shape (2·depth + 1,).
    """

    q: NDArray[np.float64]
    p: NDArray[np.float64]

    @property
    def cosine(self) -> NDArray[np.float64]:
        """Cosine similarity of two tokens, shape (2·depth + 1,)."""
        return self.p / self.q


def transformer_tokens(stack: Transformer, q: float = 1.0, p: float = 0.0) -> TokenState:
    """Follow variance and covariance of the tokens through a Pre-LN stack.

    Args:
        stack: The stack.
        q: Variance of a token's features at the input.
        p: Covariance of two tokens there, from 0 to q.

    Raises:
        ValueError: If p is no covariance of tokens with variance q, or the variance leaves float64.

    Example:
        >>> state = transformer_tokens(Transformer(tokens=32, depth=24), p=0.1)
        >>> round(float(state.cosine[-1]), 3)
        0.89

    References:
        Cowsik et al., Geometric dynamics of signal propagation predict trainability of transformers, 2024;
        Alekseev, 2026, arXiv 2604.11890. Feed-forward: Cho and Saul 2009, eq. 6.
    """
    require_positive("q", q)
    if not 0 <= require_finite("p", p) <= q:
        raise ValueError(f"p is {p!r}; the covariance of two tokens of variance {q:g} lies in [0, {q:g}]")
    variances, covariances = [q], [p]
    for sublayer in range(2 * stack.depth):
        qt, pt, _, _ = normalised(stack, variances[-1], covariances[-1])
        added = _mix(stack, qt, pt) if sublayer % 2 == 0 else _feed_forward(stack, qt, pt)
        variances.append(variances[-1] + added[0])
        covariances.append(covariances[-1] + added[1])
        if not variances[-1] < LARGEST:
            raise ValueError(
                f"the variance leaves float64 at sublayer {sublayer + 1} of {2 * stack.depth}: "
                f"{variances[-1]:.3g}; lower sigma_ov2 or sigma_mlp2"
            )
    return TokenState(np.array(variances), np.array(covariances))


def transformer_gradient(stack: Transformer, state: TokenState) -> TokenState:
    """Follow the gradient of a random linear loss back: variance g per token, covariance r of two tokens.

    The first element belongs to the input: ``q[0]`` is the squared gain of the gradient over the stack.
    What attention averages over tokens comes back shared by all of them, which a recursion for g alone
    misses.

    Args:
        stack: The stack.
        state: What `transformer_tokens` gives for it.

    Raises:
        ValueError: If the state is of another depth, or sigma_qk2 is above 0.1: the derivative of the
            attention weights, dropped here, then adds tens of per cent.

    Example:
        >>> stack = Transformer(tokens=32, depth=24)
        >>> round(float(transformer_gradient(stack, transformer_tokens(stack, p=0.1)).q[0]), 2)
        8.45

    References:
        Derived; with r = 0 throughout it is the scalar recursion of Alekseev 2026.
    """
    if stack.sigma_qk2 > WEAK_ATTENTION:
        raise ValueError(
            f"sigma_qk2 is {stack.sigma_qk2:g}; the gradient recursion leaves out the derivative of the "
            f"attention weights and holds up to {WEAK_ATTENTION:g}; measure instead"
        )
    if len(state.q) != 2 * stack.depth + 1:
        raise ValueError(
            f"the state has {len(state.q)} places and the stack {2 * stack.depth + 1}; give what "
            "transformer_tokens returns for this stack"
        )
    g, r = 1.0, 0.0
    own, shared = [g], [r]
    for sublayer in reversed(range(2 * stack.depth)):
        qt, pt, same, across = normalised(stack, float(state.q[sublayer]), float(state.p[sublayer]))
        if sublayer % 2 == 0:
            mean = g / stack.tokens + (stack.tokens - 1) * r / stack.tokens
            g += stack.sigma_ov2 * same * mean
            r += stack.sigma_ov2 * across * mean
        else:
            angle = math.acos(min(1.0, pt / qt))
            g *= 1 + stack.sigma_mlp2 * same / 2
            r *= 1 + stack.sigma_mlp2 * across * (math.pi - angle) / (2 * math.pi)
        own.append(g)
        shared.append(r)
    return TokenState(np.array(own[::-1]), np.array(shared[::-1]))


def rank_collapse_floor(tokens: int) -> float:
    """Return the share 1/n of a token's gradient that survives when all n tokens have become equal.

    Attention then passes the mean over tokens alone; a gradient of one token has 1/n of its square there.

    Raises:
        ValueError: If `tokens` is below 1.

    References:
        Derived; rank collapse: Dong, Cordonnier and Loukas, Attention is not all you need, 2021; gradients:
        Noci et al., Signal propagation in transformers, 2022.
    """
    return 1 / require_count("tokens", tokens)


@dataclass(frozen=True)
class AttentionLogits:
    """Logits of one query against n keys at initialisation, and how many keys share the attention.

    Args:
        variance: Variance of a logit.
        participation: 1/Σ A², the number of keys that share the weight; None where a few keys take all,
            beyond variance (ln n)/2, where no formula in the variance alone holds.
    """

    variance: float
    participation: float | None


def attention_logits(
    head_width: int, tokens: int, query_variance: float = 1.0, key_variance: float = 1.0, scaled: bool = True
) -> AttentionLogits:
    """Return the variance of q·k, divided by √head_width or not, and the participation of the softmax.

    Args:
        head_width: Features of a head, d.
        tokens: Keys, n.
        query_variance: Variance of an entry of the query.
        key_variance: Variance of an entry of the key.
        scaled: Whether the logit is divided by √d.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> attention_logits(64, 1024).participation is None
        False
        >>> attention_logits(64, 1024, scaled=False).variance
        64.0

    References:
        Variance: Vaswani et al., Attention is all you need, 2017, section 3.2.1. Participation n·e^(-s²):
        ratio of log-normal moments, exact for n → ∞ at fixed s²; its end at s² = (ln n)/2: Derrida,
        Random-energy model, 1981, where the sum of squares condenses.
    """
    require_count("head_width", head_width)
    require_count("tokens", tokens)
    variance = require_variance("query_variance", query_variance) * require_variance(
        "key_variance", key_variance
    )
    variance *= 1 if scaled else head_width
    spread = variance <= 0.5 * math.log(tokens) or variance == 0
    return AttentionLogits(variance, tokens * math.exp(-variance) if spread else None)


def normalised(stack: Transformer, q: float, p: float) -> tuple[float, float, float, float]:
    """Return variance and covariance after the norm N, and E N'(x)² and E N'(x)N'(y) of two tokens."""
    if stack.norm == "layer":
        return 1.0, p / q, 1 / q, 1 / q
    a = 2 * stack.alpha**2
    return (
        2 / math.pi * math.asin(a * q / (1 + a * q)),
        2 / math.pi * math.asin(a * p / (1 + a * q)),
        2 * a / math.pi / math.sqrt((1 + a * q) ** 2 - (a * q) ** 2),
        2 * a / math.pi / math.sqrt((1 + a * q) ** 2 - (a * p) ** 2),
    )


def _mix(stack: Transformer, qt: float, pt: float) -> tuple[float, float]:
    own = (stack.tokens - 1) * math.exp(stack.sigma_qk2 * qt * (pt - qt))
    other = (stack.tokens - 1) * math.exp(stack.sigma_qk2 * pt * (pt - qt))
    added = [stack.sigma_ov2 * (qt + pt * weight) / (1 + weight) for weight in (own, other)]
    return added[0], added[1]


def _feed_forward(stack: Transformer, qt: float, pt: float) -> tuple[float, float]:
    cosine = min(1.0, pt / qt)
    relu = math.sqrt(1 - cosine * cosine) + cosine * (math.pi - math.acos(cosine))
    return stack.sigma_mlp2 * qt / 2, stack.sigma_mlp2 * qt * relu / (2 * math.pi)
