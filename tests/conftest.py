"""One torch thread, a fixed seed, and nothing else: every test states its own tolerance."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
