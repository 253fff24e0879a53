"""TLS to the broker: certificates are always checked, and there is no switch to leave that out.

The context is made anew for each connection, so that a renewed certificate on the disk needs no restart.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from edgevision.errors import PublishError


class TlsOptions(BaseModel):
    """Whom we trust and who we are; all empty trusts the system's certificate authorities."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    ca_file: Path | None = None
    """PEM file of the certificate authorities to trust instead of the system's."""
    cert_file: Path | None = None
    """Our own certificate (PEM), for brokers that ask for one."""
    key_file: Path | None = None
    """Its private key (PEM)."""
    key_password: SecretStr | None = None
    server_name: str | None = Field(default=None, min_length=1, max_length=253)
    """The name in the broker's certificate, where it is not the host we connect to."""

    @model_validator(mode="after")
    def _pair(self) -> TlsOptions:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together; give both or none")
        if self.key_password is not None and self.key_file is None:
            raise ValueError("key_password is given without key_file")
        return self


class _Context(ssl.SSLContext):
    """Shakes hands at once: under our name for the server, and closing the socket when that fails."""

    server_name: str | None = None
    timeout_s: float = 10.0

    def wrap_socket(  # type: ignore[override]  # the positional flags of the base are not used
        self, sock: socket.socket, *, server_hostname: str | None = None, **_: Any
    ) -> ssl.SSLSocket:
        sock.settimeout(self.timeout_s)
        try:
            wrapped = super().wrap_socket(
                sock, server_hostname=self.server_name or server_hostname, do_handshake_on_connect=False
            )
        except BaseException:
            sock.close()
            raise
        try:
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped


def make_context(options: TlsOptions, timeout_s: float) -> ssl.SSLContext:
    """Read the certificates.

    Args:
        options: whom to trust, who we are.
        timeout_s: the longest a handshake may take.

    Raises:
        PublishError: a file is missing, unreadable or not what it should be.
    """
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = options.server_name
    context.timeout_s = timeout_s
    if options.ca_file is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(cafile=options.ca_file)
        except ssl.SSLError as error:
            raise PublishError(f"tls.ca_file {options.ca_file} holds no certificate: give a PEM file") from error
        except OSError as error:
            raise PublishError(f"tls.ca_file {options.ca_file} cannot be read: {error.strerror}") from error
    if options.cert_file is not None and options.key_file is not None:
        _check_readable("cert_file", options.cert_file)
        _check_readable("key_file", options.key_file)
        # Never None: OpenSSL would ask for the password of an encrypted key on the terminal, and wait for ever.
        password = options.key_password.get_secret_value() if options.key_password is not None else ""
        try:
            context.load_cert_chain(options.cert_file, options.key_file, password)
        except (ssl.SSLError, OSError) as error:
            raise PublishError(
                f"tls.cert_file {options.cert_file} and tls.key_file {options.key_file} cannot be used: they must be "
                "PEM, belong together, and an encrypted key needs the right tls.key_password"
            ) from error
    return context


def _check_readable(key: str, path: Path) -> None:
    # load_cert_chain tells neither which of the two files it means nor where it is.
    try:
        path.open("rb").close()
    except OSError as error:
        raise PublishError(f"tls.{key} {path} cannot be read: {error.strerror}") from error
