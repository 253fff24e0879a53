"""One camera at work: its state, and the thread that reads it and brings it back when it fails.

The state is the promise that "nothing found" is never "not looking": it is in every result, and every change is published
with a reason that a person can act on. A camera that is not there or dies is tried again for ever, with jittered back-off,
while the others go on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from edgevision.capture._triggered import TriggerBox
from edgevision.capture.base import FrameSource
from edgevision.clock import Clock
from edgevision.errors import EdgevisionError
from edgevision.messages import CameraState
from edgevision.retry import Backoff
from edgevision.runtime.exchange import Captured, FrameExchange
from edgevision.runtime.health import IDLE_REASON, LIVE_REASON, Verdict, late_reason
from edgevision.runtime.metrics import StageWindow
from edgevision.runtime.tally import Tally
from edgevision.runtime.watch import PictureWatch
from edgevision.types import Frame

_log = logging.getLogger(__name__)


RETRY_MOST_S = 3.0
"""Between two tries. A camera stands in our own hall: asking it often costs little, and with the time that opening takes it is
back within 5 s of its return."""


_SEEING: tuple[CameraState, ...] = ("live", "late", "frozen", "dark", "overexposed", "blurred")
"""States in which frames arrive."""
_BELIEVED = Verdict()


class CameraStatus:
    """A camera's state, since when, and why; changes are told to `on_change`."""

    def __init__(self, name: str, *, clock: Clock, on_change: Callable[[CameraStatus], None]) -> None:
        """The state begins as `starting`; nothing is told until `set` is called."""
        self.name = name
        self.state: CameraState = "starting"
        self.reason = ""
        self.since_ns = clock.time_ns()
        self.spell = 0
        """Counts the times that the camera ceased to be `live`."""
        self._clock = clock
        self._on_change = on_change
        self._lock = threading.Lock()

    def set(self, state: CameraState, reason: str, *, only_from: tuple[CameraState, ...] | None = None) -> int:
        """Change the state; a new reason for the same state is told too. `only_from` makes it conditional. Returns `spell`."""
        with self._lock:
            if (only_from is not None and self.state not in only_from) or (state, reason) == (self.state, self.reason):
                return self.spell
            if state != self.state:
                self.since_ns = self._clock.time_ns()
                self.spell += self.state == "live"
            self.state, self.reason = state, reason
            level = logging.INFO if state in {"starting", "live", "off"} else logging.WARNING
            fields = {"camera": self.name, "state": state, "reason": reason}
            _log.log(level, "camera state", extra={"fields": fields})
            self._on_change(self)
            return self.spell

    def tell(self, listener: Callable[[CameraStatus], None]) -> None:
        """Tell somebody who has not heard it how things stand; nothing changes meanwhile."""
        with self._lock:
            listener(self)


