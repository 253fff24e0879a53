"""The crash journal, and safe mode: after repeated crashes the daemon starts without the part that crashes.

One small file a device in the state folder holds the last runs: how each began, what it was loading, and how it ended. A run
without an end has crashed, unless the machine was switched off under it (the kernel's boot id tells). Which part it was, is
read from the stack that `faulthandler` leaves when a process dies by a signal; a stuck part and a model that cannot be loaded
are written down by name. A part is left out once it is to blame for `after` crashes in a row, until the config or a model
changes, or somebody asks for a whole start; a run that lasted GOOD_AFTER_S breaks the row.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import re
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from edgevision.clock import Clock
from edgevision.config import Config
from edgevision.environment import kernel_boot_id
from edgevision.messages import timestamp

_log = logging.getLogger(__name__)

GOOD_AFTER_S = 600.0
"""A run that lasted so long was a good one: a crash a week is no row of crashes."""
_KEEP_RUNS = 20
_BAD_ENDS = frozenset({"crashed", "stuck", "failed"})
# CPython's faulthandler: `Current thread 0x00007f... (most recent call first):`, then `  File "...", line 3 in run`.
_CRASHED_THREAD = re.compile(r"^Current thread 0x([0-9a-f]+)", re.MULTILINE)
_THREAD = re.compile(r"^(?:Current thread|Thread) 0x([0-9a-f]+).*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SafeMode:
    """What a start leaves out."""

    parts: tuple[str, ...] = ()
    """`camera:NAME`, `model:NAME`."""
    reason: str = ""
    """For people; empty where nothing is left out."""

    def apply(self, config: Config) -> Config:
        """The config without them; a left-out model takes its cameras along."""
        if not self.parts:
            return config
        return config.model_copy(
            update={"cameras": [c for c in config.cameras if not self.leaves_out(c.name, c.model)]}
        )

    def leaves_out(self, camera: str, model: str) -> bool:
        """Whether a camera is not to be started."""
        return f"camera:{camera}" in self.parts or f"model:{model}" in self.parts


class CrashJournal:
    """`begin`, then `doing` and `running`, then `end`."""

    def __init__(self, folder: Path, device: str, *, clock: Clock, after: int, proc: Path = Path("/proc")) -> None:
        """Nothing is read yet. `after` crashes in a row bring safe mode, 0 never; `proc` is another folder in tests."""
        self._file = folder / f"runs-{device}.json"
        self._dump = folder / f"crash-{device}.txt"
        self._clock = clock
        self._after = after
        self._boot = kernel_boot_id(proc)
        self._content: dict[str, Any] = {"runs": [], "left_out": [], "left_out_for": ""}
        self._lock = threading.Lock()
        self._usable = True
        self._stack: TextIO | None = None

    def begin(self, identity: str, *, whole: bool = False) -> SafeMode:
        """A run begins.

        Args:
            identity: digest of the config, the models and the version: a change is a reason to try everything again.
            whole: leave nothing out, and forget the crashes so far.

        Returns:
            What this run has to leave out.
        """
        with self._lock:
            self._read()
            runs = self._content["runs"]
            self._judge_last(runs)
            if whole or self._content["left_out_for"] != identity:
                self._content["left_out"] = []
            if whole:
                runs.clear()
            self._content["left_out_for"] = identity
            without: list[str] = self._content["left_out"]
            row = self._row(runs, identity, without)
            blamed = Counter(run["part"] for run in row if run["part"] and run["part"] not in without)
            if self._after and len(row) >= self._after:
                if blamed:
                    without.append(blamed.most_common(1)[0][0])
                else:
                    _log.warning("crashes in a row, by no part that is known", extra={"fields": {"crashes": len(row)}})
            reason = ""
            if without:
                reason = (
                    f"without {', '.join(part.replace(':', ' ') for part in without)}, after {self._after} crashes in a "
                    "row; tried again when the config or the model changes, or by edgevision run --no-safe-mode"
                )
            began = timestamp(self._clock.time_ns())
            run = {"began": began, "boot": self._boot, "identity": identity, "without": list(without), "doing": ""}
            runs.append(run | {"threads": {}, "end": None, "part": None, "reason": "", "good": False})
            del runs[:-_KEEP_RUNS]
            self._save()
            self._watch_signals()
        return SafeMode(parts=tuple(without), reason=reason)

    def doing(self, part: str) -> None:
        """What is being loaded now, in the thread that calls; empty: nothing."""
        self._note(doing=part, threads={f"{threading.get_ident():x}": part} if part else {})

    def running(self) -> None:
        """Everything runs: the threads of cameras and models by their names, so that a crash can be laid at a door."""
        named = {f"{thread.ident:x}": thread.name for thread in threading.enumerate() if ":" in thread.name}
        self._note(doing="", threads=named)

    def good(self) -> None:
        """The run has lasted for GOOD_AFTER_S."""
        self._note(good=True)

    def end(self, how: str, *, reason: str, part: str | None = None) -> None:
        """The run ends: `clean`, `stuck`, or `failed` (to start); `part` is to blame, else what was being loaded."""
        with self._lock:
            runs = self._content["runs"]
            loading = runs[-1]["doing"] if runs and how != "clean" else ""
        self._note(end=how, reason=reason, part=part or loading or None)
        if self._stack is not None:
            faulthandler.disable()
            self._stack.close()
            self._stack = None

    def _note(self, **fields: Any) -> None:
        with self._lock:
            if self._content["runs"]:
                self._content["runs"][-1].update(fields)
                self._save()

    def _row(self, runs: list[dict[str, Any]], identity: str, without: list[str]) -> list[dict[str, Any]]:
        """The newest runs that ended badly, in a row, with the same things to run."""
        row = []
        for run in reversed(runs):
            if run["good"] or run["end"] not in _BAD_ENDS or (run["identity"], run["without"]) != (identity, without):
                break
            row.append(run)
        return row

    def _judge_last(self, runs: list[dict[str, Any]]) -> None:
        """A run without an end: switched off with the machine, or crashed."""
        if not runs or runs[-1]["end"] is not None:
            return
        last = runs[-1]
        if last["boot"] != self._boot:
            last["end"] = "switched off"
            return
        try:
            stack = self._dump.read_text(encoding="utf-8", errors="replace") if self._dump.is_file() else ""
        except OSError as failure:
            self._tell_dump("stack of the last crash cannot be read: it counts without", failure)
            stack = ""
        last["end"], last["reason"] = "crashed", stack.partition("\n")[0]
        last["part"] = blame(stack, last["threads"]) or last["doing"] or None
        fields = {"began": last["began"], "part": last["part"] or "unknown", "reason": last["reason"] or "killed"}
        _log.warning("the last run crashed", extra={"fields": fields})

    def _watch_signals(self) -> None:
        if not self._usable:
            return
        try:
            self._dump.replace(self._dump.with_suffix(".last.txt"))
        except FileNotFoundError:
            pass  # the last run left none
        except OSError as failure:
            self._tell_dump("stack of the last crash cannot be kept", failure)
        try:
            # Open as long as the process lives: a signal handler cannot open files.
            self._stack = self._dump.open("w", encoding="utf-8")
        except OSError as failure:
            self._tell_dump("stack of a crash cannot be written: it would count without", failure)
            return
        faulthandler.enable(self._stack)

    def _tell_dump(self, what: str, failure: OSError) -> None:
        """No stack only means that a crash may be laid at no door: no reason not to run."""
        _log.warning(what, extra={"fields": {"file": str(self._dump), "reason": failure.strerror or str(failure)}})

    def _read(self) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            if self._file.is_file():
                self._content = _checked(json.loads(self._file.read_bytes()))
        except (OSError, ValueError) as failure:
            fields = {"file": str(self._file), "reason": str(failure)}
            _log.warning("crash journal cannot be read and begins anew", extra={"fields": fields})

    def _save(self) -> None:
        if not self._usable:
            return
        beside = self._file.with_suffix(".new")
        try:
            with beside.open("w", encoding="utf-8") as stream:
                json.dump(self._content, stream, indent=1)
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(self._file)
        except OSError as failure:
            # Without a place to write there is no safe mode; that is no reason not to run.
            self._usable = False
            fields = {"file": str(self._file), "reason": failure.strerror or str(failure)}
            _log.warning("crash journal cannot be written: crashes will not be counted", extra={"fields": fields})


def blame(stack: str, threads: dict[str, str]) -> str | None:
    """The part whose thread a crash happened in.

    Args:
        stack: what faulthandler wrote; empty where the process was killed.
        threads: part by thread, the thread's identifier in hex.

    Returns:
        A part, or None where the stack does not tell. A runtime's own thread, which Python does not know, is laid at the door
        of the only model that was in its runtime at that moment.
    """
    current = _CRASHED_THREAD.search(stack)
    if current is not None and (part := threads.get(current.group(1).lstrip("0"))):
        return part
    heads = list(_THREAD.finditer(stack))
    inside = set()
    ends = [*(head.start() for head in heads[1:]), len(stack)]
    for head, end in zip(heads, ends[: len(heads)], strict=True):
        frames = stack[head.end() : end]
        part = threads.get(head.group(1).lstrip("0"), "")
        if part.startswith("model:") and "/inference/" in frames:
            inside.add(part)
    return inside.pop() if len(inside) == 1 else None


def _checked(content: Any) -> dict[str, Any]:
    """What was read, if it is a journal; ValueError else."""
    keys = {"runs", "left_out", "left_out_for"}
    fields = {"began", "boot", "identity", "without", "doing", "threads", "end", "part", "reason", "good"}
    if not (isinstance(content, dict) and content.keys() >= keys and isinstance(content["runs"], list)):
        raise ValueError("it is no crash journal")
    if not all(isinstance(run, dict) and run.keys() >= fields for run in content["runs"]):
        raise ValueError("a run in it lacks what a run has")
    return content
