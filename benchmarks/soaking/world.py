"""The world of a soak: a broker, cameras, a disk, a network between them, one daemon, and a consumer of what it says.

Everything is real: mosquitto, GStreamer's RTSP server, ext4 on a loop device, the daemon as systemd would start it, and
`edgevision consume`. Between them stand TCP proxies, in which cables are pulled.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, final

import cv2
from support_brokers import Mosquitto  # type: ignore[import-not-found]
from support_cameras import RtspCamera, has_gstreamer  # type: ignore[import-not-found]
from support_disks import Disk  # type: ignore[import-not-found]
from support_mqtt_tap import Tap  # type: ignore[import-not-found]
from support_proxy import Proxy  # type: ignore[import-not-found]

from edgevision.environment import shipped_models_dir
from edgevision.host.benchmark.frames import scene

DEVICE = "box"
FPS = 10.0
STALL_AFTER_S = 2.0
READER_DEADLINE_S = 1.5 * STALL_AFTER_S
KEEPALIVE_S = 5
DURABLE = (
    f"edgevision/{DEVICE}/+/results",
    f"edgevision/{DEVICE}/+/events",
    f"edgevision/{DEVICE}/+/status",
    f"edgevision/{DEVICE}/status",
)
"""What must not be lost; telemetry is for now."""
WATCHDOG_S = 10.0
MODEL = "efficientnet-lite0"


@dataclass(frozen=True, slots=True)
class Line:
    """A log line of the daemon."""

    time_s: float
    content: dict[str, Any]


@dataclass(slots=True)
class Daemon:
    """The process under a service manager, which is played by us over a real notify socket."""

    config: Path
    folder: Path
    environ: Mapping[str, str]
    told: list[tuple[float, str]] = field(default_factory=list)
    """What systemd was told, but for the watchdog."""
    lines: list[Line] = field(default_factory=list)
    hungry_s: float = 0.0
    """The longest the watchdog had to wait."""
    ready: threading.Event = field(default_factory=threading.Event)
    _fed_s: float = 0.0
    _process: Any = None
    _socket: Any = None
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start it; returns at once."""
        address = self.folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        (self.folder / "run").mkdir()
        environ = {
            **os.environ,
            **self.environ,
            "NOTIFY_SOCKET": str(address),
            "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)),
            "RUNTIME_DIRECTORY": str(self.folder / "run"),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgevision", "run", "-c", str(self.config), "--log-format", "json"],
            env=environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._threads = [threading.Thread(target=self._listen), threading.Thread(target=self._read)]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self._process.pid)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self, timeout_s: float = 60.0) -> int | None:
        """`systemctl stop`; its exit status, None where it did not end and was killed."""
        status: int | None = None
        self._process.send_signal(signal.SIGTERM)
        try:
            status = int(self._process.wait(timeout_s))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", self._socket.getsockname())
        for thread in self._threads:
            thread.join(10)
        self._process.stderr.close()
        self._socket.close()
        return status

    def _listen(self) -> None:
        while datagram := self._socket.recv(65536):
            now_s = time.time()
            text = datagram.decode()
            if text == "WATCHDOG=1":
                if self._fed_s:
                    self.hungry_s = max(self.hungry_s, now_s - self._fed_s)
                self._fed_s = now_s
                continue
            self.told.append((now_s, text))
            if "READY=1" in text:
                self.ready.set()

    def _read(self) -> None:
        for line in self._process.stderr:
            try:
                content = json.loads(line)
            except ValueError:
                content = {"level": "warning", "message": line.rstrip()}
            self.lines.append(Line(time.time(), content))


