"""A bar on stderr, for a search that takes minutes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int, str], None]


@contextmanager
def told(progress: Progress | bool | None) -> Iterator[Progress]:
    """Yield what is to be called with (done, total, what): the function given, a bar, or nothing.

    The bar is rich's, which is only then imported; it moves on a terminal or in a notebook, and elsewhere
    leaves one line.
    """
    if progress is True:
        from rich import progress as bars
        from rich.console import Console

        words = bars.TextColumn("{task.description}", markup=False)
        columns = (bars.BarColumn(24), bars.MofNCompleteColumn(), words, bars.TimeElapsedColumn())
        with bars.Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("starting", total=None)
            yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
            bar.update(task, completed=bar.tasks[0].total or 0, description="done")
    else:
        yield progress or (lambda done, total, what: None)
