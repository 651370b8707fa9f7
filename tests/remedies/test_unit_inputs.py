"""unit_inputs: only what enters the model is changed, whatever the loss does with the batch."""

import torch
from torch import nn

from unitygain import Case
from unitygain.remedies import unit_inputs


def test_targets_that_share_memory_with_inputs_are_not_touched():
    """Input and target are parts of one series, and the loss writes into its batch before the model runs."""
    series = 5 + torch.randn(4, 9)
    given = series.clone()

    def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        batch[1].mul_(2)
        return (model(batch[0]) - batch[1]).square().mean()

    case = Case(nn.Linear(8, 8), loss, [(series[:, :-1], series[:, 1:])])
    target = case.batches[0][1]
    undo = unit_inputs(case)
    assert case.batches[0][1] is target
    torch.testing.assert_close(case.batches[0][0].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    undo()
    assert torch.equal(series, given)


def test_inputs_of_parts_are_scaled_where_the_loss_calls_the_parts():
    """Of a model that is never called itself; what the loss alone uses stays."""
    model = nn.ModuleDict({
        "left": nn.Linear(3, 2),
        "right": nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)),
    })
    batch = (50 * torch.randn(8, 3), 7 + torch.randn(8, 4), 9 * torch.randn(8, 2))

    def loss(model: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return (model["left"](batch[0]) * model["right"](batch[1]) - batch[2]).square().mean()

    case = Case(model, loss, [batch])
    kept = model["right"][0].running_mean.clone()
    unit_inputs(case)
    for entered in case.batches[0][:2]:
        torch.testing.assert_close(entered.square().mean(), torch.tensor(1.0))
    assert case.batches[0][2] is batch[2]
    assert torch.equal(model["right"][0].running_mean, kept)