class Camera:
    """A camera's reader thread, status and counts."""

    def __init__(
        self,
        name: str,
        *,
        make_source: Callable[[Callable[[str], None]], FrameSource],
        exchange: FrameExchange,
        status: CameraStatus,
        stall_after_s: float,
        clock: Clock,
        backoff: Backoff | None = None,
        close_sources: Callable[[], None] = lambda: None,
        watch: PictureWatch | None = None,
        watch_files: bool = False,
        late_after_s: float | None = None,
        tally: Tally | None = None,
    ) -> None:
        """Starts nothing.

        Args:
            name: of the camera.
            make_source: makes a new, unopened source for each try; is given what the source tells its silence to (`idle`).
            exchange: where frames go.
            status: what it tells its state to.
            stall_after_s: silence that is `stalled`.
            clock: times everything.
            backoff: between tries.
            close_sources: ends what `make_source` keeps between tries.
            watch: judges the pictures; None believes them all.
            watch_files: whether it judges those of sources that are not live, too.
            late_after_s: silence that is `late`; None is off.
            tally: what was counted of the camera so far; by default nothing.
        """
        self.name = name
        self.status = status
        self.window = StageWindow()
        self.tally = Tally() if tally is None else tally
        self.triggers: TriggerBox | None = None
        """What asks it for pictures; None where all that come are looked at."""
        self.stopped = threading.Event()
        """Set when the reader thread has ended: the source ended for good, or we were told to stop."""
        self._ended = False  # in order, and said so
        self._make_source = make_source
        self._close_sources = close_sources
        self._exchange = exchange
        self._watch = watch
        self._watch_files = watch_files
        self._late_after_ns = None if late_after_s is None else int(late_after_s * 1e9)
        self._live = False  # until there is a source
        self._verdict = _BELIEVED
        """Of the newest frame."""
        self._stall_after_ns = int(stall_after_s * 1e9)
        self._clock = clock
        self._backoff = backoff or Backoff(first_s=0.5, max_s=RETRY_MOST_S)
        self._stopping = threading.Event()
        self._source: FrameSource | None = None
        self._unreadable_told = 0  # of this source, and in the tally already
        self._source_lock = threading.Lock()
        self._last_frame_ns = clock.monotonic_ns()
        self._silence = ""  # why the source, which works, has no picture
        self._blind = False  # the model fails on this camera's frames, although they arrive
        self._blind_lock = threading.Lock()
        self._thread = threading.Thread(target=self._read_for_ever, name=f"camera:{name}", daemon=True)

    def start(self) -> None:
        """Begin reading."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the reader to end; returns at once."""
        self._stopping.set()
        with self._source_lock:
            if self._source is not None:
                self._source.close()

    @property
    def captured(self) -> int:
        """Frames that came, since the daemon started."""
        return self.tally.captured

    @property
    def restarts(self) -> int:
        """How often the source was opened again, since the daemon started."""
        return self.tally.restarts

    @property
    def unreadable(self) -> int:
        """Frames or pictures that could not be decoded, since the daemon started."""
        with self._source_lock:
            self._count_unreadable()
            return self.tally.unreadable

    def _count_unreadable(self) -> None:
        if self._source is not None:
            found = self._source.unreadable
            self.tally.unreadable += found - self._unreadable_told
            self._unreadable_told = found

    def join(self, timeout_s: float) -> bool:
        """Wait for the reader to end; False when it hangs (it is left behind as a daemon thread)."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def has_died(self) -> bool:
        """Whether the reader thread has ended and must not have.

        Its status does not tell: the model may fail on the last frame of a source that has ended and said `off`.
        """
        return self.stopped.is_set() and not self._ended

    def model_failed(self, reason: str) -> None:
        """Frames arrive, but the model fails on them: nobody looks, and the state must say so."""
        self.tally.failed += 1
        with self._blind_lock:
            self._blind = True
            self.status.set("failed", reason)

    def model_looked(self) -> None:
        """The model has looked at a frame; ends what `model_failed` began."""
        self.tally.processed += 1
        if self._blind:
            with self._blind_lock:
                if self._blind:
                    self._blind = False
                    self.status.set(self._verdict.state, self._verdict.reason, only_from=("failed",))

    def idle(self, fault: str) -> None:
        """The source has looked and has no picture; see `SourceContext.idle`. Called in the thread that reads it."""
        self._silence = fault
        if fault:
            return
        self._last_frame_ns = self._clock.monotonic_ns()
        if self._watch is not None:
            self._watch.idle()
        with self._blind_lock:
            if self._blind:
                return
            if self.status.state not in _SEEING:
                self._backoff.reset()
                self.status.set("live", IDLE_REASON)
            else:
                self.status.set("live", LIVE_REASON, only_from=("late",))

    def check_stalled(self) -> None:
        """Called now and then: no frame for too long, although nothing of ours holds the reader up, is `stalled`."""
        silent_ns = self._clock.monotonic_ns() - self._last_frame_ns
        if self._exchange.is_waiting(self.name):
            return
        if silent_ns > self._stall_after_ns:
            reason = f"no frame for {self._stall_after_ns / 1e9:g} s"
            if self._silence:
                reason = f"{reason}: {self._silence}"
            self.status.set("stalled", reason, only_from=("starting", *_SEEING))
        elif self._late_after_ns is not None and self._live and silent_ns > self._late_after_ns:
            self.status.set("late", late_reason(silent_ns / 1e9), only_from=("live",))

    def look_at_baseline(self) -> None:
        """Called now and then, by a thread that may wait for the disk: somebody may have changed the camera's baseline."""
        if self._watch is not None:
            self._watch.focus.look_at_file()

    @property
    def trouble(self) -> str:
        """What of the watch over its pictures is off although it is asked for, in words; empty where nothing is."""
        if self._watch is None or not self._is_watched:
            return ""
        return self._watch.focus.trouble

    @property
    def _is_watched(self) -> bool:
        return self._live or self._watch_files

    def _read_for_ever(self) -> None:
        try:
            while not self._stopping.is_set() and not self._read_once():
                self.tally.restarts += 1
            self._ended = True
        finally:
            self._close_sources()
            self.stopped.set()

    def _read_once(self) -> bool:
        """Open the source and read it until it ends (True) or fails (False, after the back-off)."""
        source: FrameSource | None = None
        self._last_frame_ns = self._clock.monotonic_ns()
        try:
            source = self._make_source(self.idle)
            with self._source_lock:
                self._source, self._unreadable_told = source, 0
            if self._stopping.is_set():  # `stop` may have come before there was a source to close
                source.close()
            self._hand_on(source)
        except EdgevisionError as failure:
            reason = str(failure)
        except Exception as failure:  # noqa: BLE001  the top of this thread: a bug in one camera's source must not take the others down
            _log.exception("camera source failed unexpectedly", extra={"fields": {"camera": self.name}})
            reason = f"internal error: {failure!r}"
        else:
            self.status.set("off", "stopped" if self._stopping.is_set() else "the source has ended")
            return True
        finally:
            if source is not None:
                with self._source_lock:
                    self._count_unreadable()
                    self._source = None
                source.close()
        if self._stopping.is_set():
            self.status.set("off", "stopped")
            return True
        with self._blind_lock:
            self._blind = False  # whatever the model makes of the last frame, none comes any more
            self.status.set("failed", reason)
        delay_s = self._backoff.next_delay_s()
        attempt = self._backoff.attempts
        if attempt & (attempt - 1) == 0:  # 1, 2, 4, 8 ...: a camera that is dead for a year must not fill the log
            fields = {"camera": self.name, "seconds": round(delay_s, 1), "attempt": attempt}
            _log.info("camera is tried again", extra={"fields": fields})
        return self._clock.wait(self._stopping, delay_s) and self._stopped_while_waiting()

    def _stopped_while_waiting(self) -> bool:
        self.status.set("off", "stopped")
        return True

    def _judge(self, frame: Frame) -> Verdict:
        if self._watch is None or not self._is_watched:
            return _BELIEVED
        return self._watch.see(frame)

    def _hand_on(self, source: FrameSource) -> None:
        tally = self.tally
        base, unreadable = tally.next_sequence, 0
        self._live = source.live
        self._silence = ""
        if self._watch is not None:
            self._watch.restart()
        for frame in source.frames():
            if self._stopping.is_set():
                return
            numbered = frame if base == 0 else replace(frame, sequence=base + frame.sequence)
            # What is missing in the row and was not unreadable, the reader had to leave out: nobody had time for it. In a
            # triggered camera's row it is triggers that are missing: no picture came for them, and `triggers` counts them.
            found = source.unreadable
            if self.triggers is None:
                tally.dropped += max(0, numbered.sequence - tally.next_sequence - (found - unreadable))
            unreadable = found
            tally.next_sequence = numbered.sequence + 1
            tally.captured += 1
            self._last_frame_ns = self._clock.monotonic_ns()
            self._silence = ""
            verdict = self._verdict = self._judge(numbered)
            if not self._exchange.put(self._captured(numbered, verdict), wait=not source.live):
                return
            self._last_frame_ns = self._clock.monotonic_ns()

    def _captured(self, frame: Frame, verdict: Verdict) -> Captured:
        """A frame with what is true of it, which its camera's state tells from now on."""
        with self._blind_lock:
            if self._blind:
                spell = self.status.spell
            else:
                if self.status.state not in _SEEING:
                    self._backoff.reset()
                spell = self.status.set(verdict.state, verdict.reason)
        return Captured(frame, verdict.state, trusted=verdict.trusted, spell=spell)
