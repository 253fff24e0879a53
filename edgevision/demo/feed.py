"""The demo's subscriber: a client of its own that knows only what arrived, as any consumer would."""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.errors import PublishError

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

KEPT_LATENCIES = 100_000
FPS_WINDOW = 60


@dataclass(slots=True)
class CameraFeed:
    """What arrived of one camera."""

    results: int = 0
    state: str = "starting"
    reason: str = ""
    label: str = ""
    confidence: float | None = None
    dropped: int = 0
    latency_ms: float | None = None
    """Capture to arrival of the newest result."""
    arrivals_ns: deque[int] = field(default_factory=lambda: deque(maxlen=FPS_WINDOW))

    @property
    def fps(self) -> float:
        """Results per second, over the newest ones."""
        if len(self.arrivals_ns) < 2:
            return 0.0
        return (len(self.arrivals_ns) - 1) / ((self.arrivals_ns[-1] - self.arrivals_ns[0]) / 1e9 or 1.0)


class Feed:
    """Subscribes to one device's topics and counts what comes, and by `seq` what does not."""

    def __init__(self, host: str, port: int, topics: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        """`topics` is a subscription, `edgevision/demo/#`."""
        self.cameras: dict[str, CameraFeed] = {}
        self.received = 0
        self.lost = 0
        self.labels: Counter[str] = Counter()
        self.latencies_ms: deque[float] = deque(maxlen=KEPT_LATENCIES)
        self.device_state = ""
        self._address = (host, port)
        self._topics = topics
        self._clock = clock
        self._last_seq: dict[tuple[str, str], int] = {}
        self._first_result_ns = self._last_result_ns = 0
        self._lock = threading.Lock()
        self._subscribed = threading.Event()
        self._offline = threading.Event()
        self._client: Client | None = None

    def start(self, timeout_s: float = 10.0) -> None:
        """Connect and subscribe.

        Raises:
            PublishError: the broker does not answer.
        """
        from paho.mqtt.client import Client, MQTTv311
        from paho.mqtt.enums import CallbackAPIVersion

        client = Client(CallbackAPIVersion.VERSION2, client_id="edgevision-demo-viewer", protocol=MQTTv311)

        def subscribe(*_: object) -> None:
            client.subscribe(self._topics, qos=1)

        client.on_connect = subscribe
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.on_message = lambda _client, _data, message: self._arrived(message)
        self._client = client
        try:
            client.connect(*self._address, keepalive=30)
        except OSError as failure:
            raise PublishError(
                f"{self._address[0]}:{self._address[1]}: the viewer cannot connect: {failure}"
            ) from failure
        client.loop_start()
        if not self._subscribed.wait(timeout_s):
            raise PublishError(f"{self._address[0]}:{self._address[1]}: no answer to the viewer's subscription")

    def wait_offline(self, timeout_s: float) -> bool:
        """Wait for the daemon's last word; False when it did not come."""
        return self._offline.wait(timeout_s)

    def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()

    @property
    def fps(self) -> float:
        """Results of all cameras per second, from the first to the last."""
        frames = sum(camera.results for camera in self.cameras.values())
        span_s = (self._last_result_ns - self._first_result_ns) / 1e9
        return (frames - 1) / span_s if frames > 1 and span_s > 0 else 0.0

    def _arrived(self, message: MQTTMessage) -> None:
        now_ns = self._clock.time_ns()
        if not message.payload.startswith(b"{"):  # a picture
            with self._lock:
                self.received += 1
            return
        content = json.loads(message.payload)
        with self._lock:
            self.received += 1
            self._count(message.topic, content)
            kind = content["schema"].split("/")[1]
            if kind == "result":
                self._result(content, now_ns)
            elif kind == "camera-status":
                camera = self._camera(content["camera"])
                camera.state, camera.reason = content["camera_state"], content["reason"]
            elif kind == "status":
                self.device_state = content["state"]
                if content["state"] == "offline":
                    self._offline.set()

    def _count(self, topic: str, content: dict[str, Any]) -> None:
        key = (topic, content["boot_id"])
        previous = self._last_seq.get(key)
        if previous is not None and content["seq"] > previous + 1:
            self.lost += content["seq"] - previous - 1
        self._last_seq[key] = max(content["seq"], previous or 0)

    def _camera(self, name: str) -> CameraFeed:
        return self.cameras.setdefault(name, CameraFeed())

    def _result(self, content: dict[str, Any], now_ns: int) -> None:
        camera = self._camera(content["camera"])
        captured = datetime.fromisoformat(content["captured_at"].replace("Z", "+00:00"))
        camera.latency_ms = now_ns / 1e6 - captured.timestamp() * 1e3
        self.latencies_ms.append(camera.latency_ms)
        camera.results += 1
        camera.state = content["camera_state"]
        camera.dropped = content["frame"]["dropped"]
        camera.arrivals_ns.append(self._clock.monotonic_ns())
        self._first_result_ns = self._first_result_ns or now_ns
        self._last_result_ns = now_ns
        items: list[dict[str, Any]] = next(
            (content[kind] for kind in ("detections", "classifications", "segments") if content.get(kind) is not None),
            [],
        )
        self.labels.update(item["label"] for item in items[: 1 if content["task"] == "classification" else None])
        camera.label = items[0]["label"] if items else "(vector)" if content["task"] == "embedding" else "(nothing)"
        camera.confidence = items[0].get("confidence") if items else None
        if content["task"] != "classification" and len(items) > 1:
            camera.label += f" and {len(items) - 1} more"
