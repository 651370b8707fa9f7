"""Another loss that the case declares, in the place of its own."""

from unitygain._case import Case
from unitygain.remedies._snapshot import Undo


def put_variant(case: Case, name: str, advice: str) -> Undo:
    """Put a declared variant in the place of the case's loss.

    Args:
        case: The case; its loss function is replaced.
        name: The variant's name in ``case.variants``.
        advice: What to declare where it is missing.

    Returns:
        What gives the case its own loss function back.

    Raises:
        ValueError: If the case declares no variant of that name.
    """
    if name not in case.variants:
        declared = ", ".join(sorted(case.variants)) or "none"
        raise ValueError(f"no variant {name!r} (declared: {declared}); {advice}")
    given = case.loss
    case.loss = case.variants[name]

    def undo() -> None:
        case.loss = given

    return undo
