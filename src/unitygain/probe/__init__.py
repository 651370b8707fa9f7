"""The only room that touches a live model: capture, sites, Jacobian operators."""

from unitygain.probe.capture import Probe as Probe
from unitygain.probe.record import Place as Place
from unitygain.probe.record import Record as Record
