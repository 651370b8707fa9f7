"""A guard for a running training: it looks at each gradient before the optimizer does, and bounds the harm.

Nothing here acts unless it is called; what a guard does it logs ("unitygain.guard") and returns. The order of
a guarded step and what each action does are in docs/guard.md.
"""

from unitygain.guard._actions import Action as Action
from unitygain.guard._actions import accept as accept
from unitygain.guard._actions import clip as clip
from unitygain.guard._actions import lower_lr as lower_lr
from unitygain.guard._actions import rewind as rewind
from unitygain.guard._actions import skip as skip
from unitygain.guard._guard import Guard as Guard
from unitygain.guard._loss_scale import ScaleGuard as ScaleGuard
from unitygain.guard._verdict import TrainingStopped as TrainingStopped
from unitygain.guard._verdict import Verdict as Verdict
from unitygain.guard._warmup import LengthWarmup as LengthWarmup

__all__ = [
    "Action",
    "Guard",
    "LengthWarmup",
    "ScaleGuard",
    "TrainingStopped",
    "Verdict",
    "accept",
    "clip",
    "lower_lr",
    "rewind",
    "skip",
]
