"""Determinant against norm: what the volume of a flow says of its worst direction, and what it does not."""

import math

from unitygain.theory._given import require_count, require_finite


def least_sigma_max(log_det: float, dimension: int) -> float:
    """Return the least σ_max that a map with this log|det| has: exp(log_det/dimension). There is no largest.

    diag(10, 0.1) has determinant 1: a flow's volume says nothing of its worst direction.

    Raises:
        ValueError: If a number is out of range.

    References:
        |det| is the product of the singular values, at most σ_max^dimension.
    """
    log = require_finite("log_det", log_det) / require_count("dimension", dimension)
    return math.exp(log) if log < 700 else math.inf


def least_condition(log_sigma_max: float, log_det: float, dimension: int) -> float:
    """Return the least condition number of a map with this σ_max and this |det|.

    It is (σ_max/|det|^(1/n))^(n/(n-1)). At determinant 1 a direction that is stretched must be paid for: the
    inverse amplifies by σ_max^(1/(n-1)) at least, and by σ_max where singular values come in pairs, as in
    additive couplings.

    Args:
        log_sigma_max: ln σ_max.
        log_det: ln |det|.
        dimension: n, at least 2.

    Returns:
        The condition number; infinite beyond what a float holds.

    Raises:
        ValueError: If a number is not finite, the dimension below 2, or σ_max below the geometric mean.

    Example:
        >>> import math
        >>> [round(least_condition(math.log(10.0), 0.0, n), 4) for n in (2, 3)]
        [100.0, 31.6228]

    References:
        Derived: the other n - 1 singular values are all |det|^(1/(n-1))/σ_max^(1/(n-1)) at best.
    """
    if require_count("dimension", dimension) < 2:
        raise ValueError(f"dimension is {dimension}; one direction alone has no condition number")
    excess = require_finite("log_sigma_max", log_sigma_max) - require_finite("log_det", log_det) / dimension
    if excess < -1e-6 * max(1.0, abs(log_sigma_max)):
        raise ValueError(
            f"log_sigma_max is {log_sigma_max:g}, below log_det/dimension = {log_det / dimension:g}; the "
            "largest singular value is at least the geometric mean"
        )
    log = max(0.0, excess) * dimension / (dimension - 1)
    return math.exp(log) if log < 700 else math.inf


def shear_norm(slope: float) -> float:
    """Return σ_max of [[1, 0], [a, 1]], and 1/σ_min: (|a| + √(a² + 4))/2. Its determinant is 1 for every a.

    With ‖A‖ in the place of a it is that of an additive coupling, whose shift has the Jacobian A.

    Raises:
        ValueError: If the slope is not finite.

    Example:
        >>> shear_norm(1.5), round(shear_norm(1.0), 6)
        (2.0, 1.618034)

    References:
        The coupling: L. Dinh, D. Krueger and Y. Bengio, NICE: non-linear independent components estimation,
        2014, section 3. σ² + 1/σ² = 2 + a², the trace of JᵀJ at determinant 1.
    """
    a = abs(require_finite("slope", slope))
    return (a + math.hypot(a, 2.0)) / 2
