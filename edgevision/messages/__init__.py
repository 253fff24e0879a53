"""Messages: the contract, version 1 (`contract`), how each kind is sent (`delivery`), and how they are made (`compose`)."""

from __future__ import annotations

from edgevision.messages.compose import Composer, mark_historical, topic_for
from edgevision.messages.contract import (
    PAYLOADS,
    DeviceState,
    ExecutionStatus,
    ModelStatus,
    ResultPayload,
    RleMask,
    SegmentItem,
)
from edgevision.messages.delivery import Deliveries, Delivery
from edgevision.messages.envelope import CameraState, Envelope, ModelRef
from edgevision.messages.jpeg import add_jpeg_comment, read_jpeg_comment
from edgevision.messages.png import class_map_png, read_png_text
from edgevision.messages.result import prediction_items
from edgevision.messages.segments import MAX_MASK_BYTES, segment_items
from edgevision.messages.telemetry import (
    CameraTelemetry,
    ProcessTelemetry,
    SinkTelemetry,
    SpoolTelemetry,
    StageSummary,
    TriggerTelemetry,
)
from edgevision.messages.times import timestamp

__all__ = [
    "MAX_MASK_BYTES",
    "PAYLOADS",
    "CameraState",
    "CameraTelemetry",
    "Composer",
    "Deliveries",
    "Delivery",
    "DeviceState",
    "Envelope",
    "ExecutionStatus",
    "ModelRef",
    "ModelStatus",
    "ProcessTelemetry",
    "ResultPayload",
    "RleMask",
    "SegmentItem",
    "SinkTelemetry",
    "SpoolTelemetry",
    "StageSummary",
    "TriggerTelemetry",
    "add_jpeg_comment",
    "class_map_png",
    "mark_historical",
    "prediction_items",
    "read_jpeg_comment",
    "read_png_text",
    "segment_items",
    "timestamp",
    "topic_for",
]
