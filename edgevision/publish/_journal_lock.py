"""The right to own a journal: one daemon a folder, whatever way the one before has died."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from pathlib import Path

from edgevision.errors import StateError


class JournalLock:
    """The right to own a journal; ends with the process, also by SIGKILL."""

    _held: set[Path] = set()  # noqa: RUF012  of this process: record locks do not keep it from itself
    _guard = threading.Lock()

    def __init__(self, path: Path) -> None:
        """Take the lock at `path`.

        Raises:
            StateError: another daemon has it.
            OSError: the file cannot be made.
        """
        self._path = path.absolute()
        with self._guard:
            if self._path in self._held:  # opening and closing it again would end the other's record lock
                raise StateError(
                    f"state_dir: the journal {self._journal} is held by an earlier sink of this very process that has not come "
                    "to its end; does its disk answer?"
                )
            # A record lock (fcntl) and not flock: a child that was forked must not keep a dead daemon's lock.
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                owner = os.pread(self._file, 32, 0).decode("ascii", "replace").strip()
                os.close(self._file)
                if error.errno not in {errno.EACCES, errno.EAGAIN}:
                    raise
                raise self._taken(owner or "unknown") from error
            self._held.add(self._path)
        with contextlib.suppress(OSError):  # a full disk: the number is only for people
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    @property
    def _journal(self) -> Path:
        return self._path.with_suffix(".sqlite")

    def _taken(self, owner: str) -> StateError:
        return StateError(
            f"state_dir: the journal {self._journal} is in use by another edgevision "
            f"(process {owner}): stop it, or give each daemon its own state_dir"
        )

    def release(self) -> None:
        """Give it up; may be called twice."""
        with self._guard:
            if self._path in self._held:
                self._held.discard(self._path)
                os.close(self._file)
