"""How each kind of message is sent: quality of service, retained or not, and for how long it is worth sending."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Delivery(BaseModel):
    """How one kind of message is sent."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    enabled: bool = True
    qos: Literal[0, 1, 2] = 0
    retain: bool = False
    expires_s: Annotated[float, Field(gt=0, le=0xFFFFFFFF)] | None = None
    """Not worth delivering after this many seconds."""
    durable: bool = False
    """Must outlive an outage and a restart: it is written to the journal under `state_dir` first. Needs `qos` 1 or 2."""


PRIORITIES: Mapping[str, int] = {"results": 0, "events": 1, "status": 2}
"""What is kept longest where room is short; every other kind is 0."""


class Deliveries(BaseModel):
    """How each kind of message is sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    results: Delivery = Delivery(expires_s=60)
    events: Delivery = Delivery(qos=1, durable=True)
    status: Delivery = Delivery(qos=1, retain=True, durable=True)
    telemetry: Delivery = Delivery(expires_s=300)
    image: Delivery = Delivery(expires_s=30)
