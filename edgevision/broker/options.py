"""Where a broker is and who we are to it: the keys that everything shares that connects to one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from edgevision import registry
from edgevision.broker.tls import TlsOptions


def _tls(value: Any) -> Any:
    """`tls: true` is TLS with the certificate authorities of the system; `tls: false` is none."""
    if isinstance(value, bool):
        return {} if value else None
    return value


class BrokerOptions(registry.Options):
    """Where the broker is, and who we are."""

    host: str = Field(min_length=1, max_length=253)
    """Name or address of the broker, without scheme and port."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """None is 1883, with TLS 8883."""
    username: str | None = Field(default=None, max_length=65535)
    password: SecretStr | None = None
    password_file: Path | None = None
    """A file that holds the password; read anew for each connection, so that a changed one needs no restart."""
    client_id: str | None = Field(default=None, min_length=1, max_length=65535)
    """Two clients of one id throw each other out."""
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    """auto is MQTT 5, and 3.1.1 where the broker does not speak 5."""
    tls: Annotated[TlsOptions | None, BeforeValidator(_tls)] = None
    keepalive_s: int = Field(default=30, ge=1, le=65535)
    """A broker that is silent for one and a half of this is taken for gone."""
    connect_timeout_s: float = Field(default=10.0, ge=0.1, le=300)

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
    def _secrets_fit(self) -> BrokerOptions:
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
