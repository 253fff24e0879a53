"""One file from a server, a mirror or a folder: resumed where it broke off, checked, and there as a whole or not at all.

What arrives grows in a `.part` file, with a note beside it of which version (ETag) it is. A line that breaks, a Ctrl-C or a
full disk leaves both, and the next try goes on from there. Only what has the size and sha256 that were asked for gets its
name. The other side is hostile until then: it may truncate, stall, redirect, or lie about lengths; it can never make us write
more than was asked for, nor lead from https to http.

HTTP: RFC 9110, 13.1.5 (If-Range), 14 (Range), 15.4 (redirects). Proxies are urllib's: `https_proxy`, `http_proxy`, `no_proxy`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, final
from urllib.parse import urljoin, urlsplit

from edgevision._version import __version__
from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.errors import ModelError, StateError
from edgevision.retry import Backoff

_log = logging.getLogger(__name__)

SILENCE_S = 30.0
"""Without a byte for so long, or with less than `LEAST_BYTES_PER_S`, the line is given up and tried anew."""
LEAST_BYTES_PER_S = 256
MOST_REDIRECTS = 5
TRIES = 5
"""In a row that brought (nearly) nothing; one that brings its share of the file begins the count again."""
SHARE = 0.01
_CHUNK = 256 << 10
_NOTE_BYTES = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the file must be."""

    size: int
    """Bytes."""
    sha256: str
    """Hex."""


class _BrokenOffError(Exception):
    """This try is over, the next may do better; the text says why."""


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
        with _Part(part, wanted, on_progress) as growing:
            if urlsplit(source).scheme.lower() in {"http", "https"}:
                _download(source, growing, clock, backoff or Backoff(first_s=1.0, max_s=15.0), silence_s)
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


@final
class _Part:
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

    def __enter__(self) -> _Part:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # No link is followed, and what other users may write to is none of ours.
        self._file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failure:
            self._file.close()
            raise StateError(f"{self._path}: another process is pulling this file; wait for it") from failure
        if os.fstat(self._file.fileno()).st_size <= self.wanted.size:
            while block := self._file.read(_CHUNK):
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


def _copy(source: str, growing: _Part) -> None:
    """From this machine's own disks; every time from the start, because that is quick."""
    path = _local(source)
    growing.restart()
    try:
        stream = path.open("rb")
    except OSError as failure:
        raise ModelError(f"{path}: cannot be read: {failure.strerror or failure}") from failure
    with stream:
        while block := stream.read(_CHUNK):
            growing.add(block)


def _local(source: str) -> Path:
    parts = urlsplit(source)
    if parts.scheme.lower() != "file":
        return Path(source)
    if parts.netloc not in {"", "localhost"}:
        raise ModelError(f"{source}: a file: address names no host; give file:///folder/file")
    return Path(urllib.request.url2pathname(parts.path))


def _download(source: str, growing: _Part, clock: Clock, backoff: Backoff, silence_s: float) -> None:
    opener = urllib.request.build_opener(_NoRedirects)
    opener.addheaders = [("User-Agent", f"edgevision/{__version__}"), ("Accept-Encoding", "identity")]
    never = threading.Event()
    while growing.done < growing.wanted.size:
        before = growing.done
        try:
            _one_try(opener, source, growing, clock, silence_s)
            why = f"broke off after {growing.done} of {growing.wanted.size} bytes"
        except _BrokenOffError as failure:
            why = str(failure)
        if growing.done >= growing.wanted.size:
            return
        if growing.done - before >= SHARE * growing.wanted.size:
            backoff.reset()
        delay_s = backoff.next_delay_s()
        if backoff.attempts >= TRIES:
            kept = (
                f"; {growing.done} of {growing.wanted.size} bytes are kept: pull again to go on" if growing.done else ""
            )
            raise ModelError(f"{source}: {why}; given up after {TRIES} tries{kept}")
        _log.warning("download is resumed", extra={"fields": {"reason": why, "seconds": round(delay_s, 1)}})
        clock.wait(never, delay_s)


