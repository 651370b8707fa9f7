"""Code to paste, for the layers that a cause names."""

from unitygain._types import Cause
from unitygain.rules._fixes import suggest


def test_matrices_by_hand_are_named():
    cause = Cause("weights", "rescale_weights", {"sites": ("W.0", "W.1", "W.2"), "gain": 1.0})
    modules, by_hand = suggest([cause]), suggest([cause], {"W.0", "W.1", "W.2"})
    assert "module.weight" in modules
    assert "model.get_parameter('W.0'), model.get_parameter('W.1'), ..." in by_hand
    assert "module" not in by_hand
