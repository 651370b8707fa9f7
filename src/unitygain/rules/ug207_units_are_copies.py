"""UG207: the units of a layer are copies of each other.

What it sees:
    The fraction of a weight's units (rows with their bias, channels of a convolution, units of a recurrent
    state, columns of an embedding) that are equal to another one bit for bit, are not zero, and get an equal
    gradient. It fires above a half. A head of equal rows does not: its classes have different gradients. Nor
    do zeros, identities, and copies that the layers behind tell apart.

Why it matters:
    Units that start the same and get the same gradient take the same steps, and stay the same as long as
    the training lasts. The layer has the width of what is left, which is one unit where all weights are one
    constant, whatever its size, rate and optimizer.

When it is a false alarm:
    Where dropout or noise in later steps, which this batch did not show, tells the units apart; that takes
    long. Where copies are meant, and something else than the gradient separates them.

Remedies:
    Weights that are drawn at random: activation_init, orthogonal_init.

References:
    Goodfellow, Bengio and Courville, "Deep Learning" (2016), section 8.4, on breaking symmetry.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> sites = (Site("0"), Site("2"), Site("4"))
    >>> def found(*shares):
    ...     rows = tuple((1.0,) for _ in shares)
    ...     labels = ("Linear",) * 3
    ...     profile = Profile("unit_copies", "fraction", sites, shares, columns=("equal",), rows=rows,
    ...                       labels=labels)
    ...     return [(finding.code, [str(site) for site in finding.sites]) for finding in judge(
    ...         {"unit_copies": profile})]
    >>> found(1.0, 1.0, 0.0)
    [('UG207', ['0', '2'])]

A silent example:
    >>> found(0.1, 0.0, 0.0)
    []
"""

from collections.abc import Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Site
from unitygain.rules._numbers import spell
from unitygain.rules._parameters import list_names

SHARE = 0.5
TABLES = {"Embedding", "EmbeddingBag"}
RECURRENT = {"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"}


@rule(code="UG207", name="units-are-copies", severity="error", needs=("unit_copies",))
def judge(profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    """Yield one finding for all weights most of whose units are copies."""
    profile = profiles["unit_copies"]
    copied = [(site, value) for site, value in profile.finite() if value > SHARE]
    if not copied:
        return
    site, share = copied[0]
    sites = tuple(here for here, _ in copied)
    yield Finding(
        code="UG207",
        name="units-are-copies",
        severity="error",
        message=(
            f"units of {len(copied)} of {len(profile)} weights are copies of each other: a fraction of "
            f"{spell(share)} at {site}, with equal weights and equal gradients, so that they stay equal"
        ),
        sites=sites,
        quantity="unit_copies",
        value=share,
        unit=profile.unit,
        threshold=SHARE,
        causes=(_cause(profile, site, sites),),
        evidence={"weights": list_names(sites)},
        fix="torch.nn.init.xavier_uniform_(weight)  # for every weight that is filled with a constant now",
    )


def _cause(profile: Profile, site: Site, copied: tuple[Site, ...]) -> Cause:
    rows = dict(zip(profile.sites, zip(profile.rows, profile.labels, strict=True), strict=True))
    # A head of equal rows keeps the units before it alike, though its own gradients differ.
    alike = [here for here in profile.sites if here in copied or rows[here][0][0] > SHARE]
    recurrent = any(rows[here][1] in RECURRENT for here in alike)
    text = (
        f"initialisation: all units of {list_names(alike)} start the same, as a constant makes them, and get "
        "the same gradient, so that they stay copies; weights drawn at random break the symmetry"
    )
    # Maps that are drawn anew tell the columns of a table before them apart.
    maps = [here for here in alike if rows[here][1] not in TABLES]
    if not maps:
        return Cause(text, note="not tested: what scale a table needs depends on what reads it")
    return Cause(
        text,
        remedy="orthogonal_init" if recurrent else "activation_init",
        parameters={"sites": tuple(_module(here, rows[here][1]) for here in maps)},
        # Rows of a continuous draw are never equal.
        predicted=(0.0, 0.0),
    )


def _module(site: Site, kind: str) -> str:
    """Name the module: a recurrent one has a weight from its state beside the one that was counted."""
    return site.path.rpartition(".")[0] if kind in RECURRENT else site.path
