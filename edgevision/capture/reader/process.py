"""One reader process: started, listened to, watched, and ended whatever it does.

It is started afresh (`sys.executable`, never a fork of the daemon with its threads) with our module path, so that a source
from an outside package is found as it is here. What it is to read reaches it over the line and never as an argument,
which every user of the machine could see.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from edgevision.capture._orient import Flip, Rotation
from edgevision.capture._urls import redact_url
from edgevision.capture.reader.link import MAX_TEXT, pair
from edgevision.capture.reader.slots import SlotReader

_log = logging.getLogger(__name__)

# numpy's linear algebra makes a thread and buffers for each core when it is imported, and nobody here asks it for anything.
_START = (
    "import os, sys; sys.path[:] = sys.argv[3:]; os.environ.setdefault('OPENBLAS_NUM_THREADS', '1'); "
    "from edgevision.capture.reader.child import main; main(*map(int, sys.argv[1:3]))"
)
_LINES_PER_TRY = 200
"""Lines of a chatty library that reach the log before it is told to be quiet."""
_DIES_WITHIN_S = 2.0
_left_behind: list[subprocess.Popen[bytes]] = []
"""Killed, and still held by the kernel (a driver that waits for its device); asked again whenever a reader is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a reader is to read: enough to make the source by name."""

    camera: str
    type: str
    options: Mapping[str, Any] = field(repr=False)
    """As the config gives them, secrets put in."""
    fps: float | None = None
    rotation: Rotation = 0
    flip: Flip = "none"
    roi: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a reader may take before it is killed."""

    frame_s: float
    """From one frame to the next."""
    first_frame_s: float
    """From the start to the first frame: importing, opening, and finding out why it will not open."""
    memory_bytes: int
    """Resident, the shared pictures included."""


class ReaderGoneError(Exception):
    """The process has ended; the text says how."""


