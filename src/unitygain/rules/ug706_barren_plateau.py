"""UG706: a quantum circuit starts on a barren plateau: its gradient is that of a random circuit.

What it sees:
    The mean square of d(output)/d(angle) of a circuit of six qubits or more, or of d(loss)/d(angle) where
    the module gives states that the loss observes, over the variance that a random circuit of so many
    qubits has (the 2-design law, about 2^-(qubits + 1)). It fires where uniform redraws of the angles give
    at most four times the law, and the circuit's own angles lie among the redraws: from half of the least
    to one and a half times the most. Where they lie lower, as at a minimum, the angles around them must lie
    among these. The output at the own angles must be less than three standard deviations from the mean of
    the redraws: on a plateau all outputs are alike, and a point that sticks out of it, as a start in
    identity blocks does under a parity of all qubits, has slopes around.

Why it matters:
    Every further qubit halves the variance. What an angle does to the output is then lost in the noise of
    finite shots, and in float32 at some twenty qubits more; no learning rate finds a direction in it. At five
    qubits and below the typical slope is above a tenth of the output's range per radian, which trains.

When it is a false alarm:
    A circuit that is run exactly, on few qubits, with an optimizer that does not mind the scale of gradients:
    at six qubits it may train all the same. Real amplitudes on a dense entangler settle at twice the law.

Remedies:
    A start in blocks that are each the identity; fewer layers; observables of few neighbouring qubits; angles
    that are shared or small. Fewer qubits, where the data allows it.

References:
    McClean et al., "Barren plateaus in quantum neural network training landscapes" (Nature Communications
    2018). Cerezo et al., "Cost function dependent barren plateaus in shallow parametrized quantum circuits"
    (Nature Communications 2021). Arrasmith et al., "Equivalence of quantum barren plateaus to cost
    concentration and narrow gorges" (Quantum Science and Technology 2022). Grant et al., "An initialization
    strategy for addressing barren plateaus in parametrized quantum circuits" (Quantum 2019).

A firing example:
    >>> from unitygain._types import Profile, Site
    >>> columns = ("qubits", "law", "redrawn", "redrawn_error", "redrawn_least", "redrawn_most", "swing",
    ...            "angles", "felt", "layers", "axis")
    >>> def profiles(own: float, redrawn: float, qubits: float = 6.0) -> dict[str, Profile]:
    ...     row = (qubits, 0.0077, redrawn, 0.05, redrawn / 2, redrawn * 2, 1.0, 90.0, 1.0, 15.0, 0.0)
    ...     facts = {"angles": "circuit.angles"}
    ...     return {"circuit_grad_variance": Profile("circuit_grad_variance", "ratio", (Site("circuit"),),
    ...                                              (own,), columns=columns, rows=(row,), facts=facts)}
    >>> [finding.code for finding in judge(profiles(0.9, 1.1))]
    ['UG706']

A silent example:
    >>> list(judge(profiles(9.0, 1.1))), list(judge(profiles(9.0, 8.0))), list(judge(profiles(0.9, 1.1, 4.0)))
    ([], [], [])
"""

from collections.abc import Iterable, Mapping

from unitygain._registry import rule
from unitygain._types import Cause, Finding, Profile
from unitygain.rules._numbers import spell

# From six qubits on the law's typical slope, sqrt(1/130), is below a tenth of the output's half range.
QUBITS = 6
# Complex circuits settle at 1, real ones at 2; the swing is known to about a third.
FACTOR = 4.0
# How far from the redraws the circuit's own angles may lie.
BELOW, ABOVE = 0.5, 1.5
# In standard deviations of the redraws; one uniform draw in a hundred lies beyond. A state that n qubits are
# left in has a parity of 1, which is 2^(n/2) of them from the mean: 8 at six qubits.
APART = 3.0
# Observables of ±1 settle at 1 or 2. A projection on one state of 2^n lies 2^n below: 1/64 at six qubits.
BELOW_LAW = 0.1
FIX = "undo = unitygain.remedies.identity_block_init(case, names='circuit.angles', axis=0, size=3)"


@rule(code="UG706", name="barren-plateau", severity="warning", needs=("circuit_grad_variance",))
def judge(profiles: Mapping[str, Profile]) -> Iterable[Finding]:
    """Yield one finding per circuit whose own and redrawn gradients are those of a random circuit."""
    profile = profiles["circuit_grad_variance"]
    names = str(profile.facts.get("angles", "")).split("; ")
    observed = str(profile.facts.get("observed", "; ".join(["output"] * len(names)))).split("; ")
    places = zip(profile.items(), profile.rows, names, observed, strict=True)
    for (site, own), row, angles, what in places:
        seen = dict(zip(profile.columns, row, strict=True))
        highest = ABOVE * seen["redrawn_most"]
        if seen["qubits"] < QUBITS or not seen["redrawn"] <= FACTOR:
            continue
        if not _among(own, seen, highest):
            continue
        yield Finding(
            "UG706",
            "barren-plateau",
            "warning",
            f"the mean square of d({what})/d(angle) at {site} is {spell(own)} of the law of random circuits "
            f"on {int(seen['qubits'])} qubits ({spell(seen['law'])}), and {spell(seen['redrawn'])} "
            f"± {spell(seen['redrawn_error'])} of it at uniform angles",
            (site,),
            "circuit_grad_variance",
            own,
            profile.unit,
            highest,
            expected=seen["redrawn"],
            causes=tuple(explain(seen, angles, highest)),
            evidence={**seen, "parameters": angles},
            fix=FIX.replace("circuit.angles", angles),
        )


def _among(own: float, seen: Mapping[str, float], highest: float) -> bool:
    """Whether own angles and output lie among the redraws; at a point without slope angles around it tell."""
    lowest = BELOW * seen["redrawn_least"]
    if seen.get("apart", 0.0) >= APART:
        return False
    if own < lowest:
        own = seen.get("nearby", own)
    return lowest <= own <= highest


def explain(seen: Mapping[str, float], angles: str, highest: float) -> Iterable[Cause]:
    """Yield the start, with blocks that undo themselves where the layers are known; the cost; the circuit."""
    text = f"start: the {int(seen['angles'])} angles of {angles} lie as a uniform draw does"
    layers = int(seen["layers"])
    size = next((size for size in range(3, layers + 1, 2) if layers % size == 0), 0)
    if size:
        given = {"names": angles, "axis": int(seen["axis"]), "size": size}
        yield Cause(text, "identity_block_init", given, (highest, 1e9))
    else:
        note = (
            "which axis holds layers of one angle per qubit, an odd number to a block, is not told by the "
            "shapes: identity_block_init(case, names=..., axis=..., size=...)"
        )
        yield Cause(text, note=note)
    if seen["redrawn"] <= BELOW_LAW:
        yield Cause(
            f"cost: uniform angles give {spell(seen['redrawn'])} of the law, as little as one state among "
            "all does (a global cost); a mean of terms of a few qubits each (a local cost) keeps the gradient"
        )
    yield Cause(
        f"circuit: it mixes all {int(seen['qubits'])} qubits ({spell(100 * seen['felt'])} % of the angles "
        "reach the output); fewer layers, or a local observable, keep the gradient"
    )
