"""A paho client for one connection to a broker: who we are, how we speak, and whom we trust."""

from __future__ import annotations

import logging
import struct
from typing import Literal, TypeAlias

from paho.mqtt import MQTTException
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgevision.broker.options import BrokerOptions
from edgevision.broker.tls import make_context
from edgevision.errors import PublishError
from edgevision.types import Message

Version: TypeAlias = Literal["5", "3.1.1"]

GARBAGE = (MQTTException, struct.error, IndexError, KeyError, ValueError, AssertionError)
"""What paho raises for bytes that are not MQTT."""

_MAX_SECRET_BYTES = 65535


class LastError(logging.Handler):
    """Keeps what paho logs about a socket that failed: it raises nothing that tells."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the newest."""
        self.text = record.getMessage()


def make_client(
    options: BrokerOptions,
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
            properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]  # paho's
            properties.ContentType = will.content_type
        client.will_set(will.topic, will.payload, will.qos, will.retain, properties)
    return client


def _password(options: BrokerOptions) -> str | None:
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
