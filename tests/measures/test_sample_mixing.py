"""sample_mixing against closed forms and dense Jacobians, and what it says of how samples meet."""

import math
from collections.abc import Callable

import pytest
import torch
from measures.reading import measured, squares
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from zoo import mixed
from zoo.patient import classify

from unitygain._case import Case
from unitygain._types import Profile
from unitygain.probe.trace import Gap

PATIENTS = {patient.name: patient for patient in (*mixed.sick(), *mixed.healthy())}


def mixing(case: Case) -> Profile | None:
    """Return the profile, if there is one."""
    return measured(case, "sample_mixing").get("sample_mixing")


class Product(nn.Module):
    """Multiplies the rows by a matrix, between two maps."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 3), nn.Linear(3, 2)
        self.matrix = nn.Parameter(matrix)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.matrix @ self.inner(x))


@pytest.mark.parametrize("kind", ["full", "lower", "upper"])
def test_a_product_from_the_left_has_the_shares_of_its_rows(kind: str) -> None:
    torch.manual_seed(1)
    matrix = {"full": lambda m: m, "lower": torch.tril, "upper": torch.triu}[kind](torch.randn(6, 6))
    profile = mixing(squares(Product(matrix.double()), 6, 3))
    squared = matrix.double() ** 2
    shares = [float(1 - squared[row, row] / squared[row].sum()) for row in (0, -1)]
    assert profile is not None
    assert profile.values == pytest.approx([max(shares)], rel=1e-5)
    assert (str(profile.sites[0]), profile.facts["module"]) == ("(model)", "Product")


def test_a_recurrent_layer_over_the_batch_has_the_share_of_its_dense_jacobian() -> None:
    model = mixed.Recurrent(
        nn.LSTM, mixed.as_it_is, mixed.last_of_second, batch_first=False, width=8, outputs=1
    )
    case = squares(model, 5, 4, mixed.FEATURES)
    profile = mixing(case)
    jacobian = torch.autograd.functional.jacobian(model, case.batches[0])
    assert isinstance(jacobian, Tensor)
    energy = jacobian.squeeze(1).square().sum((2, 3))
    assert profile is not None
    assert profile.values == pytest.approx([float(1 - energy[-1, -1] / energy[-1].sum())], rel=1e-5)
    assert (profile.labels, str(profile.sites[0])) == (("recurrent",), "rnn")


KINDS = {
    "mixed-encoder-over-batch": ("attention", "encoder.layers.0.self_attn"),
    "mixed-encoder-turned": ("attention turned", "encoder.layers.0.self_attn"),
    "mixed-lstm-over-batch": ("recurrent", "rnn"),
    "mixed-gru-turned": ("recurrent turned", "rnn"),
    "mixed-gru-of-a-view": ("view", "(model)"),
    "mixed-states-of-a-view": ("view", "(model)"),
    "mixed-softmax-over-batch": ("softmax", "(model)"),
    "mixed-length-over-batch": ("norm", "(model)"),
    "mixed-attention-by-hand": ("rows", "(model)"),
    "mixed-tagger-over-batch": ("attention", "attention"),
    "apart-encoder": ("", "(model)"),
    "apart-encoder-time-first": ("", "(model)"),
    "apart-lstm": ("", "(model)"),
    "apart-one-sequence": ("one sequence", "rnn"),
    "apart-rows-attend-on-purpose": ("one sequence", "layer.self_attn"),
    "apart-graph": ("linked", "(model)"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_brings_samples_together_is_named_where_they_first_meet(name: str) -> None:
    profile = mixing(PATIENTS[name].make_case())
    assert profile is not None
    assert (profile.labels[0], str(profile.sites[0])) == KINDS[name]
    assert (profile.values[0] < 1e-6) == (KINDS[name][0] == "")


@pytest.mark.parametrize(
    "name",
    [
        "apart-lstm-of-a-square",
        "apart-lstm-of-time-first",
        "apart-lstm-of-a-time-first-square",
        "apart-tagger-time-first",
    ],
)
def test_where_samples_may_lie_along_the_second_dimension_nothing_is_said_against_them(name: str) -> None:
    profile = mixing(PATIENTS[name].make_case())
    assert profile is None or profile.values[0] < 1e-6


class Pairs(nn.Module):
    """Every sample beside every other."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ x.mT


