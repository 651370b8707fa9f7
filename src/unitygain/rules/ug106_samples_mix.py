"""UG106: what the model says about one sample depends on the other samples of the batch.

What it sees:
    A module whose inputs belong to one sample each, and whose outputs do not: a thousandth or more of the
    energy of the gradient of one sample's output lies at other samples. It is told where it is attention or
    a recurrent layer that runs over the samples (built without batch_first, or with it and given the steps
    first), a softmax or a norm over the first dimension, a layer norm over the batch's dimension of what
    was transposed, mean and spread over the first dimension that divide what they are taken from, a view
    that gives the sizes another order where a transpose was meant, or a module that takes samples of
    several steps and brings the samples together instead of the steps.

Why it matters:
    The batch is drawn at random, so that what the other samples say is noise to this one, and another at
    every step. Where a layer runs over the samples in the place of the steps, nothing runs over the steps at
    all. The loss falls little or not, and what was trained on a batch cannot be used on one sample.

When it is a false alarm:
    A model that lets samples look at each other on purpose, such as attention between the rows of a table, or
    a batch that holds the steps of one long sequence, or the points of one set. Batch normalisation, by hand
    as well where it keeps its statistics in a buffer, outputs that are put to unit scale, graphs, sets that
    are pooled and sequences with the time first are not judged.

Remedies:
    batch_first=True; softmax over the last dimension (dim=-1); transpose or permute in the place of view or
    reshape.

References:
    PyTorch, "MultiheadAttention" and "LSTM", on batch_first; "torch.nn.functional.softmax", on the
    implicit choice of dim. Karpathy, "A Recipe for Training Neural Networks" (2019), "use backprop to chart
    dependencies".

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def found(kind, share):
    ...     facts = {"module": "LSTM", "samples": 32.0}
    ...     mixing = Profile("sample_mixing", "share", (Site("lstm"),), (share,), labels=(kind,), facts=facts)
    ...     return [(f.code, f.causes[0].text) for f in judge({"sample_mixing": mixing})]
    >>> found("recurrent", 0.4)[0][1][:64]
    'batch axis: lstm runs over dimension 0, which is the batch: it w'

A silent example:
    >>> found("", 0.0), found("pooled", 0.5), found("recurrent", 5e-4)
    ([], [], [])
"""

from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._numbers import spell

# Whether samples meet is a matter of the program, and how much says little: attention over the batch beside a
# skip path, with weights as they are drawn, has 0.015. Rounding has 1e-7.
SHARE = 1e-3
BUILT = "it was built without batch_first=True"
TURNED = "it was built with batch_first=True and is given the steps first"
CAUSES = {
    "attention": f"batch axis: {{}} attends over dimension 0, which is the batch: {BUILT}",
    "recurrent": f"batch axis: {{}} runs over dimension 0, which is the batch: {BUILT}",
    "attention turned": f"batch axis: {{}} attends over dimension 1, which is the batch there: {TURNED}",
    "recurrent turned": f"batch axis: {{}} runs over dimension 1, which is the batch there: {TURNED}",
    "softmax": "batch axis: softmax over dimension 0 in {}, which is the batch: the samples share one sum",
    "norm": "batch axis: a norm over dimension 0 in {}, which is the batch: the samples share one length",
    "layer norm": "batch axis: the layer norm in {} runs over the dimension of the batch, which a transpose "
    "has put there: it should run over the features of each sample",
    "statistics": "batch axis: mean and spread over dimension 0 in {}, which is the batch: a layer norm "
    "takes them over the last, of each sample, and a batch norm keeps running ones for evaluation",
    "view": "batch axis: a view or reshape in {} gives the sizes another order and cuts samples to pieces, "
    "where a transpose was meant",
    "rows": "batch axis: the rows of different samples meet in {}, which should work within one sample",
}
FIXES = {
    "attention": "batch_first=True",
    "recurrent": "batch_first=True",
    "attention turned": "leave the transpose away, or batch_first=True",
    "recurrent turned": "leave the transpose away, or batch_first=True",
    "softmax": "dim=-1",
    "norm": "dim=-1",
    "layer norm": "nn.LayerNorm(features) on (samples, features)",
    "statistics": "nn.LayerNorm(features)  # or mean and spread with dim=-1, keepdim=True",
    "view": "x.transpose(0, 1) in the place of the view",
    "rows": "let it work over the other dimensions, and leave dimension 0 alone",
}


@rule(code="UG106", name="samples-mix", severity="warning", needs=("sample_mixing",))
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield a finding where samples of the batch meet in a way that is known for a slip."""
    mixing = profiles["sample_mixing"]
    share, kind = mixing.values[0], mixing.labels[0] if mixing.labels else ""
    if kind not in CAUSES or not share > SHARE:
        return
    site = mixing.sites[0]
    where = str(site) if site.path else f"the model itself ({mixing.facts['module']})"
    yield Finding(
        "UG106",
        "samples-mix",
        "warning",
        f"what the model puts out for one sample depends on the others: {spell(share)} of its gradient's "
        f"energy at the inputs of {where} lies at other samples of the {int(float(mixing.facts['samples']))}",
        mixing.sites,
        "sample_mixing",
        share,
        mixing.unit,
        SHARE,
        causes=(Cause(CAUSES[kind].format(where)),),
        fix=FIXES[kind],
    )
