"""What every page is made from: templates, style and script, and data that stays data."""

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATES = Path(__file__).parent / "templates"


@cache
def asset(name: str) -> str:
    """Return the text of a file beside the templates."""
    return (_TEMPLATES / name).read_text("utf-8").strip()


def digest(script: str) -> str:
    """Return the hash by which the page's policy allows this script alone."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def template(name: str) -> "Template":
    """Return a template that escapes what it is given and knows every name."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    room = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return room.get_template(name)


def inert_json(data: Any) -> str:
    """Return JSON that stays data inside a script element: no ``<``, ``>`` or ``&`` is left unescaped."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def shared(items: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the data with each list of names written once, and its number in its places."""
    lists: list[list[str]] = []
    for item in items.values():
        for key in ("names", "rows", "columns"):
            names = item.get(key)
            if isinstance(names, list):
                if names not in lists:
                    lists.append(names)
                item[key] = lists.index(names)
    return {"lists": lists, "items": items}
