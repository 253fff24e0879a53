"""MQTT, the sink of a factory floor: what the user may set, and the check of it; the work is in `_mqtt_*` beside it.

`_mqtt_sink` holds the thread, `_mqtt_waiting` what waits, `_mqtt_link` one connection from dial to end, `_mqtt_sender` what
goes over it, `_mqtt_window` what of that is not settled, `_mqtt_client` what is said to paho of a message; `_spool*` and
`_journal*` keep durable messages on the disk, `_certificate` looks at our own; what every connection to a broker shares is
`edgevision.broker`. paho is imported when a sink is made.
"""

from __future__ import annotations

from pydantic import Field

from edgevision import registry
from edgevision.broker.options import BrokerOptions
from edgevision.broker.tls import make_context
from edgevision.publish._spool_options import SpoolOptions
from edgevision.publish.base import Sink, SinkContext

_MAX_PAYLOAD_BYTES = 268_435_455
"""The longest packet that MQTT can write down."""


class Options(BrokerOptions):
    """Where the broker is, who we are (without `client_id`, `edgevision-<device>`), and how much may wait."""

    queue_size: int = Field(default=1000, ge=1, le=1_000_000)
    """Messages that may wait."""
    queue_bytes: int = Field(default=64 * 2**20, ge=1024, le=_MAX_PAYLOAD_BYTES - 70_000)
    """Bytes that may wait; also the largest message."""
    max_inflight: int = Field(default=20, ge=1, le=65535)
    """Messages handed to the connection that the broker has not acknowledged, or the socket has not taken."""
    spool: SpoolOptions = SpoolOptions()
    """How durable messages are kept on the disk."""


def create(options: Options, context: SinkContext) -> Sink:
    """Make the sink and start to connect; no broker has to be there.

    Raises:
        PluginError: paho-mqtt is missing.
        PublishError: a certificate or key cannot be used.
        StateError: another daemon keeps its durable messages in the same `state_dir`.
    """
    registry.require("paho.mqtt.client", package="paho-mqtt", purpose="publish type mqtt")
    # Imports paho, which must not happen before it is known to be there.
    from edgevision.publish._mqtt_sink import MqttSink  # noqa: PLC0415

    if options.tls is not None:
        make_context(options.tls, options.connect_timeout_s)  # a wrong path is the user's mistake: say so now
    return MqttSink(options=options, context=context)
