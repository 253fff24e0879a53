"""The file that grows while something is fetched: resumed, counted, digested, and never larger than what is wanted."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, final

from edgevision.errors import ModelError, StateError

CHUNK_BYTES = 256 << 10
_NOTE_BYTES = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the file must be."""

    size: int
    """Bytes."""
    sha256: str
    """Hex."""


@final
class Part:
    """The file that grows, its digest, and the note of what it is a part of."""

    def __init__(self, path: Path, wanted: Wanted, on_progress: Callable[[int], None]) -> None:
        self.wanted = wanted
        self._path, self._note = path, path.with_name(path.name + ".json")
        self._on_progress = on_progress
        self._file: IO[bytes]
        self._digest = hashlib.sha256()
        self.done = 0
        self.resumed = False
        """Whether an earlier call's bytes are in it."""
        self.version = ""
        """The ETag of what is in it; empty where the server told none."""

    def __enter__(self) -> Part:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # No link is followed, and what other users may write to is none of ours.
        self._file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failure:
            self._file.close()
            raise StateError(f"{self._path}: another process is pulling this file; wait for it") from failure
        if os.fstat(self._file.fileno()).st_size <= self.wanted.size:
            while block := self._file.read(CHUNK_BYTES):
                self._digest.update(block)
                self.done += len(block)
            self.version, self.resumed = self._noted(), self.done > 0
        else:
            self.restart()
        free = shutil.disk_usage(self._path.parent).free
        if free < self.wanted.size - self.done:
            self._file.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._on_progress(self.done)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(
            OSError
        ):  # `check` has written all that counts, or what could not be written is told already
            self._file.close()

    def add(self, block: bytes) -> None:
        """Append what arrived."""
        if self.done + len(block) > self.wanted.size:
            raise ModelError(f"more than the {self.wanted.size} bytes that model.yaml says arrive: it is another file")
        self._file.write(block)
        self._digest.update(block)
        self.done += len(block)
        self._on_progress(self.done)

    def restart(self) -> None:
        """Throw away what there is."""
        self._file.seek(0)
        self._file.truncate()
        self._digest, self.done, self.resumed, self.version = hashlib.sha256(), 0, False, ""
        self._on_progress(0)

    def note(self, version: str) -> None:
        """Remember which version is arriving."""
        self.version = version
        self._note.write_text(json.dumps({"etag": version[:1024], "sha256": self.wanted.sha256}), encoding="utf-8")

    def _noted(self) -> str:
        try:
            with self._note.open("rb") as stream:
                said = json.loads(stream.read(_NOTE_BYTES))
            return str(said["etag"]) if said["sha256"] == self.wanted.sha256 else ""
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return ""  # only the ETag is lost by it: what is resumed is checked as a whole in the end

    def check(self, source: str) -> None:
        """Whether it is what was asked for; raises ModelError, and keeps nothing that is not."""
        digest = self._digest.hexdigest()
        if (self.done, digest) == (self.wanted.size, self.wanted.sha256):
            self._file.flush()
            os.fsync(self._file.fileno())
            return
        found, resumed = self.done, self.resumed
        self.restart()
        self.forget()
        what = (
            f"{found} bytes arrived, and model.yaml says {self.wanted.size}"
            if found != self.wanted.size
            else f"sha256: model.yaml says {self.wanted.sha256}, what arrived has {digest}"
        )
        hint = "; the part that was kept may have been the reason: pull again" if resumed else ""
        raise ModelError(
            f"{source}: {what}: it is another file, or was altered on its way; nothing of it is kept{hint}"
        )

    def forget(self) -> None:
        """Take the note away."""
        self._note.unlink(missing_ok=True)
