"""by_group: groups of gradients, chosen by name, each to at most its own norm."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unitygain.clip._clip import Clip
from unitygain.clip._gradients import Gradients
from unitygain.clip._rule import State, Stateless, least, require_threshold
from unitygain.stats.scale import combined_norm


@dataclass(frozen=True)
class _ByGroup(Stateless):
    groups: tuple[tuple[str, float], ...]

    name = "by_group"
    keeps_direction = False

    def decide(self, seen: Gradients, state: State) -> tuple[Tensor, State]:
        members: dict[int, list[int]] = {}
        for index, group in enumerate(seen.matched(self.name, tuple(pattern for pattern, _ in self.groups))):
            if group is not None:
                members.setdefault(group, []).append(index)
        norms = list(seen.norm.unbind())
        factors = [seen.number(1.0)] * len(norms)
        for group, chosen in members.items():
            factor = least(self.groups[group][1], combined_norm(torch.stack([norms[i] for i in chosen])))
            for index in chosen:
                factors[index] = factor
        return (torch.stack(factors) if factors else seen.norm), {}


def by_group(groups: Mapping[str, float]) -> Clip:
    """Scale the gradients of each group by min(1, c/‖g‖), with the norm of that group.

    Changes the direction, as soon as groups are cut by different factors; within a group it stays. Use it
    where parts of a model have losses or scales of their own: actor and critic, generator and
    discriminator, embedding and body.

    Cost: one pass.

    Args:
        groups: Largest norm by pattern, as in ``{"actor.*": 0.5, "critic.*": 1.0}``. A parameter belongs
            to the first pattern that its name matches; one that matches none is left alone, so that
            ``"*"`` at the end takes all others.

    Raises:
        ValueError: If there is no group or a norm is not above 0; on the call, if parameters have no names
            or a pattern matches none of them.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer = nn.Linear(2, 1)
        >>> layer.weight.grad, layer.bias.grad = torch.tensor([[3.0, 4.0]]), torch.tensor([0.5])
        >>> report = by_group({"weight": 1.0})(layer)
        >>> layer.weight.grad, layer.bias.grad
        (tensor([[0.6000, 0.8000]]), tensor([0.5000]))
    """
    if not groups:
        raise ValueError('groups is empty; give a largest norm for each, as in {"encoder.*": 1.0, "*": 0.5}')
    pairs = tuple((pattern, require_threshold(f"c of {pattern!r}", c)) for pattern, c in groups.items())
    return Clip(_ByGroup(pairs))
