"""Gradients cut on their way: at the chosen place alone, and not at all after the undo."""

import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unitygain import clip


def chain() -> nn.Sequential:
    model = nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(3)))
    for layer in model:
        layer.weight.data = 2 * torch.eye(3)
    return model


def backward(model: nn.Module, slope: Tensor) -> list[Tensor]:
    model.zero_grad()
    (model(torch.ones(1, 3)) * slope).sum().backward()
    return [p.grad.clone() for p in model.parameters()]


SLOPE = torch.tensor([3.0, 4.0, 0.1])


def test_entries_are_cut_where_they_arrive_and_nowhere_else():
    model = chain()
    plain = backward(model, SLOPE)
    with clip.activation_gradients(model, 1.0, sites="1") as edges:
        cut = backward(model, SLOPE)
    assert torch.equal(cut[2], plain[2])
    # Arriving at the output of 1: 2·slope = (6, 8, 0.2), cut to (1, 1, 0.2); its input is 2.
    torch.testing.assert_close(cut[1], torch.tensor([1.0, 1.0, 0.2])[:, None].expand(3, 3) * 2)
    assert edges.frac_clipped == {"1": 1.0}


def test_norms_are_cut():
    model = chain()
    with clip.activation_gradients(model, 1.0, sites=["0", "2"], by="norm") as edges:
        cut = backward(model, SLOPE)
    unit = SLOPE / SLOPE.norm()
    torch.testing.assert_close(cut[2], unit[:, None].expand(3, 3) * 4)
    assert edges.sites == ("0", "2")
    assert edges.frac_clipped == {"0": 1.0, "2": 1.0}


def test_nothing_is_left_after_the_undo():
    model = chain()
    plain, keys = backward(model, SLOPE), list(model.state_dict())
    undo = clip.activation_gradients(model, 0.1, sites="*")
    waiting = (model(torch.ones(1, 3)) * SLOPE).sum()
    undo()
    undo()
    model.zero_grad()
    waiting.backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), plain, strict=True))
    assert all(map(torch.equal, backward(model, SLOPE), plain))
    assert list(model.state_dict()) == keys
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_gradient_below_the_threshold_keeps_its_bits():
    model = chain()
    plain = backward(model, SLOPE)
    with clip.activation_gradients(model, 1e6, sites="*") as edges:
        assert all(map(torch.equal, backward(model, SLOPE), plain))
    assert set(edges.frac_clipped.values()) == {0.0}


@pytest.mark.parametrize("by", ["value", "norm"])
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_what_is_not_finite_passes(by, bad):
    model = chain()
    with clip.activation_gradients(model, 1.0, sites="2", by=by) as edges:
        found = backward(model, torch.tensor([bad, 9.0, 9.0]))
    assert not found[2].isfinite().all()
    assert found[2][1, 0] == 36.0
    assert edges.frac_clipped == {"2": 0.0}


def test_every_output_of_every_call_is_cut():
    cell = nn.LSTMCell(2, 2)
    with clip.activation_gradients(cell, 1e-3, sites="") as edges:
        state = cell(torch.ones(1, 2))
        state = cell(torch.ones(1, 2), state)
        (100 * state[0]).sum().backward()
    assert edges.frac_clipped[""] > 0
    assert max(p.grad.abs().max().item() for p in cell.parameters()) < 0.02


def test_hooks_do_not_pile_up_over_steps():
    model = chain()
    with clip.activation_gradients(model, 1.0, sites="*") as edges:
        before = len(edges._hooks._handles)
        for _ in range(5):
            backward(model, SLOPE)
        assert len(edges._hooks._handles) == before


def test_wrong_arguments_say_what_to_do():
    with pytest.raises(ValueError, match="no module matches 'rnn'"):
        clip.activation_gradients(chain(), 1.0, sites="rnn")
    with pytest.raises(ValueError, match="by is 'sum'; use 'value' or 'norm'"):
        clip.activation_gradients(chain(), 1.0, sites="*", by="sum")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="c is -1"):
        clip.activation_gradients(chain(), -1, sites="*")


def test_a_model_that_is_clipped_inside_pickles_with_its_clip():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Identity())
    edges = clip.activation_gradients(model, 0.5, sites="1")
    twin, its_edges = pickle.loads(pickle.dumps((model, edges)))
    for one in (model, twin):
        (3 * one(torch.ones(1, 1))).sum().backward()
        assert one[0].weight.grad.item() == 0.5
    assert edges.frac_clipped == its_edges.frac_clipped == {"1": 1.0}
    its_edges()
    twin.zero_grad()
    (3 * twin(torch.ones(1, 1))).sum().backward()
    assert twin[0].weight.grad.item() == 3.0
    assert not twin[1]._forward_hooks
    assert model[1]._forward_hooks


def test_where_no_gradient_arrives_none_is_cut():
    class Cut(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> None:
            return None

    layer = nn.Sequential(nn.Linear(2, 2))
    stop = clip.activation_gradients(layer, 1e-3, "*")
    Cut.apply(layer(torch.ones(1, 2))).sum().backward()
    stop()
    assert all(p.grad is None or not p.grad.any() for p in layer.parameters())
