"""The message contract, version 1: topics and payloads. JSON Schemas and the AsyncAPI document are generated from here.

Every JSON payload has the same envelope; a key that has no meaning for a message is null, never absent. `seq` counts up by
one per topic within a boot, given when a message is made: whatever is dropped afterwards shows as a gap. Changing a field's
meaning, or taking one away, is a new schema version.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.types import (
    Classifications,
    Detections,
    Event,
    Frame,
    Message,
    Predictions,
    StageTimes,
    label_of,
)

CameraState: TypeAlias = Literal[
    "starting", "live", "late", "stalled", "frozen", "dark", "overexposed", "blurred", "failed", "off"
]
"""All states of version 1. A consumer treats every state but `live` as "cannot be trusted to see"."""
DeviceState: TypeAlias = Literal["starting", "online", "stopping", "offline"]
Task: TypeAlias = Literal["classification", "detection", "segmentation"]
Timestamp = Annotated[
    str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$", json_schema_extra={"format": "date-time"})
]
Milliseconds = Annotated[float, Field(ge=0)]
Confidence = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Box = tuple[float, float, float, float]

WILL_SEQ = 0
"""The last will is lodged before anything is sent and spoken by the broker: it stands outside the count, which begins at 1."""


class _Payload(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True, validate_by_name=True)


class ModelRef(_Payload):
    """Which model looked."""

    name: str
    version: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class FrameRef(_Payload):
    """Which picture was looked at."""

    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    sequence: Count
    """Counts up by one per frame of this camera since the daemon started; a gap is a dropped frame."""
    dropped: Count
    """Frames of this camera that no model had time for, since the daemon started."""


class LatencyMs(_Payload):
    """Where this frame's time went, in milliseconds."""

    waiting: Milliseconds
    """From capture until a model took the frame up."""
    preprocess: Milliseconds
    inference: Milliseconds
    decode: Milliseconds
    events: Milliseconds
    total: Milliseconds
    """From capture until the message was made."""


class Envelope(_Payload):
    """What every JSON payload has."""

    schema_: Annotated[str, Field(alias="schema")]
    device: str
    camera: str | None = None
    boot_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    """One start of the daemon."""
    seq: Count
    """Counts up by one per topic within a boot, from 1; a gap is a lost message. 0 is the last will."""
    captured_at: Timestamp | None = None
    """When the picture was taken (RFC 3339, UTC)."""
    published_at: Timestamp
    """When the message was made; for the last will, when it was lodged with the broker."""
    camera_state: CameraState | None = None
    model: ModelRef | None = None
    frame: FrameRef | None = None
    latency_ms: LatencyMs | None = None
    historical: bool = False
    """True where the message could not be sent when it was made: it tells of the past."""


class DetectionItem(_Payload):
    """One object."""

    label: str
    class_id: int
    confidence: Confidence
    xyxy: Box
    """Left, top, right, bottom in pixels of the camera's picture."""
    track_id: int | None = None


class ClassificationItem(_Payload):
    """One class."""

    label: str
    class_id: int
    confidence: Confidence


class ResultPayload(Envelope):
    """What a model saw in one frame; sent for every frame, with empty lists where it saw nothing."""

    schema_: Annotated[Literal["edgevision/result/1"], Field(alias="schema")] = "edgevision/result/1"
    camera: str
    captured_at: Timestamp
    camera_state: CameraState
    model: ModelRef
    frame: FrameRef
    latency_ms: LatencyMs
    task: Task
    detections: list[DetectionItem] | None = None
    """For task `detection`: most confident first."""
    classifications: list[ClassificationItem] | None = None
    """For task `classification`: most confident first."""


class EventPayload(Envelope):
    """Something that happened, as a rule saw it."""

    schema_: Annotated[Literal["edgevision/event/1"], Field(alias="schema")] = "edgevision/event/1"
    camera: str
    captured_at: Timestamp
    camera_state: CameraState
    model: ModelRef
    frame: FrameRef
    kind: str
    rule: str
    occurred_at: Timestamp
    label: str | None = None
    confidence: Confidence | None = None
    xyxy: Box | None = None
    track_id: int | None = None


class ImagePayload(Envelope):
    """Carried inside a snapshot, as JSON in the JPEG's comment segment, so that a picture never loses its truth."""

    schema_: Annotated[Literal["edgevision/image/1"], Field(alias="schema")] = "edgevision/image/1"
    camera: str
    captured_at: Timestamp
    camera_state: CameraState
    frame: FrameRef
    what: Literal["frame", "crop"]
    xyxy: Box
    """The part of the camera's picture that is shown, in its pixels."""
    label: str | None = None
    confidence: Confidence | None = None


