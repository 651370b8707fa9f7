"""norm_unset: whether normalisations run on statistics that no batch has set."""

import torch
from torch.nn.modules.batchnorm import _NormBase

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.record import Record
from unitygain.stats import frac_zero

UNIT = "1 if no batch has set the statistics, else 0"


@measure(unit=UNIT, needs=("output.rms",))
def norm_unset(case: Case, record: Record) -> Profile | None:
    """Whether a normalisation that runs on kept statistics still has those of its construction.

    Batch and instance normalisation in evaluation mode subtract a running mean and divide by the root of a
    running variance. Until a batch has passed in training mode, or a checkpoint was loaded, these are 0 and
    1, and what leaves is what entered, by the weight and the bias. One batch moves them all.

    Cost: a comparison of the buffers. No side effects.

    Args:
        case: Its model has the buffers.
        record: A record with `output.rms`; tells which modules ran.

    Returns:
        1 or 0 per module that runs on kept statistics, in forward order. Labels are the classes. Facts:
        ``unset``, how many are 1. None where there is none.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.BatchNorm1d(6))
        >>> _ = model(torch.randn(8, 4)), model[1].eval()
        >>> model[2] = nn.BatchNorm1d(6).eval()
        >>> case = Case(model, loss=lambda m, x: m(x).square().mean(), data=[torch.randn(8, 4)])
        >>> profile = norm_unset(case, observe(case, ["output.rms"]))
        >>> [str(site) for site in profile.sites], profile.values
        (['1', '2'], (0.0, 1.0))

    References:
        Ioffe and Szegedy, "Batch Normalization" (2015), section 3.1, on the statistics of inference.
    """
    modules = dict(case.model.named_modules())
    found = [
        (place, module)
        for place in record.of("output")
        if isinstance(module := modules.get(place.site.path), _NormBase) and _on_kept(module)
    ]
    if not found:
        return None
    values = tuple(float(_unset(module)) for _, module in found)
    return Profile(
        "norm_unset",
        UNIT,
        tuple(place.site for place, _ in found),
        values,
        facts={"unset": sum(values)},
        labels=tuple(type(module).__name__ for _, module in found),
    )


def _on_kept(module: _NormBase) -> bool:
    if module.running_mean is None or module.running_var is None:
        return False
    return not module.training and not module.running_mean.is_meta


def _unset(module: _NormBase) -> bool:
    counted = module.num_batches_tracked
    if counted is not None and int(counted):
        return False
    assert isinstance(module.running_mean, torch.Tensor)
    assert isinstance(module.running_var, torch.Tensor)
    return float(frac_zero(module.running_mean)) == 1 and float(frac_zero(module.running_var - 1)) == 1
