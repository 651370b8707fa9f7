"""Skips, gates and norms that are put into a model compute what their formula says, and go again."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from unitygain._case import Case
from unitygain.remedies import (
    add_residual,
    batchnorm_gamma,
    concat_skip,
    gated_recurrence,
    gated_skip,
    insert_norm,
    sum_skip,
    swap_to_relu,
)

WIDTH, DEPTH = 8, 4
X = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A branch of two maps; the second batch of numbers is handed through."""

    def __init__(self, skip: bool = False, norm: bool = False) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH) if norm else nn.Identity()
        self.skip = skip

    def forward(self, x: Tensor, *, factor: float = 1.0) -> tuple[Tensor, float]:
        made = factor * self.norm(self.down(torch.tanh(self.up(x))))
        return (x + made if self.skip else made), factor


class Blocks(nn.Module):
    """A stem, blocks, a head."""

    def __init__(self, **given: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block(**given) for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x, _ = block(x, factor=0.5)
        return self.head(x)


def chain(act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A chain of bare layers with an entrance of another width, and a head."""
    maps = [nn.Linear(3, WIDTH), *(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH)), nn.Linear(WIDTH, 2)]
    parts = [part for layer in maps for part in (layer, act())]
    return nn.Sequential(*parts[:-1])


def case_of(model: nn.Module, batch: Tensor = X) -> Case:
    return Case(model, lambda m, x: m(x).square().sum(), [batch])


def test_a_block_with_a_skip_is_x_plus_a_share_of_f():
    case = case_of(Blocks())
    model = case.model
    before = model(X)
    undo = add_residual(case, scale=0.25)
    x = model.stem(X)
    for block in model.blocks:
        x = x + 0.25 * (0.5 * block.norm(block.down(torch.tanh(block.up(x)))))
    assert torch.equal(model(X), model.head(x))
    undo()
    assert torch.equal(model(X), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_chain_of_layers_is_added_behind_its_activations():
    case = case_of(chain(), X[:, :3])
    undo = add_residual(case)
    layers = list(case.model[::2])
    x = torch.relu(layers[0].forward(X[:, :3]))
    for layer in layers[1:-1]:
        x = x + DEPTH**-0.5 * torch.relu(layer.forward(x))
    for _ in range(2):
        assert torch.equal(case.model(X[:, :3]), layers[-1].forward(x))
    undo()
    assert not any(m._forward_pre_hooks for m in case.model.modules())


def test_a_chain_that_stopped_in_the_middle_forgets_what_it_held():
    case = case_of(chain(), X[:, :3])
    add_residual(case)
    expected = case.model(X[:, :3])

    def stop(*_: object) -> None:
        raise KeyError("stop")

    handle = case.model[5].register_forward_hook(stop)
    with pytest.raises(KeyError):
        case.model(X[:, :3])
    twin = copy.deepcopy(case.model)
    handle.remove()
    assert torch.equal(case.model(X[:, :3]), expected)
    assert twin is not None


def test_blocks_of_a_residual_network_are_left():
    with pytest.raises(
        ValueError, match="none of the 4 blocks keeps the shape of what enters it and lacks a"
    ):
        add_residual(case_of(Blocks(skip=True)))
    with pytest.raises(ValueError, match="no part of the model repeats; name the blocks with sites="):
        add_residual(case_of(nn.Linear(WIDTH, 1)))
    with pytest.raises(ValueError, match="scale is nan; give a finite number"):
        add_residual(case_of(Blocks()), scale=float("nan"))


def test_a_gate_mixes_what_enters_with_what_is_made():
    case = case_of(Blocks())
    case.optimizer = torch.optim.Adam(case.model.parameters())
    model, count = case.model, len(case.optimizer.param_groups)
    undo = gated_skip(case, bias=-1.0)
    for block in model.blocks:
        nn.init.normal_(block.gate.weight)
    x = model.stem(X)
    for gated in model.blocks:
        t = torch.sigmoid(gated.gate(x))
        x = t * gated.block(x, factor=0.5)[0] + (1 - t) * x
    torch.testing.assert_close(model(X), model.head(x), atol=1e-6, rtol=1e-5)
    held = {id(p) for group in case.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in model.parameters()} == held
    undo()
    assert len(case.optimizer.param_groups) == count
    assert type(model.blocks[0]) is Block


def test_a_gate_of_a_convolution_is_per_channel():
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)))
    gated_skip(case_of(model, IMAGES), bias=0.0)
    x = IMAGES
    for gated in model[:2]:
        x = 0.5 * (x + gated.block(x))
    torch.testing.assert_close(model[:2](IMAGES), x, atol=1e-6, rtol=1e-5)
    assert model[0].gate.weight.shape == (3, 3, 1, 1)


@pytest.mark.parametrize(
    ("kind", "norm"), [("layer", nn.LayerNorm), ("rms", nn.RMSNorm), ("batch", nn.BatchNorm1d)]
)
def test_a_norm_stands_between_map_and_activation(kind, norm):
    case = case_of(chain(nn.Tanh), X[:, :3])
    layers = list(case.model[::2])
    undo = insert_norm(case, kind=kind)
    x = X[:, :3]
    for layer in layers[:-1]:
        x = torch.tanh(norm(layer.out_features)(layer(x)))
    assert torch.equal(case.model(X[:, :3]), layers[-1].forward(x))
    assert case.model[2].weight is layers[1].weight, "the map's attributes are still read in its place"
    undo()
    assert list(case.model[::2]) == layers


def test_a_norm_behind_a_convolution_sees_the_whole_image():
    parts = [part for _ in range(3) for part in (nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())]
    model = nn.Sequential(*parts)
    insert_norm(case_of(model, IMAGES))
    made = model[0](IMAGES)
    torch.testing.assert_close(made.mean((1, 2, 3)), torch.zeros(2), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="kind 'rms' is for linear maps"):
        insert_norm(case_of(nn.Sequential(*parts), IMAGES), kind="rms")
    with pytest.raises(ValueError, match="kind is 'instance'; use one of layer, rms, batch"):
        insert_norm(case_of(model, IMAGES), kind="instance")


def test_maps_with_a_norm_beside_them_are_left():
    parts = [part for _ in range(3) for part in (nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU())]
    with pytest.raises(ValueError, match="without a norm beside it"):
        insert_norm(case_of(nn.Sequential(*parts)))


def test_a_branch_with_scale_zero_is_the_identity():
    case = case_of(Blocks(skip=True, norm=True))
    undo = batchnorm_gamma(case)
    model = case.model
    assert torch.equal(model(X), model.head(model.stem(X)))
    undo()
    assert all(bool((block.norm.weight == 1).all()) for block in model.blocks)
    with pytest.raises(ValueError, match="no block with a skip path ends its branch with a norm"):
        batchnorm_gamma(case_of(Blocks(norm=True)))
    with pytest.raises(ValueError, match="gamma is inf"):
        batchnorm_gamma(case, gamma=float("inf"))


def test_relu_takes_the_place_of_sigmoids_between_maps_alone():
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map, self.gate, self.act = nn.Linear(8, 8), nn.Linear(8, 8), nn.Tanh()
            self.out, self.sigmoid = nn.Linear(8, 8), nn.Sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.act(self.map(x))) * self.sigmoid(self.gate(x))

    model = Gate()
    gate, bias = model.gate.weight.clone(), model.map.bias.clone()
    undo = swap_to_relu(case_of(model))
    assert isinstance(model.act, nn.ReLU)
    assert isinstance(model.sigmoid, nn.Sigmoid)
    assert model.map.weight.square().mean().item() * 8 == pytest.approx(2.0)
    assert torch.equal(model.gate.weight, gate)
    undo()
    assert torch.equal(model.map.bias, bias)
    with pytest.raises(ValueError, match="no chosen sigmoid or tanh module stands between two linear maps"):
        swap_to_relu(case_of(chain()[2:]))


@pytest.mark.parametrize("skip", [True, False])
def test_a_projection_begins_as_the_sum_and_weighs_what_it_joins(skip):
    case = case_of(Blocks(skip=skip))
    model, before = case.model, case.model(X)
    undo = concat_skip(case, scale=1.0)
    x = model.stem(X)
    for joined in model.blocks:
        block = joined.block
        x = x + 0.5 * block.down(torch.tanh(block.up(x)))
    torch.testing.assert_close(model(X), model.head(x), atol=1e-6, rtol=1e-5)
    nn.init.normal_(model.blocks[0].project.weight)
    x = model.stem(X)
    block = model.blocks[0].block
    both = torch.cat((x, 0.5 * block.down(torch.tanh(block.up(x)))), -1)
    expected = both @ model.blocks[0].project.weight.T
    torch.testing.assert_close(model.blocks[0](x, factor=0.5)[0], expected, atol=1e-5, rtol=1e-5)
    undo()
    assert torch.equal(model(X), before)


@pytest.mark.parametrize("turned", [False, True])
def test_a_sum_in_the_place_of_a_projection_passes_the_earlier_one_whole(turned):
    """There and back: a projection that begins as x + 0.5·f becomes x + f, and x + 0.25·f when asked."""

    class Joined(Block):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(2 * WIDTH, WIDTH)

        def forward(self, x: Tensor, *, factor: float = 1.0) -> tuple[Tensor, float]:
            both = (x, super().forward(x, factor=factor)[0])
            return self.project(torch.cat(both[::-1] if turned else both, -1)), factor

    model = Blocks()
    model.blocks = nn.ModuleList(Joined() for _ in range(DEPTH))
    before, case = model(X), case_of(model)
    undo = sum_skip(case, scale=0.25)
    x = model.stem(X)
    for block in model.blocks:
        x = x + 0.25 * 0.5 * block.down(torch.tanh(block.up(x)))
    torch.testing.assert_close(model(X), model.head(x), atol=1e-6, rtol=1e-5)
    assert isinstance(case.copy().model.blocks[0].project, type(model.blocks[0].project))
    undo()
    assert torch.equal(model(X), before)


def test_what_concat_skip_projects_sum_skip_adds():
    case = case_of(Blocks())
    concat_skip(case, scale=1.0)
    before = case.model(X)
    sum_skip(case)
    assert not [name for name, _ in case.model.named_parameters() if "project" in name]
    torch.testing.assert_close(case.model(X), before, atol=1e-6, rtol=1e-5)


class Mapped(nn.Module):
    """A map of what a function makes."""

    def __init__(self, project: nn.Module, join) -> None:
        super().__init__()
        self.project, self.join = project, join

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.join(x))


@pytest.mark.parametrize(
    ("project", "join"),
    [
        (nn.Linear(WIDTH, WIDTH // 2), lambda x: torch.cat((x, 2 * x), 0)),
        (nn.Linear(2 * WIDTH, 3), lambda x: torch.cat((x, 2 * x), -1)),
        (nn.Linear(2 * WIDTH, WIDTH), lambda x: torch.cat((x, x[:, :3], x[:, :5]), -1)),
        (nn.Linear(2 * WIDTH, WIDTH), lambda x: torch.cat((x, x[:, :5], x[:, :3]), -1)),
        (nn.Linear(2 * WIDTH, WIDTH), lambda x: x.repeat(1, 2)),
        (nn.Linear(WIDTH, WIDTH // 2), lambda x: torch.cat((x[:, :3], x[:, 3:]), -1)),
        (nn.Conv1d(2 * WIDTH, WIDTH, 3), lambda x: torch.cat((x.T, x.T), 0)[None]),
    ],
    ids=["along the batch", "another width", "three", "three again", "repeated", "unequal", "kernel of 3"],
)
def test_what_is_no_pair_of_the_outputs_width_stays(project, join):
    case = case_of(Mapped(project, join))
    with pytest.raises(ValueError, match="reads the concatenation of two tensors that are as wide"):
        sum_skip(case)
    assert case.model.project is project


def test_a_scale_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="scale is nan"):
        sum_skip(case_of(Blocks()), scale=float("nan"))


def test_a_recurrence_without_gates_is_told_what_to_write():
    model = nn.ModuleDict({"reader": nn.RNN(8, 16, 2, batch_first=True, bidirectional=True)})
    case = Case(model, lambda m, x: m["reader"](x)[0].sum(), [X[None]])
    with pytest.raises(ValueError, match="not applied: write") as raised:
        gated_recurrence(case)
    line = str(raised.value).split("write ")[1].split(",")[0:6]
    assert ",".join(line).startswith("model.reader = nn.LSTM(8, 16, num_layers=2, batch_first=True")
    with pytest.raises(ValueError, match=r"no nn\.RNN or nn\.RNNCell"):
        gated_recurrence(case_of(chain()))


@pytest.mark.parametrize("change", [add_residual, concat_skip, gated_skip, insert_norm])
@pytest.mark.parametrize("make", [Blocks, lambda: nn.Sequential(nn.Linear(8, 3), *chain())])
def test_copies_and_pickles_compute_the_same(change, make):
    case = case_of(make())
    change(case)
    expected = case.model(X)
    for twin in (case.copy().model, pickle.loads(pickle.dumps(case.model))):
        assert torch.equal(twin(X), expected)
