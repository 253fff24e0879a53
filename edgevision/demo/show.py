"""The demo from end to end: a broker, the daemon, and a viewer that shows what arrived."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevision import assembly, config, documents, model_store
from edgevision.capture.images import IMAGE_SUFFIXES
from edgevision.demo.broker import EmbeddedBroker
from edgevision.demo.feed import Feed
from edgevision.environment import default_state_dir
from edgevision.errors import CaptureError, ConfigError, PublishError, UsageError
from edgevision.runtime.service import Service

if TYPE_CHECKING:
    from rich.console import RenderableType

DEVICE = "demo"
TOPIC = "edgevision"
PHOTOS = Path(__file__).resolve().parent.parent / "data" / "photos"
PHOTO_FPS = 10.0
REFRESH_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the user asked for."""

    seconds: float | None = None
    """None is until Ctrl-C."""
    model: str = "efficientnet-lite0"
    like: str | None = None
    source: str | None = None
    """A picture, folder, video, URL or camera index; None is the package's photos."""
    backend: str | None = None
    fps: float | None = None


def play(options: DemoOptions, stopping: threading.Event, show: Callable[[Feed, int], None]) -> dict[str, Any]:
    """Run the demo until its time is up or `stopping` is set.

    Args:
        options: what to play.
        stopping: ends the demo.
        show: called a few times a second with the feed and the broker's port.

    Returns:
        What arrived: frames, messages_received, messages_lost, top_labels, latency_p50_ms, latency_p99_ms, fps.

    Raises:
        EdgevisionError: the model, source or broker cannot be used, or nothing arrived at all.
    """
    with tempfile.TemporaryDirectory(prefix="edgevision-demo-") as folder, EmbeddedBroker() as broker:
        settings = _config(options, broker, Path(folder))
        feed = Feed(broker.host, broker.port, f"{TOPIC}/{DEVICE}/#")
        feed.start()
        try:
            _watch(Service(settings), feed, options.seconds, stopping, lambda: show(feed, broker.port))
        finally:
            feed.close()
        show(feed, broker.port)
        return _summary(feed)


def _watch(
    service: Service, feed: Feed, seconds: float | None, stopping: threading.Event, show: Callable[[], None]
) -> None:
    service.start()
    ended = threading.Event()

    def wait() -> None:
        service.wait(stopping)
        ended.set()

    threading.Thread(target=wait, name="demo-service", daemon=True).start()
    timer = threading.Timer(seconds, stopping.set) if seconds is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        while not ended.wait(REFRESH_S):
            show()
    finally:
        stopping.set()
        if timer is not None:
            timer.cancel()
        service.stop("the demo is over")
    if not feed.wait_offline(5.0):
        raise PublishError("the daemon's last message did not arrive at the viewer")


def _config(options: DemoOptions, broker: EmbeddedBroker, folder: Path) -> config.Config:
    """The demo's config, checked by the same code as a user's file."""
    data: dict[str, Any] = {
        "device": DEVICE,
        "state_dir": str(folder),
        # The embedded broker speaks 3.1.1 only; a production broker is asked for 5 first.
        "mqtt": {
            "host": broker.host,
            "port": broker.port,
            "topic": TOPIC,
            "protocol": "3.1.1",
            "telemetry": {"interval_s": 2},
        },
        "models": {"demo": {"model": _model(options, folder), "threads": 2}},
        "cameras": [{"name": "camera-1", "model": "demo", **_camera(options)}],
    }
    if options.backend is not None:
        data["models"]["demo"]["backend"] = options.backend
    try:
        return config.from_document(documents.Document(file="demo", data=data, lines={}), folder=folder, environ={})
    except ConfigError as failure:
        raise UsageError("; ".join(f"{fault.key}: {fault.problem}" for fault in failure.faults)) from failure


def _model(options: DemoOptions, folder: Path) -> str:
    """The model's name or folder; a bare file becomes a model folder for as long as the demo lasts."""
    file = Path(options.model)
    if file.suffix.lower() not in model_store.BACKEND_BY_SUFFIX:
        return str(model_store.find(options.model).path)
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    assembly.Prober(state_dir=default_state_dir()).check_file(file, assembly.ModelSettings(backend=options.backend))
    described = assembly.identify(file, like=options.like)
    described.model.close()
    models_dir = folder / "models"
    return str(
        model_store.add(
            described.manifest, described.content, labels_from=described.labels_from, models_dir=models_dir
        ).path
    )


def _camera(options: DemoOptions) -> dict[str, Any]:
    """The camera's `source` and `fps`."""
    source = options.source
    if source is None:
        return {"source": {"type": "images", "path": str(PHOTOS), "loop": True}, "fps": options.fps or PHOTO_FPS}
    fps = {"fps": options.fps} if options.fps else {}
    if source.isdigit():
        return {"source": {"type": "opencv", "url": int(source)}, **fps}
    if "://" in source or source.startswith("/dev/"):
        return {"source": {"type": "opencv", "url": source}, **fps}
    path = Path(source)
    if not path.exists():
        raise UsageError(f"{source}: no such file or folder; a camera is a number (0), /dev/video0, or a URL")
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES - {".gif"}:
        return {"source": {"type": "images", "path": str(path), "loop": True}, "fps": options.fps or PHOTO_FPS}
    return {"source": {"type": "opencv", "url": str(path), "loop": True}, **fps}


def _summary(feed: Feed) -> dict[str, Any]:
    frames = sum(camera.results for camera in feed.cameras.values())
    if frames == 0:
        states = "; ".join(f"{name} is {camera.state}: {camera.reason}" for name, camera in feed.cameras.items())
        raise CaptureError(f"no frame was seen: {states or 'no camera said anything'}")
    p50, p99 = np.percentile(np.array(feed.latencies_ms), (50, 99))
    return {
        "frames": frames,
        "messages_received": feed.received,
        "messages_lost": feed.lost,
        "top_labels": [label for label, _ in feed.labels.most_common(5)],
        "latency_p50_ms": round(float(p50), 2),
        "latency_p99_ms": round(float(p99), 2),
        "fps": round(feed.fps, 2),
    }


def table(feed: Feed, port: int) -> RenderableType:
    """What arrived, as a table for the terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    grid.add_column("camera")
    grid.add_column("state")
    grid.add_column("label", min_width=24)
    for title in ("confidence", "latency", "fps", "frames", "drops"):
        grid.add_column(title, justify="right")
    for name, camera in sorted(feed.cameras.items()):
        grid.add_row(
            name,
            Text(camera.state, style="green" if camera.state == "live" else "yellow"),
            Text(camera.label),  # rich would take `[left]` in a string for its markup
            "" if camera.confidence is None else f"{camera.confidence:.2f}",
            "" if camera.latency_ms is None else f"{camera.latency_ms:.1f} ms",
            f"{camera.fps:.1f}",
            str(camera.results),
            str(camera.dropped),
        )
    reasons = [
        Text(f"{name}: {camera.reason}", style="yellow")
        for name, camera in sorted(feed.cameras.items())
        if camera.state != "live"
    ]
    arrived = Text(f"{feed.received} messages arrived, {feed.lost} lost", style="bold" if not feed.lost else "bold red")
    watch = Text(f"mosquitto_sub -h 127.0.0.1 -p {port} -t '{TOPIC}/{DEVICE}/+/results' -v", style="cyan")
    return Group(grid, *reasons, Text(), arrived, Text("watch the same messages: ").append_text(watch))
