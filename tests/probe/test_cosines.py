"""logit_bound: what logits of vectors of fixed length can reach, against their largest entries."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unitygain.probe.cosines import logit_bound

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
    assert logit_bound(make(*drawn())) == pytest.approx(bound, rel=1e-3)
    x, _ = drawn()
    same = make(x, x.detach().clone().requires_grad_()).detach()
    assert float(same[same > -1e9].abs().max()) <= bound * (1 + 1e-5)


@pytest.mark.parametrize("name", FREE)
def test_what_can_grow_has_no_bound(name):
    assert logit_bound(FREE[name](*drawn())) is None


def test_a_leaf_has_no_bound():
    assert logit_bound(drawn()[0]) is None
