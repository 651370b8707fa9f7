"""timestep_grad_share: which noise levels of a diffusion model the gradient of its parameters comes from."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.clock import Timed, find_clocks, may_be_told, timed
from unitygain.probe.record import Record
from unitygain.stats import norm

UNIT = "energy of a sample's gradient at these times over the sum of all groups'"
GROUPS = 8
COLUMNS = ("samples", "energy", "output_energy")


@measure(unit=UNIT, passes="1 per group of times, 8 at most")
def timestep_grad_share(case: Case, record: Record) -> Profile | None:
    """Share of the parameters' gradient energy that comes from each of up to eight groups of timesteps.

    The samples of the batch are sorted by the time that the model is told, and cut into groups of equal
    number. A group's gradient is that of all parameters with the loss's gradient at the model's output kept
    for the samples of the group alone; its energy, the square of its norm, is divided by its samples. So the
    weights of the loss, what the network is asked to predict and any scaling of its output all count.

    The time is an argument of forward that is called so (t, time, timestep, sigma, noise_level, log_snr),
    with one number for every sample; without such a name, one number for every sample beside a tensor whose
    shape the output has.

    Cost: one forward pass, and a backward pass per group. No side effects.

    Args:
        case: An isolated case.
        record: Its record.

    Returns:
        One value per group, from the smallest time to the largest. Columns: ``samples``, ``energy`` of one
        sample, ``output_energy``, that of the loss's gradient at the model's output. Facts: ``largest``
        share, ``groups``, ``argument``, ``variants`` (the losses that the case names). None where no module
        is told a time, or where all samples have the same. Batch normalisation mixes the samples, and with
        it the groups.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> class Denoiser(nn.Linear):
        ...     def forward(self, x, t):
        ...         return super().forward(x) * (t == t.min())[:, None]
        >>> case = Case(Denoiser(2, 2), loss=lambda m, b: m(b, torch.arange(16.0)).square().sum(),
        ...             data=[torch.ones(16, 2)])
        >>> profile = timestep_grad_share(case, observe(case, []))
        >>> str(profile.sites[0]), profile.values[:2]
        ('(model)(t 0 to 1)', (1.0, 0.0))

    References:
        T. Hang et al., "Efficient diffusion training via min-SNR weighting strategy" (2023), section 3.
    """
    if not (find_clocks(case.model) or may_be_told(case.model)):
        return None
    with timed(case, record) as (loss, call):
        if call is None or not loss.requires_grad:
            return None
        groups = split(call.times)
        if len(groups) < 2:
            return None
        rows = _energies(case, loss, call, groups)
        path, name, times = call.site.path, call.name, call.times
    energies = np.array([row[1] for row in rows])
    total = float(np.sum(energies))
    shares = energies / total if 0 < total < math.inf else np.full(len(rows), math.nan)
    spans = [(np.min(times[group]), np.max(times[group])) for group in groups]
    return Profile(
        "timestep_grad_share",
        UNIT,
        sites=tuple(Site(path, leaf=f"({name} {low:.6g} to {high:.6g})") for low, high in spans),
        values=tuple(map(float, shares)),
        columns=COLUMNS,
        rows=tuple(rows),
        facts={
            "largest": float(np.max(shares)),
            "groups": float(len(groups)),
            "argument": name,
            "variants": ", ".join(case.variants),
        },
        note="" if np.isfinite(shares).all() else "NaN: the gradient is zero everywhere, or not finite",
    )


def split(times: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Return the positions of the samples by groups of times, equal times together; smallest times first."""
    distinct = np.unique(times)
    parts = np.array_split(distinct, min(GROUPS, len(distinct)))
    return [np.flatnonzero((times >= part[0]) & (times <= part[-1])) for part in parts]


def _energies(
    case: Case, loss: Tensor, call: Timed, groups: list[NDArray[np.intp]]
) -> list[tuple[float, ...]]:
    parameters = [parameter for parameter in case.model.parameters() if parameter.requires_grad]
    (arriving,) = torch.autograd.grad(loss, call.output, retain_graph=True, allow_unused=True)
    rows: list[tuple[float, ...]] = []
    for group in groups:
        kept = torch.zeros_like(call.output)
        if arriving is not None:
            kept[group] = arriving[group]
        found = torch.autograd.grad(call.output, parameters, kept, retain_graph=True, allow_unused=True)
        energy = math.fsum(float(norm(gradient)) ** 2 for gradient in found if gradient is not None)
        rows.append((float(len(group)), energy / len(group), float(norm(kept)) ** 2 / len(group)))
    return rows
