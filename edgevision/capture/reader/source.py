"""What the daemon sees of a reader process: a source like any other, whose faults are a `CaptureError` with a reason.

A source that only fails (a camera that is switched off) keeps its process for the next try: starting one costs a third of a
second of CPU, and a dead camera is tried for ever. A process that hangs, crashes or eats memory is killed, and the next try
starts a fresh one. Trying again is the camera's supervisor's, as with every source.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from edgevision.capture.base import tell_nobody
from edgevision.capture.reader.link import MAX_TEXT
from edgevision.capture.reader.process import Job, Limits, ReaderGoneError, ReaderProcess
from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.errors import CaptureError
from edgevision.types import Frame

_SLICE_S = 0.2
"""How long nothing may be looked at but the line: a request to end, and the memory, are noticed this late."""
_MEMORY_EVERY_S = 0.2
_GRACE_S = 1.0
"""For a reader that is asked to end to close its device."""


class Reader:
    """One camera's reader: makes its sources, and keeps the process that they share from try to try."""

    def __init__(self, job: Job, limits: Limits, *, live: bool, clock: Clock = SYSTEM_CLOCK) -> None:
        """Starts nothing.

        Args:
            job: what to read.
            limits: what it may take.
            live: whether the source is a camera (newest wins) or a file.
            clock: times the limits.
        """
        self.job = job
        self.limits = limits
        self.live = live
        self.clock = clock
        self._idle: ReaderProcess | None = None
        self._lock = threading.Lock()

    def source(self, idle: Callable[[str], None] = tell_nobody) -> ProcessSource:
        """A new, unopened source; `idle` as in `SourceContext`."""
        return ProcessSource(self, idle)

    def take(self) -> ReaderProcess:
        """The process that waits for work, or a new one.

        Raises:
            CaptureError: none can be started.
        """
        with self._lock:
            idle, self._idle = self._idle, None
        if idle is not None:
            return idle
        try:
            return ReaderProcess(self.job)
        except OSError as failure:
            raise CaptureError(f"camera {self.job.camera}: no reader process can be started: {failure}") from failure

    def keep(self, process: ReaderProcess) -> None:
        """Keep a healthy process for the next try."""
        with self._lock:
            self._idle = process

    def close(self) -> None:
        """End the process that waits; nothing is read any more."""
        with self._lock:
            idle, self._idle = self._idle, None
        if idle is not None:
            idle.end(grace_s=_GRACE_S)


class ProcessSource:
    """A `FrameSource` that is read in a process of its own. The pictures are read-only and valid as long as they are held."""

    def __init__(self, reader: Reader, idle: Callable[[str], None]) -> None:
        """Starts nothing."""
        self._reader = reader
        self._idle = idle
        self._closing = threading.Event()
        self._process: ReaderProcess | None = None
        self.unreadable = 0
        """Frames that could not be decoded since the source was made."""

    @property
    def live(self) -> bool:
        """As the source that is read."""
        return self._reader.live

    @property
    def pid(self) -> int | None:
        """The reader's process id; None while there is none."""
        process = self._process
        return None if process is None else process.pid

    def close(self) -> None:
        """Ask the reader to end; the thread that runs `frames()` sees to it."""
        self._closing.set()
        process = self._process
        if process is not None:
            process.say({"do": "close"})

    def frames(self) -> Iterator[Frame]:
        """Yield the reader's frames; see the protocol.

        Raises:
            CaptureError: the source failed, or its reader crashed, hung or took too much memory.
        """
        if self._closing.is_set():
            return
        process: ReaderProcess | None = self._reader.take()
        assert process is not None  # noqa: S101  for mypy
        self._process = process
        grace_s = _GRACE_S
        try:
            process.open()
            yield from self._frames(process)
        except ReaderGoneError as failure:
            grace_s = 0.0
            raise CaptureError(f"camera {self._reader.job.camera}: {failure}") from failure
        except _SourceFailedError as failure:
            self._process = None
            if not self._closing.is_set():
                self._reader.keep(process)
                process = None
            raise CaptureError(str(failure)) from None
        finally:
            self._process = None
            if process is not None:
                process.end(grace_s=grace_s)

    def _frames(self, process: ReaderProcess) -> Iterator[Frame]:
        clock, limits = self._reader.clock, self._reader.limits
        limit_s, name = limits.first_frame_s, "open_deadline_s"
        asked_ns, memory_ns = clock.monotonic_ns(), 0
        while not self._closing.is_set():
            packet = process.receive(_SLICE_S)
            if packet is not None:
                self._take_count(packet)
            now_ns = clock.monotonic_ns()
            if now_ns - memory_ns >= _MEMORY_EVERY_S * 1e9:
                memory_ns = now_ns
                self._check_memory(process)
            if packet is None:
                if now_ns - asked_ns > limit_s * 1e9:
                    what = "gave no frame" if name == "deadline_s" else "did not open"
                    raise ReaderGoneError(
                        f"its reader {what} for {limit_s:g} s (reader.{name}) and was killed: the camera, its driver or "
                        "the network hangs"
                    )
            elif packet["is"] == "frame":
                yield self._frame(process, packet)
                # What the daemon does with a frame is not the reader's time.
                asked_ns, limit_s, name = clock.monotonic_ns(), limits.frame_s, "deadline_s"
            elif packet["is"] == "idle":
                asked_ns, limit_s, name = now_ns, limits.frame_s, "deadline_s"
                self._idle(str(packet.get("fault", "")))
            elif packet["is"] == "failed":
                raise _SourceFailedError(packet["why"])
            elif packet["is"] == "ended":
                return

    def _frame(self, process: ReaderProcess, packet: dict[str, object]) -> Frame:
        picture = process.picture(packet)
        try:
            roi, origin, sequence = packet["roi"], packet["origin"], int(packet["sequence"])  # type: ignore[call-overload]
            return Frame(
                image=picture,
                camera=self._reader.job.camera,
                sequence=sequence,
                captured_at_ns=int(packet["at_ns"]),  # type: ignore[call-overload]
                captured_mono_ns=int(packet["mono_ns"]),  # type: ignore[call-overload]
                roi=None if roi is None else tuple(roi),  # type: ignore[arg-type]
                origin=None if origin is None else str(origin),
                done=partial(_say_done, process, sequence) if packet["done"] else None,
            )
        except (KeyError, TypeError, ValueError) as failure:
            raise ReaderGoneError(f"the reader process made no sense ({failure!r}) and was killed") from failure

    def _take_count(self, packet: dict[str, Any]) -> None:
        try:
            self.unreadable = int(packet.get("unreadable", self.unreadable))
        except (TypeError, ValueError) as failure:
            raise ReaderGoneError(f"the reader process made no sense ({failure!r}) and was killed") from failure

    def _check_memory(self, process: ReaderProcess) -> None:
        held, limit = process.resident_bytes(), self._reader.limits.memory_bytes
        if held > limit:
            raise ReaderGoneError(
                f"its reader held {held >> 20} MB, above reader.memory_mb ({limit >> 20}), and was killed: the source or "
                "its driver leaks, or its pictures need more"
            )


def _say_done(process: ReaderProcess, sequence: int, fault: str) -> None:
    process.say({"do": "done", "sequence": sequence, "fault": fault[:MAX_TEXT]})


class _SourceFailedError(Exception):
    """The source failed in good order; the process is well."""