def _one_try(
    opener: urllib.request.OpenerDirector, source: str, growing: _Part, clock: Clock, silence_s: float
) -> None:
    """Ask for what is missing and take what comes.

    Raises:
        _BrokenOffError: the line failed, or the server may do better later.
        ModelError: the server has not what is wanted.
    """
    headers = {}
    if growing.done:
        headers["Range"] = f"bytes={growing.done}-"
        if growing.version and not growing.version.startswith("W/"):  # weak ones promise no bytes (RFC 9110, 13.1.5)
            headers["If-Range"] = growing.version
    try:
        with _opened(opener, source, headers, silence_s) as response:
            _check_answer(response, growing)
            for block in _blocks(response, clock, silence_s):
                growing.add(block)
    except urllib.error.HTTPError as failure:
        failure.close()
        if failure.code == 416 and growing.done:  # the file there is shorter than our part
            growing.restart()
            raise _BrokenOffError("the server's file is shorter than the part that was kept") from failure
        if failure.code in {408, 425, 429} or failure.code >= 500:
            raise _BrokenOffError(f"the server says {failure.code} {failure.reason}") from failure
        raise ModelError(f"{source}: the server says {failure.code} {failure.reason}") from failure
    except ModelError as failure:
        text = str(failure)
        raise failure if text.startswith(source) else ModelError(f"{source}: {text}") from failure
    except TimeoutError as failure:
        raise _BrokenOffError(f"no answer for {silence_s:g} s") from failure
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as failure:
        reason = getattr(failure, "reason", None) or failure
        raise _BrokenOffError(f"{type(reason).__name__ if not str(reason) else reason}") from failure


def _check_answer(response: Any, growing: _Part) -> None:
    """Whether what comes is the rest, or the whole, of what is wanted."""
    wanted, headers = growing.wanted.size, response.headers
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ModelError(f"the server sends it as {headers['Content-Encoding']}, which was not asked for")
    version = headers.get("ETag", "")
    if response.status == 206:
        told = re.fullmatch(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19}|\*)", headers.get("Content-Range", ""))
        if not growing.done or told is None or int(told[1]) != growing.done:
            growing.restart()
            raise _BrokenOffError(f"the server sends another range: {headers.get('Content-Range')!r}")
        if version != growing.version and growing.version:
            growing.restart()
            raise _BrokenOffError("the server has another version of it now")
        total = int(told[2]) if told[2] != "*" else wanted
    else:
        if growing.done:  # it knows no ranges, or has another version
            growing.restart()
        length = headers.get("Content-Length", "")
        total = int(length) if re.fullmatch(r"\d{1,19}", length) else wanted
    if total != wanted:
        raise ModelError(f"the server offers {total} bytes, and model.yaml says {wanted}: it is another file")
    if not growing.done:
        growing.note(version)


def _blocks(response: Any, clock: Clock, silence_s: float) -> Iterator[bytes]:
    """What arrives; a trickle counts as silence."""
    began_ns, heard = clock.monotonic_ns(), 0
    while block := response.read1(_CHUNK):
        yield block
        heard += len(block)
        passed_s = (clock.monotonic_ns() - began_ns) / 1e9
        if passed_s > silence_s:
            if heard < LEAST_BYTES_PER_S * passed_s:
                raise _BrokenOffError(f"only {heard} bytes in {passed_s:.0f} s")
            began_ns, heard = clock.monotonic_ns(), 0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to `_opened`: urllib would read their whole body, follow them out of https, and to ftp."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: nobody follows."""


def _opened(opener: urllib.request.OpenerDirector, source: str, headers: dict[str, str], silence_s: float) -> Any:
    """The answer behind a few redirects, none of which leads out of https or to something that is no web address."""
    address = source
    for _ in range(MOST_REDIRECTS + 1):
        request = urllib.request.Request(address, headers=headers)  # noqa: S310  http or https: looked at here and by `fetch`
        try:
            return opener.open(request, timeout=silence_s)
        except urllib.error.HTTPError as failure:
            if failure.code not in {301, 302, 303, 307, 308} or not failure.headers.get("Location"):
                raise
            failure.close()
            to = urljoin(address, failure.headers["Location"])
        before, after = urlsplit(address).scheme.lower(), urlsplit(to).scheme.lower()
        if after not in {"http", "https"} or (before == "https" and after == "http"):
            raise ModelError(f"{address} leads from {before} to {to[:200]}: that is not followed")
        address = to
    raise ModelError(f"redirects more than {MOST_REDIRECTS} times, last to {address[:200]}")


def _sync_folder(folder: Path) -> None:
    """The new name outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
