"""The phase diagram against the mean field point by point, on executors, and its edges."""

import math
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch

from unitygain.theory.activations import ACTIVATIONS, Activation
from unitygain.theory.criticality import critical
from unitygain.theory.mean_field import mean_field
from unitygain.theory.phase import PhaseDiagram, critical_line, largest_bounded, phase_diagram
from unitygain.theory.variance import Unbounded

WEIGHTS = np.linspace(0.0, 3.2, 33) ** 2
BIASES = np.linspace(0.0, 0.9, 19) ** 2
NUMBERS = ("q_star", "chi_1", "c_star", "xi_c", "xi_grad")


@pytest.mark.parametrize("phi", [*ACTIVATIONS, torch.nn.functional.selu])
def test_a_diagram_is_the_mean_field_at_every_point(phi):
    callable_phi = not isinstance(phi, str)
    weights, biases = (WEIGHTS[:20:3], BIASES[::6]) if callable_phi else (WEIGHTS, BIASES)
    diagram = phase_diagram(phi, weights, biases)
    for row, bias in enumerate(biases):
        for column, weight in enumerate(weights):
            try:
                field = mean_field(phi, weight, bias)
            except Unbounded:
                assert diagram.phase[row, column] == "unbounded"
                assert all(getattr(diagram, key).mask[row, column] for key in NUMBERS)
                continue
            assert diagram.phase[row, column] == field.phase
            for key in ("q_star", "chi_1", "c_star"):
                value = getattr(diagram, key)[row, column]
                assert value == pytest.approx(getattr(field, key), rel=1e-10, abs=1e-13), (weight, bias)
            for key in ("xi_c", "xi_grad"):
                found = rate(float(getattr(diagram, key)[row, column]))
                assert found == pytest.approx(rate(getattr(field, key)), rel=1e-10), (weight, bias)


def rate(length: float) -> float:
    """What a length of exp(-1/length) per layer is made from; near 1 the length has fewer digits."""
    return math.exp(-1 / length) if length else 0.0


def test_a_close_look_at_the_edges_finds_the_same_points():
    """Around a half-stable point and across the critical line, where fixed points lie close together."""
    gelu, tanh = critical("gelu"), critical("tanh", 0.05)
    around = np.linspace(-1e-3, 1e-3, 9)
    for phi, point, start in (("gelu", gelu, 10.0), ("gelu", gelu, 1.0), ("tanh", tanh, 1.0)):
        weights, biases = point.sigma_w2 + around, point.sigma_b2 + around[4:]
        diagram = phase_diagram(phi, weights, biases, q=start)
        for row, bias in enumerate(biases):
            for column, weight in enumerate(weights):
                try:
                    field = mean_field(phi, weight, bias, q=start)
                except Unbounded:
                    assert diagram.phase[row, column] == "unbounded"
                    continue
                # Where the map touches the diagonal a rounding moves the point by its square root.
                assert diagram.q_star[row, column] == pytest.approx(field.q_star, rel=1e-6)


def test_executors_change_no_bit():
    weights, biases = np.linspace(0.1, 3.0, 60) ** 2, np.linspace(0.0, 0.8, 40) ** 2
    for phi in ("tanh", "selu"):
        here = phase_diagram(phi, weights, biases)
        with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(2) as processes:
            for executor in (threads, processes):
                same(here, phase_diagram(phi, weights, biases, executor=executor))


@pytest.mark.real
def test_dask_s_executor_changes_no_bit():
    from distributed import Client, LocalCluster

    weights, biases = np.linspace(0.1, 3.0, 60) ** 2, np.linspace(0.0, 0.8, 40) ** 2
    here = phase_diagram("tanh", weights, biases)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        same(here, phase_diagram("tanh", weights, biases, executor=client.get_executor()))


