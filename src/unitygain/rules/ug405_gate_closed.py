"""UG405: a gate is closed: that which keeps the state of an LSTM or GRU, or that of a layer.

What it sees:
    The mean of the forget gate of an LSTM, or of the update gate of a GRU (which in torch keeps the old
    state), over units, steps and samples. Below 0.1 is a warning: more than nine tenths of the state are
    replaced at every step.

    The mean of a layer's gate, a sigmoid that multiplies another signal as in a highway network or a GLU:
    below 0.0005 is a warning, which is a sigmoid of -7.6. At most a hundredth of its entries is then above
    0.05, so that it is shut for nearly every unit and sample. A gate that makes the model's output is left
    out.

Why it matters:
    What a gated cell remembers, it remembers through this gate. Closed, ten steps leave a ten-billionth of
    the state; and its sigmoid is flat there, so that it learns to open only slowly.

    What a layer adds, it adds through its gate. Shut, the layer passes on what entered, or nothing: the
    network trains as if it were not there. The layer's gradient is as small as the gate, and so is the gate's
    own, whose sigmoid at -10 has a slope of 0.00005.

When it is a false alarm:
    A trained model whose every step starts anew on purpose. A gate that is closed only at some steps, such
    as at the ends of sentences, has a higher mean and does not fire. A layer's gate that is to open late: the
    biases of -1 to -4 that highway networks are given, 0.27 to 0.018, are far from the limit. Scales of a
    branch that start at zero or at 1e-6 (SkipInit, ReZero, LayerScale) are no sigmoid and move at full size.

Remedies:
    A bias of 1 or more on the forget gate (the second quarter of an LSTM's biases, the second third of a
    GRU's). Check whether gates were taken for one another when weights came from another library, where
    the order of gates, or the meaning of the update gate, is another. For a layer's gate a bias of -1 to -3,
    the deeper the network the lower.

References:
    Gers, Schmidhuber and Cummins, "Learning to Forget" (Neural Computation 2000). Jozefowicz, Zaremba and
    Sutskever, "An Empirical Exploration of Recurrent Network Architectures" (ICML 2015), section 2.2.
    Srivastava, Greff and Schmidhuber, "Training Very Deep Networks" (NeurIPS 2015), section 2.2.

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> def forget(mean: float) -> Profile:
    ...     site = (Site("lstm", leaf=".(forget)"),)
    ...     return Profile("gate_mean", "mean", site, (mean,), labels=("forget",))
    >>> [(finding.code, str(finding.sites[0])) for finding in judge({"gate_mean": forget(0.02)})]
    [('UG405', 'lstm.(forget)')]

A silent example:
    >>> list(judge({"gate_mean": forget(0.27)}))
    []
"""

import math
from collections.abc import Iterable, Iterator, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile, Site
from unitygain.rules._fixes import suggest
from unitygain.rules._layers import fed_by, parameter_rms
from unitygain.rules._numbers import median, spell
from unitygain.rules._parameters import list_names

CLOSED = 0.1
KEEPING = {"forget", "update"}
# Gates of layers, as operations; all others are those of recurrent cells.
OF_LAYERS = {"sigmoid", "glu"}
# Highway networks start at -1 to -4 and soft choices among a thousand at 0.001. A cell written by hand whose
# biases are spread over memories of T steps has an input gate of ln(T)/T: 0.0005 at twenty thousand.
SHUT = 5e-4
# Before the sigmoid: what opens a gate to 0.88 wherever it stood, and a layer's to what depth asks for.
OPEN, AJAR = 2.0, -1.0
# Share of what enters the sigmoid that a bias must have to be blamed.
MOST = 0.5


