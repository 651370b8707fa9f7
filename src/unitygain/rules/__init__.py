"""One judgement per file: ``profiles -> findings``. A rule never touches a model and imports no torch."""

from unitygain.rules import ug101_vanishing_over_depth as ug101_vanishing_over_depth
from unitygain.rules import ug102_exploding_over_depth as ug102_exploding_over_depth
from unitygain.rules import ug103_vanishing_in_one_place as ug103_vanishing_in_one_place
from unitygain.rules import ug104_exploding_in_one_place as ug104_exploding_in_one_place
from unitygain.rules import ug201_signal_grows as ug201_signal_grows
from unitygain.rules import ug202_signal_dies as ug202_signal_dies
from unitygain.rules import ug203_dead_units as ug203_dead_units
from unitygain.rules import ug204_saturation as ug204_saturation
from unitygain.rules import ug205_rank_collapse as ug205_rank_collapse
from unitygain.rules import ug206_born_dead as ug206_born_dead
from unitygain.rules import ug301_ill_conditioned as ug301_ill_conditioned
from unitygain.rules import ug401_vanishing_over_time as ug401_vanishing_over_time
from unitygain.rules import ug402_exploding_over_time as ug402_exploding_over_time
from unitygain.rules import ug701_attention_logits as ug701_attention_logits
from unitygain.rules import ug702_attention_collapsed as ug702_attention_collapsed
