"""The remedies that change the case around the model: loss scale, precision, learning rate, what trains."""

import pytest
import torch
from torch import nn
from zoo import PATIENTS

from unitygain._case import Case
from unitygain._rehearsal import train
from unitygain.clip import by_global_norm
from unitygain.remedies import (
    change_precision,
    drop_output_softmax,
    hold_parameters,
    loss_scale,
    lower_learning_rate,
    lower_weight_decay,
    unfreeze,
)

PATIENT = {patient.name: patient for patient in PATIENTS}


def plain(**options) -> Case:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    return Case(model, lambda m, x: m(x).sum(), [torch.ones(1, 2)], **options)


@pytest.mark.parametrize(
    ("apply", "given", "message"),
    [
        (loss_scale, {"scale": 3.0}, "scale is 3.0; give a positive power of two"),
        (loss_scale, {"scale": float("inf")}, "scale is inf; give a positive power of two"),
        (loss_scale, {"scale": 0.0}, "scale is 0.0; give a positive power of two"),
        (change_precision, {}, "declares no precision"),
        (unfreeze, {"names": "nowhere"}, "no frozen floating parameter is named 'nowhere'"),
        (lower_learning_rate, {"factor": 0.1}, "declares no optimizer"),
        (hold_parameters, {}, "declares no optimizer"),
        (lower_learning_rate, {"factor": -1.0}, "factor is -1.0; give a positive number"),
        (lower_weight_decay, {}, "declares no optimizer"),
        (lower_weight_decay, {"factor": -1.0}, "factor is -1.0; give 0 or a positive number"),
        (drop_output_softmax, {}, "no softmax or sigmoid module makes the model's output"),
    ],
)
def test_what_cannot_be_done_says_so(apply, given, message):
    with pytest.raises(ValueError, match=message):
        apply(plain(), **given)


def test_a_wrong_precision_is_refused():
    with pytest.raises(ValueError, match="precision 'float17' names no dtype"):
        change_precision(plain(precision="float16"), precision="float17")


@pytest.mark.parametrize("kind", ["softmax-twice", "softmax-twice-cnn", "sigmoid-twice"])
def test_the_softmax_at_the_end_goes_and_comes_back(kind):
    case = PATIENT[kind].make_case()
    before = [id(module) for module in case.model.modules()]
    statistics = [buffer.clone() for buffer in case.model.buffers()]
    logits = case.model[:-1](case.batches[0][0])
    undo = drop_output_softmax(case)
    if "cnn" not in kind:
        assert torch.equal(case.model(case.batches[0][0]), logits)
    undo()
    assert [id(module) for module in case.model.modules()] == before
    assert len(statistics) == len(list(case.model.buffers()))


def test_looking_for_the_softmax_changes_no_statistic():
    case = PATIENT["softmax-twice-cnn"].make_case()
    before = [buffer.clone() for buffer in case.model.buffers()]
    drop_output_softmax(case)
    assert all(torch.equal(a, b) for a, b in zip(before, case.model.buffers(), strict=True))


