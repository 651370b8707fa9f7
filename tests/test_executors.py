"""Trials on executors: the same numbers bit for bit, and a sentence where the executor cannot be used."""

import functools
import math
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import unitygain as ug
import unitygain._treat
from unitygain._arena import Arena
from unitygain._candidates import Arm
from unitygain._case import CaseFailure
from unitygain._crew import Away, _origin_of, digest_of, hired
from unitygain._job import Task
from unitygain.report import Report


def make_model() -> nn.Module:
    parts = [part for _ in range(8) for part in (nn.Linear(12, 12), nn.ReLU(), nn.Dropout(0.1))]
    return nn.Sequential(*parts, nn.Linear(12, 2))


def compute_loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return (model(batch) - batch[:, :2]).square().mean()


def make_optimizer(parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, 3e-3)


def make_case(seed: int | None = 0) -> ug.Case:
    source = torch.Generator()
    source.manual_seed(source.seed() if seed is None else seed)
    batches = [torch.randn(16, 12, generator=source) for _ in range(2)]
    return ug.Case(make_model, compute_loss, batches, make_optimizer)


ARMS = [
    Arm((("rescale_weights", {"gain": 2**0.5}),)),
    Arm((("zero_biases", {}),)),
    Arm((("bypass_norm", {}),)),
]


def compare(case: ug.Case, executor: Executor | None) -> tuple[list[ug.Trial], str]:
    with hired(case, executor) as (crew, alone):
        assert isinstance(crew, Away) == (executor is not None and not alone)
        settings = Task(probes=2, seed=3)
        trials = Arena(case, crew, settings, 3, math.inf, lambda *_: None, 12).compare(ARMS)
    return trials, alone


def numbers(trials: list[ug.Trial]) -> list[object]:
    """All but the time."""
    return [
        (t.name, t.verdict, t.loss.hex(), t.better, t.interval, t.seeds, t.steps, t.note, dict(t.profiles))
        for t in trials
    ]


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    # Two processes that know nothing of this one.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.fixture(scope="module")
def alone() -> list[object]:
    trials, note = compare(make_case(), None)
    assert note == ""
    assert {t.verdict for t in trials} >= {"untreated", "not tried"}
    assert max(t.seeds for t in trials) >= 2
    return numbers(trials)


@pytest.mark.real
def test_processes_that_get_a_pickled_case_find_the_same_bits(pool, alone):
    trials, note = compare(make_case(), pool)
    assert (numbers(trials), note) == (alone, "")


@pytest.mark.real
def test_processes_that_build_the_case_again_find_the_same_bits(pool, alone):
    case = make_case()
    kept = compute_loss
    case.loss = lambda model, batch: kept(model, batch)
    case.rebuild = make_case
    trials, note = compare(case, pool)
    assert (numbers(trials), note) == (alone, "")


def test_threads_take_turns_and_find_the_same_bits(alone):
    state = torch.get_rng_state()
    with ThreadPoolExecutor(3) as executor:
        trials, note = compare(make_case(), executor)
    assert (numbers(trials), note) == (alone, "")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.real
def test_what_cannot_be_pickled_runs_here_and_says_so(pool, alone):
    case = make_case()
    case.loss = lambda model, batch: compute_loss(model, batch)
    trials, note = compare(case, pool)
    assert numbers(trials) == alone
    assert note.startswith(
        "the trials ran in this process, not on the executor: the case cannot be pickled ("
    )
    assert "set case.rebuild to one that returns the case" in note


@pytest.mark.real
def test_a_case_that_is_another_one_when_it_is_built_again_is_noticed(pool):
    case = make_case(1)
    case.rebuild = functools.partial(make_case, None)
    trials, note = compare(case, pool)
    assert len(trials) == 1 + len(ARMS)
    assert note.endswith("its weights or batches differ; seed what it draws")


def test_a_parametrised_model_is_named_where_torch_does_not_pickle_it():
    case = make_case()
    case._model = nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2)))
    with pytest.raises(
        CaseFailure, match=r"cannot be pickled \(module '0' is parametrised, .* set case.rebuild"
    ):
        _origin_of(case)


def test_the_note_is_in_the_report(monkeypatch):
    case = make_case()
    case.loss = lambda model, batch: compute_loss(model, batch)
    monkeypatch.setattr(unitygain._treat, "diagnose", lambda case, **_: Report({}, {}, (), (), 0.0))
    with ThreadPoolExecutor(1) as executor:
        report = ug.treat(case, steps=2, seeds=1, also=["zero_biases"], executor=executor)
        assert executor.submit(math.sqrt, 4.0).result() == 2.0
    (note,) = [item.reason for item in report.skipped if item.what == "executor"]
    assert note.startswith("the trials ran in this process, not on the executor: ")
    assert [trial.name for trial in report.trials] == ["untreated", "zero_biases()"]


@pytest.mark.real
def test_ctrl_c_cancels_what_no_worker_has_begun(pool):
    def stop(done: int, total: int, what: str) -> None:
        if "training" in what and "untreated" not in what:
            raise KeyboardInterrupt

    case = make_case()
    with hired(case, pool) as (crew, _):
        arena = Arena(case, crew, Task(probes=2), 3, math.inf, stop, 8)
        trials = arena.compare(ARMS)
    assert arena.interrupted
    assert (trials[0].seeds, trials[0].verdict) == (1, "untreated")
    assert pool.submit(math.sqrt, 9.0).result() == 3.0


def test_the_digest_sees_a_weight_and_a_batch():
    case, other = make_case(), make_case()
    assert digest_of(case) == digest_of(other) == digest_of(make_case())
    with torch.no_grad():
        next(other.model.parameters())[0, 0] += 1e-6
    assert digest_of(other) != digest_of(case)
    assert digest_of(make_case(1)) != digest_of(case)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore")
def test_dask_finds_the_same_bits(alone):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        trials, note = compare(make_case(), client.get_executor())
    assert (numbers(trials), note) == (alone, "")


def test_nothing_is_handed_out_after_the_deadline():
    case = make_case()
    with ThreadPoolExecutor(2) as executor, hired(case, executor) as (crew, _):
        asked: list[int] = []
        task = Task(ARMS[0].calls, steps=1)
        assert list(crew.run([task, task], time.monotonic() - 1, asked.append)) == []
        assert asked == []
        assert [place for place, _ in crew.run([task, task], math.inf, asked.append)] == [0, 1]
