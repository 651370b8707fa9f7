"""The operation watch leaves the pass as it is, and its own setting behind no exception."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.backends.cuda import math_sdp_enabled
from torch.nn import functional as F

from unitygain.probe import Probe
from unitygain.probe.ops import OPERATIONS

KEYS = [f"{signal}.{name}" for signal, names in OPERATIONS.items() for name in names]


class Mixed(nn.Module):
    """Attention written out, a gate, an LSTM, dropout and an in-place activation."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.gate, self.rnn = nn.Linear(8, 24), nn.Linear(8, 8), nn.LSTM(8, 8, batch_first=True)
        self.act, self.drop, self.head = nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        x = self.drop((q @ k.transpose(1, 2)).softmax(-1) @ v)
        x = self.act(self.rnn(x * torch.sigmoid(self.gate(x)))[0] + x)
        return self.head(F.gelu(x).mean(1))


def _gradients(model: nn.Module, x: Tensor, watched: bool) -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(5)
    target = torch.arange(len(x)) % 3
    if watched:
        with Probe(model, KEYS):
            F.cross_entropy(model(x), target).backward()
    else:
        F.cross_entropy(model(x), target).backward()
    return [p.grad for p in model.parameters() if p.grad is not None], torch.get_rng_state()


def test_gradients_and_random_numbers_are_bitwise_those_of_the_plain_pass() -> None:
    model = Mixed()
    twin, x = copy.deepcopy(model), torch.randn(4, 5, 8)
    plain, after = _gradients(model, x, watched=False)
    seen, after_seen = _gradients(twin, x, watched=True)
    assert len(plain) == len(list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    assert torch.equal(after, after_seen)


def test_attention_settings_are_put_back_after_an_exception() -> None:
    before = (torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled())
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with Probe(model, KEYS):
        assert not torch.backends.mha.get_fastpath_enabled()
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            model(torch.ones(2, 3))
    with pytest.raises(ZeroDivisionError), Probe(model, KEYS):
        raise ZeroDivisionError
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()) == before
    assert math_sdp_enabled()


def test_fused_attention_stays_fused_unless_softmax_is_asked_for() -> None:
    flash = torch.backends.cuda.flash_sdp_enabled
    model = nn.Linear(2, 2)
    with Probe(model, ["activation.frac_open"]):
        assert flash()
    with Probe(model, ["softmax.absmax"]):
        assert not flash()
    assert flash()


def test_what_the_probe_computes_itself_is_not_seen() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    with Probe(model, [*KEYS, "output.effective_rank", "output.rms", "exit.token_cosine"]) as probe:
        model(torch.randn(3, 4)).square().mean().backward()
    record = probe.record()
    assert [str(place.site) for signal in OPERATIONS for place in record.of(signal)] == ["1"]


def test_operations_of_modules_that_were_not_chosen_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh())
    with Probe(model, ["activation.frac_open"], sites="3") as probe:
        model(torch.randn(3, 4)).mean().backward()
    assert [place.type for place in probe.record().of("activation")] == ["tanh (output)"]


def test_an_unknown_operation_statistic_is_refused() -> None:
    with pytest.raises(ValueError, match=r"collect has 'softmax\.mean'"):
        Probe(nn.Linear(2, 2), ["softmax.mean"])
