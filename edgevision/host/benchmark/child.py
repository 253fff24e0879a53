"""The parent's end of a job: start the worker, hear it out, and leave no process behind, on Ctrl-C neither."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from edgevision import errors
from edgevision.errors import EdgevisionError, InferenceError

SILENCE_S = 900.0
"""A worker that says nothing for so long hangs. Building an engine at load may take minutes."""
_LAST_WORDS_BYTES = 2000


def run(
    job: dict[str, Any],
    *,
    on_line: Callable[[dict[str, Any]], None] = lambda _line: None,
    silence_s: float = SILENCE_S,
    command: tuple[str, ...] = (sys.executable, "-m", "edgevision.host.benchmark.worker"),
) -> dict[str, Any]:
    """Do a job in a process of its own and return its result; `on_line` is told of everything that it says before.

    Raises:
        EdgevisionError: what the worker raised, of the same kind; or it died or hung, with its last words.
    """
    with tempfile.TemporaryFile() as said:
        spawned_ns = time.monotonic_ns()
        process = subprocess.Popen(  # noqa: S603  our own interpreter and module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018  both are pipes
        try:
            with process.stdin as pipe:
                pipe.write(json.dumps({**job, "spawned_ns": spawned_ns}).encode() + b"\n")
            for line in _lines(process.stdout, silence_s):
                if "error" in line:
                    raise _error(line["error"])
                if "result" in line:
                    result: dict[str, Any] = line["result"]
                    result["warnings"] = _warnings(said)
                    return result
                on_line(line)
            status = process.wait(timeout=silence_s)
        except BrokenPipeError:
            status = process.wait(timeout=silence_s)
        except TimeoutError:
            raise InferenceError(
                f"{_name(job)}: the measuring process said nothing for {silence_s:g} s and was ended{_last_words(said)}"
            ) from None
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        raise InferenceError(f"{_name(job)}: the measuring process {how}{_last_words(said)}")


def _lines(pipe: IO[bytes], silence_s: float) -> Iterator[dict[str, Any]]:
    """The worker's JSON lines until it closes its end; raises TimeoutError."""
    pending = b""
    while True:
        if not select.select([pipe], [], [], silence_s)[0]:
            raise TimeoutError
        chunk = os.read(pipe.fileno(), 1 << 16)
        if not chunk:
            return
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            yield json.loads(line)


def _error(told: dict[str, Any]) -> EdgevisionError:
    """The worker's error as one of the same kind; a kind whose making needs more than a text becomes the nearest simple one."""
    kind = getattr(errors, told["kind"], EdgevisionError)
    if issubclass(kind, errors.DocumentError):
        kind = errors.ModelError if issubclass(kind, errors.ModelError) else errors.UsageError
    made: EdgevisionError = kind(told["message"])
    return made


def _text(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode("utf-8", "replace")


def _warnings(said: IO[bytes]) -> list[str]:
    """Our own log lines; what runtimes chatter is not for the user."""
    return [line for line in _text(said).splitlines() if line.startswith("time=")]


def _last_words(said: IO[bytes]) -> str:
    text = _text(said).strip()[-_LAST_WORDS_BYTES:]
    return f"; its last words:\n{text}" if text else ""


def _name(job: dict[str, Any]) -> str:
    return f"{job['model']} ({job['backend'] or 'default backend'}, {job['threads']} threads)"