class CameraStatusPayload(Envelope):
    """A camera's state; retained, sent on every change."""

    schema_: Annotated[Literal["edgevision/camera-status/1"], Field(alias="schema")] = "edgevision/camera-status/1"
    camera: str
    camera_state: CameraState
    since: Timestamp
    reason: str
    """Why, in words for a person."""


class ModelStatus(ModelRef):
    """A model that is loaded, and how it was proved."""

    backend: str
    threads: int
    proof: list[dict[str, Any]] = []
    """The manifest's measured figures; empty: the model is unproved."""


class DeviceStatusPayload(Envelope):
    """The daemon's state; retained. The last will is this message with `offline`."""

    schema_: Annotated[Literal["edgevision/status/1"], Field(alias="schema")] = "edgevision/status/1"
    state: DeviceState
    since: Timestamp
    reason: str
    version: str
    """edgevision's version."""
    cameras: list[str] = []
    models: dict[str, ModelStatus] = {}
    """By the name the config gives them."""


class StageSummary(_Payload):
    """One stage's time over the telemetry's interval, in milliseconds."""

    mean: Milliseconds
    p50: Milliseconds
    p99: Milliseconds
    max: Milliseconds


class CameraTelemetry(_Payload):
    """One camera's counts since the daemon started, and times over the last interval."""

    state: CameraState
    captured: Count
    processed: Count
    dropped: Count
    """Frames that no model had time for."""
    unreadable: Count
    """Frames or pictures that the source could not decode."""
    failed: Count
    """Frames that the model failed on."""
    restarts: Count
    """How often the source was opened again."""
    snapshots_dropped: Count
    fps: Annotated[float, Field(ge=0)]
    stages_ms: dict[str, StageSummary]


class SinkTelemetry(_Payload):
    """One sink's counts since the daemon started."""

    sent: Count
    dropped: Count
    queued: Count
    connected: bool
    state: str


class ProcessTelemetry(_Payload):
    """The daemon itself."""

    uptime_s: Annotated[float, Field(ge=0)]
    cpu_percent: Annotated[float, Field(ge=0)]
    """Of one core, over the last interval."""
    rss_bytes: Count
    threads: Count
    open_files: Count


class TelemetryPayload(Envelope):
    """How the daemon is doing; sent every interval."""

    schema_: Annotated[Literal["edgevision/telemetry/1"], Field(alias="schema")] = "edgevision/telemetry/1"
    interval_s: Annotated[float, Field(ge=0)]
    cameras: dict[str, CameraTelemetry]
    sinks: dict[str, SinkTelemetry]
    process: ProcessTelemetry


PAYLOADS: Mapping[str, type[Envelope]] = {
    "result": ResultPayload,
    "event": EventPayload,
    "image": ImagePayload,
    "camera-status": CameraStatusPayload,
    "status": DeviceStatusPayload,
    "telemetry": TelemetryPayload,
}
"""By the middle part of their schema name, `edgevision/<name>/1`."""


class Delivery(BaseModel):
    """How one kind of message is sent."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    enabled: bool = True
    qos: Literal[0, 1, 2] = 0
    retain: bool = False
    expires_s: Annotated[float, Field(gt=0, le=0xFFFFFFFF)] | None = None
    """Not worth delivering after this many seconds."""
    durable: bool = False
    """Must outlive an outage."""


class Deliveries(BaseModel):
    """How each kind of message is sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    results: Delivery = Delivery(expires_s=60)
    events: Delivery = Delivery(qos=1, durable=True)
    status: Delivery = Delivery(qos=1, retain=True, durable=True)
    telemetry: Delivery = Delivery(expires_s=300)
    image: Delivery = Delivery(expires_s=30)


def timestamp(time_ns: int) -> str:
    """RFC 3339, UTC, microseconds: `2026-01-31T12:00:00.000000Z`. Whole-number arithmetic: a float would lose digits."""
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=time_ns // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def mark_historical(payload: bytes) -> bytes:
    """The same JSON payload with `historical` true: it was made while it could not be sent.

    Raises:
        ValueError: the payload is not one of this contract's JSON objects.
    """
    content = json.loads(payload)
    if not isinstance(content, dict) or "historical" not in content:
        raise ValueError("not a payload of the edgevision contract")
    return json.dumps({**content, "historical": True}, separators=(",", ":"), ensure_ascii=False).encode()


