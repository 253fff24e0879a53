"""A watched folder as a camera: whoever puts a picture in gets a result, once, also over a restart.

For cameras and inspection stations that hand over files, mostly on a network share: so the folder is looked through at an
interval, because notices of changes do not cross a share. A file is used when it is whole: its size and time have stood still
for a while, and its own format says that its end is there. It is done when its messages have been handed to the sinks; then it
is moved away, a moment later, so that durable messages are on the disk by then. A kill in between leaves it in `taken`, and
the next start looks at it again: at least once, and the message names the file (`frame.origin`). An empty folder is no fault;
where the newest file could not be used, the camera is stalled for that reason until one can. The folders and moves are
`_hot_place`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from edgevision import registry
from edgevision.capture._header import read_header
from edgevision.capture._hot_place import Box, Found, Place, RefusedError, why
from edgevision.capture._pacing import NS_PER_S, Pacer
from edgevision.capture.base import FrameSource, SourceContext
from edgevision.capture.images import IMAGE_SUFFIXES, MAX_FILE_BYTES, decode_image, natural_key
from edgevision.errors import CaptureError, ImageError
from edgevision.types import Frame

_log = logging.getLogger(__name__)

_LEAST_BYTES = 16
"""No picture is shorter: before that, a file has only begun."""

_LINGER_NS = NS_PER_S // 2
"""From a result's hand-over to its file's move: the spool commits every 20 ms, and an fsync of a slow card takes its time."""


class Options(registry.Options):
    """Which folder, when a file in it is whole, and what becomes of it."""

    path: str = Field(min_length=1)
    """The folder. `taken`, `done` and `failed` are made in it; other folders in it are not entered."""
    order: Literal["name", "mtime"] = "name"
    """Picture2 before picture10, or the oldest first."""
    when_done: Literal["move", "delete"] = "move"
    """To `done`, which nobody empties but you; or away. What cannot be used is always moved to `failed`."""
    poll_s: float = Field(0.2, ge=0.01, le=1)
    """Seconds between two looks."""
    settle_s: float = Field(0.5, gt=0, le=60)
    """A file is left alone until its size and time have stood still for so long."""
    partial_s: float = Field(30.0, gt=0, le=86_400)
    """A file that is cut off, and has not grown for so long, is given up."""
    max_bytes: int = Field(64 << 20, ge=1024, le=MAX_FILE_BYTES)
    """Larger files are given up unread."""
    mount_point: str | None = None
    """Where the share is mounted. Without it, the empty folder under a share that is not mounted is watched in its place."""

    @field_validator("path", "mount_point")
    @classmethod
    def _check_path(cls, path: str | None) -> str | None:
        if path is not None and (not path.strip() or "\0" in path):
            raise ValueError("is empty; give a folder")
        return path


def create(options: Options, context: SourceContext) -> FrameSource:
    """Make the source; nothing is looked at yet."""
    return HotFolderSource(options, context)


@dataclass(slots=True)
class _Settling:
    """What is known of a file that is not taken yet."""

    file: Found
    since_ns: int
    """Since when it has looked as it looks."""
    cut_off: bool = False
    """It was read like this, and its end is missing."""


class HotFolderSource:
    """Files one after the other; it never ends by itself."""

    def __init__(self, options: Options, context: SourceContext) -> None:
        """Keep what it was told."""
        self._options = options
        self._context = context
        self._path = Path(options.path)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._watching = False
        self._finished: deque[tuple[int, str, str]] = deque()
        """Since when the result of a taken file is out, the file, and why none could be made."""
        self._settling: dict[str, _Settling] = {}
        self._told_foreign = False
        self._fault = ""
        """Why the newest file could not be used; empty where it could."""
        self._sequence = 0
        self.unreadable = 0
        """Files that could not be used since the source was made."""

    @property
    def live(self) -> bool:
        """False: files wait."""
        return False

    def frames(self) -> Iterator[Frame]:
        """Yield the files' pictures as they are put in; see the protocol."""
        if self._closing.is_set():
            return
        place = Place(
            self._path, mount_point=None if self._options.mount_point is None else Path(self._options.mount_point)
        )
        self._watching, self._sequence = True, 0
        try:
            yield from self._watch(place)
        finally:
            with self._lock:  # from here on, whoever finishes a frame moves its file
                self._watching = False
            try:
                self._tidy(place, linger_ns=0)
            finally:
                place.unlock()

    def close(self) -> None:
        """Stop `frames()`."""
        self._closing.set()

    def _watch(self, place: Place) -> Iterator[Frame]:
        clock, fps = self._context.clock, self._context.fps
        pacer = Pacer(clock, self._closing) if fps else None
        waiting: list[tuple[Found, Box | None]] = [(file, "taken") for file in self._ordered(place.left())]
        if waiting:
            fields = {"camera": self._context.camera, "folder": str(self._path), "files": len(waiting)}
            _log.info("files of an earlier run are looked at again", extra={"fields": fields})
        while not self._closing.is_set():
            given = 0
            for file, box in waiting:
                if pacer and fps and not pacer.wait_for(round(self._sequence * NS_PER_S / fps)):
                    return
                self._tidy(place)
                if self._closing.is_set():
                    return
                frame = self._frame(place, file, box)
                if frame is not None:
                    given += 1
                    yield frame
            self._tidy(place)
            if not given:
                self._context.idle(self._fault)
                clock.wait(self._closing, self._options.poll_s)
            waiting = [(file, None) for file in self._whole(place)]

    def _whole(self, place: Place) -> list[Found]:
        """The files that have stood still long enough, in order."""
        now_ns, before, options = self._context.clock.monotonic_ns(), self._settling, self._options
        self._settling = {}
        whole: list[Found] = []
        for file in place.look():
            name = file if isinstance(file, str) else file.name
            if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
                self._tell_foreign(name)
            elif isinstance(file, str):
                self._give_up(place, name, "is a symbolic link or no regular file, which is not followed", box=None)
            else:
                known = before.get(name)
                if known is None or known.file != file:
                    known = _Settling(file, now_ns)
                self._settling[name] = known
                still_ns = now_ns - known.since_ns
                if still_ns >= (options.partial_s if known.cut_off else options.settle_s) * NS_PER_S:
                    whole.append(file)
        return self._ordered(whole)

    def _ordered(self, files: list[Found]) -> list[Found]:
        if self._options.order == "mtime":
            return sorted(files, key=lambda file: (file.modified_ns, file.name))
        return sorted(files, key=lambda file: (natural_key(Path(file.name)), file.name))

    def _frame(self, place: Place, file: Found, box: Box | None) -> Frame | None:
        """Take a file and make a frame of it; None where it cannot be used, or not yet."""
        clock = self._context.clock
        try:
            content = place.read(file, box=box, max_bytes=self._options.max_bytes)
            if content is None:
                return None
            if box is None:
                header = read_header(content)
                known = self._settling[file.name]
                ends_early = len(content) < _LEAST_BYTES or (header is not None and not header.complete)
                if ends_early and not known.cut_off:
                    known.cut_off = True
                    return None
                if not place.take(file):
                    return None
                box = "taken"
            image = decode_image(content, name=str(self._path / file.name))
        except (RefusedError, ImageError) as failure:
            self._give_up(place, file.name, str(failure), box=box)
            return None
        self._fault = ""
        now_ns = clock.time_ns()
        frame = Frame(
            image=image,
            camera=self._context.camera,
            sequence=self._sequence,
            captured_at_ns=min(file.modified_ns, now_ns),  # a share's clock may be ahead of ours
            captured_mono_ns=clock.monotonic_ns(),
            origin=os.fsencode(file.name).decode(errors="replace"),
            done=partial(self._finish, place, file.name),
        )
        self._sequence += 1
        return frame

    def _finish(self, place: Place, name: str, fault: str) -> None:
        """A frame's result is out. The thread that reads moves its file, because a share may hang; after its end, we do."""
        with self._lock:
            watching = self._watching
            self._finished.append((self._context.clock.monotonic_ns(), name, fault))
        if not watching:
            try:
                self._tidy(place, linger_ns=0)
            except CaptureError as failure:
                self._log("file is looked at again at the next start", name, str(failure))

    def _tidy(self, place: Place, *, linger_ns: int = _LINGER_NS) -> None:
        """Move the files whose result has been out for so long."""
        until_ns = self._context.clock.monotonic_ns() - linger_ns
        while True:
            with self._lock:
                if not self._finished or self._finished[0][0] > until_ns:
                    return
                _, name, fault = self._finished.popleft()
            if fault:
                self._log("file is moved to `failed`", name, fault)
                self._move(name, partial(self._put, place, name, "failed", "taken"))
            elif self._options.when_done == "delete":
                self._move(name, partial(place.delete, name))
            else:
                self._move(name, partial(self._put, place, name, "done", "taken"))

    def _give_up(self, place: Place, name: str, reason: str, *, box: Box | None) -> None:
        self.unreadable += 1
        self._sequence += 1
        self._fault = f"{name!r} is moved to `failed`: {reason}"
        self._log("file is moved to `failed`", name, reason)
        self._settling.pop(name, None)
        self._move(name, partial(self._put, place, name, "failed", box))

    def _put(self, place: Place, name: str, target: Literal["done", "failed"], out_of: Box | None) -> None:
        place.put(name, target, stamp=self._context.clock.time_ns(), out_of=out_of)

    def _move(self, name: str, move: Callable[[], None]) -> None:
        try:
            move()
        except FileNotFoundError:
            self._log("file was taken away by somebody else", name, "it is no longer where we put it")
        except OSError as failure:
            raise CaptureError(
                f"{self._path / name}: was looked at, but cannot be moved or deleted afterwards: {why(failure)}"
            ) from failure

    def _tell_foreign(self, name: str) -> None:
        if not self._told_foreign:
            self._told_foreign = True
            known = " ".join(sorted(IMAGE_SUFFIXES))
            self._log("file is left alone, and so are others like it", name, f"its name ends in none of {known}")

    def _log(self, what: str, name: str, reason: str) -> None:
        fields = {"camera": self._context.camera, "file": str(self._path / name), "reason": reason}
        _log.warning(what, extra={"fields": fields})
