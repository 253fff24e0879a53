"""Messages into a file, one JSON object a line: for boxes without a broker, and to look at what would be sent.

A disk can stall for seconds, so a thread of its own writes, behind a bounded queue. A full or read-only disk costs
messages, which are counted, and never the daemon.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

from pydantic import Field

from edgevision import registry
from edgevision.errors import PublishError
from edgevision.publish._queue import BoundedQueue
from edgevision.publish._report import Report
from edgevision.publish.base import Sink, SinkContext, SinkStats
from edgevision.types import Message

_log = logging.getLogger(__name__)

_TELL_DROPS_S = 60.0


class Options(registry.Options):
    """Which file, and how large."""

    path: Path
    max_bytes: int = Field(default=64 * 2**20, ge=1024)
    """When the next line would make the file larger, it is renamed to `<path>.1`, over the one before."""
    queue_size: int = Field(default=1000, ge=1, le=1_000_000)
    """Messages that may wait for the disk."""
    queue_bytes: int = Field(default=64 * 2**20, ge=1024, le=2**30)


def line_of(message: Message) -> bytes:
    """The line for a message: a JSON payload as it is, any other in base64."""
    line: dict[str, Any] = {
        "topic": message.topic,
        "qos": message.qos,
        "retain": message.retain,
        "content_type": message.content_type,
    }
    is_json = message.content_type == "application/json"
    if is_json:
        try:
            line["payload"] = json.loads(message.payload)
        except ValueError:
            is_json = False  # whatever it claims to be, nothing of it is lost
    if not is_json:
        line["payload_base64"] = base64.b64encode(message.payload).decode("ascii")
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"


class JsonlSink:
    """`Sink` that writes lines."""

    def __init__(self, *, options: Options, context: SinkContext) -> None:
        """Start the writer; the file is opened with the first message."""
        self._options = options
        self._clock = context.clock
        self._progress = context.progress
        self._queue = BoundedQueue(max_messages=options.queue_size, max_bytes=options.queue_bytes, clock=self._clock)
        self._report = Report(log=_log, name="jsonl", clock=self._clock)
        self._file: io.FileIO | None = None
        self._size_bytes = 0
        self._sent = 0
        self._trouble = ""
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publish-jsonl", daemon=True)
        self._thread.start()

    @property
    def stats(self) -> SinkStats:
        """The counts now."""
        sent, dropped = self._sent, self._queue.dropped
        return SinkStats(
            sent=sent,
            dropped=dropped,
            queued=self._queue.offered - sent - dropped,
            connected=not self._trouble and self._thread.is_alive(),
            state=self._trouble or f"writes to {self._options.path}",
        )

    def publish(self, message: Message) -> None:
        """Take a message."""
        self._queue.put(message)
        self._wake.set()

    def close(self, deadline_s: float = 5.0) -> None:
        """Write what waits within the deadline; count the rest as dropped."""
        self._closing.set()
        self._wake.set()
        self._thread.join(deadline_s)
        self._queue.close()
        self._report.drops(self._queue, at_once=True)

    def _run(self) -> None:
        try:
            while True:
                self._wake.clear()
                while (entry := self._queue.get()) is not None:
                    if self._progress is not None:
                        self._progress.enter(f"writing to {self._options.path}")
                    self._deliver(entry.message)
                self._report.drops(self._queue)
                if self._closing.is_set():
                    return
                if self._progress is not None:
                    self._progress.idle()
                self._clock.wait(self._wake, _TELL_DROPS_S)
        finally:
            self._close_file()

    def _deliver(self, message: Message) -> None:
        try:
            self._write(line_of(message))
        except OSError as error:
            self._close_file()
            self._queue.drop("not written")
            self._trouble = f"cannot write {self._options.path}: {error.strerror or error}"
            self._report.trouble(f"{self._trouble}: messages are dropped until it can")
            return
        if self._trouble:
            self._trouble = ""
            self._report.recovered()
            self._report.note(f"writes to {self._options.path} again")
        self._sent += 1

    def _write(self, line: bytes) -> None:
        if self._file is None:
            self._open()
        if self._size_bytes and self._size_bytes + len(line) > self._options.max_bytes:
            self._close_file()
            self._options.path.replace(f"{self._options.path}.1")
            self._open()
        if self._file is None:
            raise OSError("the file is not open")
        written = self._file.write(line)
        self._size_bytes += written
        if written != len(line):
            raise OSError(None, "no space for a whole line")

    def _open(self) -> None:
        """Open for appending; a line torn by a full disk or a power cut is ended, so that the next one stands alone."""
        self._file = io.FileIO(self._options.path, "a+")
        self._size_bytes = self._file.seek(0, os.SEEK_END)
        if self._size_bytes:
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._size_bytes += self._file.write(b"\n")

    def _close_file(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()


def create(options: Options, context: SinkContext) -> Sink:
    """Make the sink.

    Raises:
        PublishError: the path is a folder, or stands in one that does not exist.
    """
    if options.path.is_dir():
        raise PublishError(f"path {options.path} is a folder: give a file name")
    if not options.path.absolute().parent.is_dir():
        raise PublishError(
            f"path {options.path}: the folder {options.path.absolute().parent} does not exist: create it"
        )
    return JsonlSink(options=options, context=context)
