"""One function of ours in a process of its own, for what may crash or hang in native code: drivers, runtimes, hostile files.

The process is started afresh (`sys.executable`, never a fork of a process with threads). The job goes in and the answer comes
out through anonymous files, so that neither side ever waits for the other's pipe and no argument shows a secret. It ends with
us (PR_SET_PDEATHSIG), after its deadline it is killed, and its memory is bounded by the kernel.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeAlias

from edgevision import errors
from edgevision.errors import EdgevisionError

MAX_ANSWER_BYTES = 64 << 20
_MAX_WORDS = 300
_LOOK_EVERY_S = 0.1
_LAST_WORD_S, _DIES_WITHIN_S = 0.5, 2.0
_PR_SET_PDEATHSIG = 1
# numpy's linear algebra makes a thread and buffers for each core when it is imported, and nobody here asks it for anything.
_START = (
    "import os, sys; sys.path[:] = sys.argv[6:]; os.environ.setdefault('OPENBLAS_NUM_THREADS', '1'); "
    "from edgevision.child import main; main(sys.argv[1], *map(int, sys.argv[2:6]))"
)
_NO_MEMORY = re.compile(r"bad_alloc|MemoryError|[Cc]annot allocate memory|[Ff]ailed to allocate|out of memory")
_left_behind: list[subprocess.Popen[bytes]] = []
"""Killed, and still held by the kernel (a driver that waits for its device); asked again with every call."""

How: TypeAlias = Literal["signal", "deadline", "memory", "status"]


class ChildGoneError(Exception):
    """The process gave no answer; the text says how it ended, `how` for programs."""

    def __init__(self, text: str, how: How) -> None:
        """Keep both."""
        super().__init__(text)
        self.how = how


def call(
    target: str,
    job: Mapping[str, Any],
    *,
    deadline_s: float,
    memory_bytes: int = 0,
    content: bytes | None = None,
    stopping: threading.Event | None = None,
) -> Any:
    """Call a function in a child process.

    Args:
        target: `package.module:function`. It is called with the job, and with `content` as a second argument where that is
            given.
        job: plain JSON data.
        deadline_s: seconds from the start of the process to its answer; Python and the imports are in it.
        memory_bytes: of private memory that it may have; 0 is without limit.
        content: bytes that are handed over as they are.
        stopping: set by another thread where nobody waits for the answer any more.

    Returns:
        What the function returned, which must be plain JSON data.

    Raises:
        ChildGoneError: it crashed, hung, or took too much memory.
        EdgevisionError: the function raised it; of the same kind.
    """
    _left_behind[:] = [process for process in _left_behind if process.poll() is None]
    files = [os.memfd_create(name, 0) for name in ("job", "content", "answer", "said")]
    job_fd, content_fd, answer_fd, said_fd = files
    try:
        _fill(job_fd, json.dumps(job).encode())
        _fill(content_fd, content or b"")
        process = subprocess.Popen(  # noqa: S603  the interpreter that runs us, and no text from outside
            [sys.executable, "-c", _START, target, str(content_fd if content is not None else -1), str(answer_fd),
             str(memory_bytes), str(os.getpid()), *sys.path],
            stdin=job_fd,
            stdout=said_fd,
            stderr=said_fd,
            pass_fds=[content_fd, answer_fd],
            start_new_session=True,  # so that what it starts is killed with it; and Ctrl-C is ours to handle
        )  # fmt: skip
        try:
            _wait(process, deadline_s, stopping)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler writes down where it was
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LAST_WORD_S)
            text = f"gave no answer within {deadline_s:g} s and was killed"
            raise ChildGoneError(text + _words(said_fd, "; it was in "), "deadline") from None
        finally:
            _end(process)
        return _answer(process.returncode, answer_fd, said_fd, memory_bytes)
    finally:
        for descriptor in files:
            os.close(descriptor)


def lacks_memory(text: str) -> bool:
    """Whether the words of a library or of ours say that it got no memory."""
    return _NO_MEMORY.search(text) is not None


def _wait(process: subprocess.Popen[bytes], deadline_s: float, stopping: threading.Event | None) -> None:
    if stopping is None:
        process.wait(deadline_s)
        return
    end_s = time.monotonic() + deadline_s
    while process.poll() is None:
        if stopping.wait(_LOOK_EVERY_S):
            raise ChildGoneError("was told to end", "deadline")
        if time.monotonic() > end_s:
            raise subprocess.TimeoutExpired(process.args, deadline_s)


def _fill(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(_DIES_WITHIN_S)
    except subprocess.TimeoutExpired:
        _left_behind.append(process)


def _answer(status: int, answer_fd: int, said_fd: int, memory_bytes: int) -> Any:
    content = os.pread(answer_fd, MAX_ANSWER_BYTES, 0)
    try:
        answer = json.loads(content) if status == 0 and content else {}
    except ValueError:  # only a process whose memory is damaged says such things
        answer = {}
    if "result" in answer:
        return answer["result"]
    if "error" in answer:
        raise _error(answer["error"])
    said = _tail(said_fd)
    if "memory" in answer or (memory_bytes and lacks_memory(said)):
        raise ChildGoneError(f"needs more than the {memory_bytes >> 20} MiB that it may have", "memory")
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        raise ChildGoneError(f"crashed with {name}{_words(said_fd, ' in ')}", "signal")
    line = next((line for line in reversed(said.splitlines()) if line.strip()), "")[:_MAX_WORDS]
    raise ChildGoneError(f"ended with status {status}" + (f": {line}" if line else ""), "status")


def _words(said_fd: int, before: str) -> str:
    """Where Python was, by the stack that `faulthandler` left: the innermost function of ours."""
    frames = re.findall(r'^  File "[^"]*?(edgevision/[^"]+)", line (\d+) in (\w+)', _tail(said_fd), re.MULTILINE)
    return f"{before}{frames[0][0]}, {frames[0][2]}" if frames else ""


def _tail(said_fd: int) -> str:
    size = os.fstat(said_fd).st_size
    return os.pread(said_fd, 1 << 16, max(0, size - (1 << 16))).decode("utf-8", "replace")


def _error(told: Mapping[str, Any]) -> EdgevisionError:
    """The child's error as one of the same kind; a kind whose making needs more than a text becomes the nearest simple one."""
    kind = getattr(errors, told["kind"], EdgevisionError)
    if issubclass(kind, errors.DocumentError):
        kind = errors.ModelError if issubclass(kind, errors.ModelError) else errors.UsageError
    made: EdgevisionError = kind(told["text"])
    return made


def main(target: str, content_fd: int, answer_fd: int, memory_bytes: int, parent: int) -> None:
    """The child's side: do the job that stands on standard input, answer, and end without any library's last rites."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew that we want to go with it
        os._exit(0)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected here; a dump of a model's size helps nobody
    if memory_bytes:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    job = json.loads(sys.stdin.buffer.read())
    arguments: list[Any] = [job]
    if content_fd >= 0:
        with open(content_fd, "rb") as stream:
            arguments.append(stream.read())
    try:
        module, _, name = target.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        answer: dict[str, Any] = {"result": function(*arguments)}
    except EdgevisionError as failure:
        kinds = [kind.__name__ for kind in type(failure).__mro__ if kind.__module__ == errors.__name__]
        answer = {"error": {"kind": kinds[0], "text": str(failure)}}
    except MemoryError:
        answer = {"memory": True}
    _fill(answer_fd, json.dumps(answer).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    # Native libraries' own ends hang and crash, and everything that matters has been said.
    os._exit(0)
