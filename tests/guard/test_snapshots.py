"""Snapshots on disk: all of it or what was there before, nothing that runs code, few of them."""

import math
import pickle

import pytest
import torch
from torch import nn

from unitygain.guard import Guard, TrainingStopped, rewind
from unitygain.guard import _snapshots as snapshots


def make(folder, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    settings = {"on_nonfinite": (rewind(3),), "snapshot_every": 5, "keep": 2} | settings
    return model, Guard(model, optimizer, folder=folder, **settings)


def step(model, guard, number: int, spoil: bool = False):
    model.zero_grad()
    loss = model(torch.randn(8, 4, generator=torch.Generator().manual_seed(number))).square().mean()
    loss.backward()
    if spoil:
        model[0].weight.grad[0, 0] = math.nan
    return guard.step(loss)


def names(folder) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_as_many_files_as_were_asked_for_and_no_remains(tmp_path):
    model, guard = make(tmp_path / "deep" / "er")
    for number in range(23):
        step(model, guard, number)
    assert names(tmp_path / "deep" / "er") == ["guard-15-rank0.pt", "guard-20-rank0.pt"]
    count, size = guard.snapshots
    assert count == 2
    assert size == sum(file.stat().st_size for file in (tmp_path / "deep" / "er").iterdir())


def test_the_memory_of_snapshots_is_that_of_the_trained_parameters_and_buffers():
    model, guard = make(None)
    model[2].requires_grad_(False)
    guard.training.optimizer.param_groups[0]["params"] = [p for p in model.parameters() if p.requires_grad]
    for number in range(12):
        step(model, guard, number)
    own = [p for p in model.parameters() if p.requires_grad] + list(model.buffers())
    assert guard.snapshots == (2, 2 * sum(tensor.nbytes for tensor in own))


def test_a_rewind_from_disk_is_a_rewind_from_memory(tmp_path):
    ends = []
    for folder in (None, tmp_path):
        model, guard = make(folder)
        done = [str(step(model, guard, number, spoil=number in {13, 14, 22})) for number in range(30)]
        ends.append((done, [p.detach().clone() for p in model.parameters()]))
    assert ends[0][0] == ends[1][0]
    assert "rewind to step 10" in ends[0][0][13]
    assert all(torch.equal(a, b) for a, b in zip(ends[0][1], ends[1][1], strict=True))


def test_a_damaged_file_gives_way_to_the_older_one(tmp_path):
    model, guard = make(tmp_path)
    for number in range(12):
        step(model, guard, number)
    newest = tmp_path / "guard-10-rank0.pt"
    newest.write_bytes(newest.read_bytes()[:200])
    assert step(model, guard, 12, spoil=True).rewound_to == 5


class Trap:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('the file ran code')",)


def test_a_file_that_would_run_code_is_not_read(tmp_path):
    model, guard = make(tmp_path, keep=1)
    step(model, guard, 0)
    (tmp_path / "guard-0-rank0.pt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(TrainingStopped):
        step(model, guard, 1, spoil=True)


def test_a_state_from_elsewhere_does_not_lead_out_of_the_folder(tmp_path):
    model, guard = make(tmp_path / "mine")
    step(model, guard, 0)
    outside = tmp_path / "guard-0-rank0.pt"
    (tmp_path / "mine" / outside.name).rename(outside)
    state = guard.state_dict()
    state["snapshots"] = [{"position": 0, "content": None, "file": f"../{outside.name}"}]
    guard.load_state_dict(state)
    assert len(guard.training.ring) == 0


def test_a_disk_that_is_full_costs_the_new_snapshot_alone(tmp_path, monkeypatch):
    model, guard = make(tmp_path)
    for number in range(7):
        step(model, guard, number)
    held = names(tmp_path)

    def full(content, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshots.torch, "save", full)
    for number in range(7, 14):
        assert step(model, guard, number).action == "step"
    assert names(tmp_path) == held
    assert step(model, guard, 14, spoil=True).rewound_to == 5


def test_a_write_that_is_cut_off_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "snapshot.pt"
    snapshots.write(path, {"position": 1})

    def torn(content, file):
        file.write(b"torn")
        raise RuntimeError("unexpected pos 4 vs 0")

    monkeypatch.setattr(snapshots.torch, "save", torn)
    with pytest.raises(OSError, match="cannot write"):
        snapshots.write(path, {"position": 2})
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"position": 1}
    assert names(tmp_path) == ["snapshot.pt"]


def test_no_snapshot_of_broken_weights_and_none_without_a_rewind(tmp_path):
    model, guard = make(tmp_path, on_nonfinite=(), on_spike=())
    step(model, guard, 0)
    assert names(tmp_path) == []
    model, guard = make(None)
    for number in range(4):
        step(model, guard, number)
    with torch.no_grad():
        model[0].bias[0] = math.inf
    assert not guard.training.snapshot(4)
    assert guard.snapshots[0] == 1
