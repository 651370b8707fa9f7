"""The initialisations of recurrent modules against what torch's own gates make of them."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from unitygain._case import Case
from unitygain.remedies import chrono, forget_bias, irnn

GATES = {"LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n")}


def held(module: nn.Module, *shape: int) -> Case:
    def loss(model, x):
        out = model(x)
        return (out[0] if isinstance(out, tuple) else out).sum()

    return Case(module, loss, [torch.zeros(shape)])


def effective(module: nn.RNNBase, layer: str = "l0") -> dict[str, torch.Tensor]:
    own = getattr(module, f"bias_ih_{layer}") + getattr(module, f"bias_hh_{layer}")
    names = GATES[type(module).__name__]
    return dict(zip(names, own.detach().chunk(len(names)), strict=True))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_the_gate_that_is_set_is_the_one_that_keeps_the_state(kind):
    """With all weights zero, a step keeps exactly sigmoid(bias) of the state and lets in nothing."""
    module = kind(2, 3, 2, bidirectional=True).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    forget_bias(held(module, 1, 1, 2), bias=1.5)
    state = torch.randn(4, 1, 3, dtype=torch.float64)
    zero = torch.zeros(1, 1, 2, dtype=torch.float64)
    after = module(zero, state)[1] if kind is nn.GRU else module(zero, (torch.zeros_like(state), state))[1][1]
    torch.testing.assert_close(after, state / (1 + math.exp(-1.5)), atol=0, rtol=1e-14)


def test_other_gates_stay():
    module = nn.LSTM(2, 3)
    before = effective(module)
    forget_bias(held(module, 4, 1, 2))
    after = effective(module)
    assert after["f"].tolist() == [1.0, 1.0, 1.0]
    assert all(torch.equal(before[gate], after[gate]) for gate in "igo")


def test_times_are_uniform_up_to_the_length_of_the_sequence():
    module = nn.LSTM(2, 4000)
    chrono(held(module, 50, 1, 2))
    gates = effective(module)
    assert torch.equal(gates["i"], -gates["f"])
    times = gates["f"].double().exp()
    assert times.min() >= 1
    assert times.max() <= 49 * (1 + 1e-6)
    # The mean of 4000 uniform numbers on [1, 49] is 25 with a standard error of 48/sqrt(12·4000).
    assert times.mean().item() == pytest.approx(25, abs=4 * 48 / math.sqrt(48000))


def test_a_gru_has_one_gate_for_both():
    module = nn.GRU(2, 5, batch_first=True)
    before = effective(module)
    chrono(held(module, 2, 30, 2), seed=3)
    after = effective(module)
    assert torch.equal(before["r"], after["r"])
    assert torch.equal(before["n"], after["n"])
    assert 0 <= after["z"].min() <= after["z"].max() <= math.log(29)


def test_the_length_of_packed_sequences_and_of_cells_is_seen():
    """The longest sequence of 9 steps bounds the times by 8, whatever the seed."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(2, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state = (x.new_zeros(1, 64), x.new_zeros(1, 64))
            for step in x:
                state = self.cell(step, state)
            return state[0]

    cell = Steps()
    chrono(held(cell, 9, 1, 2))
    packed = nn.LSTM(2, 64)
    sequences = [torch.zeros(9, 2), torch.zeros(4, 2)]
    chrono(Case(packed, lambda m, _: m(pack_sequence(sequences))[0].data.sum(), [torch.zeros(1)]))
    for bias in (cell.cell.bias_ih, packed.bias_ih_l0):
        assert math.log(6) < bias[64:128].max() <= math.log(8)


def test_an_identity_recurrence_sums_its_inputs():
    """With ReLU, the state is the sum of the relu'd inputs where all are positive."""
    module = nn.RNN(3, 4, nonlinearity="relu").double()
    irnn(held(module, 1, 1, 3), input_std=0.5)
    with torch.no_grad():
        module.weight_ih_l0.abs_()
    x = torch.rand(20, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(module(x)[0][-1], (x @ module.weight_ih_l0.T).sum(0), atol=0, rtol=1e-13)


def test_small_input_weights_have_the_deviation_that_was_asked_for():
    module = nn.RNN(64, 64)
    irnn(held(module, 1, 1, 64))
    # A deviation from 4096 numbers has a standard error of 1/sqrt(2·4096).
    assert module.weight_ih_l0.std().item() == pytest.approx(0.001, rel=0.05)


@pytest.mark.parametrize("apply", [chrono, irnn])
def test_the_seed_draws_and_the_users_generator_is_not_touched(apply):
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(5)
        module = nn.RNN(2, 8) if apply is irnn else nn.LSTM(2, 8)
        state = torch.get_rng_state()
        apply(held(module, 12, 1, 2), seed=seed)
        assert torch.equal(state, torch.get_rng_state())
        return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize(
    ("apply", "module", "given", "message"),
    [
        (forget_bias, nn.RNN(2, 2), {}, "is an nn.LSTM or nn.GRU with biases"),
        (forget_bias, nn.LSTM(2, 2, bias=False), {}, "is an nn.LSTM or nn.GRU with biases"),
        (forget_bias, nn.LSTM(2, 2), {"bias": math.inf}, "bias is inf; give a finite number"),
        (chrono, nn.RNN(2, 2), {}, "is an nn.LSTM or nn.GRU with biases"),
        (chrono, nn.LSTM(2, 2), {}, "the memory is to reach over 1 steps; chrono needs 3 or more"),
        (irnn, nn.LSTM(2, 2), {}, "for LSTM and GRU use forget_bias or chrono"),
        (irnn, nn.RNN(2, 2), {"input_std": -1.0}, "the second not negative"),
    ],
)
def test_what_cannot_be_done_says_so(apply, module, given, message):
    with pytest.raises(ValueError, match=message):
        apply(held(module, 1, 1, 2), **given)
