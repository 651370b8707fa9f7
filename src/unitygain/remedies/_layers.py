"""Layers of a transformer: which weight plays which part, and which layer a branch belongs to."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from unitygain._case import Case
from unitygain.probe.linear_maps import find_weights
from unitygain.remedies._branches import Branch
from unitygain.remedies.calm_attention import PACKED, QUERIES

KEYS = {name.replace("query", "key").replace("q", "k").replace("Q", "K") for name in QUERIES} | {"key"}
NUMBERED = re.compile(r"(?:.*\.)?\d+(?=\.)")
Side = Literal["encoder", "decoder"]


@dataclass(frozen=True)
class Matrix:
    """One linear map of a branch: a view of its parameter, and whether it makes queries or keys."""

    values: Tensor
    asks: bool

    @property
    def fans(self) -> tuple[int, int]:
        """Inputs and outputs, in any order."""
        kernel = self.values[0, 0].numel()
        return self.values.shape[0] * kernel, self.values.shape[1] * kernel


def matrices_of(case: Case, branch: Branch) -> Iterator[Matrix]:
    """Yield the linear maps of a branch, packed ones apart: query, key and value."""
    known = {f"{w.path}.{w.name}".lstrip("."): w for w in find_weights(case.model)}
    for name in branch.weights:
        weight = known.get(name)
        if weight is None:
            continue
        values, own = weight.parameter.detach(), weight.path.rpartition(".")[2]
        if weight.name == "in_proj_weight" or own in PACKED:
            across = type(weight.module).__name__ == "Conv1D"
            parts = values.chunk(3, dim=1 if across else 0)
            yield from (Matrix(part, index < 2) for index, part in enumerate(parts))
        else:
            yield Matrix(values, own in QUERIES | KEYS or weight.name in {"q_proj_weight", "k_proj_weight"})


def layer_of(branch: Branch) -> str:
    """Return the path of the layer that a branch belongs to: up to the last number in its end's name."""
    found = NUMBERED.match(branch.end[0])
    return found.group() if found else branch.path


def sides(branches: Iterable[Branch]) -> dict[Branch, Side]:
    """Return which branches are a decoder's: those with it in their path, where others say encoder."""
    branches = list(branches)
    both = any("encoder" in b.path for b in branches) and any("decoder" in b.path for b in branches)
    return {b: "decoder" if both and "decoder" in b.path else "encoder" for b in branches}


def count_layers(branches: Iterable[Branch]) -> dict[Side, int]:
    """Return how many layers the encoder and the decoder have; a model of one kind counts as an encoder."""
    names: dict[Side, set[str]] = {"encoder": set(), "decoder": set()}
    for branch, side in sides(branches).items():
        names[side].add(layer_of(branch))
    return {side: len(layers) for side, layers in names.items()}


def require_post_norm(branches: Iterable[Branch], remedy: str) -> None:
    """Refuse branches that a norm layer does not follow.

    Raises:
        ValueError: If the sum with the stream is read by anything but a norm layer.
    """
    for branch in branches:
        if not branch.post:
            raise ValueError(
                f"no norm layer stands behind the sum with the branch that ends in {branch.path}; "
                f"{remedy} is for Post-LN blocks: use gpt2_residual_scale"
            )


def biases_in(case: Case, branches: Iterable[Branch]) -> list[nn.Parameter]:
    """Return the biases of the linear maps of the branches, each once."""
    paths = {name.rpartition(".")[0] for branch in branches for name in branch.weights}
    modules = {path: case.model.get_submodule(path) for path in paths}
    return [
        parameter
        for module in modules.values()
        for name, parameter in module.named_parameters(recurse=False)
        if "bias" in name
    ]
