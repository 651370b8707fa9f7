"""A gain per block that no part inside of the blocks accounts for."""

from collections.abc import Mapping, Sequence

from unitygain._types import Cause, Profile
from unitygain.rules._activation_causes import most_common
from unitygain.rules._layers import Layer
from unitygain.rules._numbers import spell


def blame_rest(
    profiles: Mapping[str, Profile], layers: Sequence[Layer], count: int, per_block: float, *, forward: bool
) -> Cause:
    """Return batch norms without skip paths, what forward does between the blocks, or that nothing is known.

    Args:
        profiles: All profiles; ``norm_numbers`` tells norms that ran outside of modules.
        layers: The layers in the blocks.
        count: How many blocks there are.
        per_block: The gain per block.
        forward: Whether it is that of the signal.
    """
    norms = _batch_norms(profiles)
    if not forward and per_block > 1 and norms >= count:
        return Cause(
            f"normalisation: batch norm runs {norms} times in {count} blocks, and divides by the spread of "
            f"its batch; what has no skip path beside it passes {spell(per_block)}x back: in front of a ReLU "
            "theory has sqrt(pi/(pi - 1)) = 1.21x, whatever the weights are"
        )
    if forward and per_block > 1 and layers:
        usual = most_common(list(layers))[0]
        return Cause(
            f"between the blocks: the layers keep the scale (sqrt(fan_in·var) = {spell(usual.gain)}, where "
            f"{usual.activation} needs {spell(usual.needed)}), and {spell(per_block)}x per block comes of "
            "what forward does between them, as where it sums the outputs of all blocks before; take their "
            "mean, or put a norm in front of each block"
        )
    return Cause(
        f"blocks: each passes {spell(per_block)}x, of which no single part explains a decibel or more"
    )


def _batch_norms(profiles: Mapping[str, Profile]) -> int:
    profile = profiles.get("norm_numbers")
    return sum("batch_norm" in label for label in profile.labels) if profile else 0
