"""One quantity per file: ``(case, record) -> Profile``. A measure never judges."""

from unitygain.measures.act_absmax import act_absmax as act_absmax
from unitygain.measures.act_frac_nonfinite import act_frac_nonfinite as act_frac_nonfinite
from unitygain.measures.act_headroom import act_headroom as act_headroom
from unitygain.measures.act_rms import act_rms as act_rms
from unitygain.measures.effective_rank import effective_rank as effective_rank
from unitygain.measures.grad_frac_nonfinite import grad_frac_nonfinite as grad_frac_nonfinite
from unitygain.measures.grad_rescaled import grad_rescaled as grad_rescaled
from unitygain.measures.grad_rms import grad_rms as grad_rms
from unitygain.measures.input_grad_rms import input_grad_rms as input_grad_rms
from unitygain.measures.input_mean import input_mean as input_mean
from unitygain.measures.input_rms import input_rms as input_rms
from unitygain.measures.param_grad_frac_zero import param_grad_frac_zero as param_grad_frac_zero
from unitygain.measures.param_grad_rms import param_grad_rms as param_grad_rms
from unitygain.measures.param_rms import param_rms as param_rms
from unitygain.measures.token_cosine import token_cosine as token_cosine
