"""MQTT, the sink of a factory floor: what the user may set, and the check of it; the work is in `_mqtt_*` beside it.

`_mqtt_sink` holds the thread, `_mqtt_waiting` what waits, `_mqtt_link` one connection from dial to end, `_mqtt_sender` what
goes over it, `_mqtt_window` what of that is not settled, `_mqtt_client` what is said to paho; `_spool*` and `_journal*` keep
durable messages on the disk; `_mqtt_words` has what went wrong in words, `_mqtt_tls` and `_certificate` the certificates. paho
is imported when a sink is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from edgevision import registry
from edgevision.publish._mqtt_tls import TlsOptions, make_context
from edgevision.publish._spool_options import SpoolOptions
from edgevision.publish.base import Sink, SinkContext

_MAX_PAYLOAD_BYTES = 268_435_455
"""The longest packet that MQTT can write down."""


def _tls(value: Any) -> Any:
    """`tls: true` is TLS with the certificate authorities of the system; `tls: false` is none."""
    if isinstance(value, bool):
        return {} if value else None
    return value


class Options(registry.Options):
    """Where the broker is, who we are, and how much may wait."""

    host: str = Field(min_length=1, max_length=253)
    """Name or address of the broker, without scheme and port."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """None is 1883, with TLS 8883."""
    username: str | None = Field(default=None, max_length=65535)
    password: SecretStr | None = None
    password_file: Path | None = None
    """A file that holds the password; read anew for each connection, so that a changed one needs no restart."""
    client_id: str | None = Field(default=None, min_length=1, max_length=65535)
    """None is `edgevision-<device>`. Two clients of one id throw each other out."""
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    """auto is MQTT 5, and 3.1.1 where the broker does not speak 5."""
    tls: Annotated[TlsOptions | None, BeforeValidator(_tls)] = None
    keepalive_s: int = Field(default=30, ge=1, le=65535)
    """A broker that is silent for one and a half of this is taken for gone."""
    connect_timeout_s: float = Field(default=10.0, ge=0.1, le=300)
    queue_size: int = Field(default=1000, ge=1, le=1_000_000)
    """Messages that may wait."""
    queue_bytes: int = Field(default=64 * 2**20, ge=1024, le=_MAX_PAYLOAD_BYTES - 70_000)
    """Bytes that may wait; also the largest message."""
    max_inflight: int = Field(default=20, ge=1, le=65535)
    """Messages handed to the connection that the broker has not acknowledged, or the socket has not taken."""
    spool: SpoolOptions = SpoolOptions()
    """How durable messages are kept on the disk."""

    @field_validator("protocol", mode="before")
    @classmethod
    def _protocol_is_text(cls, value: Any) -> Any:
        # YAML reads `protocol: 5` as a number.
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("host")
    @classmethod
    def _host_is_bare(cls, value: str) -> str:
        host = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        if "://" in host or "/" in host:
            raise ValueError(f"{value!r} is a URL; give the bare host name or address, and tls: true for mqtts")
        if host.count(":") == 1:
            raise ValueError(f"{value!r} holds a port; give the host alone and the number under port")
        if any(character.isspace() for character in host):
            raise ValueError(f"{value!r} holds white space; give the bare host name or address")
        return host

    @model_validator(mode="after")
    def _secrets_fit(self) -> Options:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file are both given; keep one")
        if self.username is None and (self.password is not None or self.password_file is not None):
            raise ValueError("a password is given without username; give both")
        return self

    @property
    def broker_port(self) -> int:
        """The port, after the default."""
        if self.port is not None:
            return self.port
        return 8883 if self.tls is not None else 1883

    @property
    def where(self) -> str:
        """`host:port`, for people."""
        return f"[{self.host}]:{self.broker_port}" if ":" in self.host else f"{self.host}:{self.broker_port}"


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
