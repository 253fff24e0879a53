"""The folders behind a watched folder, and the moves between them; every path is confined to them by open handles.

    FOLDER/picture.jpg -> FOLDER/taken/ (while it is worked on) -> FOLDER/done/, or deleted
                                                                -> FOLDER/failed/

A file is taken by renaming it, which is whole or not at all, on network shares too: what cannot be moved is found out before
its result is made and not after, and what lies in `taken` at a start was left by a run that ended before its result was out.
All four lie on one file system, so that no move copies. A lock keeps a second daemon out.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, TypeAlias

from edgevision.errors import CaptureError

_log = logging.getLogger(__name__)

Box: TypeAlias = Literal["taken", "done", "failed"]
BOXES: tuple[Box, ...] = ("taken", "done", "failed")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LOCK, _PROBE = ".lock", ".probe"
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_KEPT_OF_NAME_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file as a look at the folder shows it; another size or time is another file.

    Inodes are no help, because some shares number them anew with each move.
    """

    name: str
    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, name: str, status: os.stat_result) -> Found:
        """From what the system says of it."""
        return cls(name=name, size_bytes=status.st_size, modified_ns=status.st_mtime_ns)


class RefusedError(Exception):
    """A file that can never be used; the text says why."""


class Place:
    """A watched folder and its `taken`, `done` and `failed`, open."""

    def __init__(self, path: Path, *, mount_point: Path | None) -> None:
        """Open them, making what is missing, and find out whether files can be moved.

        Raises:
            CaptureError: the folder is missing, is not ours to use, or is watched by another.
        """
        self.path = path
        if mount_point is not None and not os.path.ismount(mount_point):
            raise CaptureError(f"{path}: nothing is mounted at {mount_point} (mount_point): mount the share again")
        self._lock: int | None = None
        self._handles: dict[str, int] = {}
        self._close = weakref.finalize(self, _close_all, self._handles)
        at = path
        try:
            self._root = self._handles[""] = os.open(path, _FOLDER)
            for box in BOXES:
                at = path / box
                with suppress(FileExistsError):
                    os.mkdir(box, 0o770, dir_fd=self._root)
                self._handles[box] = os.open(box, _FOLDER | os.O_NOFOLLOW, dir_fd=self._root)
            at = path / "taken"
            self._take_lock()
            self._probe()
        except OSError as failure:
            self.unlock()
            self._close()
            raise CaptureError(f"{at}: {why(failure)}") from failure
        except CaptureError:
            self._close()
            raise

    def unlock(self) -> None:
        """Let another watch the folder; handles stay, for files whose result is still to come."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _take_lock(self) -> None:
        self._lock = os.open(
            _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660, dir_fd=self._handles["taken"]
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise CaptureError(
                f"{self.path}: is watched by another camera or daemon: give each its own folder"
            ) from None
        except OSError as failure:
            if failure.errno not in _NO_LOCKS:
                raise
            _log.warning("%s: its file system has no locks: nothing keeps a second daemon from it", self.path)

    def _probe(self) -> None:
        """Make a file and send it all the way, so that a missing right is known before a result is made."""
        os.close(
            os.open(
                _PROBE,
                os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o660,
                dir_fd=self._root,
            )
        )
        at = self._root
        for box in BOXES:
            os.rename(_PROBE, _PROBE, src_dir_fd=at, dst_dir_fd=self._handles[box])
            at = self._handles[box]
        os.unlink(_PROBE, dir_fd=at)

    def look(self) -> Iterator[Found | str]:
        """Every file of the folder; a link, or what is no file, by its name alone. Hidden ones are left out.

        Raises:
            CaptureError: the folder has gone, or another one is in its place: a share that is no longer mounted.
        """
        try:
            now, ours = self.path.stat(), os.fstat(self._root)
            if (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino):
                raise CaptureError(f"{self.path}: another folder is in its place: is the share still mounted?")
            with os.scandir(self._root) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.is_dir(follow_symlinks=False):
                        continue
                    with suppress(FileNotFoundError):  # taken away between the listing and the question
                        status = entry.stat(follow_symlinks=False)
                        yield Found.of(entry.name, status) if stat.S_ISREG(status.st_mode) else entry.name
        except OSError as failure:
            raise CaptureError(f"{self.path}: cannot be looked through: {why(failure)}") from failure

    def left(self) -> list[Found]:
        """What an earlier run had taken and not finished.

        Raises:
            CaptureError: `taken` cannot be looked through.
        """
        handle = self._handles["taken"]
        try:
            with os.scandir(handle) as entries:
                names = [entry.name for entry in entries if not entry.name.startswith(".")]
            return [Found.of(name, os.stat(name, dir_fd=handle, follow_symlinks=False)) for name in names]
        except OSError as failure:
            raise CaptureError(f"{self.path / 'taken'}: cannot be looked through: {why(failure)}") from failure

    def read(self, file: Found, *, box: Box | None = None, max_bytes: int) -> bytes | None:
        """A file's content; None where it is no longer the file that was found.

        Raises:
            RefusedError: it is too large, or not ours to read.
        """
        try:
            handle = os.open(
                file.name,
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                dir_fd=self._root if box is None else self._handles[box],
            )
        except FileNotFoundError:
            return None
        except OSError as failure:
            raise RefusedError(f"cannot be read: {why(failure)}") from failure
        with open(handle, "rb", buffering=0) as stream:  # noqa: PTH123  a handle, and no path
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or Found.of(file.name, status) != file:
                return None
            if status.st_size > max_bytes:
                raise RefusedError(f"{status.st_size} bytes are above max_bytes ({max_bytes})")
            try:
                content = stream.read(max_bytes)
            except OSError as failure:
                raise RefusedError(f"cannot be read: {why(failure)}") from failure
        return content if content is not None and len(content) == file.size_bytes else None

    def take(self, file: Found) -> bool:
        """Move a file to `taken`; False where it is not, or no longer, there to be taken.

        Raises:
            CaptureError: it cannot be moved.
        """
        taken = self._handles["taken"]
        try:
            if _exists(file.name, taken):
                return False  # an earlier one of this name is still worked on
            os.rename(file.name, file.name, src_dir_fd=self._root, dst_dir_fd=taken)
            if Found.of(file.name, os.stat(file.name, dir_fd=taken, follow_symlinks=False)) == file:
                return True
            # Written anew between the look and the move: it has to settle first.
            if not _exists(file.name, self._root):
                os.rename(file.name, file.name, src_dir_fd=taken, dst_dir_fd=self._root)
                return False
        except FileNotFoundError:
            return False
        except OSError as failure:
            raise CaptureError(f"{self.path / file.name}: cannot be moved to `taken`: {why(failure)}") from failure
        return True

    def put(self, name: str, box: Literal["done", "failed"], *, stamp: int, out_of: Box | None = "taken") -> None:
        """Move a file to `done` or `failed`, where an earlier one of its name stays: the later gets `stamp` in its name.

        Raises:
            OSError: it cannot be moved.
        """
        target = self._handles[box]
        new = name
        if _exists(new, target):
            suffix = PurePath(name).suffix
            kept = os.fsencode(name.removesuffix(suffix))[:_KEPT_OF_NAME_BYTES]
            new = f"{os.fsdecode(kept)}.{stamp}{suffix}"
        source = self._root if out_of is None else self._handles[out_of]
        os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)

    def delete(self, name: str) -> None:
        """Delete a taken file.

        Raises:
            OSError: it cannot be deleted.
        """
        os.unlink(name, dir_fd=self._handles["taken"])


def why(failure: OSError) -> str:
    """A file system's refusal, and what to do about it."""
    hint = {
        errno.ENOENT: "make the folder, or correct `path`",
        errno.ENOTDIR: "give a folder",
        errno.ELOOP: "a symbolic link is not followed: put the folder itself there",
        errno.EACCES: "give the user that runs edgevision the right to read, write and delete there",
        errno.EPERM: "give the user that runs edgevision the right to read, write and delete there",
        errno.EROFS: "mount it writable (as a service: ReadWritePaths=), because files are moved when they are done",
        errno.ENOSPC: "the disk is full: make room, and empty `done` and `failed`",
        errno.EDQUOT: "the quota is used up: make room, and empty `done` and `failed`",
        errno.ESTALE: "the share's server has changed: mount it again",
        errno.EHOSTDOWN: "the share's server is away",
        errno.EIO: "the disk or the share's server fails",
    }.get(failure.errno or 0)
    text = failure.strerror or str(failure)
    return f"{text}; {hint}" if hint else text


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _close_all(handles: dict[str, int]) -> None:
    while handles:
        os.close(handles.popitem()[1])
