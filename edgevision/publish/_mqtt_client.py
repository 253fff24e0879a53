"""What is said to paho: a client for one connection, the properties of a message, the length of a packet."""

from __future__ import annotations

import logging
from typing import Literal, TypeAlias

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgevision.errors import PublishError
from edgevision.publish._mqtt_tls import make_context
from edgevision.publish.mqtt import Options
from edgevision.types import Message

Version: TypeAlias = Literal["5", "3.1.1"]

_MAX_SECRET_BYTES = 65535
_MAX_CACHED = 256


class LastError(logging.Handler):
    """Keeps what paho logs about a socket that failed: it raises nothing that tells."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the newest."""
        self.text = record.getMessage()


def make_client(
    options: Options,
    *,
    client_id: str,
    version: Version,
    will: Message | None,
    errors: LastError,
    keep_session: bool = False,
) -> Client:
    """A client for one connection, without callbacks.

    Args:
        options: where to and how.
        client_id: who we are.
        version: which MQTT to speak.
        will: what the broker says when we vanish.
        errors: takes what paho logs.
        keep_session: the broker remembers us (MQTT 5: ask so at `connect`), and what comes is acknowledged by us.

    Raises:
        PublishError: a file with a password or a certificate cannot be used.
    """
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id,
        protocol=MQTTProtocolVersion.MQTTv5 if version == "5" else MQTTProtocolVersion.MQTTv311,
        clean_session=None if version == "5" else not keep_session,
        reconnect_on_failure=False,
        manual_ack=keep_session,
    )
    client.max_inflight_messages = 0  # without limit, because the limit is the link's
    logger = logging.Logger("paho", logging.ERROR)  # noqa: LOG001 - of this client alone, and outside the tree
    logger.addHandler(errors)
    client.enable_logger(logger)
    if options.username is not None:
        client.username_pw_set(options.username, _password(options))
    if options.tls is not None:
        client.tls_set_context(make_context(options.tls, options.connect_timeout_s))
    if will is not None:
        properties = None
        if version == "5":
            properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
            properties.ContentType = will.content_type
        client.will_set(will.topic, will.payload, will.qos, will.retain, properties)
    return client


def _password(options: Options) -> str | None:
    if options.password is not None:
        return options.password.get_secret_value()
    if options.password_file is None:
        return None
    try:
        with options.password_file.open(encoding="utf-8") as file:
            return file.read(_MAX_SECRET_BYTES).rstrip("\r\n")
    except OSError as error:
        raise PublishError(f"password_file {options.password_file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PublishError(f"password_file {options.password_file} is not UTF-8 text") from error


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
