"""Clips: what is called between backward and step, and cuts gradients that are too large.

A clip is a value: ``by_global_norm(1.0)`` makes one, ``chain`` puts several into one, printing it shows
what it does in which order, and calling it on parameters clips their gradients and returns a `ClipReport`.
docs/clipping.md has a table of all of them.
"""

from unitygain.clip._clip import Clip as Clip
from unitygain.clip._clip import chain as chain
from unitygain.clip._drop_in import clip_grad_norm_ as clip_grad_norm_
from unitygain.clip._forecast import StepForecast as StepForecast
from unitygain.clip._forecast import predict_step as predict_step
from unitygain.clip._report import ClipReport as ClipReport
from unitygain.clip._suggest import Suggestion as Suggestion
from unitygain.clip._suggest import suggest as suggest
from unitygain.clip.activation_gradients import EdgeClip as EdgeClip
from unitygain.clip.activation_gradients import activation_gradients as activation_gradients
from unitygain.clip.adaptive_value import adaptive_value as adaptive_value
from unitygain.clip.added_decay import added_decay as added_decay
from unitygain.clip.agc import agc as agc
from unitygain.clip.by_global_norm import by_global_norm as by_global_norm
from unitygain.clip.by_group import by_group as by_group
from unitygain.clip.by_tensor_norm import by_tensor_norm as by_tensor_norm
from unitygain.clip.by_update_rms import by_update_rms as by_update_rms
from unitygain.clip.by_value import by_value as by_value
from unitygain.clip.decay import Decay as Decay
from unitygain.clip.decay import effective_decay as effective_decay
from unitygain.clip.decay import steps_to_spectral_radius as steps_to_spectral_radius
from unitygain.clip.ema import ema as ema
from unitygain.clip.grad_samples import grad_samples as grad_samples
from unitygain.clip.max_norm import max_norm as max_norm
from unitygain.clip.mirrored import mirrored as mirrored
from unitygain.clip.mirrored import mirrored_thresholds as mirrored_thresholds
from unitygain.clip.per_sample import PerSampleReport as PerSampleReport
from unitygain.clip.per_sample import per_sample as per_sample
from unitygain.clip.percentile import percentile as percentile
from unitygain.clip.scheduled import scheduled as scheduled
from unitygain.clip.spectral_cap import spectral_cap as spectral_cap
from unitygain.clip.zscore import zscore as zscore
