"""One reversible change to a Case per file: ``remedy(case, ...) -> undo``, and the undo is exact."""

from unitygain.remedies.bypass_norm import bypass_norm as bypass_norm
from unitygain.remedies.calm_attention import calm_attention as calm_attention
from unitygain.remedies.open_gates import open_gates as open_gates
from unitygain.remedies.rescale_weights import rescale_weights as rescale_weights
from unitygain.remedies.scale_branch import scale_branch as scale_branch
from unitygain.remedies.scale_head import scale_head as scale_head
from unitygain.remedies.swap_activation import swap_activation as swap_activation
from unitygain.remedies.unit_inputs import unit_inputs as unit_inputs
from unitygain.remedies.zero_biases import zero_biases as zero_biases
