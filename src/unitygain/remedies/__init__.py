"""One reversible change to a Case per file: ``remedy(case, ...) -> undo``, and the undo is exact."""

from unitygain.remedies.bypass_norm import bypass_norm as bypass_norm
from unitygain.remedies.calm_attention import calm_attention as calm_attention
from unitygain.remedies.change_precision import change_precision as change_precision
from unitygain.remedies.chrono import chrono as chrono
from unitygain.remedies.clip_gradients import clip_gradients as clip_gradients
from unitygain.remedies.drop_output_softmax import drop_output_softmax as drop_output_softmax
from unitygain.remedies.forget_bias import forget_bias as forget_bias
from unitygain.remedies.irnn import irnn as irnn
from unitygain.remedies.loss_scale import loss_scale as loss_scale
from unitygain.remedies.lower_learning_rate import lower_learning_rate as lower_learning_rate
from unitygain.remedies.open_gates import open_gates as open_gates
from unitygain.remedies.pre_norm import pre_norm as pre_norm
from unitygain.remedies.rescale_weights import rescale_weights as rescale_weights
from unitygain.remedies.scale_branch import scale_branch as scale_branch
from unitygain.remedies.scale_head import scale_head as scale_head
from unitygain.remedies.swap_activation import swap_activation as swap_activation
from unitygain.remedies.swap_loss import swap_loss as swap_loss
from unitygain.remedies.unfreeze import unfreeze as unfreeze
from unitygain.remedies.unit_inputs import unit_inputs as unit_inputs
from unitygain.remedies.use_adamw import use_adamw as use_adamw
from unitygain.remedies.warm_up import warm_up as warm_up
from unitygain.remedies.zero_biases import zero_biases as zero_biases
