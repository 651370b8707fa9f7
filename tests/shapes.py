"""What checks shapes and dtypes under pytest: beartype, on those functions alone whose signature states them.

Other functions keep their own error messages for wrong types, which users see and tests pin.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

SOURCE = Path(__file__).parents[1] / "src"
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def modules() -> list[str]:
    """Return the modules that state shapes: only these are instrumented."""
    files = (
        file
        for file in SOURCE.rglob("*.py")
        if "import jaxtyping" in (text := file.read_text()) or "from jaxtyping" in text
    )
    return [
        ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for file in files
    ]


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate `function` with beartype if an annotation of it names a jaxtyping type."""
    return _check(function) if any(map(_states_shape, function.__annotations__.values())) else function


def _states_shape(hint: object) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(_states_shape, get_args(hint)))
