"""Two hundred drawn fault sequences: with a guard every one ends well, without one most do not."""

import pytest
from guard import faults


@pytest.mark.parametrize("seed", range(20))
def test_a_guarded_training_survives(seed):
    sequence = faults.draw(seed)
    clean = faults.train(sequence, guarded=False, faulty=False)
    guarded = faults.train(sequence, guarded=True)
    assert not faults.failed(guarded, clean), guarded
    events = [verdict for verdict in guarded.verdicts if verdict.events]
    assert events, "the fault was not seen"
    assert any(verdict.recovered for verdict in guarded.verdicts), "the recovery was not stated"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_hundred_sequences_of_which_most_end_badly_without_a_guard():
    unguarded_failures = 0
    for seed in range(200):
        sequence = faults.draw(seed)
        clean = faults.train(sequence, guarded=False, faulty=False)
        unguarded_failures += faults.failed(faults.train(sequence, guarded=False), clean)
        guarded = faults.train(sequence, guarded=True)
        assert not faults.failed(guarded, clean), (sequence, guarded.stopped or guarded.loss)
        assert any(verdict.recovered for verdict in guarded.verdicts), sequence
    assert unguarded_failures >= 150
