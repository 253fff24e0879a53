"""Messages: the contract, version 1 (`contract`), how each kind is sent (`delivery`), and how they are made (`compose`)."""

from __future__ import annotations

from edgevision.messages.compose import Composer, mark_historical, topic_for
from edgevision.messages.contract import (
    PAYLOADS,
    CameraState,
    CameraTelemetry,
    DeviceState,
    Envelope,
    ModelRef,
    ModelStatus,
    ProcessTelemetry,
    ResultPayload,
    SinkTelemetry,
    SpoolTelemetry,
    StageSummary,
    TriggerTelemetry,
)
from edgevision.messages.delivery import Deliveries, Delivery
from edgevision.messages.jpeg import add_jpeg_comment, read_jpeg_comment
from edgevision.messages.result import prediction_items
from edgevision.messages.times import timestamp

__all__ = [
    "PAYLOADS",
    "CameraState",
    "CameraTelemetry",
    "Composer",
    "Deliveries",
    "Delivery",
    "DeviceState",
    "Envelope",
    "ModelRef",
    "ModelStatus",
    "ProcessTelemetry",
    "ResultPayload",
    "SinkTelemetry",
    "SpoolTelemetry",
    "StageSummary",
    "TriggerTelemetry",
    "add_jpeg_comment",
    "mark_historical",
    "prediction_items",
    "read_jpeg_comment",
    "timestamp",
    "topic_for",
]
