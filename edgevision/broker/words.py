"""What went wrong with a broker, in words that help on site: one line, the address, the fix, and never a secret."""

from __future__ import annotations

import errno
import socket
import ssl

from edgevision.errors import PublishError

# X509_V_ERR_* of OpenSSL (x509_vfy.h).
_NOT_YET_VALID = 9
_EXPIRED = 10
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21, 24})
_WRONG_NAME = frozenset({62, 64})

_CONNACK = {
    "Unsupported protocol version": "does not speak this version of MQTT: set protocol: auto",
    "Client identifier not valid": "does not accept the client_id {client_id!r}: set another one",
    "Bad user name or password": "refuses the user name or password: check username and password",
    "Not authorized": "does not let us in: check username and password, and its access rules for {client_id!r}",
    "Server unavailable": "is not available now",
    "Server busy": "is busy",
    "Banned": "has banned this client: see the broker's log",
    "Bad authentication method": "wants another way of signing in than user name and password",
    "Topic name invalid": "does not accept the topic of the last will: check topic",
    "Packet too large": "finds the last will too large",
    "Quota exceeded": "says that a quota is used up",
    "Retain not supported": "keeps no retained messages, which status needs: allow them in the broker",
    "QoS not supported": "does not support the QoS of the last will",
    "Use another server": "sends us to another broker: correct host",
    "Server moved": "has moved: correct host",
    "Connection rate exceeded": "says that we connect too often",
}
_DISCONNECT = {
    "Session taken over": "dropped us for another client with the client_id {client_id!r}: give each device its own",
    "Server shutting down": "is shutting down",
    "Server busy": "is busy",
    "Keep alive timeout": "did not hear us in time",
    "Not authorized": "does not let us publish: check the broker's access rules for {client_id!r}",
    "Packet too large": "found a message too large",
    "Quota exceeded": "says that a quota is used up",
    "Administrative action": "closed the connection on an administrator's order",
}


class LinkError(PublishError):
    """The connection could not be made, or has ended; the text is for people."""

    def __init__(self, text: str, *, version_refused: bool = False, unanswered: bool = False) -> None:
        """Tell whether the broker refused the version of MQTT, or gave no answer, which may mean that."""
        super().__init__(text)
        self.version_refused = version_refused
        self.unanswered = unanswered


def refused(where: str, reason: str, client_id: str) -> str:
    """The broker answered our CONNECT with a refusal; `reason` is MQTT's own name for it."""
    words = _CONNACK.get(reason)
    if words is None:
        return f"the broker at {where} refuses us: {reason}"
    return f"the broker at {where} {words.format(client_id=client_id)}"


def thrown_out(where: str, reason: str, client_id: str) -> str:
    """The broker ended the connection with a DISCONNECT."""
    words = _DISCONNECT.get(reason)
    if words is None:
        return f"the broker at {where} ended the connection: {reason}"
    return f"the broker at {where} {words.format(client_id=client_id)}"


def not_taken(where: str, topic: str, reason: str, username: str | None) -> str:
    """The broker refused a message; `reason` is MQTT's own name for it."""
    if reason == "Not authorized":
        who = "us" if username is None else f"user {username!r}"
        return (
            f"the broker at {where} does not let {who} publish on {topic!r}, and the message is lost: check its access rules, "
            "and that device and mqtt.topic are this box's own"
        )
    return f"the broker at {where} does not take {topic!r}: {reason}"


