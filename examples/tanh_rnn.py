"""A tanh RNN over 1,460 time steps of appliance power: its parameters look healthy, its memory is gone.

Needs ``pip install aeon``, which ships the series (ACSF1).

  unitygain diagnose examples/tanh_rnn.py:make_case
"""

import torch
from aeon.datasets import load_acsf1
from torch import Tensor, nn

import unitygain as ug

HIDDEN, BATCH = 64, 16


class SeriesClassifier(nn.Module):
    """Reads a series with a tanh RNN and classifies it by the last hidden state."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, classes)

    def forward(self, series: Tensor) -> Tensor:
        """Map (batch, time, 1) to (batch, classes) logits."""
        states, _ = self.rnn(series)
        return self.head(states[:, -1])


def make_case() -> ug.Case:
    """Return the patient, with Adam at 1e-3."""
    values, names = load_acsf1(split="train")
    series = torch.tensor(values, dtype=torch.float32).transpose(1, 2)
    classes = sorted(set(names))
    targets = torch.tensor([classes.index(name) for name in names])
    order = torch.randperm(len(series), generator=torch.Generator().manual_seed(0))
    batches = list(zip(series[order].split(BATCH), targets[order].split(BATCH), strict=True))
    return ug.Case(
        lambda: SeriesClassifier(len(classes)),
        loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        data=batches,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-3),
        name="tanh RNN over 1,460 steps of ACSF1",
    )
