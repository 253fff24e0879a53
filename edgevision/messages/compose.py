"""Making messages: envelope, count, topic and delivery."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.messages.contract import (
    Box,
    CameraStatusPayload,
    DeviceState,
    DeviceStatusPayload,
    EventPayload,
    ImagePayload,
    ModelStatus,
    SegmentItem,
)
from edgevision.messages.delivery import PRIORITIES, Deliveries, Delivery
from edgevision.messages.envelope import WILL_SEQ, CameraState, Envelope, FrameRef, ModelRef
from edgevision.messages.jpeg import add_jpeg_comment
from edgevision.messages.png import add_png_text
from edgevision.messages.result import ResultWriter
from edgevision.messages.telemetry import CameraTelemetry, ProcessTelemetry, SinkTelemetry, TelemetryPayload
from edgevision.messages.times import timestamp
from edgevision.types import Event, Frame, Message, Predictions, StageTimes


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
        self._writers: dict[str, tuple[ModelRef, ResultWriter]] = {}
        self._lock = threading.Lock()

    def _next_seq(self, topic: str) -> int:
        with self._lock:
            seq = self._seq.get(topic, WILL_SEQ) + 1
            self._seq[topic] = seq
            return seq

    def _message(
        self,
        kind: Literal["events", "status", "telemetry"],
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
        return _sent(topic, content.model_dump_json().encode(), delivery, priority=PRIORITIES.get(kind, 0))

    def result(
        self,
        frame: Frame,
        predictions: Predictions,
        times: StageTimes,
        *,
        model: ModelRef,
        state: CameraState,
        dropped: int,
        trusted: bool = True,
        segments: Sequence[SegmentItem] | None = None,
    ) -> Message:
        """What a model saw in one frame; a state other than `live` is never trusted, whatever `trusted` says.

        `segments`: a class map's items, where their masks have another form than run lengths.
        """
        topic = topic_for(self._topic, self.device, "results", frame.camera)
        known, writer = self._writers.get(frame.camera, (None, None))
        if writer is None or known is not model:
            writer = ResultWriter(device=self.device, camera=frame.camera, boot_id=self.boot_id, model=model)
            self._writers[frame.camera] = (model, writer)
        payload = writer.write(
            frame,
            predictions,
            times,
            seq=self._next_seq(topic),
            published_at_ns=self._clock.time_ns(),
            total_ns=self._clock.monotonic_ns() - frame.captured_mono_ns,
            state=state,
            dropped=dropped,
            trusted=trusted and state == "live",
            segments=segments,
        )
        return _sent(topic, payload, self.deliveries.results)

    def event(
        self,
        event: Event,
        frame: Frame | None = None,
        *,
        state: CameraState,
        model: ModelRef | None = None,
        dropped: int = 0,
        trusted: bool = True,
    ) -> Message:
        """Something that a rule saw happen; without a frame, that it cannot see."""
        fields = {
            **({"camera_state": state} if frame is None else _seen(frame, state, dropped)),
            "model": model,
            "trusted": trusted and state == "live" and event.kind != "unknown",
            "kind": event.kind,
            "rule": event.rule,
            "occurred_at": timestamp(event.occurred_at_ns),
            "reason": event.reason,
            "label": event.label,
            "confidence": None if event.confidence is None else round(event.confidence, 4),
            "xyxy": None if event.box is None else tuple(round(edge, 2) for edge in event.box),
            "track_id": event.track_id,
        }
        return self._message("events", EventPayload, fields, camera=event.camera)

    def camera_status(self, camera: str, *, state: CameraState, since_ns: int, reason: str) -> Message:
        """A camera's state has changed."""
        fields = {"camera_state": state, "trusted": state == "live", "since": timestamp(since_ns), "reason": reason}
        return self._message("status", CameraStatusPayload, fields, camera=camera)

    def device_status(
        self,
        *,
        state: DeviceState,
        since_ns: int,
        reason: str,
        cameras: Sequence[str] = (),
        models: Mapping[str, ModelStatus] | None = None,
        alarms: Sequence[str] = (),
        will: bool = False,
        safe_mode: str | None = None,
        clock_synchronised: bool | None = None,
    ) -> Message:
        """The daemon's state; `will` makes the one that the broker keeps for when we vanish."""
        fields = {
            "state": state,
            "since": timestamp(since_ns),
            "reason": reason,
            "version": self._version,
            "cameras": list(cameras),
            "models": dict(models or {}),
            "safe_mode": safe_mode,
            "clock_synchronised": clock_synchronised,
            "alarms": list(alarms),
        }
        return self._message("status", DeviceStatusPayload, fields, seq=WILL_SEQ if will else None)

    def telemetry(
        self,
        *,
        interval_s: float,
        cameras: Mapping[str, CameraTelemetry],
        sinks: Mapping[str, SinkTelemetry],
        process: ProcessTelemetry,
        clock_synchronised: bool | None = None,
    ) -> Message:
        """How the daemon is doing."""
        fields = {
            "interval_s": interval_s,
            "cameras": dict(cameras),
            "sinks": dict(sinks),
            "process": process,
            "clock_synchronised": clock_synchronised,
        }
        return self._message("telemetry", TelemetryPayload, fields)

    def image(
        self,
        picture: bytes,
        frame: Frame,
        *,
        state: CameraState,
        dropped: int,
        what: Literal["frame", "crop", "mask"],
        xyxy: Box,
        label: str | None = None,
        confidence: float | None = None,
    ) -> Message:
        """A snapshot; `picture` is the encoded picture: a JPEG, or a PNG for `mask`."""
        topic = topic_for(self._topic, self.device, "image", frame.camera)
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
        text = content.model_dump_json().encode()
        if what == "mask":
            return _sent(topic, add_png_text(picture, text), self.deliveries.image, content_type="image/png")
        return _sent(topic, add_jpeg_comment(picture, text), self.deliveries.image, content_type="image/jpeg")


def _sent(
    topic: str, payload: bytes, delivery: Delivery, *, content_type: str = "application/json", priority: int = 0
) -> Message:
    return Message(
        topic=topic,
        payload=payload,
        qos=delivery.qos,
        retain=delivery.retain,
        expires_s=delivery.expires_s,
        durable=delivery.durable,
        priority=priority,
        content_type=content_type,
    )


def _seen(frame: Frame, state: CameraState, dropped: int) -> dict[str, Any]:
    """The envelope's part about the picture."""
    height, width = frame.image.shape[:2]
    return {
        "captured_at": timestamp(frame.captured_at_ns),
        "camera_state": state,
        "frame": FrameRef(width=width, height=height, sequence=frame.sequence, dropped=dropped, origin=frame.origin),
    }
