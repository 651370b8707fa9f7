"""What a guard can do about a bad step, as small values in order; when all are used up it stops."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Name = Literal["skip", "clip", "lower_lr", "rewind", "accept"]


@dataclass(frozen=True, slots=True)
class Action:
    """One rung of a ladder: what to do, and at most how often before the next rung.

    Args:
        name: What is done.
        times: How often, until the guard has been calm again.
        factor: What the learning rate is multiplied by.
        restore: Healthy steps until the learning rate is back; None leaves it.
    """

    name: Name
    times: int
    factor: float = 1.0
    restore: int | None = None

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"{self.name}: times is {self.times}; leave the action out or give at least 1")
        if not 0 < self.factor <= 1:
            raise ValueError(f"{self.name}: the rate is multiplied by {self.factor}; give a number in (0, 1]")
        if self.restore is not None and self.restore < 1:
            raise ValueError(f"{self.name}: restore is {self.restore}; give at least 1 step, or None")


def skip(times: int = 5) -> Action:
    """Leave the step out: weights, moments and buffers stay as after the last good step."""
    return Action("skip", times)


def clip(times: int = 5) -> Action:
    """Take the step with the gradient scaled down to the median norm of the healthy history.

    The direction is kept. It needs a finite gradient and a history; where there is none the next rung acts.
    """
    return Action("clip", times)


def lower_lr(factor: float = 0.5, times: int = 3, restore: int | None = 100) -> Action:
    """Leave the step out and multiply all learning rates by `factor`; they climb back over healthy steps.

    The rates in the optimizer are changed only while it steps, so that any schedule goes on as it would.

    Args:
        factor: What the rates are multiplied by.
        times: How often before the next rung.
        restore: Healthy steps, geometrically, until they are back; None leaves them lowered.
    """
    return Action("lower_lr", times, factor, restore)


def rewind(times: int = 2, factor: float = 0.1, restore: int | None = 50) -> Action:
    """Go back to the weights of the newest snapshot, and of the one before it if that was no good.

    The optimizer starts anew from empty moments, which are poisoned where a spike went in and belong to
    other weights in any case; its first steps would be large, so that the rate starts at `factor` and
    climbs back. The data goes on: the batches since the snapshot are not replayed.

    Args:
        times: How often before the next rung.
        factor: What the learning rates are multiplied by at first.
        restore: Healthy steps, geometrically, until they are back; None leaves them lowered.
    """
    return Action("rewind", times, factor, restore)


def accept(times: int = 1) -> Action:
    """Take the level of now for the usual one: the step is taken and the histories begin again.

    For the end of a ladder: what is still there after a rewind comes from the data or the loss.
    """
    return Action("accept", times)


class Ladder:
    """Actions in order, each used up before the next; rested, they are whole again."""

    def __init__(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if not isinstance(action, Action):
                raise TypeError(
                    f"a ladder holds actions such as guard.skip(5); this is a {type(action).__name__}"
                )
        self.actions = tuple(actions)
        self._used = [0] * len(self.actions)

    def take(self, possible: Callable[[Action], bool]) -> Action | None:
        """Return the first action that is possible and not used up, and count it; None if there is none."""
        for rung, action in enumerate(self.actions):
            if self._used[rung] < action.times and possible(action):
                self._used[rung] += 1
                return action
        return None

    def rest(self) -> None:
        """Make all actions whole again."""
        self._used = [0] * len(self.actions)

    def state_dict(self) -> dict[str, Any]:
        """Return how much of each action is used up."""
        return {"actions": [action.name for action in self.actions], "used": list(self._used)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`.

        Raises:
            ValueError: If it belongs to other actions.
        """
        own = [action.name for action in self.actions]
        if list(state["actions"]) != own:
            raise ValueError(f"the state is of the actions {state['actions']}; this guard has {own}")
        self._used = [int(used) for used in state["used"]]
