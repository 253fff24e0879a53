"""Cameras at the other end of a real network connection: one that works, one that talks nonsense, one that says nothing."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, final

SERVER = Path(__file__).parent / "capture" / "rtsp_server.py"
SYSTEM_PYTHON = "/usr/bin/python3"
NEEDS = "needs an RTSP server: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good"


def has_gstreamer() -> bool:
    """Whether this machine has GStreamer's RTSP server."""
    code = "import gi; gi.require_version('GstRtspServer', '1.0')"
    known = Path(SYSTEM_PYTHON).exists()
    return known and subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, check=False).returncode == 0


@final
class RtspCamera:
    """An RTSP server that can be killed and started again at the same address."""

    def __init__(self) -> None:
        self.port = 0
        self.process: Any = None

    def __enter__(self) -> RtspCamera:
        self.start()
        return self

    def start(self, size: str = "160x120", codec: str = "jpeg") -> None:
        """Start (again); `codec` is jpeg or vp8."""
        arguments = [SYSTEM_PYTHON, str(SERVER), f"port={self.port}", f"size={size}", f"codec={codec}"]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing comes."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
            process.stdout.close()

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def source(self) -> dict[str, Any]:
        """For a camera's config."""
        return {"type": "opencv", "url": f"rtsp://127.0.0.1:{self.port}/cam"}


@final
class Impostor:
    """Stands at a camera's port and is none; `answer` is given each connection, which is closed in the end."""

    def __init__(self, answer: Callable[[socket.socket], None], port: int = 0) -> None:
        self.port = port
        self.answered = 0
        """Connections that were dealt with."""
        self._answer = answer
        self._open: list[socket.socket] = []

    def __enter__(self) -> Impostor:
        self._server = socket.create_server(("127.0.0.1", self.port))
        self.port = int(self._server.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return  # closed: it is over
            self._open.append(connection)
            with suppress(OSError):  # the reader has gone, and was right to
                self._answer(connection)
            self.answered += 1


def nonsense_camera(port: int = 0) -> Impostor:
    """Answers every connection with bytes that are no protocol."""

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(4096)
            connection.sendall(bytes(range(256)) * 400)

    return Impostor(answer, port)


def silent_camera(port: int = 0) -> Impostor:
    """Takes every connection and never says a word."""
    return Impostor(lambda _connection: None, port)
