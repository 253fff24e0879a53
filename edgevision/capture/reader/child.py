"""What runs in a reader process: one camera's source, made by name from its config, and nothing else of the house.

The main thread reads, because it is the one that may hang; a second thread listens to the daemon, and ends the process when
the line ends. So the process never outlives the daemon: the kernel kills it with its parent (PR_SET_PDEATHSIG), and where
that comes to nothing the end of the line does. What it logs goes to standard error as JSON lines, which the daemon repeats.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import logging
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import cv2

from edgevision import registry
from edgevision.capture._orient import Oriented
from edgevision.capture.base import FrameSource, SourceContext
from edgevision.capture.reader.link import MAX_TEXT, Link
from edgevision.capture.reader.slots import SlotWriter
from edgevision.errors import EdgevisionError

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_GOODBYE_S = 0.8
"""For a source to let go of its camera when the line ends; less than the daemon waits."""
_OOM_SCORE = "500"
"""Where memory runs out, the kernel is to take a reader, which comes back, and not the daemon."""


def main(descriptor: int, parent: int) -> None:
    """Serve the daemon at the other end of the line until it ends.

    Args:
        descriptor: our end of the line.
        parent: the daemon's process id.
    """
    # A Ctrl-C, or systemd's SIGTERM to the whole group, is the daemon's to act on: it ends us in its own order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew that we want to go with it
        os._exit(0)
    faulthandler.enable()
    cv2.setNumThreads(1)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123  a hint that some containers refuse
        score.write(_OOM_SCORE)
    link = Link(socket.socket(fileno=descriptor))
    first = link.receive()
    if first is None:
        return
    job = first[0]
    libc.prctl(_PR_SET_NAME, f"ev-{job['camera']}"[:15].encode(), 0, 0, 0)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("edgevision").setLevel(job["log_level"])
    _Child(link, job).serve()


class _JsonLines(logging.Formatter):
    """A record as one line that the daemon can make a record of again."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        content: dict[str, Any] = {"logger": record.name, "level": record.levelno, "message": record.getMessage()}
        if fields := getattr(record, "fields", None):
            content["fields"] = fields
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)[-MAX_TEXT:]
        return json.dumps({"edgevision_log": content}, default=str)


class _Child:
    """The two threads and what they share."""

    def __init__(self, link: Link, job: dict[str, Any]) -> None:
        self._link = link
        self._job = job
        self._slots = SlotWriter(self._tell)
        self._undone: dict[int, Callable[[str], None]] = {}
        """By sequence: whom to tell when the daemon is done with a frame."""
        self._opens: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._source: FrameSource | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._resting = threading.Event()
        """No source is being read."""
        self._resting.set()

    def serve(self) -> None:
        threading.Thread(target=self._listen, name="line", daemon=True).start()
        while True:
            self._opens.get()
            self._resting.clear()
            self._tell(self._read_once())

    def _tell(self, packet: Mapping[str, Any], *, descriptors: Sequence[int] = ()) -> None:
        try:
            self._link.send(packet, descriptors=descriptors)
        except OSError:  # the daemon has gone, or has closed the line; there is nobody left to tell
            os._exit(0)

    def _listen(self) -> None:
        """Do what the daemon says; at the end of the line, end. Nothing here waits for the source."""
        try:
            while (received := self._link.receive()) is not None:
                packet = received[0]
                if packet["do"] == "release":
                    self._slots.release(packet["ring"], packet["slot"])
                elif packet["do"] == "done":
                    done = self._undone.pop(packet["sequence"], None)
                    if done is not None:
                        done(packet["fault"])
                elif packet["do"] == "open":
                    self._opens.put(None)
                elif packet["do"] == "close":
                    self._close()
        finally:
            # An RTSP camera that is not told goodbye counts us as a viewer for another minute.
            self._close()
            self._resting.wait(_GOODBYE_S)
            # Not sys.exit: the main thread may hang in a driver, and would be waited for.
            os._exit(0)

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            if self._source is not None:
                self._source.close()

    def _read_once(self) -> dict[str, Any]:
        """Read the source until it ends or fails; what to tell the daemon."""
        source: FrameSource | None = None
        end: dict[str, Any] = {"is": "ended"}
        try:
            plugin = registry.load("capture", self._job["type"])
            options = plugin.Options.model_validate(self._job["options"])
            self._undone.clear()  # of the source before this one, which has ended
            context = SourceContext(camera=self._job["camera"], fps=self._job["fps"], idle=self._idle)
            source = Oriented(
                plugin.create(options, context),
                rotation=self._job["rotation"],
                flip=self._job["flip"],
                roi=self._job["roi"],
            )
            with self._lock:
                if self._closed:
                    return end
                self._source = source
            try:
                self._hand_on(source)
            finally:
                with self._lock:
                    self._source = None
                source.close()
                self._resting.set()
        except EdgevisionError as failure:
            end = {"is": "failed", "why": str(failure)[:MAX_TEXT]}
        except Exception as failure:  # noqa: BLE001  the top of this process's work: a bug in a source is told, and tried again
            _log.exception("camera source failed unexpectedly")
            end = {"is": "failed", "why": f"internal error: {failure!r}"[:MAX_TEXT]}
        return {**end, "unreadable": _unreadable(source)}

    def _idle(self, fault: str) -> None:
        # Within the source's `frames()`, so it is there. Where no picture can be decoded, no frame brings the count.
        self._tell({"is": "idle", "fault": fault[:MAX_TEXT], "unreadable": _unreadable(self._source)})

    def _hand_on(self, source: FrameSource) -> None:
        wait = not source.live
        for frame in source.frames():
            written = self._slots.write(frame.image, wait=wait)
            if written is None:
                if self._slots.left_out == 1:
                    _log.warning("the daemon holds every slot: frames are dropped until it lets one go")
                continue
            if frame.done is not None:
                self._undone[frame.sequence] = frame.done
            height, width = frame.image.shape[:2]
            self._tell(
                {
                    "is": "frame",
                    "ring": written[0],
                    "slot": written[1],
                    "size": (width, height),
                    "sequence": frame.sequence,
                    "at_ns": frame.captured_at_ns,
                    "mono_ns": frame.captured_mono_ns,
                    "roi": frame.roi,
                    "origin": frame.origin,
                    "done": frame.done is not None,
                    "unreadable": _unreadable(source),
                }
            )


def _unreadable(source: FrameSource | None) -> int:
    return 0 if source is None else source.unreadable
