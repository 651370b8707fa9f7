"""Blocks of a circuit that start as the identity: what is left of the state, and of the gradient."""

import pytest
import torch
from torch import nn
from zoo import circuits

from unitygain._case import Case
from unitygain._rehearsal import train
from unitygain.remedies import identity_block_init, local_cost
from unitygain.theory import two_design_variance


@pytest.mark.parametrize(("turn", "layers", "size"), [("y", 7, None), ("x", 10, 5), ("y", 9, 3)])
def test_the_circuit_is_the_identity_on_the_ground_state(turn, layers, size):
    """What is left of a block is a layer of CZ, which does nothing to |0...0>."""
    case = circuits.case(4, layers, turn)
    undo = identity_block_init(case, names="angles", size=size)
    state = case.model.state().detach().flatten()
    expected = torch.zeros(16, dtype=torch.complex64)
    expected[0] = 1
    torch.testing.assert_close(state, expected, atol=1e-5, rtol=0)
    undo()
    assert float(case.model.state().detach().flatten()[0].abs()) < 0.99


def test_the_first_angle_has_the_gradient_of_a_circuit_without_the_rest():
    """Closed form: d<X>/dangle of a turn about y of |0> is <Z> = 1, whatever the number of qubits."""
    random, started = [], []
    for seed in range(12):
        torch.manual_seed(seed)
        case = circuits.case(6, 41)
        for found in (random, started):
            case.model.zero_grad()
            case.compute_loss(case.batches[0]).backward()
            found.append(float(case.model.angles.grad[0, 0]))
            identity_block_init(case, names="angles")
    assert started == pytest.approx([1.0] * 12, abs=1e-4)
    # Twelve draws of a 2-design's gradient: their mean square is that law's to within a factor of about 3.
    assert sum(value**2 for value in random) / 12 < 5 * two_design_variance(6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "is named ''; which ones are the angles of a circuit only you know"),
        ({"names": "*", "axis": 2}, "no real parameter with an axis 2"),
        ({"names": "angles", "size": 3}, "7 layers are no whole number of blocks of 3"),
        ({"names": "angles", "size": 1}, "give a size of at least 2"),
    ],
)
def test_angles_that_are_not_known_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        identity_block_init(circuits.case(3, 7), **given)


def test_a_local_cost_has_the_gradient_of_its_own_qubit():
    """Closed form for one layer: sin(angle)/2, over n, or times the odds of 0 of all other qubits."""
    case = circuits.all_zero(8, 1)
    angles = case.model.angles
    odds = (angles.detach() / 2).cos().square()
    alone = angles.detach().sin() / 2
    for expected in (alone * odds.prod() / odds, alone / 8):
        case.model.zero_grad()
        case.compute_loss(case.batches[0]).backward()
        torch.testing.assert_close(angles.grad, expected, atol=1e-6, rtol=1e-3)
        undo = local_cost(case)
    undo()


def test_a_local_cost_leaves_the_plain_where_the_cost_of_all_qubits_is_flat():
    plain = circuits.all_zero(8, 1)
    with torch.no_grad():
        plain.model.angles.copy_(2.6 + 0.05 * torch.arange(8.0))
    treated = plain.copy()
    local_cost(treated)
    for case in (plain, treated):
        train(case, 30)
    # Both judged by the cost of all qubits.
    left = [float(plain.loss(case.model, torch.ones(())).detach()) for case in (plain, treated)]
    assert left[1] < 0.5 < left[0], left


def test_a_local_cost_must_be_declared():
    with pytest.raises(ValueError, match=r"no variant 'local_cost' \(declared: none\); give Case\(variants="):
        local_cost(circuits.case(3, 7))


def test_nothing_but_the_named_angles_changes():
    model = nn.ModuleDict({"circuit": circuits.Circuit(3, 5), "other": circuits.Circuit(3, 5)})
    before = model["other"].angles.detach().clone()
    case = Case(model, lambda m, x: m["circuit"](x) + m["other"](x), [torch.ones(())])
    identity_block_init(case, names="circuit.*")
    assert torch.equal(model["other"].angles, before)
    assert torch.equal(model["circuit"].angles[2], torch.zeros(3))
