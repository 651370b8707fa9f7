"""Diagnoses of the zoo are shared among the processes of one run."""

from collections.abc import Iterator

import pytest
from zoo.diagnosis import SHARED


@pytest.fixture(scope="session", autouse=True)
def _shared_diagnoses(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[None]:
    if worker_id != "master":
        SHARED.folder = tmp_path_factory.getbasetemp().parent / "diagnoses"
        SHARED.folder.mkdir(exist_ok=True)
    yield
    SHARED.folder = None
