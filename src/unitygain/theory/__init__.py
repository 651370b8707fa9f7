"""What wide networks do to signals and gradients, predicted: numbers in, numbers out, in float64.

No function here sees a model. Every rate is squared unless its name says otherwise: a squared gain of 0.5
per layer is an rms gain of 0.707. docs/theory.md says for each formula where it comes from, what it
assumes, where it stops to hold, and which test checks it.
"""

from unitygain.theory.activations import ACTIVATIONS as ACTIVATIONS
from unitygain.theory.activations import Activation as Activation
from unitygain.theory.activations import find_activation as find_activation
from unitygain.theory.activations import leaky_relu as leaky_relu
from unitygain.theory.criticality import CriticalPoint as CriticalPoint
from unitygain.theory.criticality import critical as critical
from unitygain.theory.mean_field import MeanField as MeanField
from unitygain.theory.mean_field import Propagation as Propagation
from unitygain.theory.mean_field import correlation_map as correlation_map
from unitygain.theory.mean_field import mean_field as mean_field
from unitygain.theory.mean_field import propagate as propagate
from unitygain.theory.mean_field import second_moment as second_moment
from unitygain.theory.mean_field import slope_moment as slope_moment
from unitygain.theory.mean_field import variance_map as variance_map