class Consumer:
    """`edgevision consume` into a file, with a session that the broker keeps."""

    def __init__(self, port: int, folder: Path) -> None:
        """Start it."""
        self.output = folder / "arrived.jsonl"
        topics = [word for topic in DURABLE for word in ("-t", topic)]
        self._command = [
            *(sys.executable, "-m", "edgevision", "consume", "--port", str(port), *topics, "--client-id", "soak"),
            *("--state", str(folder / "seen.sqlite"), "--output", str(self.output)),
        ]
        self._said: IO[str] = (folder / "consume.log").open("a", encoding="utf-8")
        self._process: Any = None
        self.start()

    def start(self) -> None:
        """Start (again)."""
        self._process = subprocess.Popen(self._command, stderr=self._said, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """SIGTERM."""
        self._process.terminate()
        self._process.wait(60)
        self._said.close()


def make_film(path: Path, *, seconds: int = 20, width: int = 640, height: int = 360) -> Path:
    """The package's photos drifting by, as MJPEG."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (width, height))
    wide = scene(width * 2, height)
    count = int(seconds * FPS)
    for number in range(count):
        left = number * width // count
        writer.write(wide[:, left : left + width])
    writer.release()
    return path


@final
class World:
    """Everything, up and running while entered."""

    def __init__(self, folder: Path, *, disk_mb: int = 512) -> None:
        """Starts nothing."""
        self.folder = folder
        self.truth = folder / "truth.jsonl"
        self.tap = Tap()
        self.disk: Any = None
        """A real disk under `state_dir`; None where this machine does not let us have one, and `no_disk` says why."""
        self.no_disk = ""
        self.models_dir = folder / "models"
        self._disk_mb = disk_mb
        self._stack = ExitStack()
        self._config_file = folder / "edgevision.yaml"

    def __enter__(self) -> World:
        """Start it all, and wait until the daemon is ready."""
        binary = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if binary is None or not has_gstreamer():
            raise SystemExit(
                "needs mosquitto and an RTSP server: apt-get install mosquitto python3-gi "
                "gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good"
            )
        with self._stack:
            self._start(binary)
            self._stack = self._stack.pop_all()
        return self

    def _start(self, binary: str) -> None:
        enter = self._stack.enter_context
        try:
            self.disk = enter(Disk(self.folder, size_mb=self._disk_mb))
        except OSError as failure:
            self.no_disk = str(failure)
        (self.folder / "broker").mkdir()
        self.broker = enter(
            Mosquitto(
                binary,
                self.folder / "broker",
                settings=(
                    *("allow_anonymous true", "max_queued_messages 0", "max_queued_bytes 0"),
                    *("autosave_on_changes true", "autosave_interval 10"),  # as deploy/mosquitto has it
                ),
                persistent=True,
            )
        )
        self.network = enter(Proxy(self.broker.port, tap=self.tap))
        self.camera = enter(RtspCamera())
        self.camera_network = enter(Proxy(self.camera.port))
        film = make_film(self.folder / "film.avi")
        shutil.copytree(shipped_models_dir() / MODEL, self.models_dir / MODEL)
        self.config: dict[str, Any] = {
            "device": DEVICE,
            "state_dir": str((self.disk.path if self.disk else self.folder) / "state"),
            "mqtt": {
                "host": "127.0.0.1",
                "port": self.network.port,
                "keepalive_s": KEEPALIVE_S,
                "results": {"qos": 1, "durable": True},
                "telemetry": {"interval_s": 1},
            },
            "sinks": [{"type": "jsonl", "path": str(self.truth), "max_bytes": 2**40, "queue_size": 100_000}],
            "models": {"m": {"model": MODEL, "threads": 1}},
            "cameras": [
                self._camera("dock", {"type": "opencv", "url": f"rtsp://127.0.0.1:{self.camera_network.port}/cam"}),
                self._camera("hall", {"type": "synthetic", "live": True, "width": 320, "height": 240}),
                self._camera("film", {"type": "opencv", "url": str(film), "loop": True}),
            ],
        }
        self.configure()
        self.consumer = Consumer(self.broker.port, self.folder)
        self._stack.callback(self.consumer.kill)
        self.daemon = Daemon(self._config_file, self.folder, {"EDGEVISION_MODELS": str(self.models_dir)})
        self.daemon.start()
        self._stack.callback(self._end_daemon)
        if not self.daemon.ready.wait(60):
            raise SystemExit(f"the daemon did not become ready: {[line.content for line in self.daemon.lines[-5:]]}")

    def _camera(self, name: str, source: dict[str, Any]) -> dict[str, Any]:
        rules = [{"type": "presence", "name": "there", "label": "espresso", "frames": 2}] if name == "film" else []
        return {
            "name": name,
            "source": source,
            "model": "m",
            "fps": FPS,
            "stall_after_s": STALL_AFTER_S,
            "reader": {"open_deadline_s": 10, "memory_mb": 384},
            "rules": rules,
        }

    def __exit__(self, *details: object) -> None:
        """End what still runs."""
        self._stack.close()

    def _end_daemon(self) -> None:
        if self.daemon.alive:
            self.daemon.end()

    def configure(self, *, text: str | None = None, **changes: Any) -> None:
        """Write the config file: as it is, with `changes` at its top, or a text instead."""
        new = self._config_file.with_suffix(".new")
        new.write_text(text if text is not None else json.dumps({**self.config, **changes}))  # JSON is YAML
        new.replace(self._config_file)

    def reader_pid(self, camera: str) -> int | None:
        """The process that reads a camera, where there is one just now."""
        for task in Path(f"/proc/{self.daemon.pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                with suppress(OSError):
                    if Path(f"/proc/{child}/comm").read_text().strip() == f"ev-{camera}":
                        return int(child)
        return None
