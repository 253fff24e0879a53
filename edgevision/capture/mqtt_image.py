"""Pictures that somebody publishes over MQTT, as a camera: JPEG, PNG, or another kind that `images` reads, one a message.

The connection is the source's own, with the same keys as the daemon's `mqtt` (a YAML anchor shares them). Whether silence is
normal only the plant knows: without `quiet: normal` a topic on which nothing comes is a stalled camera. Where what came last
is no picture, the camera is stalled for that reason, whatever `quiet` says, until a picture comes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from edgevision import registry
from edgevision.broker.options import BrokerOptions
from edgevision.capture._live import LiveSource
from edgevision.capture._pacing import FramePicker
from edgevision.capture.base import FrameSource, SourceContext
from edgevision.capture.images import decode_image
from edgevision.errors import CaptureError, ImageError, PublishError
from edgevision.types import Frame

if TYPE_CHECKING:  # it needs paho, which may not be there
    from edgevision.broker.subscription import Heard

_log = logging.getLogger(__name__)

_FILTER = re.compile(r"(\+|#$|[^/+#\0]*)(/(\+|#$|[^/+#\0]*))*")
"""MQTT 5.0, 4.7: a wildcard takes a whole level, and `#` only the last."""


class Options(BrokerOptions):
    """Where pictures are published, and what is accepted as one."""

    topic: str = Field(min_length=1, max_length=1024)
    """With wildcards (`+`, `#`), a result's `frame.origin` names the topic that its picture came on."""
    max_bytes: int = Field(16 << 20, ge=1024, le=128 << 20)
    """Longer messages are left out."""
    quiet: Literal["fault", "normal"] = "fault"
    """What it means that no picture comes."""

    @field_validator("topic")
    @classmethod
    def _check_topic(cls, topic: str) -> str:
        if not _FILTER.fullmatch(topic):
            raise ValueError("is no topic: `+` and `#` stand for whole levels, and `#` only for the last")
        return topic


def create(options: Options, context: SourceContext) -> FrameSource:
    """Make the source; nothing is connected yet."""
    return MqttImageSource(options, context)


class MqttImageSource(LiveSource):
    """Pictures of a topic. One that cannot be read is logged, counted, and leaves a gap in `sequence`."""

    def __init__(self, options: Options, context: SourceContext) -> None:
        """Keep what it was told."""
        super().__init__(context)
        self._options = options
        self._fault = ""
        """Why the newest message was no picture; empty where it was one."""

    def frames(self) -> Iterator[Frame]:
        """Connect, and yield the pictures that come; see the protocol."""
        if self._closing.is_set():
            return
        registry.require("paho.mqtt.client", package="paho-mqtt", purpose="capture type mqtt_image")
        from edgevision.broker.subscription import Subscription  # noqa: PLC0415  paho, once it is known to be there

        options, context = self._options, self._context
        subscription = Subscription(
            options,
            options.topic,
            name=f"edgevision-{context.camera}",
            max_bytes=options.max_bytes,
            clock=context.clock,
        )
        picker, sequence, lost, too_large = FramePicker(context.fps), 0, 0, 0
        silence = (
            "" if options.quiet == "normal" else f"connected to {options.where}, and no picture on {options.topic}"
        )
        try:
            subscription.connect()
            while not self._closing.is_set():
                heard = subscription.take()
                before, lost = lost, subscription.too_large + subscription.overrun
                self.unreadable += lost - before
                sequence += lost - before
                if subscription.too_large > too_large:
                    too_large = subscription.too_large
                    self._fault = f"a message on {options.topic} is above max_bytes ({options.max_bytes})"
                if not heard:
                    context.idle(self._fault or silence)
                for message in heard:
                    if self._closing.is_set():
                        return
                    if not picker.wanted(message.mono_ns):
                        continue
                    image = self._image(message)
                    if image is not None:
                        yield Frame(
                            image=image,
                            camera=context.camera,
                            sequence=sequence,
                            captured_at_ns=message.at_ns,
                            captured_mono_ns=message.mono_ns,
                            origin=message.topic[:1024] if {"+", "#"} & set(options.topic.split("/")) else None,
                        )
                    sequence += 1
        except PublishError as failure:
            raise CaptureError(str(failure)) from failure
        finally:
            subscription.close()

    def _image(self, message: Heard) -> NDArray[np.uint8] | None:
        try:
            image = decode_image(message.payload, name=f"a message on {message.topic[:200]}")
        except ImageError as failure:
            self.unreadable += 1
            if not self._fault:
                _log.warning("camera %s: dropped: %s", self._context.camera, failure)
            self._fault = str(failure)
            # Told with each of them, because on a busy topic there is never nothing. However many they become, they do not end
            # the source: a new one would connect, find nothing amiss for a moment, and be `live` again.
            self._context.idle(self._fault)
            return None
        self._fault = ""
        return image
