"""What is going on, on stderr: notes, and a bar where a person watches."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unitygain.cli._faults import plain

REFRESH_SECONDS = 0.1
Step = Callable[[int, int, str], None]


class Voice:
    """Says on stderr what is going on, unless it was asked to be quiet.

    Args:
        quiet: Say nothing.
    """

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.doing = "starting"

    def say(self, sentence: str) -> None:
        """Print one line."""
        if not self.quiet:
            sys.stderr.write(f"{sentence}\n")
            sys.stderr.flush()

    @contextmanager
    def bar(self) -> Iterator[Step]:
        """Yield ``(done, total, what)``, which moves a bar on a terminal and is silent elsewhere."""
        if self.quiet or not sys.stderr.isatty():
            yield self._note
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (BarColumn(24), TextColumn("{task.fields[what]}", markup=False), TimeElapsedColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
            task = progress.add_task("", what="", total=None)
            last = 0.0

            def step(done: int, total: int, what: str) -> None:
                nonlocal last
                self._note(done, total, what)
                progress.update(task, completed=done, total=total, what=plain(what))
                if done >= total or time.monotonic() - last >= REFRESH_SECONDS:
                    progress.refresh()
                    last = time.monotonic()

            yield step

    def _note(self, done: int, total: int, what: str) -> None:
        self.doing = f"{plain(what)} ({done} of {total})"