def closed_unanswered(where: str, *, tls: bool, detail: str, own: str = "") -> str:
    """The connection was closed before any answer to CONNECT; `detail` is what the socket said, `own` what is wrong with us."""
    if own:
        return f"the broker at {where} closed the connection, and {own}"
    if "CERTIFICATE_REQUIRED" in detail or "HANDSHAKE_FAILURE" in detail:
        return f"the broker at {where} wants a client certificate: set tls.cert_file and tls.key_file"
    if "ALERT" in detail and ("UNKNOWN_CA" in detail or "CERTIFICATE" in detail or "DECRYPT_ERROR" in detail):
        return f"the broker at {where} refuses our certificate: check tls.cert_file"
    # In TLS 1.3 a client certificate is judged after the handshake: the refusal may be overtaken by the end of the connection.
    port = (
        "is it an MQTT port, and does it want another client certificate (tls.cert_file, tls.key_file)"
        if tls
        else "is it an MQTT port, and one without TLS (else set tls: true)"
    )
    return f"{where} closed the connection without an answer: {port}?"


def not_mqtt(where: str) -> str:
    """Something answered, but not in MQTT."""
    return f"{where} answers, but not in MQTT: check host and port"


def silent(where: str, timeout_s: float) -> str:
    """Connected, and then no answer to CONNECT."""
    return f"{where} takes connections but gives no answer within {timeout_s:g} s: a stuck broker, or no MQTT port"


def gone_quiet(where: str, seconds: float) -> str:
    """An established connection without a sign of life."""
    return f"the broker at {where} has been silent for {seconds:.0f} s: connection given up"


def lost(where: str) -> str:
    """An established connection that ended without a word."""
    return f"connection to {where} lost"


def lost_early(where: str, client_id: str) -> str:
    """The same, within seconds: MQTT 3.1.1 and some MQTT 5 brokers do not tell that another client took our place."""
    return f"connection to {where} lost at once: does another client use the client_id {client_id!r}?"


def unreachable(error: OSError, *, host: str, where: str, timeout_s: float, trusted: str | None, own: str = "") -> str:
    """The connection could not be made.

    `trusted` says whose certificates we accept, None is without TLS; `own` is what is wrong with our own certificate.
    """
    if trusted is not None and isinstance(error, (ssl.SSLError, ConnectionResetError, BrokenPipeError)):
        return _no_tls(error, where=where, trusted=trusted, own=own)
    if isinstance(error, socket.gaierror):
        return f"host {host!r} is not known: check host and the network's DNS ({error.strerror})"
    if isinstance(error, ConnectionRefusedError):
        return f"{where} refuses connections: no broker listens there; start it, or correct host and port"
    if isinstance(error, TimeoutError):
        return f"no answer from {where} within {timeout_s:g} s: check the network, a firewall, host and port"
    if error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}:
        return f"no way to {where} ({error.strerror}): check the network cable, address and route"
    return f"cannot connect to {where}: {error.strerror or error}"


def _no_tls(error: OSError, *, where: str, trusted: str, own: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(error, where=where, trusted=trusted)
    reason = (isinstance(error, ssl.SSLError) and error.reason) or str(error).upper()
    if reason in {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
        return f"{where} does not speak TLS: set tls: false, or the port of the broker's TLS listener"
    closed = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError, BrokenPipeError)
    if isinstance(error, closed) or "EOF" in reason:
        return f"{where} closed the connection during the TLS handshake: is it a TLS port?"
    if "ALERT" in reason:
        return closed_unanswered(where, tls=True, detail=reason, own=own)
    return f"TLS with {where} failed: {reason.lower().replace('_', ' ')}"


def _untrusted(error: ssl.SSLCertVerificationError, *, where: str, trusted: str) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return f"the certificate of {where} has expired: renew it on the broker (or this machine's clock is wrong)"
    if code == _NOT_YET_VALID:
        return f"the certificate of {where} is not valid yet: this machine's clock is probably wrong"
    if code in _WRONG_NAME:
        return (
            f"the certificate of {where} is for another name ({error.verify_message.rstrip('.')}): connect to the name "
            "in it, or set tls.server_name"
        )
    if code in _UNKNOWN_ISSUER:
        return f"the certificate of {where} is not signed by {trusted}: set tls.ca_file to the broker's own authority"
    return f"the certificate of {where} is not trusted: {error.verify_message}"
