"""DDP and FSDP2 on two gloo ranks: what one rank sees all decide on, with as few collectives as can be."""

import pytest
import torch
import torch.multiprocessing
from guard import ranks

if not torch.distributed.is_available():
    pytest.skip("this torch has no distributed package", allow_module_level=True)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory):
    """What each of two ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(ranks.run, args=(2, str(folder)), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_all_ranks_do_the_same_and_hold_the_same(found, kind):
    first, second = (rank[kind] for rank in found)
    assert repr(first["actions"]) == repr(second["actions"])
    assert all(torch.equal(a, b) for a, b in zip(first["weights"], second["weights"], strict=True))


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_they_do_what_one_process_does_with_the_whole_batch(found, kind):
    alone, together = ranks.train(kind, None), found[0][kind]
    assert [action[:2] for action in together["actions"]] == [action[:2] for action in alone["actions"]]
    odd = {step: action[:2] for step, action in enumerate(alone["actions"]) if action[0] != "step"}
    assert odd == {20: ("skip", None), 22: ("skip", None), 23: ("rewind", 20), 26: ("clip", None)}
    norms = [(a[2], b[2]) for a, b in zip(alone["actions"], together["actions"], strict=True)]
    for step, (one, both) in enumerate(norms):
        if step not in {22, 23}:
            assert both == pytest.approx(one, rel=1e-4)
    for one, both in zip(alone["weights"], together["weights"], strict=True):
        torch.testing.assert_close(both, one, rtol=1e-3, atol=1e-5)


def test_a_healthy_step_takes_one_collective_with_or_without_shards(found):
    quiet = [1, 2, 3, 6, 7, 8]  # no snapshot is due
    for rank in found:
        for kind in ("ddp", "fsdp"):
            assert [rank[kind]["collectives"][step] for step in quiet] == [{"allgather": 1}] * len(quiet)


@pytest.mark.parametrize(
    "way", ["clip_grad_norm_", "clip_grad_norm_, p=3", "clip_grad_norm_, p=inf", "chain"]
)
def test_clips_of_shards_take_one_collective(found, way):
    assert [rank["clips"][way] for rank in found] == [{"allgather": 1}] * 2


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_clipped_steps_of_ranks_are_those_of_one_process(found, kind):
    weights, told = ranks.clip_steps(kind, None)
    assert any(clipped for _, _, clipped in told)
    assert min(cosine for _, cosine, _ in told) < 0.999
    for rank in found:
        of_rank, heard = rank["clipped"][kind]
        for one, other in zip(of_rank, weights, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        for one, other in zip(heard, told, strict=True):
            assert one == pytest.approx(other, rel=1e-4)
    assert all(map(torch.equal, found[0]["clipped"][kind][0], found[1]["clipped"][kind][0]))


def test_a_guard_reads_for_its_clip_and_a_change_of_entries_asks_for_angle_and_norm(found):
    """One for norm and agreement; one for the angles, one for the norms of all tensors that are changed."""
    assert [rank["clips"]["guard"] for rank in found] == [{"allgather": 3}] * 2


def test_a_snapshot_that_one_rank_could_not_write_is_dropped_by_all(found):
    assert [rank["disk"] for rank in found] == [[None, None, None, None, 0]] * 2


def test_scales_stay_the_same_when_one_rank_alone_overflows(found):
    assert found[0]["scale"] == found[1]["scale"]
    assert found[0]["scale"] == [64.0, 64.0, 32.0, 16.0, 16.0, 16.0, 32.0, 32.0, 16.0, 16.0, 16.0, 32.0]
