"""Progress bars for bytes, one a file."""

from __future__ import annotations

import sys
from typing import Any, final


@final
class Bars:
    """A bar for each file on standard error, where somebody looks on."""

    def __enter__(self) -> Bars:
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
            )
            self._progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._progress.start()
        return self

    def show(self, file: str, done: int, size: int) -> None:
        """Bytes that are there, and in all."""
        if self._progress is not None:
            if file not in self._tasks:
                self._tasks[file] = self._progress.add_task(file, total=size)
            self._progress.update(self._tasks[file], completed=done)

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()
