"""The one progress bar: what is being done, how far it is, and how long it will take.

It goes to standard error, and only to a terminal, so that a log or a pipe never fills with half-drawn bars. It is taken
down again on every way out, Ctrl-C included, so that the terminal is left as it was.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

_Item = TypeVar("_Item")


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for `total` steps; the function it gives is called with the number of steps done since the last call."""
    if not sys.stderr.isatty():
        yield lambda _steps: None
        return
    from rich.console import Console  # noqa: PLC0415 - only where somebody looks on
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415 - likewise

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda steps: bar.advance(task, steps)


def track(what: str, items: Collection[_Item]) -> Iterator[_Item]:
    """The items one by one, with a bar that counts those that are done."""
    with progress(what, len(items)) as advance:
        for item in items:
            yield item
            advance(1)
