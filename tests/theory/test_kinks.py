"""The curvature of ELU against a one-dimensional expectation that adaptive quadrature takes."""

import math

import numpy as np
import pytest
from scipy import special
from theory.quadrature import gaussian

from unitygain.theory import kinks


def both_tails(q: float, angle: float) -> float:
    """Return E exp(u + v) where both are negative, as an expectation over u of what v is given u."""
    c, spread = math.cos(angle), math.sqrt(q) * math.sin(angle)

    def over_v(u: float) -> float:
        lifted = c * u + 0.5 * spread**2 + special.log_ndtr(-(c * u + spread**2) / spread)
        return math.exp(u + lifted) if u < 0 else 0.0

    return gaussian(over_v, q, kinks=(0.0,))


@pytest.mark.parametrize("angle", [1e-3, 0.1, 0.8, math.pi / 2, 2.5])
@pytest.mark.parametrize("q", [1e-3, 1.0, 15.6, 60.0, 400.0])
def test_both_tails_of_a_pair(q, angle):
    found = kinks._both_tails(np.array([q]), np.array([angle]))
    assert float(found[0]) == pytest.approx(both_tails(q, angle), rel=1e-9)


@pytest.mark.parametrize("angle", [0.4, 1.2])
def test_both_ways_to_the_tails_meet_where_one_hands_over_to_the_other(angle, monkeypatch):
    q = np.array([2 * kinks.MOST_LOST / math.sin(angle) ** 2])
    closed = kinks._both_tails(q * (1 - 1e-12), np.array([angle]))
    monkeypatch.setattr(kinks, "MOST_LOST", 0.0)
    assert float(closed[0]) == pytest.approx(float(kinks._both_tails(q, np.array([angle]))[0]), rel=1e-9)