class ReaderProcess:
    """A running reader, used by one thread; only `say` and the pictures' ends may come from another."""

    def __init__(self, job: Job) -> None:
        """Start it.

        Raises:
            OSError: the machine has no process or file handle left.
        """
        self._camera = job.camera
        self._link, theirs = pair()
        self._lock = threading.RLock()  # re-entrant: collecting garbage within may end a picture
        self._closed = False
        self._slots = SlotReader(self._give_back)
        self._stderr = b""
        self._lines = 0
        self._last_words: list[str] = []
        try:
            self._process = subprocess.Popen(  # noqa: S603  the interpreter that runs us, and no text from outside
                [sys.executable, "-c", _START, str(theirs.fileno()), str(os.getpid()), *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
            )
        except OSError:
            self._link.close()
            raise
        finally:
            theirs.close()
        assert self._process.stderr is not None  # noqa: S101  for mypy: a pipe was asked for
        self._errors = self._process.stderr
        os.set_blocking(self._errors.fileno(), False)
        self._poll = select.poll()
        self._poll.register(self._link, select.POLLIN)
        self._poll.register(self._errors, select.POLLIN)
        self.say(
            {
                "camera": job.camera,
                "type": job.type,
                "options": dict(job.options),
                "fps": job.fps,
                "rotation": job.rotation,
                "flip": job.flip,
                "roi": job.roi,
                "log_level": _log.getEffectiveLevel(),
            }
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def resident_bytes(self) -> int:
        """What it holds in memory; 0 where it has just ended."""
        try:
            with open(f"/proc/{self.pid}/statm") as statm:  # noqa: PTH123  asked once a second, for every camera
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def open(self) -> None:
        """Let it read its source: a new try, whose library's words are news again."""
        self._lines = 0
        self.say({"do": "open"})

    def say(self, packet: Mapping[str, Any]) -> None:
        """Tell it something; a reader that is gone is found out by `receive`."""
        with self._lock, suppress(OSError):
            if not self._closed:
                self._link.send(packet)

    def _give_back(self, ring: int, slot: int) -> None:
        self.say({"do": "release", "ring": ring, "slot": slot})

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Its next packet; None where none came in time. What it logs meanwhile goes to our log.

        Raises:
            ReaderGoneError: it has ended.
        """
        ready = dict(self._poll.poll(timeout_s * 1000))
        if self._errors.fileno() in ready:
            self._repeat_log()
        if self._link.fileno() not in ready:
            return None
        try:
            received = self._link.receive()
            if received is None:
                raise ReaderGoneError(self._how_it_ended())
            packet, descriptors = received
            for descriptor in descriptors:
                try:
                    self._slots.open(descriptor, **{key: packet[key] for key in ("ring", "slots", "slot_bytes")})
                finally:
                    os.close(descriptor)
        except (ValueError, KeyError, OSError) as failure:  # only a reader whose memory is damaged says such things
            raise ReaderGoneError(f"the reader process made no sense ({failure}) and was killed") from failure
        return packet

    def picture(self, packet: Mapping[str, Any]) -> NDArray[Any]:
        """The picture that a `frame` packet tells of: (H, W, 3) uint8, read-only, valid as long as it is held.

        Raises:
            ReaderGoneError: there is no such picture.
        """
        try:
            width, height = packet["size"]
            return self._slots.look(ring=packet["ring"], slot=packet["slot"], height=height, width=width)
        except (ValueError, KeyError, TypeError) as failure:
            raise ReaderGoneError(f"the reader process made no sense ({failure}) and was killed") from failure

    def end(self, *, grace_s: float) -> None:
        """End it and let go of everything: it may close its device within `grace_s`, then it is killed."""
        with self._lock:
            self._closed = True
            self._link.close()
        self._slots.close()
        self._repeat_log()
        if not self._waited(grace_s):
            self._process.send_signal(signal.SIGKILL)
            if not self._waited(_DIES_WITHIN_S):
                fields = {"camera": self._camera, "pid": self.pid}
                _log.error("reader process cannot be killed: its driver waits in the kernel", extra={"fields": fields})
                _left_behind.append(self._process)
        self._repeat_log()
        self._errors.close()
        _left_behind[:] = [process for process in _left_behind if process.poll() is None]

    def _waited(self, timeout_s: float) -> bool:
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _how_it_ended(self) -> str:
        if not self._waited(_DIES_WITHIN_S):
            return "the reader process closed its line and was killed"
        self._repeat_log()
        status = self._process.returncode
        if status >= 0:
            words = f": {self._last_words[-1]}" if self._last_words else ""
            return f"the reader process ended with status {status}{words}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        where = "; " + next((line for line in self._last_words if line.startswith("  File")), "").strip()
        return f"the reader process was ended by {name}{where.rstrip('; ')}"

    def _repeat_log(self) -> None:
        """Read what is there of its standard error, and log the whole lines of it."""
        while content := self._read_errors():
            *lines, self._stderr = (self._stderr + content).split(b"\n")
            self._stderr = self._stderr[-MAX_TEXT:]
            for line in lines:
                self._repeat(line[:MAX_TEXT].decode(errors="replace"))

    def _read_errors(self) -> bytes:
        if self._errors.closed:
            return b""
        content = self._errors.read(65536)
        if content == b"":  # its end: poll would report it for ever
            with suppress(KeyError):
                self._poll.unregister(self._errors)
        return content or b""

    def _repeat(self, line: str) -> None:
        fields: dict[str, Any] = {"camera": self._camera}
        try:
            record = json.loads(line)["edgevision_log"]
            level, name, message = int(record["level"]), str(record["logger"]), str(record["message"])
            fields = {**record.get("fields", {}), **fields}
            if "traceback" in record:
                fields["traceback"] = record["traceback"]
        except (ValueError, KeyError, TypeError):  # a library's own words
            level, name, message = logging.WARNING, __name__, "camera reader says"
            self._last_words = [*self._last_words[-19:], redact_url(line)]
            self._lines += 1
            if self._lines > _LINES_PER_TRY or not line.strip():
                return
            fields["text"] = redact_url(line)
            if self._lines == _LINES_PER_TRY:
                fields["note"] = "further lines are left out"
        logging.getLogger(name).log(level, "%s", message, extra={"fields": fields})
