"""Convolutions, paths and spectra against torch, brute force and random matrices."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import integrate, special
from torch import nn

from unitygain.theory.convolution import boundary_share, convolution_gain, depthwise_separable_gain, fans
from unitygain.theory.isometry import gaussian_log_condition, gaussian_product_edge, spectral_variance
from unitygain.theory.paths import (
    dense_connections,
    dense_paths,
    residual_path_shares,
    residual_paths,
    unet_path_lengths,
)


@pytest.mark.parametrize(("groups", "channels"), [(1, (6, 8)), (2, (6, 8)), (6, (6, 6))])
def test_fans_are_torch_s(groups, channels):
    weight = nn.Conv2d(*channels, (3, 5), groups=groups).weight
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)  # torch's fan_out counts all groups
    assert fans(*channels, (3, 5), groups) == (fan_in, fan_out // groups)


@pytest.mark.parametrize(("groups", "stride", "dilation"), [(1, 1, 1), (2, 2, 1), (1, 1, 2), (8, 1, 1)])
def test_convolution_gains_are_exact_sums_of_the_operator(groups, stride, dilation):
    """E‖conv(x)‖² over white x is ‖operator‖_F²: with all weights 1 the counts are exact."""
    conv = nn.Conv2d(
        8, 8, 3, stride=stride, padding=dilation, dilation=dilation, groups=groups, bias=False
    ).double()
    nn.init.ones_(conv.weight)
    x = torch.zeros(1, 8, 7, 7, dtype=torch.float64)
    operator = torch.autograd.functional.jacobian(conv, x).flatten(0, 3).flatten(1)
    forward, backward = convolution_gain(1.0, 8, 8, (3, 3), groups, (stride, stride))
    share = boundary_share((7, 7), (3, 3), (dilation,) * 2, (stride,) * 2, (dilation,) * 2)
    assert float(operator.square().sum()) / operator.shape[0] == pytest.approx(forward * share, rel=1e-12)
    # Backward per input entry: ceil(7/stride)² outputs read 7·7 inputs, where 1/stride is the wide limit.
    outputs = math.ceil(7 / stride) ** 2 / 49 * stride**2
    assert float(operator.square().sum()) / operator.shape[1] == pytest.approx(
        backward * share * outputs, rel=1e-12
    )


def test_separable_layers_double_the_gain():
    generator = torch.Generator().manual_seed(0)
    x, found = torch.randn(4, 32, 16, 16, generator=generator), []
    for _ in range(20):
        depthwise = torch.randn(32, 1, 3, 3, generator=generator) * math.sqrt(2 / 9)
        pointwise = torch.randn(32, 32, 1, 1, generator=generator) * math.sqrt(2 / 32)
        y = nn.functional.conv2d(nn.functional.conv2d(x, depthwise, padding=1, groups=32), pointwise)
        found.append(float(y[..., 2:-2, 2:-2].square().mean()))
    error = np.std(found, ddof=1) / math.sqrt(20)
    assert abs(np.mean(found) - depthwise_separable_gain(2 / 9, 2 / 32, 32, (3, 3))) < 5 * error
    assert error < 0.3


def test_residual_paths_are_subsets():
    for blocks in (1, 5):
        assert residual_paths(blocks) == [
            len(list(combinations(range(blocks), k))) for k in range(blocks + 1)
        ]
    assert sum(residual_paths(54)) == 2**54


def test_path_shares_are_the_terms_of_the_gain():
    shares = residual_path_shares(12, 0.4)
    terms = [math.comb(12, k) * 0.4**k / 1.4**12 for k in range(13)]
    np.testing.assert_allclose(shares, terms, rtol=1e-12)
    assert residual_path_shares(3, 0.0).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert residual_path_shares(2000, 1.0).sum() == pytest.approx(1.0, rel=1e-9)


def test_dense_paths_are_counted_one_by_one():
    layers = 5

    def walk(layer: int, length: int) -> list[int]:
        return (
            [length]
            if layer == layers
            else [n for j in range(layer + 1, layers + 1) for n in walk(j, length + 1)]
        )

    lengths = walk(0, 0)
    assert dense_paths(layers) == [lengths.count(k) for k in range(1, layers + 1)]
    assert sum(dense_paths(layers)) == 2 ** (layers - 1)
    assert dense_connections(layers) == sum(range(1, layers + 1))


@pytest.mark.parametrize(("levels", "blocks"), [(4, 1), (3, 2)])
def test_unet_paths(levels, blocks):
    """Every way through the graph: down or over the skip at each level, from the bottom only up."""

    def walk(level: int) -> list[int]:
        if level > levels:
            return [blocks]
        return [2 * blocks + more for more in (0, *walk(level + 1))]

    assert unet_path_lengths(levels, blocks) == walk(1)


@pytest.mark.parametrize(
    ("phi", "q", "orthogonal"), [("tanh", 0.1, True), ("tanh", 0.1, False), ("relu", 1.0, False)]
)
def test_spectral_variance_matches_random_products(phi, q, orthogonal):
    width, depth, found = 300, 4, []
    generator = np.random.default_rng(0)
    for _ in range(4):
        product = np.eye(width)
        for _ in range(depth):
            weight = generator.normal(size=(width, width)) / math.sqrt(width)
            if orthogonal:
                weight = np.linalg.qr(weight)[0]
            z = math.sqrt(q) * generator.normal(size=width)
            slope = 1 - np.tanh(z) ** 2 if phi == "tanh" else (z > 0) * 1.0
            product = (slope[:, None] * weight) @ product
        squares = np.linalg.svd(product, compute_uv=False) ** 2
        found.append(np.mean(squares**2) / np.mean(squares) ** 2 - 1)
    # Finite width: each layer's factor is off by the order of depth/width, on 1 + variance.
    expected = spectral_variance(phi, q, depth, orthogonal)
    error = np.std(found, ddof=1) / 2
    assert abs(np.mean(found) - expected) < 4 * error + depth**2 / width * (1 + expected)


def test_edge_of_a_gaussian_product():
    generator, width = np.random.default_rng(0), 400
    product = np.eye(width)
    for _ in range(3):
        product = generator.normal(size=(width, width)) / math.sqrt(width) @ product
    # Edges fluctuate by n^(-2/3) = 2 %; 256/27 at depth 3.
    assert gaussian_product_edge(3) == pytest.approx(4**4 / 3**3, rel=1e-12)
    assert np.linalg.norm(product, 2) ** 2 == pytest.approx(gaussian_product_edge(3), rel=0.1)


def test_condition_of_a_gaussian_matrix():
    generator, found = np.random.default_rng(0), []
    while len(found) < 200 or np.std(found) / math.sqrt(len(found)) > 0.05:
        found.append(math.log(np.linalg.cond(generator.normal(size=(40, 40)))))
    # Four standard errors, and the limit's own error at width 40, of order 1/40.
    assert np.mean(found) == pytest.approx(gaussian_log_condition(40), abs=0.2 + 1 / 40)


def test_the_constant_of_the_condition_is_an_integral():
    """σ_max tends to 2·√n, and n·σ_min² to a law with the density (1 + √x)/(2√x)·exp(-x/2 - √x) (Edelman)."""

    def part(root: float) -> float:
        return 2 * math.log(root) * (1 + root) * math.exp(-root * root / 2 - root)

    # In √x = root: the density's 1/(2√x)·dx is d root.
    mean_log = integrate.quad(part, 0, math.inf, limit=200)[0]
    assert gaussian_log_condition(1) == pytest.approx(math.log(2) - mean_log / 2, abs=5e-4)


def test_the_edge_is_the_growth_of_fuss_and_catalan_s_numbers():
    """The moments of the squared singular values are C(Lk + k, k)/(Lk + 1): their ratio tends to the edge."""
    for depth in (1, 2, 7):
        k = 4000
        moments = [
            special.gammaln((depth + 1) * n + 1)
            - special.gammaln(n + 1)
            - special.gammaln(depth * n + 1)
            - math.log(depth * n + 1)
            for n in (k, k + 1)
        ]
        # The k-th moment falls as k^(-3/2) below edge^k.
        ratio = math.exp(moments[1] - moments[0]) * ((k + 1) / k) ** 1.5
        assert gaussian_product_edge(depth) == pytest.approx(ratio, rel=1e-4)
    # No difference of large numbers: (L + 1)·(1 + 1/L)^L.
    assert gaussian_product_edge(10**12) == pytest.approx(math.e * (10**12 + 0.5), rel=1e-12)


def test_bad_input_is_a_sentence():
    with pytest.raises(ValueError, match="groups is 3; it must divide the channels, 4 and 6"):
        fans(4, 6, (3,), 3)
    with pytest.raises(ValueError, match=r"a kernel of 5 taps at dilation 1 is longer than 3 \+ 2·0 entries"):
        boundary_share((3,), (5,), (0,))
    with pytest.raises(ValueError, match="padding is -1"):
        boundary_share((3,), (3,), (-1,))
    with pytest.raises(ValueError, match="blocks is 0"):
        residual_paths(0)
    with pytest.raises(ValueError, match="depth is 0"):
        gaussian_product_edge(0)
