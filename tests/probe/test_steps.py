"""Walks follow the modules' own states, and their Jacobians are those of torch's modules."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from unitygain._case import Case
from unitygain.probe.observe import observe
from unitygain.probe.steps import Walks, walk

STEPS, BATCH, FEATURES, HIDDEN = 9, 3, 4, 5
MODULES = {
    "tanh": lambda: nn.RNN(FEATURES, HIDDEN),
    "relu": lambda: nn.RNN(FEATURES, HIDDEN, nonlinearity="relu"),
    "lstm": lambda: nn.LSTM(FEATURES, HIDDEN),
    "projected lstm": lambda: nn.LSTM(FEATURES, HIDDEN, proj_size=2),
    "gru": lambda: nn.GRU(FEATURES, HIDDEN),
    "no bias": lambda: nn.GRU(FEATURES, HIDDEN, bias=False),
}


def followed(model: nn.Module, x: Any) -> Walks:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        out = model(batch)
        out = out[0] if isinstance(out, tuple) else out
        return (out if isinstance(out, Tensor) else out.data).square().mean()

    case = Case(model, loss=loss, data=[x])
    return walk(case, observe(case, []))


def sequence(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", MODULES)
def test_jacobian_is_that_of_one_step_of_the_module(name):
    torch.manual_seed(0)
    module = MODULES[name]().double()
    x = sequence(STEPS, BATCH, FEATURES)
    (found,) = followed(module, x).walks
    widths = [part.shape[-1] for part in found.states[0]]

    def step(flat: Tensor) -> Tensor:
        parts = tuple(part.view(1, 1, -1) for part in flat.split(widths))
        after = module(x[4:5, :1], parts if len(parts) > 1 else parts[0])[1]
        return torch.cat([part.flatten() for part in (after if isinstance(after, tuple) else (after,))])

    before = torch.cat([part.flatten() for part in found.states[4]])
    naive = torch.autograd.functional.jacobian(step, before)
    torch.testing.assert_close(torch.from_numpy(found.jacobian(4).copy()), naive, atol=0, rtol=1e-9)


@pytest.mark.parametrize("name", MODULES)
def test_walk_ends_where_the_module_ends(name):
    torch.manual_seed(0)
    module = MODULES[name]().double()
    x = sequence(STEPS, BATCH, FEATURES)
    (found,) = followed(module, x).walks
    last = found.cell.step(found.inputs[-1], found.states[-1])[0]
    ends = module(x)[1]
    for mine, theirs in zip(last, ends if isinstance(ends, tuple) else (ends,), strict=True):
        torch.testing.assert_close(mine[0], theirs[0, 0], atol=0, rtol=1e-9)


def test_layers_and_directions_are_walks_of_their_own():
    torch.manual_seed(0)
    module = nn.LSTM(FEATURES, HIDDEN, 2, bidirectional=True, batch_first=True).double()
    x = sequence(BATCH, STEPS, FEATURES)
    found = followed(module, x).walks
    assert [w.site.leaf for w in found] == [".(l0)", ".(l0_reverse)", ".(l1)", ".(l1_reverse)"]
    hidden = module(x)[1][0][:, 0]
    for one, expected in zip(found, hidden, strict=True):
        last = one.cell.step(one.inputs[-1], one.states[-1])[0][0]
        torch.testing.assert_close(last[0], expected, atol=0, rtol=1e-9)


class Begun(nn.Module):
    """A GRU that starts from a learned state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(FEATURES, HIDDEN)
        self.state = nn.Parameter(torch.ones(1, 1, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x, hx=self.state.expand(1, x.shape[1], HIDDEN).contiguous())[0]


def test_a_given_state_is_where_the_walk_starts():
    (found,) = followed(Begun().double(), sequence(STEPS, BATCH, FEATURES)).walks
    assert torch.equal(found.states[0][0], torch.ones(1, HIDDEN, dtype=torch.float64))


def test_a_sequence_without_a_batch_is_followed():
    (found,) = followed(nn.RNN(FEATURES, HIDDEN).double(), sequence(STEPS, FEATURES)).walks
    assert len(found) == found.total == STEPS


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_packed_sample_is_followed_at_its_own_length(batch_first):
    """Sorted, the longer second sample comes first; the reverse direction begins at the sample's own end."""
    torch.manual_seed(0)
    module = nn.LSTM(FEATURES, HIDDEN, bidirectional=True, batch_first=batch_first).double()
    own, longer = sequence(STEPS, FEATURES), sequence(STEPS + 4, FEATURES)
    packed = pack_sequence([own, longer], enforce_sorted=False)
    found = followed(module, packed).walks
    assert [len(one) for one in found] == [STEPS, STEPS]
    hidden = module(packed)[1][0][:, 0]
    for one, expected in zip(found, hidden, strict=True):
        last = one.cell.step(one.inputs[-1], one.states[-1])[0][0]
        torch.testing.assert_close(last[0], expected, atol=0, rtol=1e-9)


class Loop(nn.Module):
    """Calls a cell step by step, and starts anew every `every` steps."""

    def __init__(self, cell: nn.RNNCellBase, every: int) -> None:
        super().__init__()
        self.cell, self.every = cell, every

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        outputs = []
        for index, step in enumerate(x):
            state = self.cell(step, None if index % self.every == 0 else state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs)


@pytest.mark.parametrize(
    ("cell", "module"), [(nn.RNNCell, nn.RNN), (nn.LSTMCell, nn.LSTM), (nn.GRUCell, nn.GRU)]
)
def test_a_cell_that_is_called_is_followed_like_its_module(cell, module):
    torch.manual_seed(0)
    own, whole = cell(FEATURES, HIDDEN).double(), module(FEATURES, HIDDEN).double()
    whole.load_state_dict({f"{name}_l0": value for name, value in own.state_dict().items()})
    x = sequence(STEPS, BATCH, FEATURES)
    (one,), (other,) = followed(Loop(own, STEPS), x).walks, followed(whole, x).walks
    for mine, theirs in zip(one.states, other.states, strict=True):
        torch.testing.assert_close(mine, theirs, atol=0, rtol=1e-9)
    torch.testing.assert_close(
        torch.from_numpy(one.jacobian(8).copy()),
        torch.from_numpy(other.jacobian(8).copy()),
        atol=0,
        rtol=1e-9,
    )


def test_a_state_that_starts_anew_ends_the_walk():
    (found,) = followed(Loop(nn.GRUCell(FEATURES, HIDDEN), 5), sequence(STEPS, BATCH, FEATURES).float()).walks
    assert len(found) == 5


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (pack_sequence([torch.ones(3, FEATURES)]), "fewer than 4 steps in a row"),
        (torch.ones(3, 1, FEATURES), "fewer than 4 steps in a row"),
        (torch.full((6, 1, FEATURES), torch.inf), "its state is not finite"),
    ],
)
def test_what_is_not_followed_is_said(x, message):
    found = followed(nn.GRU(FEATURES, HIDDEN), x)
    assert not found.walks
    assert message in found.note


def test_random_numbers_and_hooks_are_as_before():
    model = nn.Sequential(nn.Dropout(0.5), nn.RNN(FEATURES, HIDDEN))
    case = Case(model, loss=lambda m, x: m(x)[0].sum(), data=[torch.ones(6, 1, FEATURES)])
    record = observe(case, [])
    before = torch.get_rng_state()
    first, second = walk(case, record).walks, walk(case, record).walks
    assert torch.equal(before, torch.get_rng_state())
    assert all(map(torch.equal, first[0].inputs, second[0].inputs))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
