"""weight_gain: by how much every weight amplifies on average, from the weights themselves."""

import math

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.measures._by_hand import matrix_site
from unitygain.measures._drawn import weight_rms
from unitygain.measures._fan_in import weights_of
from unitygain.probe.record import Record

UNIT = "sqrt(fan_in · mean square of the weight)"
DEFAULT = 1 / 3


@measure(unit=UNIT, needs=("output.rms", "activation.frac_open", "matrix.gain"))
def weight_gain(case: Case, record: Record) -> Profile | None:
    """Root of fan_in times the mean square of every weight: its gain for a white input.

    1 keeps the size of a white signal. An activation then takes its part: with ReLU, sqrt(2) is needed.
    PyTorch's default for `nn.Linear` and convolutions gives sqrt(1/3) = 0.577. The mean square is about
    zero, so that a common offset of the weights counts.

    fan_in is the number of inputs that one output sums: in/groups times the kernel of a convolution; for a
    transposed one out of the kernel only what the stride lets overlap; the packed projections of attention
    and of recurrent modules are taken gate by gate, as they are sums over the same inputs. Embeddings and
    other tables are looked up, not summed, and have none.

    Cost: one reduction per weight. No side effects.

    Args:
        case: Its model's weights are read.
        record: A record with `output.rms`, `activation.frac_open` and `matrix.gain`; tells which modules ran,
            what activation followed, and what matrices modules multiply by hand.

    Returns:
        One value per weight that ran, in forward order, at its module, or at its parameter's name where the
        module has several; a matrix that a module multiplies by hand, whatever its name, comes behind them at
        the parameter's. Labels: the module's type, or ``matrix``, and the activation that follows it, as
        ``Linear→relu``. Facts: ``default``, sqrt(1/3), and ``like_default``, the fraction within 5 % of it.
        None where no weight ran.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain._registry import MEASURES
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        >>> _ = nn.init.constant_(model[0].weight, 0.25)
        >>> case = Case(model, loss=lambda m, x: m(x).mean(), data=[torch.ones(2, 4)])
        >>> profile = weight_gain(case, observe(case, MEASURES["weight_gain"].needs))
        >>> profile.values, profile.labels
        ((0.5,), ('Linear→relu',))
    """
    modules = dict(case.model.named_modules())
    follows: dict[str, str] = {}
    for place in record.of("activation"):
        follows.setdefault(place.note, place.type.removesuffix(" (output)"))
    values: dict[Site, float] = {}
    labels: list[str] = []
    for path in dict.fromkeys(place.site.path for place in record.of("output")):
        found = weights_of(modules[path])
        for name, (weight, fan_in) in found.items():
            site = Site(path) if len(found) == 1 else Site(f"{path}.{name}" if path else name)
            values[site] = math.sqrt(fan_in) * weight_rms(record, path, name, weight)
            labels.append("→".join(filter(None, (type(modules[path]).__name__, follows.get(path)))))
    for place in record.of("matrix"):
        site = matrix_site(place.site, place.type)
        values[site] = record.values["matrix.gain"][place.site][0]
        labels.append("→".join(filter(None, ("matrix", follows.get(site.path)))))
    if not values:
        return None
    near = sum(abs(value / math.sqrt(DEFAULT) - 1) < 0.05 for value in values.values())
    facts: dict[str, float | str] = {"default": math.sqrt(DEFAULT), "like_default": near / len(values)}
    return Profile(
        "weight_gain", UNIT, tuple(values), tuple(values.values()), labels=tuple(labels), facts=facts
    )