class Spread(nn.Module):
    """Divides by the spread over the batch, as the discriminators of some GANs do."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (1 + x.std(0))


class Set(nn.Module):
    """Attention over all samples as one set, which is said by a dimension in front."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)[None]
        return self.attention(rows, rows, rows)[0][0].view(x.shape)


def _wide(*layers: nn.Module) -> Case:
    head = nn.Sequential(nn.Linear(mixed.FEATURES, 12), *layers, nn.Linear(12, mixed.CLASSES))
    return Case(head, classify, mixed.vectors())


LEFT: dict[str, Callable[[], Case]] = {
    "batch norm": lambda: _wide(nn.BatchNorm1d(12)),
    "pairs": lambda: Case(nn.Sequential(nn.Linear(6, 12), Pairs()), classify, mixed.vectors()),
    "one sample": lambda: Case(nn.Linear(6, 4), classify, mixed.vectors(1)),
    "runs twice": lambda: Case(
        nn.Linear(6, 4), lambda m, b: (m(b[0]) - m(b[0].flip(0))).square().mean(), mixed.vectors()
    ),
    "a part runs": lambda: Case(
        nn.Sequential(nn.Linear(6, 4)),
        lambda m, b: F.cross_entropy(next(m.children())(b[0]), b[1]),
        mixed.vectors(),
    ),
    "targets of another length": lambda: Case(
        nn.Linear(6, 4), lambda m, b: m(b[0]).square().mean(), [(torch.randn(8, 6), torch.randn(3))]
    ),
    "lengths differ": lambda: Case(
        nn.Linear(6, 4), classify, [batch for rows in (7, 9, 8) for batch in mixed.vectors(rows)]
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_says_nothing_about_samples_is_not_measured(name: str) -> None:
    assert mixing(LEFT[name]()) is None


def test_samples_that_meet_on_purpose_are_labelled_so() -> None:
    spread = mixing(_wide(Spread()))
    whole = mixing(
        Case(
            nn.Sequential(nn.Linear(6, 3), Set(), nn.Flatten(), nn.Linear(12, 4)),
            classify,
            [(torch.randn(8, 4, 6), torch.randint(4, (8,)))],
        )
    )
    assert spread is not None
    assert whole is not None
    assert (spread.labels, whole.labels) == (("pooled",), ("one sequence",))
    assert min(*spread.values, *whole.values) > 1e-4


@pytest.mark.parametrize(
    "other", [lambda x: x.flip(0), lambda x: x.roll(1, 0), lambda x: x[torch.randperm(len(x))]]
)
def test_samples_that_are_blended_are_linked(other: Callable[[Tensor], Tensor]) -> None:
    class Blend(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0.7 * x + 0.3 * other(x)

    model = nn.Sequential(Blend(), nn.Linear(mixed.FEATURES, 1), nn.Flatten(), nn.Linear(mixed.STEPS, 4))
    profile = mixing(Case(model, classify, mixed.labelled()))
    assert profile is not None
    assert profile.labels == ("linked",)


def test_reentrant_checkpoints_are_a_gap() -> None:
    class Saved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(mixed.FEATURES, 4)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.map, x, use_reentrant=True)

    with pytest.raises(Gap, match="use_reentrant"):
        mixing(Case(Saved(), classify, mixed.vectors()))


def test_an_output_that_does_not_depend_on_the_input_is_no_alarm() -> None:
    profile = mixing(Case(_Constant(), classify, mixed.vectors()))
    assert profile is None or math.isnan(profile.values[0])


class _Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.expand(len(x), 4)