def same(one: PhaseDiagram, other: PhaseDiagram) -> None:
    assert (one.phase == other.phase).all()
    for key in NUMBERS:
        assert getattr(one, key).filled(-7.0).tobytes() == getattr(other, key).filled(-7.0).tobytes()


@pytest.mark.parametrize("workers", [0, 2])
def test_progress_is_told_after_every_piece(workers):
    told = []
    weights, biases = np.linspace(0.1, 3.0, 60) ** 2, np.linspace(0.0, 0.8, 40) ** 2
    if workers:
        with ThreadPoolExecutor(workers) as executor:
            phase_diagram("relu", weights, biases, executor=executor, progress=lambda *at: told.append(at))
    else:
        phase_diagram("relu", weights, biases, progress=lambda *at: told.append(at))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("phi", ["tanh", "erf", "sin", "selu", "elu", "hardtanh", "gelu", "mish"])
def test_the_critical_line_is_the_edge_of_chaos(phi):
    for weight, bias in list(zip(*critical_line(phi, 60), strict=True))[5::9]:
        if bias < 1e-6:
            continue
        for start in (1e-5, 1.0, 1e4):
            try:
                field = mean_field(phi, weight, bias, q=start)
            except ValueError:
                continue
            if abs(field.chi_1 - 1) < 1e-7:
                break
        else:
            pytest.fail(f"no start reaches a critical point at {weight}, {bias}")


def test_the_edge_of_a_straight_line_is_one_point():
    weights, biases = critical_line("relu")
    assert (weights.tolist(), biases.tolist()) == ([2.0], [0.0])
    # Softplus has chi_1 below 1 wherever its variance holds.
    assert [part.size for part in critical_line("softplus")] == [0, 0]


@pytest.mark.parametrize("level", [0.25, 1.3])
def test_contours_keep_their_gain(level):
    for weight, bias in list(zip(*critical_line("tanh", 50, level), strict=True))[::12]:
        assert mean_field("tanh", weight, bias).chi_1 == pytest.approx(level, rel=1e-8)
    assert critical_line("relu", chi_1=level)[0].tolist() == ([0.5, 0.5] if level < 1 else [])


@pytest.mark.parametrize("phi", ACTIVATIONS)
def test_signals_settle_up_to_the_largest_weights_and_large_ones_not_beyond(phi):
    most = largest_bounded(phi)
    if math.isinf(most):
        assert mean_field(phi, 5.0, 0.1).q_star < math.inf
        return
    assert mean_field(phi, 0.999 * most, 0.1, q=1e4).q_star < math.inf
    with pytest.raises(Unbounded):
        mean_field(phi, 1.001 * most, 0.1, q=1e8)


def test_bad_input_is_a_sentence():
    with pytest.raises(ValueError, match=r"sigma_w2 is -1\.0; give a finite number of at least 0"):
        phase_diagram("tanh", [1.0, -1.0], [0.1])
    with pytest.raises(ValueError, match="sigma_b2 is nan"):
        phase_diagram("tanh", [1.0], [math.nan])
    with pytest.raises(ValueError, match="sigma_w2 has 0 values and sigma_b2 1"):
        phase_diagram("tanh", [], [0.1])
    with pytest.raises(ValueError, match="q is 0; give a finite number above 0"):
        phase_diagram("tanh", [1.0], [0.1], q=0)
    hidden = Activation("hidden", lambda x: np.maximum(x - 0.3, 0), lambda x: np.heaviside(x - 0.3, 0.5))
    with pytest.raises(
        ValueError, match=r"second moment of hidden at q = .*two quadratures disagree, 0\.\d+ and"
    ):
        phase_diagram(hidden, [0.5], [0.1])


def test_a_function_that_cannot_be_sent_is_a_sentence():
    with (
        ProcessPoolExecutor(1) as executor,
        pytest.raises(ValueError, match=r"phi cannot be sent to the executor's workers .*; give a name"),
    ):
        phase_diagram(lambda x: torch.tanh(x), [1.0], [0.1], executor=executor)