@rule(
    code="UG405",
    name="gate-closed",
    severity="warning",
    needs=("gate_mean",),
    wants=("gate_frac_closed", "param_rms", "act_rms"),
)
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding per keeping gate that is closed, and one for all gates of layers that are shut."""
    gates = profiles["gate_mean"]
    shut: list[tuple[float, Site]] = []
    for (site, value), kind in zip(gates.items(), gates.labels, strict=True):
        if kind in KEEPING and value < CLOSED:
            yield report(profiles, site, kind, value)
        if kind in OF_LAYERS and value < SHUT:
            shut.append((value, site))
    if shut:
        lowest = min(shut, key=lambda item: item[0])
        shut.remove(lowest)
        yield report_layers(profiles, [lowest, *shut])


def report(profiles: Mapping[str, Profile], site: Site, kind: str, value: float) -> Finding:
    """Return the finding for one gate."""
    bias = OPEN - before_sigmoid(value)
    shares = profiles.get("gate_frac_closed")
    shut = dict(shares.items()).get(site) if shares else None
    causes = (
        Cause(
            f"gate: what enters the {kind} gate's sigmoid is about {spell(OPEN - bias)}; with {spell(bias)} "
            "added the gate must be open by more than half",
            "open_gates",
            {"sites": (site.path,), "bias": bias},
            (0.5, 1.0),
        ),
        Cause("order of the gates: weights from another library, which orders them otherwise"),
    )
    return Finding(
        "UG405",
        "gate-closed",
        "warning",
        f"the {kind} gate is open by {spell(value)} on average: a step drops {spell(1 - value)} of the state",
        (site,),
        "gate_mean",
        value,
        profiles["gate_mean"].unit,
        CLOSED,
        causes=causes,
        fix=suggest(causes),
        evidence={} if shut is None else {"frac_closed": shut},
    )


def before_sigmoid(value: float) -> float:
    """Return what enters the sigmoid of a gate that is open by `value`."""
    tiny = max(value, 1e-30)
    return math.log(tiny / (1 - tiny))


def report_layers(profiles: Mapping[str, Profile], shut: list[tuple[float, Site]]) -> Finding:
    """Return the finding for the gates of layers that are shut, the lowest first."""
    value, site = shut[0]
    kinds = profiles["gate_mean"].labels
    many = len(shut) > 1
    among = f"{len(shut)} of {sum(kind in OF_LAYERS for kind in kinds)} gates of layers are" if many else ""
    return Finding(
        "UG405",
        "gate-closed",
        "warning",
        f"{among or 'the gate of a layer is'} shut: {site} is open by {spell(value)} on average, and nothing "
        "behind it takes part or learns",
        tuple(site for _, site in shut),
        "gate_mean",
        value,
        profiles["gate_mean"].unit,
        SHUT,
        causes=tuple(_causes_of_layers(profiles, shut)),
        fix=f"a bias of {AJAR:g} in front of the gate's sigmoid, and down to -3 in deep networks",
        evidence={str(site): value for value, site in shut[:8]},
    )


def _causes_of_layers(profiles: Mapping[str, Profile], shut: list[tuple[float, Site]]) -> Iterator[Cause]:
    low = before_sigmoid(shut[0][0])
    # Each gate is blamed on the bias in its module that is nearest to what enters it.
    held = dict(sorted(filter(None, (_nearest_bias(profiles, *gate) for gate in shut))))
    # In a gated linear unit half of the bias is the signal's: it cannot be shifted as a whole.
    if held and not any(site.leaf == ".(glu)" for _, site in shut):
        largest, usual = max(held.values()), median(list(held.values()))
        bias = AJAR + (usual if shut[0][0] == 0 else -low)
        yield Cause(
            f"biases: rms {spell(largest)} in {list_names(held)}, of about {spell(low)} that enters the "
            f"sigmoid; with {spell(bias)} added the gate is ajar",
            "open_gates",
            {"sites": tuple(held), "bias": bias},
            # A sigmoid of -1 is 0.27; behind layers that take part again the signal is another.
            (0.05, 0.8),
        )
        return
    yield Cause(
        f"gate: what enters its sigmoid is about {spell(low)} for nearly every sample; an offset that is "
        f"added there, or half a bias, is to be near {AJAR:g}",
        note="not tested: no bias of a layer stands for it alone",
    )


def _nearest_bias(profiles: Mapping[str, Profile], value: float, site: Site) -> tuple[str, float] | None:
    """Return the layer before a gate whose bias explains what enters its sigmoid, and the bias's rms."""
    wanted = -before_sigmoid(value)
    sizes = {leaf.path: parameter_rms(profiles, f"{leaf.path}.bias") for leaf in fed_by(profiles, site)}
    large = {path: size for path, size in sizes.items() if size > MOST * wanted}
    if not large:
        return None
    path = min(large, key=lambda name: abs(math.log(large[name] / wanted)))
    return path, large[path]
