"""conv_operator_norm: the norm of every convolution as the map that it is."""

import math

from unitygain._case import Case
from unitygain._registry import measure
from unitygain._types import Profile, Site
from unitygain.probe.record import Record
from unitygain.probe.trace import buffers_kept, entering
from unitygain.probe.weights import convolution_norm, convolutions

UNIT = "largest norm of the convolution of x over norm of x"
COLUMNS = ("operator_norm", "reshaped_norm", "certificate")


@measure(unit=UNIT, passes="0.5; up to 200 convolutions with each kernel")
def conv_operator_norm(case: Case, record: Record) -> Profile | None:
    """Largest singular value of every convolution as a map of feature maps, not of its reshaped kernel.

    Circular padding with stride 1: exact, over all frequencies. Everything else (zero, reflected or
    replicated padding, stride, dilation, groups, transposed): Golub-Kahan on the convolution itself at the
    size that it was given. With zero padding the rows add a certificate, which the norm cannot exceed: the
    norm of the circular convolution on a grid larger by the kernel's reach.

    Cost: one forward pass, then up to 200 convolutions of one sample per kernel, and one Fourier
    transform with its singular values. No side effects.

    Args:
        case: An isolated case.
        record: Its record.

    Returns:
        One value per convolution; `error` is the distance within which a singular value lies. Rows add the
        norm of the reshaped kernel, which spectral normalisation of the kernel uses and which may be off
        by a factor of up to the root of the kernel's size, and the certificate (NaN where there is none).
        Labels say how. None where no convolution was called.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from unitygain.probe.observe import observe
        >>> blur = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular", bias=False)
        >>> blur.weight.data.fill_(1 / 9)
        tensor([[[[0.1111, 0.1111, 0.1111],
                  [0.1111, 0.1111, 0.1111],
                  [0.1111, 0.1111, 0.1111]]]])
        >>> case = Case(blur, loss=lambda m, x: m(x).sum(), data=[torch.ones(1, 1, 8, 8)])
        >>> profile = conv_operator_norm(case, observe(case, []))
        >>> [round(number, 4) for number in profile.rows[0]]
        [1.0, 0.3333, 1.0]

    References:
        See `unitygain.probe.weights.convolution_norm`.
    """
    modules = convolutions(case.model)
    if not modules:
        return None
    seed = int(record.facts.get("seed", 0))
    shapes = entering(case, record, modules)
    with buffers_kept(case.model):
        found = {
            Site(path): convolution_norm(module, shapes[path], seed)
            for path, module in modules.items()
            if path in shapes
        }
    if not found:
        return None
    norms = tuple(found.values())
    bare = any(math.isnan(norm.certificate) for norm in norms)
    return Profile(
        "conv_operator_norm",
        UNIT,
        sites=tuple(found),
        values=tuple(norm.value for norm in norms),
        error=tuple(norm.error for norm in norms),
        columns=COLUMNS,
        rows=tuple((norm.value, norm.reshaped, norm.certificate) for norm in norms),
        labels=tuple(norm.method for norm in norms),
        note="NaN as certificate: none was computed, for the padding, the size or a weight not finite"
        if bare
        else "",
    )
