"""Damaged journals: set aside, never fatal, and an alarm until a person has seen to it.

The alarm stands as long as the file that was set aside lies there, also over a restart: to take it away is to have seen it. A
journal that somebody deleted while it was in use leaves no such file; its alarm ends after a day.
"""

from __future__ import annotations

import time
from pathlib import Path

from edgevision.clock import Clock

_LOOK_S = 10.0
"""How often is looked whether the files still lie there, at most."""
_GONE_ALARM_S = 86_400.0
_KEEP = 3
"""Files that are kept to be looked at: a dying disk must not fill itself with them."""
_BESIDE = ("-wal", "-shm")
"""What SQLite keeps beside its file."""


class Damage:
    """The damaged journals of one place; used by one thread."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        """`path` is the journal's."""
        self._path = path
        self._clock = clock
        self._found: dict[Path, str] = {}
        """What was wrong with those that we set aside."""
        self._gone: tuple[str, int] | None = None
        """Of a journal that was deleted: the alarm, and until when (monotonic nanoseconds)."""
        self._looked_ns: int | None = None

    def set_aside(self, found: str) -> str:
        """Rename the damaged journal with what belongs to it, so that a new one can take its place; gives what to tell.

        Args:
            found: what is wrong with it.

        Raises:
            OSError: the folder does not let us.
        """
        self._looked_ns = None
        text = f"the journal {self._path} was damaged ({found})"
        if self._path.exists():
            target = self._rename()
            self._found[target] = text = f"{text} and is set aside as {target}"
            return text
        for suffix in _BESIDE:
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        text = f"{text} and is gone"
        self._gone = text, self._clock.monotonic_ns() + int(_GONE_ALARM_S * 1e9)
        return text

    def alarm(self) -> str | None:
        """The alarm now, empty where there is none; None where it was looked for a moment ago."""
        now_ns = self._clock.monotonic_ns()
        if self._looked_ns is not None and now_ns - self._looked_ns < _LOOK_S * 1e9:
            return None
        self._looked_ns = now_ns
        texts = [self._found.get(path, f"a damaged journal was set aside as {path}") for path in self._lying()]
        if texts:
            texts[-1] += " (what it held is not sent; removing the file ends this alarm)"
        if self._gone is not None and now_ns < self._gone[1]:
            texts.append(self._gone[0])
        return "; ".join(texts)

    def _lying(self) -> list[Path]:
        """Those that were set aside and still lie there, the oldest first."""
        return sorted(self._path.parent.glob(f"{self._path.stem}-damaged-*{self._path.suffix}"))

    def _rename(self) -> Path:
        path = self._path
        for old in self._lying()[: -_KEEP + 1]:
            for suffix in ("", *_BESIDE):
                Path(f"{old}{suffix}").unlink(missing_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock.time_ns() // 10**9))
        target = path.with_name(f"{path.stem}-damaged-{stamp}{path.suffix}")
        number = 1
        while target.exists():
            number += 1
            target = path.with_name(f"{path.stem}-damaged-{stamp}-{number}{path.suffix}")
        path.rename(target)
        for suffix in _BESIDE:
            beside = Path(f"{path}{suffix}")
            if beside.exists():
                beside.rename(f"{target}{suffix}")
        return target
