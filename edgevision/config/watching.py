"""How a camera is read and watched: where its reader runs, what it may take, and which pictures cannot be trusted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgevision.broker.options import BrokerOptions

_Seconds = Annotated[float, Field(gt=0, le=86_400)]
_Share = Annotated[float, Field(gt=0, le=1)]
_Level = Annotated[int, Field(ge=0, le=255)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ReaderSection(_Section):
    """Where a camera's source is read, and when its reader is killed and started afresh."""

    run: Literal["auto", "process", "thread"] = "auto"
    """In a process of its own, or in a thread of the daemon; `auto`: live sources in a process, files in a thread."""
    deadline_s: _Seconds | None = None
    """A process that gives no frame for this long is killed; by default one and a half times `stall_after_s`."""
    open_deadline_s: _Seconds = 30.0
    """The same until the first frame, with opening in it."""
    memory_mb: Annotated[int, Field(ge=64, le=65_536)] = 512
    """A process that holds more is killed. It needs about 90 and ten pictures (2.6 each at 1280x720, 24.9 at 3840x2160)."""


class TriggerSection(_Section):
    """One picture for each message on a topic, in place of all that come."""

    topic: Annotated[str, Field(pattern=r"^[^+#\x00]+$", max_length=1024)]
    """Where a message asks for a picture. Its payload (`{"id": ...}`, or text) becomes `frame.origin` of the result."""
    deadline_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """A trigger that has no picture after this gets none, and is counted in telemetry."""
    broker: BrokerOptions | None = None
    """Where they are published; without it, the broker of `mqtt`."""


class HealthSection(_Section):
    """When a camera that gives frames is not to be trusted all the same. A check that is null is off."""

    check: Literal["live", "always", "never"] = "live"
    """Cameras and streams only, files too, or nothing."""
    late_after_s: _Seconds | None = 2.0
    """`late`: this long between two frames; where `fps` asks for few, at least two and a half times their distance."""
    frozen_after_s: _Seconds | None = 10.0
    """`frozen`: the very same picture for this long. A sensor has noise; what repeats it exactly has stopped looking."""
    frozen_difference: Annotated[float, Field(ge=0, le=255)] = 0.0
    """Pictures whose mean difference is at most this many grey levels are the same."""
    dark_share: _Share | None = 0.95
    """`dark`: this share of the pixels is at or below `dark_level`."""
    dark_level: _Level = 20
    overexposed_share: _Share | None = 0.95
    """`overexposed`: this share of the pixels is at or above `overexposed_level`."""
    overexposed_level: _Level = 250
    blurred_below: _Share | None = 0.25
    """`blurred`: the sharpness is below this share of the one at commissioning (the baseline)."""
    baseline_after_s: _Seconds = 120.0
    """Good pictures for this long make the baseline, which is kept in `state_dir`; `edgevision baseline` makes or clears it."""
    confirm_s: Annotated[float, Field(ge=0, le=3600)] = 1.0
    """A fault must be seen for this long; its frames are not trusted from the first on."""
    clear_s: Annotated[float, Field(ge=0, le=3600)] = 2.0
    """And be gone for this long."""