def topic_for(topic: str, device: str, kind: str, camera: str | None = None) -> str:
    """The topic of a kind of message: `{topic}/{device}/status`, `{topic}/{device}/{camera}/results` ..."""
    return "/".join((topic, device, kind) if camera is None else (topic, device, camera, kind))


class Composer:
    """Makes messages: envelope, count, topic and delivery. One per daemon; any thread may use it."""

    def __init__(
        self,
        *,
        topic: str,
        device: str,
        version: str,
        deliveries: Deliveries | None = None,
        clock: Clock = SYSTEM_CLOCK,
        boot_id: str | None = None,
    ) -> None:
        """`boot_id` is 32 hex digits, new for each start."""
        self.device = device
        self.boot_id = boot_id or uuid.uuid4().hex
        self.deliveries = deliveries or Deliveries()
        self._topic = topic
        self._version = version
        self._clock = clock
        self._seq: dict[str, int] = {}
        self._lock = threading.Lock()

    def _next_seq(self, topic: str) -> int:
        with self._lock:
            seq = self._seq.get(topic, WILL_SEQ) + 1
            self._seq[topic] = seq
            return seq

    def _message(
        self,
        kind: Literal["results", "events", "status", "telemetry"],
        payload: type[Envelope],
        fields: dict[str, Any],
        *,
        camera: str | None = None,
        seq: int | None = None,
    ) -> Message:
        topic = topic_for(self._topic, self.device, kind, camera)
        delivery: Delivery = getattr(self.deliveries, kind)
        content = payload(
            device=self.device,
            camera=camera,
            boot_id=self.boot_id,
            seq=self._next_seq(topic) if seq is None else seq,
            published_at=timestamp(self._clock.time_ns()),
            **fields,
        )
        return Message(
            topic=topic,
            payload=content.model_dump_json().encode(),
            qos=delivery.qos,
            retain=delivery.retain,
            expires_s=delivery.expires_s,
            durable=delivery.durable,
        )

    def result(
        self,
        frame: Frame,
        predictions: Predictions,
        times: StageTimes,
        *,
        model: ModelRef,
        state: CameraState,
        dropped: int,
    ) -> Message:
        """What a model saw in one frame."""
        fields: dict[str, Any] = {
            **_seen(frame, state, dropped),
            "model": model,
            "latency_ms": LatencyMs(total=_to_ms(self._clock.monotonic_ns() - frame.captured_mono_ns), **_ms(times)),
        }
        if isinstance(predictions, Detections):
            fields |= {"task": "detection", "detections": _detections(predictions)}
        elif isinstance(predictions, Classifications):
            fields |= {"task": "classification", "classifications": _classifications(predictions)}
        else:
            fields |= {"task": "segmentation"}
        return self._message("results", ResultPayload, fields, camera=frame.camera)

    def event(self, event: Event, frame: Frame, *, model: ModelRef, state: CameraState, dropped: int) -> Message:
        """Something that a rule saw happen."""
        fields = {
            **_seen(frame, state, dropped),
            "model": model,
            "kind": event.kind,
            "rule": event.rule,
            "occurred_at": timestamp(event.occurred_at_ns),
            "label": event.label,
            "confidence": None if event.confidence is None else round(event.confidence, 4),
            "xyxy": None if event.box is None else tuple(round(edge, 2) for edge in event.box),
            "track_id": event.track_id,
        }
        return self._message("events", EventPayload, fields, camera=event.camera)

    def camera_status(self, camera: str, *, state: CameraState, since_ns: int, reason: str) -> Message:
        """A camera's state has changed."""
        fields = {"camera_state": state, "since": timestamp(since_ns), "reason": reason}
        return self._message("status", CameraStatusPayload, fields, camera=camera)

    def device_status(
        self,
        *,
        state: DeviceState,
        since_ns: int,
        reason: str,
        cameras: Sequence[str] = (),
        models: Mapping[str, ModelStatus] | None = None,
        will: bool = False,
    ) -> Message:
        """The daemon's state; `will` makes the one that the broker keeps for when we vanish."""
        fields = {
            "state": state,
            "since": timestamp(since_ns),
            "reason": reason,
            "version": self._version,
            "cameras": list(cameras),
            "models": dict(models or {}),
        }
        return self._message("status", DeviceStatusPayload, fields, seq=WILL_SEQ if will else None)

    def telemetry(
        self,
        *,
        interval_s: float,
        cameras: Mapping[str, CameraTelemetry],
        sinks: Mapping[str, SinkTelemetry],
        process: ProcessTelemetry,
    ) -> Message:
        """How the daemon is doing."""
        fields = {"interval_s": interval_s, "cameras": dict(cameras), "sinks": dict(sinks), "process": process}
        return self._message("telemetry", TelemetryPayload, fields)

    def image(
        self,
        jpeg: bytes,
        frame: Frame,
        *,
        state: CameraState,
        dropped: int,
        what: Literal["frame", "crop"],
        xyxy: Box,
        label: str | None = None,
        confidence: float | None = None,
    ) -> Message:
        """A snapshot; `jpeg` is the encoded picture."""
        topic = topic_for(self._topic, self.device, "image", frame.camera)
        delivery = self.deliveries.image
        content = ImagePayload(
            device=self.device,
            boot_id=self.boot_id,
            seq=self._next_seq(topic),
            published_at=timestamp(self._clock.time_ns()),
            camera=frame.camera,
            what=what,
            xyxy=xyxy,
            label=label,
            confidence=confidence,
            **_seen(frame, state, dropped),
        )
        return Message(
            topic=topic,
            payload=add_jpeg_comment(jpeg, content.model_dump_json().encode()),
            qos=delivery.qos,
            retain=delivery.retain,
            expires_s=delivery.expires_s,
            durable=delivery.durable,
            content_type="image/jpeg",
        )


