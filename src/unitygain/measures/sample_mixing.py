"""sample_mixing: how much of what the model puts out for one sample comes from the other samples."""

import math

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile
from unitygain.probe.mixing import find_mixing
from unitygain.probe.record import Record

UNIT = "share of a sample's gradient energy that lies at other samples"


@measure(unit=UNIT, passes="1 forward and 2 backward; where samples mix, up to 4 backward per module call")
def sample_mixing(case: Case, record: Record) -> Profile | None:
    """Share of the gradient of one sample's output that lies at the other samples of the batch.

    The output of the model for the last sample, and then for the first, gets a random cotangent, and the
    energy of the gradient at what enters the model (the first module's output, where tokens enter) is split
    by samples. Where the others have a ten-thousandth of it or more, the modules are gone through for the
    first whose outputs mix though its inputs do not, and the share is that at its inputs.

    Cost: a forward pass and two backward passes; where samples mix, another forward pass with every tensor
    between the modules held, and partial backward passes up to that module. No side effects.

    Args:
        case: An isolated case. Judged where every tensor of the batch begins with the samples, the model
            runs once in the loss, its input and output begin with them, and no module is a batch
            normalisation.
        record: Its record, which names the seed and the batch.

    Returns:
        One share, from 0 to 1, at the module where samples meet, or at the model where they do not. The
        label says what brings them together: ``attention`` or ``recurrent`` over the first dimension, or
        ``attention turned`` and ``recurrent turned`` over the second, where the samples lie there;
        ``softmax`` or ``norm`` over it; ``layer norm`` over the dimension where the samples lie;
        ``statistics``, a mean and a spread over them that put them to scale; ``kept``, the same where a
        buffer keeps them or what was put to scale is the output; ``view``, which gives the sizes another
        order; ``linked`` (a graph), ``pooled`` (a reduction over all of them), ``one sequence`` (they are its
        steps), ``rows`` (something else), ``elsewhere``; empty where nothing does. Facts: ``module``, its
        class, and ``samples``. None where it is not sure which dimension the samples are.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(0))
        >>> loss = lambda m, b: nn.functional.nll_loss(m(b[0]).log(), b[1])
        >>> case = Case(model, loss, data=[(torch.randn(8, 4), torch.arange(8) % 3)])
        >>> profile = sample_mixing(case, observe(case, []))
        >>> str(profile.sites[0]), profile.labels[0], profile.values[0] > 0.1
        ('1', 'softmax', True)
    """
    found = find_mixing(case, record)
    if found is None or math.isnan(found.share):
        return None
    return Profile(
        "sample_mixing",
        UNIT,
        (found.site,),
        (found.share,),
        labels=(found.kind,),
        facts={"module": found.module, "samples": float(found.samples)},
    )
