"""Parameters without a gradient that a re-entrant checkpoint runs, and what it is handed."""

from collections.abc import Mapping

from unitygain._types import Cause, Profile

FIX = "checkpoint(function, x, use_reentrant=False)  # or x.requires_grad_() before it"


def blame_checkpoint(profiles: Mapping[str, Profile]) -> list[Cause]:
    """Return the re-entrant checkpoint that parameters get no gradient from, where there is one."""
    facts = profiles["param_trainable"].facts
    path, count = str(facts.get("checkpoint", "")), int(facts.get("checkpointed", 0))
    if not count:
        return []
    return [
        Cause(
            f"checkpoint: the modules of {count} of them run under a re-entrant checkpoint in {path}, which "
            "returns a gradient only where a tensor that it is handed requires one, and none does "
            "(use_reentrant=True on the data itself, or on what a frozen layer made)",
            note="not tested: it needs another call of the checkpoint",
        )
    ]
