"""How many paths a gradient can take through skips, and how long they are."""

import math

import numpy as np
from numpy.typing import NDArray

from unitygain.theory._given import require_count, require_variance


def residual_paths(blocks: int) -> list[int]:
    """Return how many paths through residual blocks cross k branches, k = 0..blocks; 2^blocks in all.

    Raises:
        ValueError: If `blocks` is no count.

    Example:
        >>> residual_paths(4)
        [1, 4, 6, 4, 1]

    References:
        Veit, Wilber and Belongie, Residual networks behave like ensembles, 2016, the unravelled view.
    """
    require_count("blocks", blocks)
    return [math.comb(blocks, k) for k in range(blocks + 1)]


def residual_path_shares(blocks: int, branch_gain: float) -> NDArray[np.float64]:
    """Return the share of the squared gradient that comes over paths of k branches, k = 0..blocks.

    Binomial with probability branch_gain/(1 + branch_gain), since paths of independent weights add squares.

    Args:
        blocks: Residual blocks.
        branch_gain: Squared gain of a branch.

    Returns:
        Shares that sum to 1, shape (blocks + 1,).

    Raises:
        ValueError: If a number is out of range.

    References:
        Veit et al. 2016 measure it; the law derived.
    """
    require_count("blocks", blocks)
    crossing = require_variance("branch_gain", branch_gain) / (1 + branch_gain)
    k = np.arange(blocks + 1)
    if crossing == 0:
        return (k == 0).astype(np.float64)
    log_binomial = [math.lgamma(blocks + 1) - math.lgamma(i + 1) - math.lgamma(blocks - i + 1) for i in k]
    return np.exp(np.array(log_binomial) + k * math.log(crossing) + (blocks - k) * math.log1p(-crossing))


def dense_paths(layers: int) -> list[int]:
    """Return how many paths of k layers lead through a dense block, k = 1..layers; 2^(layers - 1) in all.

    Every layer reads all before it; a path ends with the last layer and may leave out any other.

    Raises:
        ValueError: If `layers` is no count.

    Example:
        >>> dense_paths(4)
        [1, 3, 3, 1]

    References:
        Counting; the block: Huang et al., Densely connected convolutional networks, 2017, eq. 2.
    """
    require_count("layers", layers)
    return [math.comb(layers - 1, k - 1) for k in range(1, layers + 1)]


def dense_connections(layers: int) -> int:
    """Return the connections of a dense block, L(L + 1)/2.

    Raises:
        ValueError: If `layers` is no count.

    References:
        Huang et al. 2017, section 3.
    """
    return require_count("layers", layers) * (layers + 1) // 2


def unet_path_lengths(levels: int, blocks_per_level: int = 1) -> list[int]:
    """Return the blocks on the path over the skip of level i, i = 1..levels, and last over the bottom.

    A path that takes the skip of level i goes down i levels and up i; the bottom adds its own level.

    Args:
        levels: Levels with a skip.
        blocks_per_level: Blocks on each side of a level, and in the bottom.

    Raises:
        ValueError: If a number is no count.

    Example:
        >>> unet_path_lengths(3, 2)
        [4, 8, 12, 14]

    References:
        Counting on Ronneberger, Fischer and Brox, U-Net, 2015, figure 1.
    """
    require_count("levels", levels)
    blocks = require_count("blocks_per_level", blocks_per_level)
    return [2 * blocks * level for level in range(1, levels + 1)] + [(2 * levels + 1) * blocks]
