"""The trunk is found on any module, and calls are named."""

import pytest
import torch
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.probe.isolate import isolated
from unitygain.probe.observe import observe
from unitygain.probe.record import Record


def look(model: nn.Module, *inputs: Tensor, sites: object = None) -> Record:
    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        out = model(*batch)
        return (out[0] if isinstance(out, tuple) else out).square().mean()

    with isolated(Case(model, loss=loss, data=[inputs])) as (case, _):
        return observe(case, ("output.rms", "grad.rms", "entry_grad.rms", "exit_grad.rms"), sites=sites)


def names(record: Record) -> list[str]:
    return [str(site) for site in record.blocks]


class Residual(nn.Module):
    def __init__(self, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, stride=stride)
        self.norm = nn.BatchNorm2d(width)
        self.short = nn.Conv2d(width, width, 1, stride=stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.short(x) + torch.relu(self.norm(self.conv(x)))


class Layer(nn.Module):
    """A transformer block with two sequential parts inside, which must not be taken for the trunk."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.second = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, None]:
        x = x + self.first(x)
        return x + self.second(x), None


class Stack(nn.Module):
    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x, _ = layer(x)
        return x


class Shared(nn.Module):
    """One block called several times: depth, not time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = Layer(width)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x, _ = self.block(x)
        return x


class Unrolled(nn.Module):
    """One cell called with a new input at each step: time, not depth."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 5)
        for step in x.unbind(1):
            h = self.cell(step, h)
        return h


def test_plain_mlp_blocks_are_the_layers_without_the_head() -> None:
    layers = [m for _ in range(5) for m in (nn.Linear(8, 8), nn.ReLU(inplace=True))]
    record = look(nn.Sequential(*layers, nn.Linear(8, 3)), torch.randn(4, 8))
    assert names(record) == ["0", "2", "4", "6", "8"]
    assert str(record.end) == "10"


def test_exit_of_a_block_is_the_entry_of_the_next() -> None:
    layers = [m for _ in range(4) for m in (nn.Linear(8, 8), nn.Tanh())]
    record = look(nn.Sequential(*layers, nn.Linear(8, 3)), torch.randn(4, 8))
    entries, exits = record.values["entry_grad.rms"], record.values["exit_grad.rms"]
    for block, following in zip(record.blocks, record.blocks[1:], strict=False):
        assert exits[block] == entries[following]
    assert len(exits) == len(entries) == 4


def test_stages_of_residual_blocks_are_one_trunk() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Sequential(Residual(4), Residual(4)),
        nn.Sequential(Residual(4, 2), Residual(4)),
    )
    assert names(look(model, torch.randn(2, 1, 10, 10))) == ["1.0", "1.1", "2.0", "2.1"]


def test_sequential_blocks_are_a_trunk_when_nothing_else_is() -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Tanh()) for _ in range(3)))
    assert names(look(model, torch.randn(4, 6))) == ["0", "1", "2"]


def test_blocks_win_over_their_parts_and_tuples_are_opened() -> None:
    assert names(look(Stack(3, 6), torch.randn(2, 4, 6))) == ["layers.0", "layers.1", "layers.2"]


def test_torch_encoder() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert names(look(nn.TransformerEncoder(layer, 3), torch.randn(2, 4, 8))) == [
        f"layers.{i}" for i in range(3)
    ]


def test_weights_shared_over_depth_are_numbered_calls() -> None:
    assert names(look(Shared(6), torch.randn(2, 4, 6))) == [f"block#{k}" for k in range(1, 5)]


def test_a_cell_over_time_is_no_trunk() -> None:
    record = look(Unrolled(), torch.randn(2, 9, 3))
    assert record.blocks == ()
    assert [str(p.site) for p in record.of("output")] == [f"cell#{k}" for k in range(1, 10)]


class ByHand(nn.Module):
    """A recurrence written with two bare layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 5)
        for step in x.unbind(1):
            h = torch.tanh(self.inner(step) + self.outer(h))
        return h


def test_a_recurrence_of_bare_layers_is_no_trunk() -> None:
    assert look(ByHand(), torch.randn(2, 12, 3)).blocks == ()


class Joined(nn.Module):
    """A recurrence of one bare layer on letter and state, with another that reads each step."""

    def __init__(self) -> None:
        super().__init__()
        self.i2h, self.i2o = nn.Linear(8, 5), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, out = x.new_zeros(x.shape[0], 5), x.new_zeros(x.shape[0], 2)
        for step in x.unbind(1):
            both = torch.cat([step, h], 1)
            out = out + self.i2o(both)
            h = torch.tanh(self.i2h(both))
        return out


@pytest.mark.parametrize("model", [ByHand, Joined])
def test_a_recurrence_of_few_steps_is_no_trunk_either(model: type[nn.Module]) -> None:
    assert look(model(), torch.randn(2, 5, 3)).blocks == ()


class Twins(nn.Module):
    """Three bare layers that see two inputs, one after the other, in one call of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for side in x.unbind(1):
            h = side
            for layer in self.layers:
                h = torch.tanh(layer(h))
            seen.append(h)
        return seen[0] * seen[1]


def test_layers_that_see_two_inputs_stay_a_trunk() -> None:
    assert names(look(Twins(), torch.randn(4, 2, 3))) == [f"layers.{k}#2" for k in range(3)]


def test_a_model_that_goes_on_from_its_own_output_stays_a_trunk() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh())
    case = Case(model, lambda m, x: m(m(x)).square().mean(), [torch.randn(4, 3)])
    with isolated(case) as (twin, _):
        assert names(observe(twin, ("output.rms",))) == ["0#1", "2#1", "0#2", "2#2"]


def test_layers_called_from_the_loss_of_a_module_list() -> None:
    model = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        for layer in model.children():
            x = torch.tanh(layer(x))
        return x.mean()

    with isolated(Case(model, loss=loss, data=[torch.randn(2, 4)])) as (case, _):
        record = observe(case, ("output.rms", "input_grad.rms", "logits.rms"))
    assert names(record) == ["0", "1", "2"]
    assert [str(p.site) for p in record.of("input")] == ["0(input 0)"]
    assert [str(p.site) for p in record.of("logits")] == ["2"]


@pytest.mark.parametrize("sites", ["layers.*", ["layers.*"], lambda path, module: path.startswith("layers.")])
def test_sites_choose_what_is_reported(sites: object) -> None:
    record = look(Stack(2, 6), torch.randn(2, 4, 6), sites=sites)
    assert names(record) == ["layers.0", "layers.1"]
    assert all(p.site.path.startswith("layers.") for p in record.of("output"))


def test_no_trunk_in_a_single_layer() -> None:
    assert look(nn.Linear(4, 2), torch.randn(3, 4)).blocks == ()


class Scale(nn.Module):
    """A layer whose only parameter is a single number without axes."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.9))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def test_layers_of_a_single_number_are_a_trunk() -> None:
    assert names(look(nn.Sequential(Scale(), Scale(), Scale()), torch.randn(3, 4))) == ["0", "1", "2"]
