"""UG706: where it begins, and which cause can be tested."""

import pytest

from unitygain._types import Finding, Profile, Site
from unitygain.rules.ug706_barren_plateau import judge

NUMBERS = ("qubits", "law", "redrawn", "redrawn_error", "redrawn_least", "redrawn_most", "swing")
COLUMNS = (*NUMBERS, "angles", "felt", "layers", "axis")


def find(
    own: float, *, qubits: int = 6, redrawn: float = 1.0, layers: int = 15, axis: int = 0
) -> list[Finding]:
    row = (qubits, 0.0077, redrawn, 0.1, 0.6 * redrawn, 1.6 * redrawn, 1.0, 90.0, 1.0, layers, axis)
    name = "circuit_grad_variance"
    profile = Profile(
        name,
        "ratio",
        (Site("core.circuit"),),
        (own,),
        columns=COLUMNS,
        rows=(tuple(map(float, row)),),
        facts={"angles": "core.circuit.angles"},
    )
    return list(judge({name: profile}))


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({}, 1),
        ({"qubits": 5}, 0),
        ({"redrawn": 4.1, "own": 4.0}, 0),
        ({"redrawn": 0.01, "own": 0.01}, 1),
        ({"own": 2.5}, 0),
        ({"own": 2.3}, 1),
        ({"own": 0.0}, 0),
        ({"own": 0.31}, 1),
    ],
)
def test_it_fires_on_the_law_and_among_the_redraws(given, count):
    assert len(find(**{"own": 1.0} | given)) == count


@pytest.mark.parametrize(("layers", "size"), [(15, 3), (10, 5), (7, 7), (20, 5)])
def test_layers_in_odd_blocks_are_tested(layers, size):
    cause = find(1.0, layers=layers, axis=1)[0].causes[0]
    assert cause.parameters == {"names": "core.circuit.angles", "axis": 1, "size": size}
    assert cause.predicted is not None
    assert cause.predicted[0] == pytest.approx(2.4)


@pytest.mark.parametrize("layers", [0, 2, 16])
def test_what_the_shapes_do_not_tell_is_not_tested(layers):
    cause = find(1.0, layers=layers)[0].causes[0]
    assert (cause.remedy, cause.predicted) == (None, None)
    assert "is not told by the shapes" in cause.note


def test_a_cost_of_all_qubits_is_told():
    texts = [cause.text for cause in find(0.02, redrawn=0.02)[0].causes]
    assert "global cost" in texts[1]
    assert len(texts) == 3
    assert len(find(1.0)[0].causes) == 2


@pytest.mark.parametrize(("nearby", "count"), [(1.0, 1), (0.2, 0), (9.0, 0)])
def test_a_point_without_slope_is_judged_by_what_lies_around_it(nearby, count):
    profile = find_profile(1e-4, nearby)
    assert len(list(judge({profile.name: profile}))) == count


@pytest.mark.parametrize(("own", "nearby"), [(1e-4, 1.2), (1.0, 1.0), (2.3, 2.0)])
def test_an_output_that_sticks_out_is_on_no_plateau(own, nearby):
    found = [find_profile(own, nearby, apart) for apart in (0.0, 2.9, 3.1)]
    assert [len(list(judge({one.name: one}))) for one in found] == [1, 1, 0]


def find_profile(own: float, nearby: float, apart: float = 0.0) -> Profile:
    row = (6.0, 0.0077, 1.0, 0.1, 0.6, 1.6, 1.0, 90.0, 1.0, 15.0, 0.0, nearby, apart)
    return Profile(
        "circuit_grad_variance",
        "ratio",
        (Site("circuit"),),
        (own,),
        columns=(*COLUMNS, "nearby", "apart"),
        rows=(row,),
        facts={"angles": "circuit.angles"},
    )
