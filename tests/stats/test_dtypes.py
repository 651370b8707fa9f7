"""The table of ranges against the casts themselves, and the loss scale against its definition."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unitygain.stats import NUMBER_RANGES, repairing_loss_scale

NAMES = sorted(NUMBER_RANGES)


@pytest.mark.parametrize("name", NAMES)
def test_ranges_survive_the_cast_and_their_halves_do_not(name: str) -> None:
    reach, dtype = NUMBER_RANGES[name], getattr(torch, name)
    for number in (reach.smallest_subnormal, reach.smallest_normal, reach.largest):
        assert torch.tensor(number).to(dtype).double().item() == number
    # Three halves of the smallest is a tie between 1 and 2 of it; one half a tie between 0 and 1.
    assert torch.tensor(reach.smallest_subnormal * 1.5).to(dtype).double().item() in {
        reach.smallest_subnormal,
        reach.smallest_subnormal * 2,
    }
    assert torch.tensor(reach.rounds_to_zero, dtype=torch.float64).to(dtype).double().item() == 0
    # Below the smallest normal number the spacing is the smallest subnormal.
    assert (reach.smallest_normal / reach.smallest_subnormal).is_integer()


SIZES = st.floats(1e-320, 1e300, allow_subnormal=True)


@given(SIZES, SIZES, st.sampled_from(NAMES))
def test_loss_scale_is_the_power_of_two_nearest_to_one_that_fits(one: float, other: float, name: str) -> None:
    smallest, absmax = sorted((one, other))
    reach = NUMBER_RANGES[name]
    scale = repairing_loss_scale(absmax, smallest, name)
    fitting = [
        k for k in range(-1074, 1024) if _fits(k, smallest, absmax, reach.smallest_subnormal, reach.largest)
    ]
    if fitting:
        assert scale == math.ldexp(1.0, min(fitting, key=abs))
    else:
        assert math.isnan(scale)


def _fits(exponent: int, smallest: float, absmax: float, low: float, high: float) -> bool:
    """Compare by dividing the dtype's ends, which the float64 exponent range holds exactly, by the scale."""
    from fractions import Fraction

    scale = Fraction(2) ** exponent
    return Fraction(smallest) * scale >= Fraction(low) and Fraction(absmax) * scale <= Fraction(high)


@pytest.mark.parametrize(
    ("absmax", "smallest", "dtype", "scale"),
    [
        (1.0, 1.0, "float16", 1.0),
        (1.0, 2.0**-24, "float16", 1.0),
        (1.0, 2.0**-25, "float16", 2.0),
        (65504.0, 2.0**-24, "float16", 1.0),
        (65504.0, 2.0**-25, "float16", math.nan),
        (65505.0, 1.0, "float16", 0.5),
        (448.0, 2.0**-9, "float8_e4m3fn", 1.0),
        (math.inf, 1.0, "float16", math.nan),
        (math.nan, 1.0, "float16", math.nan),
        (1.0, math.nan, "float16", math.nan),
        (0.0, 0.0, "float16", math.nan),
    ],
)
def test_loss_scale_at_the_edges(absmax: float, smallest: float, dtype: str, scale: float) -> None:
    found = repairing_loss_scale(absmax, smallest, dtype)
    assert found == scale or (math.isnan(found) and math.isnan(scale))


def test_scaled_gradient_survives_the_cast() -> None:
    gradient = torch.tensor([1e-9, 3e-6, 2e-2])
    scale = repairing_loss_scale(2e-2, 1e-9, "float16")
    assert (gradient.half() == 0).any()
    scaled = (gradient * scale).half()
    assert (scaled != 0).all()
    assert scaled.isfinite().all()


def test_loss_scale_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="dtype 'float99' has no loss scale; use one of float16"):
        repairing_loss_scale(1.0, 1.0, "float99")
    with pytest.raises(ValueError, match="smallest is 2, above absmax 1"):
        repairing_loss_scale(1.0, 2.0, "float16")
