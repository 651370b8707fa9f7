"""What to do next about bad steps: two ladders, how long trouble lasts, and what was tried in it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unitygain.guard._actions import Action, Ladder, accept, clip, rewind, skip

ON_NONFINITE = (skip(10), rewind(3))
ON_SPIKE = (clip(5), skip(5), rewind(3), accept(1))


class Policy:
    """Chooses actions, and knows when trouble is over.

    Args:
        on_nonfinite: Actions for steps that cannot be used at all.
        on_spike: Actions for all other events.
        calm: Healthy steps in a row after which trouble is over and all actions are whole again.

    Raises:
        ValueError: If an action cannot help, or `calm` is below 1.
        TypeError: If a ladder holds something else than actions.
    """

    def __init__(self, on_nonfinite: Sequence[Action], on_spike: Sequence[Action], calm: int) -> None:
        if calm < 1:
            raise ValueError(f"calm is {calm}; wait for at least 1 healthy step")
        self.ladders = {"nonfinite": Ladder(on_nonfinite), "spike": Ladder(on_spike)}
        if any(action.name in ("clip", "accept") for action in on_nonfinite):
            raise ValueError("on_nonfinite: clip and accept take the step, which would make the weights NaN")
        self.calm = calm
        self.trouble = 0
        self.rewound = False
        self.tried: list[str] = []

    @property
    def rewinds(self) -> bool:
        """Whether any action needs snapshots."""
        return any(action.name == "rewind" for ladder in self.ladders.values() for action in ladder.actions)

    def choose(self, unusable: bool, possible: Callable[[Action], bool]) -> Action | None:
        """Return the next action for a bad step; None if nothing is left."""
        self.trouble = self.calm
        return self.ladders["nonfinite" if unusable else "spike"].take(possible)

    def count_healthy(self) -> bool:
        """Count a healthy step, and tell whether trouble is over with it."""
        if self.trouble == 0:
            return False
        self.trouble -= 1
        if self.trouble:
            return False
        self.rewound, self.tried = False, []
        for ladder in self.ladders.values():
            ladder.rest()
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return all that is remembered, as plain values."""
        return {
            "trouble": self.trouble,
            "rewound": self.rewound,
            "tried": list(self.tried),
            "ladders": {name: ladder.state_dict() for name, ladder in self.ladders.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`.

        Raises:
            ValueError: If it belongs to other actions.
        """
        for name, ladder in self.ladders.items():
            ladder.load_state_dict(state["ladders"][name])
        self.trouble, self.rewound = int(state["trouble"]), bool(state["rewound"])
        self.tried = [str(line) for line in state["tried"]]
