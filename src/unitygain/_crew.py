"""The crew: who does the jobs of the trials, this process or an executor, to the same numbers."""

import hashlib
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized
from torch.utils import _pytree as pytree

from unitygain._case import Case, CaseFailure
from unitygain._job import ALONE, Reading, Task, perform

Readings = Iterator[tuple[int, Reading]]
CHANGED = "the case that was built again is another one: its weights or batches differ; seed what it draws"


class Here:
    """Does the jobs in this process, one after the other."""

    workers = 1

    def __init__(self, case: Case) -> None:
        self._case = case

    def run(self, tasks: Sequence[Task], deadline: float, about: Callable[[int], None]) -> Readings:
        """Yield (place in `tasks`, reading) of every task that was begun before the deadline.

        Args:
            tasks: What to do.
            deadline: On the monotonic clock.
            about: Called with the place of a task that is about to be done.
        """
        for index, task in enumerate(tasks):
            if time.monotonic() > deadline:
                return
            about(index)
            yield index, perform(self._case, task)


class Away:
    """Hands the jobs to an executor.

    Args:
        executor: Any `concurrent.futures.Executor`.
        origin: How a worker gets the case.
    """

    def __init__(self, executor: Executor, origin: "Origin") -> None:
        self._executor = executor
        self._origin = origin
        self.workers = max(1, int(getattr(executor, "_max_workers", 1)))

    def run(self, tasks: Sequence[Task], deadline: float, about: Callable[[int], None]) -> Readings:
        """As `Here.run`; what a worker has begun is waited for, what it has not is cancelled."""
        if time.monotonic() > deadline:
            return
        futures = [self._executor.submit(work, self._origin, task, Settings.here()) for task in tasks]
        try:
            for index, future in enumerate(futures):
                about(index)
                reading = self._gather(future, deadline)
                if reading is not None:
                    yield index, reading
        finally:
            for future in futures:
                future.cancel()

    def _gather(self, future: "Future[Reading]", deadline: float) -> Reading | None:
        try:
            return future.result(timeout=min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX))
        except TimeoutError:
            return None if future.cancel() else future.result()
        except BrokenExecutor as error:
            return Reading(failure=f"the worker was lost: {error}")


@dataclass(frozen=True)
class Origin:
    """How a worker gets the case: by calling what builds it, or from its pickled bytes."""

    build: Callable[[], Case] | None
    pickled: bytes
    digest: str


@dataclass(frozen=True)
class Settings:
    """What of this process decides over the last bits of a result."""

    threads: int
    dtype: torch.dtype

    @classmethod
    def here(cls) -> "Settings":
        """The settings of this process."""
        return cls(torch.get_num_threads(), torch.get_default_dtype())

    def take(self) -> None:
        """Make them those of this process."""
        torch.set_num_threads(self.threads)
        torch.set_default_dtype(self.dtype)


# The case that a worker process holds, by its digest: built or unpickled once, not for every job.
_HELD: dict[str, Case] = {}


@contextmanager
def hired(case: Case, executor: Executor | None) -> Iterator[tuple[Here | Away, str]]:
    """Yield who does the jobs, and why it is not the executor where one was given.

    A case that says how it is built again (``case.rebuild``) is built so in the worker, and compared: its
    weights and batches must be the same. Any other is pickled, once.

    Side effects:
        Jobs on the executor, which is not shut down.
    """
    if executor is None:
        yield Here(case), ""
        return
    try:
        origin = _origin_of(case)
        _HELD[origin.digest] = case
        executor.submit(_get, origin).result()
    except Exception as error:
        yield Here(case), f"the trials ran in this process, not on the executor: {error}"
        return
    try:
        yield Away(executor, origin), ""
    finally:
        _HELD.pop(origin.digest, None)


def work(origin: Origin, task: Task, settings: Settings) -> Reading:
    """Do one job in a worker, under the settings of the process that asked for it."""
    with ALONE:
        before = Settings.here()
        settings.take()
        try:
            return perform(_case_of(origin), task)
        finally:
            before.take()


def _get(origin: Origin) -> None:
    with ALONE:
        _case_of(origin)


def _case_of(origin: Origin) -> Case:
    if origin.digest not in _HELD:
        _HELD.clear()
        case = origin.build() if origin.build is not None else pickle.loads(origin.pickled)
        if digest_of(case) != origin.digest:
            raise CaseFailure(CHANGED)
        _HELD[origin.digest] = case
    return _HELD[origin.digest]


def _origin_of(case: Case) -> Origin:
    digest = digest_of(case)
    if case.rebuild is not None:
        return Origin(case.rebuild, b"", digest)
    try:
        return Origin(None, pickle.dumps(case), digest)
    except Exception as error:
        made = next((path for path, m in case.model.named_modules() if is_parametrized(m)), None)
        why = str(error) or type(error).__name__
        if made is not None:
            why = f"module {made!r} is parametrised, and torch pickles no such module"
        raise CaseFailure(
            f"the case cannot be pickled ({why}); give functions that a "
            "module holds, or set case.rebuild to one that returns the case"
        ) from error


def digest_of(case: Case) -> str:
    """Return a digest of the weights and the batches, bit for bit."""
    found = hashlib.blake2b(digest_size=16)
    for leaf in pytree.tree_leaves((dict(case.model.state_dict()), case.batches)):
        if isinstance(leaf, Tensor):
            found.update(repr((leaf.dtype, tuple(leaf.shape))).encode())
            found.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(leaf, (int, float, str, bytes, bool)):
            found.update(repr(leaf).encode())
    return found.hexdigest()
