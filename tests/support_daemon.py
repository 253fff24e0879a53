"""The daemon as systemd runs it: a real process, a real notify socket, and a runtime that can be made to hang or crash."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, final

from support_brokers import PATIENCE_S

WATCHDOG_US = 1_000_000

PLUGIN = '''\
"""ONNX Runtime, which hangs for ever or takes the process down as soon as a file says so."""

import os
import threading
from pathlib import Path

from edgevision.inference import onnxrt
from edgevision.inference.onnxrt import Options

READS = (".onnx",)


class Fragile:
    def __init__(self, backend):
        self._backend = backend
        self.inputs, self.outputs = backend.inputs, backend.outputs

    def run(self, tensors):
        if Path(os.environ["FRAGILE"], "hang").exists():
            threading.Event().wait()
        if Path(os.environ["FRAGILE"], "abort").exists():
            os.abort()
        return self._backend.run(tensors)

    def close(self):
        self._backend.close()


def create(options, model, context):
    return Fragile(onnxrt.create(options, model, context))
'''

SINK_PLUGIN = '''\
"""A sink whose thread hangs in its first round."""

import threading

from edgevision.publish.memory import MemorySink, Options


def create(options, context):
    def hang():
        context.progress.enter("its first round")
        threading.Event().wait()

    threading.Thread(target=hang, daemon=True).start()
    return MemorySink(keep=options.keep)
'''


def install_fragile_backend(folder: Path) -> dict[str, str]:
    """A package with the backend `fragile` and a sink of that name, as pip would leave it; the environment finds it."""
    site = folder / "site"
    info = site / "fragile-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "fragile.py").write_text(PLUGIN)
    (site / "fragile_sink.py").write_text(SINK_PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fragile\nVersion: 1.0\n")
    points = "[edgevision.inference]\nfragile = fragile\n[edgevision.publish]\nfragile = fragile_sink\n"
    (info / "entry_points.txt").write_text(points)
    return {"PYTHONPATH": str(site), "FRAGILE": str(folder)}


@final
class ServiceManager:
    """systemd's side of a `Type=notify` service: starts the process, and remembers what it is told."""

    def __init__(self, folder: Path, config: Path, **environ: str) -> None:
        self.told: list[str] = []
        self.lines: list[str] = []
        self._config = config
        self._changed = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = folder / "notify"
        address.unlink(missing_ok=True)
        self._socket.bind(str(address))
        run = folder / "run"
        run.mkdir(exist_ok=True)
        self._environ = {
            **os.environ,
            **environ,
            "NOTIFY_SOCKET": str(address),
            "WATCHDOG_USEC": str(WATCHDOG_US),
            "RUNTIME_DIRECTORY": str(run),
        }
        self.process: Any = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> ServiceManager:
        command = [sys.executable, "-m", "edgevision", "run", "-c", str(self._config)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=self._environ)
        self._threads = [threading.Thread(target=self._listen), threading.Thread(target=self._read)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", self._socket.getsockname())
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self.process.stderr.close()
        self._socket.close()

    def _listen(self) -> None:
        while datagram := self._socket.recv(65536):
            self._note(self.told, datagram.decode())

    def _read(self) -> None:
        for line in self.process.stderr:
            self._note(self.lines, line)

    def _note(self, where: list[str], text: str) -> None:
        with self._changed:
            where.append(text)
            self._changed.notify_all()

    def _wait(self, where: list[str], words: str, count: int, timeout_s: float) -> list[str]:
        with self._changed:
            met = self._changed.wait_for(lambda: sum(words in text for text in where) >= count, timeout_s)
            assert met, f"{words!r} did not come {count} times: told {self.told[-20:]}, logged {self.lines[-20:]}"
            return [text for text in where if words in text]

    def wait_told(self, words: str, count: int = 1, timeout_s: float = 60.0) -> list[str]:
        """Wait until systemd was told something with `words` in it, `count` times."""
        return self._wait(self.told, words, count, timeout_s)

    def wait_line(self, words: str, timeout_s: float = 60.0) -> str:
        """Wait for a log line."""
        return self._wait(self.lines, words, 1, timeout_s)[0]

    def hang_up(self) -> None:
        """`systemctl reload`."""
        self.process.send_signal(signal.SIGHUP)

    def terminate(self) -> int:
        """`systemctl stop`; gives the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return int(self.process.wait(PATIENCE_S * 2))
