"""The table of docs/clipping.md names every clip with the defaults that it has."""

import inspect
import re

import pytest
from meta.tree import ROOT

from unitygain import clip

PAGE = (ROOT / "docs" / "clipping.md").read_text(encoding="utf-8")
ROWS = {found[1]: found[0] for line in PAGE.splitlines() if (found := re.match(r"\| `(\w+)\(.*\|$", line))}
CLIPS = {
    name: function
    for name, function in inspect.getmembers(clip, inspect.isfunction)
    if function.__annotations__.get("return") is clip.Clip
}


@pytest.mark.parametrize("name", CLIPS)
def test_every_clip_has_a_row_with_its_defaults(name):
    cells = [cell.strip() for cell in ROWS[name].strip("|").split("|")]
    default, direction = cells[2], cells[3]
    parameters = inspect.signature(CLIPS[name]).parameters.values()
    stated = [f"{p.name}={p.default!r}" for p in parameters if p.default is not p.empty]
    if name == "agc":
        stated = stated[:2]
    assert default == ", ".join(stated)
    text = CLIPS[name].__doc__ or ""
    assert direction == ("keeps" if "Keeps the direction" in text else "changes") or name == "chain"
    arguments = re.findall(r"\w+", ROWS[name].split("`")[1])[1:]
    assert arguments == [p.name for p in parameters]


def test_every_public_function_is_on_the_page():
    functions = [name for name, _ in inspect.getmembers(clip, inspect.isfunction)]
    assert not [name for name in functions if f"`{name}" not in PAGE]


@pytest.mark.parametrize(
    "name",
    [
        *CLIPS,
        "clip_grad_norm_",
        "per_sample",
        "grad_samples",
        "activation_gradients",
        "max_norm",
        "spectral_cap",
    ],
)
def test_every_transform_says_what_changes_direction_and_what_does_not(name):
    text = " ".join((getattr(clip, name).__doc__ or "").split())
    assert ("Keeps the direction" in text) != ("Changes the direction" in text)
    changes = text.partition("Changes the direction")[2].partition("Args:")[0]
    assert not changes or re.search(r"\bstays?\b", changes)
