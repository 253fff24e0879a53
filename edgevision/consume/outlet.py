"""A file of JSON lines that holds every message once, whatever is killed when.

Its length is written down in the ledger together with the messages that it holds. What stands after that length when a consumer
starts was written and never marked: it is cut off, because the broker will send it again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgevision.errors import StateError


class JsonLinesFile:
    """Appends lines; one writer."""

    def __init__(self, path: Path, *, marked: tuple[str, int] | None) -> None:
        """Open for appending.

        Args:
            path: the file; made where it is not there.
            marked: path and length that the ledger knows, if any.

        Raises:
            StateError: it cannot be opened.
        """
        self._path = path
        self._name = str(path.absolute())
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            self.size_bytes = os.fstat(self._file).st_size
            if marked is not None and marked[0] == self._name and self.size_bytes > marked[1]:
                os.ftruncate(self._file, marked[1])
                self.size_bytes = marked[1]
        except OSError as error:
            raise StateError(f"--output {path} cannot be written: {error.strerror}") from error

    @property
    def mark(self) -> tuple[str, int]:
        """What the ledger has to know."""
        return self._name, self.size_bytes

    def write(self, lines: Sequence[bytes]) -> None:
        """Append lines, and wait until they are on the disk.

        Raises:
            StateError: they are not; the file is as long as it was.
        """
        if not lines:
            return
        content = b"".join(lines)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fdatasync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self.size_bytes)
            raise StateError(
                f"--output {self._path} cannot be written: {error.strerror}: make room on its disk"
            ) from error
        self.size_bytes += len(content)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
