"""logit_range: what logits of vectors of fixed length, or of squashes, can reach, against their entries."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unitygain.probe.ranges import Range, logit_range

Make = Callable[[Tensor, Tensor], Tensor]
BOUNDED: dict[str, tuple[Make, float]] = {
    "a product": (lambda x, w: F.normalize(x) @ F.normalize(w).T, 1.0),
    "a linear layer": (lambda x, w: F.linear(F.normalize(x), F.normalize(w)), 1.0),
    "a scale in front": (lambda x, w: 4 * F.normalize(x) @ F.normalize(w).T, 4.0),
    "a temperature behind": (lambda x, w: (F.normalize(x) @ F.normalize(w).T) / 0.1, 10.0),
    "norms by hand": (lambda x, w: x / x.norm(dim=1, keepdim=True) @ F.normalize(w).T, 1.0),
    "einsum": (lambda x, w: torch.einsum("bd,cd->bc", F.normalize(x), F.normalize(w)), 1.0),
    "cosine_similarity": (lambda x, w: F.cosine_similarity(x[:, None], w[None], -1) / 0.5, 2.0),
    "in batches": (lambda x, w: (F.normalize(x)[None] @ F.normalize(w).T[None])[0], 1.0),
    "constants": (lambda x, w: F.normalize(x) @ (3 * F.normalize(w.detach())).T, 3.0),
    "hidden": (lambda x, w: (F.normalize(x) @ F.normalize(w).T).masked_fill(torch.eye(6) > 0, -9e9), 1.0),
    "put together": (
        lambda x, w: torch.cat(
            [(F.normalize(x) * F.normalize(w)).sum(1, keepdim=True), 2 * F.normalize(x) @ F.normalize(w).T], 1
        ),
        2.0,
    ),
}
FREE: dict[str, Make] = {
    "no norm": lambda x, w: x @ w.T,
    "one norm": lambda x, w: F.normalize(x) @ w.T,
    "a learned scale": lambda x, w: w[0, 0] * (F.normalize(x) @ F.normalize(w).T),
    "a learned bias": lambda x, w: F.linear(F.normalize(x), F.normalize(w), w[:, 0]),
    "constants of any length": lambda x, w: F.normalize(x) @ w.detach().T,
    "half of them": lambda x, w: torch.cat([F.normalize(x) @ F.normalize(w).T, x[:, :1]], 1),
}


def drawn() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 8, requires_grad=True), torch.randn(6, 8, requires_grad=True)


@pytest.mark.parametrize("name", BOUNDED)
def test_the_bound_is_that_of_equal_directions(name):
    make, bound = BOUNDED[name]
    found = logit_range(make(*drawn()))
    assert found is not None
    assert (found.least, found.most, found.by) == (
        pytest.approx(-bound, rel=1e-3),
        pytest.approx(bound, rel=1e-3),
        "cosines",
    )
    x, _ = drawn()
    same = make(x, x.detach().clone().requires_grad_()).detach()
    assert float(same[same > -1e9].abs().max()) <= bound * (1 + 1e-5)


@pytest.mark.parametrize("name", FREE)
def test_what_can_grow_has_no_bound(name):
    assert logit_range(FREE[name](*drawn())) is None


def test_a_leaf_has_no_bound():
    assert logit_range(drawn()[0]) is None


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda x, w: torch.tanh(x @ w.T), Range(-1.0, 1.0, "tanh")),
        (lambda x, w: 3 * torch.tanh(x @ w.T), Range(-3.0, 3.0, "tanh")),
        (lambda x, w: torch.sigmoid(x @ w.T), Range(0.0, 1.0, "sigmoid")),
        (lambda x, w: -2 * torch.sigmoid(x @ w.T), Range(-2.0, 0.0, "sigmoid")),
        (lambda x, w: torch.sigmoid(x) @ w.T, None),
        (lambda x, w: torch.tanh(x @ w.T) * w[0, 0], None),
    ],
)
def test_a_squash_behind_the_last_layer_bounds_them(make, found):
    assert logit_range(make(*drawn())) == found
