"""The picture of the phase diagram: what is on it, and what a file that is not ours turns into."""

import base64
import json
import math
import re

import pytest

from unitygain._types import Profile, Site
from unitygain.report._phase import DOTS, Frame, phase
from unitygain.report._phase_page import Layer, PhasePicture, render_phase

FACTS = {"phi": "tanh", "sigma_w_shown": 2.0, "sigma_b_shown": 0.5, "chi_1 = 1": "1,0 1.2,0.1 1.6,0.55"}


def profile(rows: list[tuple[float, ...]], facts: dict[str, float | str] | None = None) -> Profile:
    sites = tuple(Site(f"layer.{k}") for k in range(len(rows)))
    return Profile(
        "phase_point",
        "chi_1",
        sites,
        (0.5,) * len(rows),
        columns=("sigma_w2", "sigma_b2"),
        rows=tuple(rows),
        labels=("tanh: ordered",) * len(rows),
        facts=FACTS if facts is None else facts,
    )


def dots(picture: str) -> list[tuple[float, float]]:
    path = re.search(r'class="dot c4" d="([^"]*)"', picture)
    return [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)h0", path[1] if path else "")]


def test_layers_and_the_edge_are_where_they_are() -> None:
    found = phase(profile([(1.0, 0.0), (4.0, 0.25)]))
    assert found is not None
    frame = Frame(2.0, 0.5)
    assert dots(found.svg) == [frame.place((1.0, 0.0)), frame.place((2.0, 0.5))]
    assert dots(found.svg)[1][0] == pytest.approx(frame.left + frame.width, abs=0.1)
    assert 'class="edge" d="' + frame.path([(1, 0), (1.2, 0.1), (1.6, 0.55)]) in found.svg
    assert found.notes == ("2 layers: 2 ordered; median chi_1 0.5 per layer.",)


def test_very_many_layers_stay_a_small_picture() -> None:
    found = phase(profile([(1 + k / 50_000, k / 400_000) for k in range(50_000)]))
    assert found is not None
    assert 0 < len(dots(found.svg)) <= DOTS
    assert len(found.svg) < 15_000


@pytest.mark.parametrize("window", [0.0, -1.0, math.nan, math.inf, "wide"])
def test_a_window_that_is_none_draws_nothing(window: float | str) -> None:
    assert phase(profile([(1.0, 0.1)], {**FACTS, "sigma_w_shown": window})) is None


def test_numbers_that_are_none_are_left_out() -> None:
    bad = profile(
        [(math.nan, 0.1), (-1.0, 0.1), (1.0, math.inf), (1.0,), (1.0, 0.01)],
        {**FACTS, "chi_1 = 0.5": "a,b 1,nan 0.5,0.1 <script>,1", "phi": "tanh", "settles_to": "x"},
    )
    found = phase(bad)
    assert found is not None
    assert len(dots(found.svg)) == 1
    assert "nan" not in found.svg
    assert "script" not in found.svg
    assert phase(profile([(math.nan, 0.1)])) is None
    assert phase(None) is None


def test_the_page_stands_alone_and_holds_every_cell() -> None:
    nan = math.nan
    layers = [Layer(f"<b>{k}</b>", 1.0, 0.1, 0.5, 3.0, "ordered") for k in range(500)]
    picture = PhasePicture(
        "tanh",
        [0.0, 1.0, 2.0],
        [0.0, 0.5],
        [[0.0, 1.0, 20.0], [0.1, nan, nan]],
        [[0.0, math.inf, 3.0], [1.0, nan, nan]],
        {"chi_1 = 0.5": [(0.7, 0.0), (0.8, 0.4)], "chi_1 = 1": [(1.0, 0.0), (1.5, 0.4)]},
        1.4,
        layers,
        ("One & two.",),
    )
    page = render_phase(picture)
    assert "<b>" not in page.replace("<b>{{", "")
    assert "One &amp; two." in page
    assert "and 100 more" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])  # pyright: ignore[reportOptionalSubscript]
    cells = list(base64.b64decode(data["items"]["gain"]["cells"]))
    # The upper row has the larger biases; 0 is no fixed point, 1 the low end, 254 the high one.
    assert cells[:3] == [1, 0, 0]
    assert (cells[3], cells[4] in {127, 128}, cells[5]) == (1, True, 254)
    lengths = list(base64.b64decode(data["items"]["reach"]["cells"]))
    assert (lengths[3], lengths[4]) == (1, 254)
    assert page.count('class="void"') == 2