def test_a_softmax_inside_the_model_is_not_taken():
    """Attention weights are no output: only what the model returns is."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Softmax(-1), nn.Linear(2, 2), nn.Sigmoid())
    drop_output_softmax(Case(model, lambda m, x: m(x).sum(), [torch.ones(1, 2)]))
    assert [type(part).__name__ for part in model] == ["Linear", "Softmax", "Linear", "Identity"]


def test_a_scaled_loss_scales_every_gradient_by_the_same_power():
    case = PATIENT["mlp-relu-he-20"].make_case()
    parameters = list(case.model.parameters())
    given = case.loss
    before = torch.autograd.grad(case.compute_loss(case.batches[0]), parameters)
    undo = loss_scale(case, scale=2.0**-12)
    scaled = torch.autograd.grad(case.compute_loss(case.batches[0]), parameters)
    assert all(torch.equal(a * 2.0**-12, b) for a, b in zip(before, scaled, strict=True))
    undo()
    assert case.loss is given
    assert case.clip is None


@pytest.mark.parametrize("clip", [None, by_global_norm(0.1)])
def test_a_scaled_loss_trains_the_same_weights(clip):
    """A power of two rounds nothing: what is multiplied before backward and divided after it is as it was."""

    def trained(scale: float | None) -> list[torch.Tensor]:
        case = PATIENT["mlp-relu-he-20"].make_case()
        case.optimizer, case.clip = lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9), clip
        if scale is not None:
            loss_scale(case, scale=scale)
        train(case, 3)
        return list(case.model.parameters())

    assert all(torch.equal(a, b) for a, b in zip(trained(None), trained(65536.0), strict=True))


def test_a_lower_rate_reaches_every_group_of_a_factory_and_of_an_instance():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[1].parameters()}]
    optimizer = torch.optim.SGD(groups, 0.1)
    case = Case(model, lambda m, x: m(x).sum(), [torch.ones(1, 2)], optimizer=optimizer)
    undo = lower_learning_rate(case, factor=0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.025]
    undo()
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    case = PATIENT["step-adam-huge"].make_case()
    given = case.optimizer
    undo = lower_learning_rate(case, factor=0.25)
    built = case.build_optimizer()
    assert built is not None
    assert [group["lr"] for group in built.param_groups] == [0.25]
    undo()
    assert case.optimizer is given


def test_every_group_decays_in_proportion_and_comes_back():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = [{"params": model[0].parameters(), "weight_decay": 0.5}, {"params": model[1].parameters()}]
    optimizer = torch.optim.AdamW(groups, 0.1, weight_decay=0.25)
    case = Case(model, lambda m, x: m(x).sum(), [torch.ones(1, 2)], optimizer=optimizer)
    undo = lower_weight_decay(case, factor=0.25)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.125, 0.0625]
    undo()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.25]
    case = PATIENT["decay-coupled-adam"].make_case()
    given = case.optimizer
    undo = lower_weight_decay(case, factor=0.0)
    built = case.build_optimizer()
    assert built is not None
    assert [group["weight_decay"] for group in built.param_groups] == [0.0]
    undo()
    assert case.optimizer is given


def test_without_a_decay_there_is_none_to_lower():
    with pytest.raises(ValueError, match="no group of the optimizer has a weight decay above 0"):
        lower_weight_decay(plain(optimizer=lambda p: torch.optim.SGD(p, 0.1)))


@pytest.mark.parametrize("given", ["instance", "factory"])
def test_what_the_optimizer_was_not_given_is_trained_and_given_back(given):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))

    def build(parameters):
        return torch.optim.Adam(list(parameters)[2:], lr=0.03, betas=(0.5, 0.9))

    optimizer = build(model.parameters()) if given == "instance" else build
    case = Case(model, lambda m, x: m(x).square().sum(), [torch.ones(1, 2)], optimizer)
    undo = hold_parameters(case, names="0.*")
    built = case.build_optimizer()
    assert [len(group["params"]) for group in built.param_groups] == [2, 2]
    assert (built.param_groups[1]["lr"], built.param_groups[1]["betas"]) == (0.03, (0.5, 0.9))
    before = model[0].bias.detach().clone()
    case.compute_loss(case.batches[0]).backward()
    built.step()
    assert not torch.equal(model[0].bias, before)
    with pytest.raises(ValueError, match="holds every trainable parameter"):
        hold_parameters(case)
    undo()
    assert case.optimizer is optimizer
    left = case.build_optimizer()
    assert [len(group["params"]) for group in left.param_groups] == [2]
    assert not {id(p) for p in left.state} & {id(p) for p in model[0].parameters()}


def test_an_optimizer_of_one_group_is_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.LBFGS(model[1].parameters())
    with pytest.raises(ValueError, match="LBFGS takes no further group"):
        hold_parameters(Case(model, lambda m, x: m(x).sum(), [torch.ones(1, 2)], optimizer))
    assert len(optimizer.param_groups) == 1


def test_unfreeze_takes_the_named_ones_alone():
    case = PATIENT["frozen-in-between"].make_case()
    frozen = {name for name, p in case.model.named_parameters() if not p.requires_grad}
    undo = unfreeze(case, names="layers.1.linear?.weight")
    left = {name for name, p in case.model.named_parameters() if not p.requires_grad}
    assert frozen - left == {"layers.1.linear1.weight", "layers.1.linear2.weight"}
    undo()
    assert {name for name, p in case.model.named_parameters() if not p.requires_grad} == frozen


def test_unfreeze_hands_an_optimizer_what_it_was_built_without():
    model = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 1))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    undo = unfreeze(Case(model, lambda m, x: m(x).sum(), [torch.ones(1, 2)], optimizer), names="0.*")
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]
    undo()
    assert [len(group["params"]) for group in optimizer.param_groups] == [2]
    assert not any(parameter.requires_grad for parameter in model[0].parameters())
