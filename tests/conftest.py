"""One torch thread, a fixed seed, shapes checked on request, and one line when there is no browser."""

import os
import shutil

import pytest
import shapes
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

torch.set_num_threads(1)
# A change is judged by examples that it can be judged by again; elsewhere they are drawn anew.
settings.register_profile("same", derandomize=True)
settings.load_profile("same" if os.environ.get("CI") == "true" else "default")
# On request alone: with them a diagnosis of a small model takes 1.6 times as long.
if os.environ.get("UNITYGAIN_SHAPES") == "1":
    install_import_hook(shapes.modules(), "shapes.check")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def chromium() -> str | None:
    """Path of the browser that the browser tests drive."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without Chromium the browser tests skip, and fail under CI=true."""
    if item.get_closest_marker("browser") and not any(map(shutil.which, BROWSERS)):
        if os.environ.get("CI") == "true":
            pytest.fail("the browser tests need Chromium; apt-get install chromium", pytrace=False)
        pytest.skip("no Chromium here; apt-get install chromium")
