"""The first samples stand for the batch where they are a block of its Jacobian; else all of it is taken."""

import pytest
import torch
from probe.trunks import FAMILIES, Trunk, recorded
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.measures.jacobian_sigma_max import jacobian_sigma_max
from unitygain.probe import few
from unitygain.probe.few import trace_few
from unitygain.probe.observe import observe
from unitygain.probe.record import Record
from unitygain.probe.trace import trace


@pytest.fixture(autouse=True)
def _small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few, "ENTRIES", 64)


def taken(case: Case, record: Record) -> int:
    """How many samples the trace holds."""
    with trace_few(case, record) as live:
        said = f"first {live.blocks[0].entry.shape[0]} samples of {len(case.batches[0])}" in live.note
        assert said == (live.blocks[0].entry.shape[0] < len(case.batches[0]))
        return live.blocks[0].entry.shape[0]


def sampled(name: str, samples: int, **flags: bool) -> tuple[Case, Record]:
    torch.manual_seed(0)
    make, shape, _ = FAMILIES[name]
    model = Trunk([make() for _ in range(2)]).double().train(flags.get("train", True))
    return recorded(model, torch.randn(samples, *shape[1:], dtype=torch.float64))


@pytest.mark.parametrize("name", ["mlp", "cnn", "rnn", "lstm", "attention", "encoder", "residual"])
def test_few_are_a_block_of_the_whole(name):
    case, record = sampled(name, 20)
    with trace_few(case, record) as live:
        held = live.blocks[-1].entry.shape[0]
        assert 1 <= held < 20
        part = [block.jacobian() for block in live.blocks]
        u = torch.randn(part[-1].shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        narrow = [u]
        for factor in reversed(part):
            narrow.append(factor.rmatvec(narrow[-1]))
    with trace(case, record) as live:
        whole = [block.jacobian() for block in live.blocks]
        wide = torch.cat([u, u.new_zeros(whole[-1].shape[0] - len(u))])
        for factor, expected in zip(reversed(whole), narrow[1:], strict=True):
            wide = factor.rmatvec(wide)
            torch.testing.assert_close(wide[: len(expected)], expected, rtol=1e-10, atol=0)
            assert not wide[len(expected) :].any()


def test_as_many_as_have_no_more_numbers_than_allowed():
    # 9 numbers a sample: 7 of them have 63.
    assert taken(*sampled("mlp", 20)) == 7


def test_a_small_batch_is_taken_whole_without_another_pass():
    case, record = sampled("mlp", 7)
    ran = []
    case.model.register_forward_pre_hook(lambda *_: ran.append(1))
    assert taken(case, record) == 7
    record = observe(case, ["entry.rms"])
    ran.clear()
    assert taken(case, record) == 7
    assert len(ran) == 1


def test_one_large_sample_is_taken_alone():
    torch.manual_seed(0)
    case, record = recorded(Trunk([nn.Sequential(nn.Linear(100, 100), nn.Tanh())] * 2), torch.randn(3, 100))
    with trace_few(case, record) as live:
        assert live.blocks[0].entry.shape == (1, 100)
        assert "on the first sample of 3" in live.note


def test_batch_normalisation_couples_the_samples_in_train_mode_alone():
    assert taken(*sampled("batch norm", 20, train=True)) == 20
    assert taken(*sampled("batch norm", 20, train=False)) == 9


def test_one_sample_of_a_coupled_batch_is_not_taken():
    # Alone it could not show that it mixes with others.
    blocks = [nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)) for _ in range(2)]
    torch.manual_seed(0)
    case, record = recorded(Trunk(list(blocks)), torch.randn(5, 8, 3, 3))
    assert taken(case, record) == 5


def test_dropout_does_not_matter_and_flags_stay():
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(9, 9), nn.Dropout(0.5)) for _ in range(2)]
    blocks[1].eval()
    case, record = recorded(Trunk(list(blocks)), torch.randn(20, 9))
    flags = [module.training for module in case.model.modules()]
    assert taken(case, record) == 7
    assert [module.training for module in case.model.modules()] == flags


class Causal(nn.Module):
    """Time first: every step sees those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(9, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.cumsum(0))


def test_the_first_steps_in_time_are_not_the_first_samples():
    # The first steps give alone what they give among all: only the gradient tells.
    torch.manual_seed(0)
    case, record = recorded(Trunk([Causal(), Causal()]), torch.randn(20, 3, 9))
    assert taken(case, record) == 20


@pytest.mark.parametrize(
    ("batch", "loss"),
    [
        ((torch.randn(20, 9), torch.randn(5)), lambda m, b: m(b[0]).square().mean()),
        (torch.randn(20, 9), lambda m, x: m(x).view(20, 9).square().mean()),
        ([[0.5] * 9] * 20, lambda m, x: m(torch.tensor(x)).square().mean()),
        (torch.randn(20, 9), lambda m, x: m(x - x.mean(0)).square().mean()),
    ],
    ids=["tensors of other lengths", "a loss that needs all", "no tensors", "mixed before the trunk"],
)
def test_batches_that_cannot_be_cut_are_taken_whole(batch, loss):
    torch.manual_seed(0)
    model = Trunk([nn.Sequential(nn.Linear(9, 9), nn.Tanh()) for _ in range(2)])
    case = Case(model, loss=loss, data=[batch])
    with trace_few(case, observe(case, [])) as live:
        assert live.blocks[0].entry.shape[0] == 20
        assert live.note == ""


def test_a_measure_says_which_samples_it_took():
    case, record = sampled("mlp", 20)
    profile = jacobian_sigma_max(case, record)
    assert profile is not None
    assert "on the first 7 samples of 20" in profile.note


def test_a_record_is_asked_once():
    case, record = sampled("mlp", 20)
    record = few.choose_samples(case, record)
    assert record.facts["first samples of batch 0"] == 7
    ran = []
    case.model.register_forward_pre_hook(lambda *_: ran.append(1))
    assert taken(case, record) == 7
    assert len(ran) == 1
