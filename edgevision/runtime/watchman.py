"""The watchman: a thread that looks at the progress board, feeds systemd's watchdog, and ends a process that is stuck.

A thread that hangs inside a runtime's or a driver's C code cannot be ended; only the whole process can. So the watchman
says what hangs, on the log and wherever a message still gets through, and leaves the process; systemd starts a new one.
Where even this thread cannot run (a C extension that keeps Python's lock), the watchdog goes hungry, and systemd does it.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from edgevision.clock import Clock
from edgevision.environment import kernel_boot_id
from edgevision.errors import StuckError
from edgevision.runtime.progress import Board, Stuck
from edgevision.runtime.systemd import Notifier

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""How often the board is looked at, at the least."""
LAST_WORDS_S = 5.0
"""What telling the world may take before the process ends without it."""
HEALTH_FILE = "health.json"


class Watchman:
    """`start`, and `stop` at the very end."""

    def __init__(
        self,
        board: Board,
        *,
        notifier: Notifier,
        clock: Clock,
        last_words: Callable[[Stuck], None],
        leave: Callable[[int], None] = os._exit,
        health_dir: Path | None = None,
    ) -> None:
        """Make it; nothing runs yet.

        Args:
            board: what to look at.
            notifier: the line to systemd.
            clock: the time.
            last_words: tells the world what is stuck; may hang itself, and is given LAST_WORDS_S.
            leave: ends the process at once with a status.
            health_dir: where HEALTH_FILE is written for `edgevision health`; None for nowhere.
        """
        self._board = board
        self._notifier = notifier
        self._clock = clock
        self._last_words = last_words
        self._leave = leave
        self._health = None if health_dir is None else health_dir / HEALTH_FILE
        self._health_failed = False
        watchdog_ns = notifier.watchdog_ns
        # Half of systemd's interval, as sd_watchdog_enabled(3) recommends.
        self._interval_s = LOOK_EVERY_S if watchdog_ns is None else min(LOOK_EVERY_S, watchdog_ns / 2e9)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchman", daemon=True)

    def start(self) -> None:
        """Begin looking."""
        self._thread.start()

    def stop(self) -> None:
        """End; the last thing before the process itself."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(LAST_WORDS_S)
        if self._health is not None:
            try:
                self._health.unlink(missing_ok=True)
            except OSError as failure:
                self._tell_health("health file cannot be removed; edgevision health takes it for old in time", failure)

    def _watch(self) -> None:
        while not self._clock.wait(self._stopping, self._interval_s):
            try:
                stuck = self.look()
            except Exception:  # noqa: BLE001  the top of this thread: unfed, systemd's watchdog then ends the process
                _log.exception("the watchman failed; the watchdog is no longer fed")
                return
            if stuck is not None:
                return

    def look(self) -> Stuck | None:
        """Look once: feed the watchdog where all is well, else tell and leave."""
        stuck = self._board.stuck()
        self._write_health(stuck)
        if stuck is None:
            self._notifier.alive()
            return None
        fields = {
            "part": stuck.part,
            "doing": stuck.doing,
            "seconds": round(stuck.since_s, 1),
            "limit_s": stuck.limit_s,
        }
        _log.error("stuck: the process ends, so that a new one can take its place", extra={"fields": fields})
        self._notifier.status(f"ends: {stuck}")
        # In a thread of its own: what hangs may hold a lock that the telling needs.
        teller = threading.Thread(target=self._last_words, args=(stuck,), name="last-words", daemon=True)
        teller.start()
        teller.join(LAST_WORDS_S)
        self._leave(StuckError.exit_status)
        return stuck

    def _write_health(self, stuck: Stuck | None) -> None:
        if self._health is None:
            return
        content = {
            "healthy": stuck is None,
            "reason": "all parts make progress" if stuck is None else str(stuck),
            "monotonic_ns": self._clock.monotonic_ns(),
            "boot": kernel_boot_id(),
            "pid": os.getpid(),
        }
        beside = self._health.with_suffix(".new")
        try:
            self._health.parent.mkdir(parents=True, exist_ok=True)  # somebody may have swept /run
            beside.write_text(json.dumps(content), encoding="utf-8")
            beside.replace(self._health)
        except OSError as failure:
            # A full /run, say, that has room again later: given up, the file would say for ever that nobody lives.
            if not self._health_failed:
                self._tell_health("health file cannot be written; it is tried again at every look", failure)
            self._health_failed = True
            return
        if self._health_failed:
            _log.info("health file is written again", extra={"fields": {"file": str(self._health)}})
            self._health_failed = False

    def _tell_health(self, what: str, failure: OSError) -> None:
        fields = {"file": str(self._health), "reason": failure.strerror or str(failure)}
        _log.warning(what, extra={"fields": fields})
