"""One streaming judgement per file: a step's numbers in, an Event out. No torch, so it can be replayed."""

from unitygain.detectors._replay import replay as replay
from unitygain.detectors.loss_scale import LossScale as LossScale
from unitygain.detectors.nonfinite import Nonfinite as Nonfinite
from unitygain.detectors.spike import Spike as Spike

__all__ = ["LossScale", "Nonfinite", "Spike", "replay"]
