"""One file from a server, a mirror or a folder: resumed where it broke off, checked, and there as a whole or not at all.

What arrives grows in a `.part` file, with a note beside it of which version (ETag) it is. A line that breaks, a Ctrl-C or a
full disk leaves both, and the next try goes on from there. Only what has the size and sha256 that were asked for gets its
name. The other side is hostile until then: it may truncate, stall, redirect, or lie about lengths; it can never make us write
more than was asked for, nor lead from https to http.
"""

from __future__ import annotations

import errno
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.errors import ModelError, StateError
from edgevision.fetch.http import SILENCE_S, TRIES, download
from edgevision.fetch.part import CHUNK_BYTES, Part, Wanted
from edgevision.retry import Backoff

__all__ = ["SILENCE_S", "TRIES", "Wanted", "fetch"]


def fetch(
    source: str,
    wanted: Wanted,
    target: Path,
    *,
    part: Path,
    on_progress: Callable[[int], None] = lambda _done: None,
    clock: Clock = SYSTEM_CLOCK,
    backoff: Backoff | None = None,
    silence_s: float = SILENCE_S,
) -> None:
    """Bring a file; afterwards `target` is whole and checked.

    Args:
        source: `https://...`, `http://...`, `file:...`, or a path.
        wanted: size and sha256.
        target: where it goes; its folder must be there, on the same disk as `part`.
        part: grows meanwhile, with `part` + `.json` beside it; stays after a failure, so that the next call resumes.
        on_progress: is told how many bytes there are.
        clock: waits between tries.
        backoff: how long.
        silence_s: when a line that says nothing is given up.

    Raises:
        ModelError: it cannot be had, or is not what was asked for.
        StateError: it cannot be written.
    """
    try:
        with Part(part, wanted, on_progress) as growing:
            if urlsplit(source).scheme.lower() in {"http", "https"}:
                download(source, growing, clock, backoff or Backoff(first_s=1.0, max_s=15.0), silence_s)
            else:
                _copy(source, growing)
            growing.check(source)
        part.replace(target)
        growing.forget()
        _sync_folder(target.parent)
    except OSError as failure:
        if failure.errno == errno.ENOSPC:
            raise StateError(
                f"{target.parent}: the disk is full: {target.name} needs {wanted.size} bytes; make room and pull again, what "
                "has arrived is kept"
            ) from failure
        raise StateError(f"{target}: cannot be written: {failure.strerror or failure}") from failure


def _copy(source: str, growing: Part) -> None:
    """From this machine's own disks; every time from the start, because that is quick."""
    path = _local(source)
    growing.restart()
    try:
        stream = path.open("rb")
    except OSError as failure:
        raise ModelError(f"{path}: cannot be read: {failure.strerror or failure}") from failure
    with stream:
        while block := stream.read(CHUNK_BYTES):
            growing.add(block)


def _local(source: str) -> Path:
    parts = urlsplit(source)
    if parts.scheme.lower() != "file":
        return Path(source)
    if parts.netloc not in {"", "localhost"}:
        raise ModelError(f"{source}: a file: address names no host; give file:///folder/file")
    return Path(urllib.request.url2pathname(parts.path))


def _sync_folder(folder: Path) -> None:
    """The new name outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