def _seen(frame: Frame, state: CameraState, dropped: int) -> dict[str, Any]:
    """The envelope's part about the picture."""
    height, width = frame.image.shape[:2]
    return {
        "captured_at": timestamp(frame.captured_at_ns),
        "camera_state": state,
        "frame": FrameRef(width=width, height=height, sequence=frame.sequence, dropped=dropped),
    }


def _ms(times: StageTimes) -> dict[str, float]:
    return {
        "waiting": _to_ms(times.capture_to_start_ns),
        "preprocess": _to_ms(times.preprocess_ns),
        "inference": _to_ms(times.inference_ns),
        "decode": _to_ms(times.decode_ns),
        "events": _to_ms(times.events_ns),
    }


def _to_ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)


def prediction_items(predictions: Predictions) -> Sequence[DetectionItem | ClassificationItem]:
    """Predictions as the contract writes them."""
    if isinstance(predictions, Detections):
        return _detections(predictions)
    return _classifications(predictions) if isinstance(predictions, Classifications) else ()


def _detections(found: Detections) -> list[DetectionItem]:
    tracks: Sequence[int | None] = [None] * len(found) if found.track_id is None else found.track_id.tolist()
    rows = zip(found.class_id.tolist(), found.confidence.tolist(), found.xyxy.tolist(), tracks, strict=True)
    # float32 does not print shortly as a double: four digits of confidence and hundredths of a pixel are what is meant.
    return [
        DetectionItem(
            label=label_of(found.labels, class_id),
            class_id=class_id,
            confidence=round(confidence, 4),
            xyxy=tuple(round(edge, 2) for edge in xyxy),
            track_id=track,
        )
        for class_id, confidence, xyxy, track in rows
    ]


def _classifications(found: Classifications) -> list[ClassificationItem]:
    rows = zip(found.class_id.tolist(), found.confidence.tolist(), strict=True)
    return [
        ClassificationItem(label=label_of(found.labels, class_id), class_id=class_id, confidence=round(confidence, 4))
        for class_id, confidence in rows
    ]


# JPEG (ITU-T T.81, B.1.1.3): the file begins with SOI; a COM segment is FF FE, a 16-bit length that counts itself, the text.
_SOI, _COM = b"\xff\xd8", b"\xff\xfe"
_MAX_COMMENT = 0xFFFF - 2


def add_jpeg_comment(jpeg: bytes, comment: bytes) -> bytes:
    """Put `comment` into a JPEG as its first segment; every reader of pictures passes over it."""
    if jpeg[:2] != _SOI or len(comment) > _MAX_COMMENT:
        raise ValueError(f"needs a JPEG and a comment of at most {_MAX_COMMENT} bytes")
    return b"".join((_SOI, _COM, (len(comment) + 2).to_bytes(2, "big"), comment, jpeg[2:]))


def read_jpeg_comment(jpeg: bytes) -> bytes:
    """The comment that `add_jpeg_comment` put in.

    Raises:
        ValueError: there is none.
    """
    if jpeg[:4] != _SOI + _COM:
        raise ValueError("the JPEG does not begin with a comment")
    length = int.from_bytes(jpeg[4:6], "big")
    return jpeg[6 : 4 + length]
