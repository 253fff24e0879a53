"""What is said to paho of a message: its properties, and the length of its packet."""

from __future__ import annotations

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

_MAX_CACHED = 256


class PropertiesMaker:
    """MQTT 5 properties of a PUBLISH; made once for each kind, because paho is slow at it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[tuple[str, int | None], tuple[Properties, int]] = {}

    def __call__(self, content_type: str, expires_s: int | None) -> tuple[Properties, int]:
        """The properties and their length in bytes."""
        key = (content_type, expires_s)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MAX_CACHED:
                self._known.clear()
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = content_type
            if expires_s is not None:
                properties.MessageExpiryInterval = expires_s
            known = self._known[key] = (properties, len(properties.pack()))  # type: ignore[no-untyped-call]
        return known


def packet_bytes(*, topic_bytes: int, payload_bytes: int, qos: int, properties_bytes: int) -> int:
    """Length of a PUBLISH packet with its fixed header (MQTT 5.0, 2.1 and 3.3)."""
    remaining = 2 + topic_bytes + (2 if qos else 0) + properties_bytes + payload_bytes
    length_bytes = 1 + sum(remaining >= bound for bound in (128, 16_384, 2_097_152))
    return 1 + length_bytes + remaining
