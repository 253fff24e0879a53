"""One HTTP GET after another to the same camera, each bounded in time and size, and endable from another thread.

`http.client` bounds each wait for a byte; a server that drips could hold us for ever. Here the whole request has one deadline,
whatever it waits for. The connection is kept for the next request where the server allows it: a TLS handshake for each
picture is more than a camera's processor has. Redirects are followed on the same host only, so that a login goes nowhere else.
"""

from __future__ import annotations

import http.client
import io
import logging
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from edgevision.capture._http_auth import Challenge, read_challenge
from edgevision.capture._login import Login
from edgevision.capture._urls import redact_url
from edgevision.clock import Clock
from edgevision.errors import CaptureError

_log = logging.getLogger(__name__)

MAX_REDIRECTS = 3
_CHUNK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A server's answer, all of it."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    at_ns: int
    """Unix time at which the answer began."""
    mono_ns: int


class _Bounded(io.RawIOBase):
    """Reads a socket until a deadline, however little comes at a time."""

    def __init__(self, line: _Line) -> None:
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._line.sock.settimeout(self._line.left_s())
        return self._line.sock.recv_into(buffer)


class _Line:
    """What `http.client` takes for a socket: one whose waits all end at the same moment."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self.sock = sock
        self.until_ns = 0
        self._clock = clock

    def left_s(self) -> float:
        left_s = (self.until_ns - self._clock.monotonic_ns()) / 1e9
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def sendall(self, content: bytes) -> None:
        self.sock.settimeout(self.left_s())
        self.sock.sendall(content)

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(_Bounded(self), _CHUNK_BYTES)

    def close(self) -> None:
        """Nothing: `http.client` lets go before it has read an answer that ends the connection. `Getter` closes."""


def make_context(ca_file: Path | None) -> ssl.SSLContext:
    """TLS as a client: certificates are always checked, and there is no switch to leave that out.

    Raises:
        CaptureError: `ca_file` cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except ssl.SSLError as failure:
        raise CaptureError(f"ca_file {ca_file}: holds no certificate: give a PEM file") from failure
    except OSError as failure:
        raise CaptureError(f"ca_file {ca_file}: cannot be read: {failure.strerror}") from failure


class Getter:
    """Gets from one host."""

    def __init__(
        self,
        url: str,
        *,
        login: Login | None,
        timeout_s: float,
        max_bytes: int,
        context: ssl.SSLContext | None,
        server_name: str | None,
        clock: Clock,
    ) -> None:
        """Connects to nothing yet.

        Args:
            url: without a login in it.
            login: what to answer a server that asks.
            timeout_s: for a whole request, connecting and asking again in it.
            max_bytes: longer answers are refused.
            context: for https.
            server_name: the name in the certificate, where it is not the host's.
            clock: times it.
        """
        self.url = url
        self.shown = redact_url(url)
        self._login = login
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._context = context
        self._server_name = server_name
        self._clock = clock
        self._challenge: Challenge | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._where = ("", "", 0)
        self._line: _Line | None = None
        self._dirty = False  # an answer of this connection was not read to its end
        self._warned = False
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """End what is under way, from any thread."""
        with self._lock:
            self._closed = True
            line = self._line
        if line is not None:
            with suppress(OSError):
                # Not TLS's own goodbye, which would wait for the thread that reads.
                socket.socket.shutdown(line.sock, socket.SHUT_RDWR)

    def get(self, headers: Mapping[str, str]) -> Answer:
        """Get the picture.

        Raises:
            CaptureError: no answer, in time, in size or in HTTP; the text says what to mend.
        """
        try:
            return self._followed(headers)
        except http.client.IncompleteRead as failure:
            raise CaptureError(
                f"{self.shown}: the answer broke off after {len(failure.partial)} bytes: the camera or the network fails"
            ) from failure
        except http.client.HTTPException as failure:
            raise CaptureError(
                f"{self.shown}: answers, but not in HTTP: check the port, and http or https"
            ) from failure
        except OSError as failure:
            raise CaptureError(f"{self.shown}: {self._why(failure)}") from failure
        except ValueError as failure:  # what a server sent us, or our user name, cannot be sent back
            raise CaptureError(
                f"{self.shown}: its answer, or the user name, holds what HTTP cannot carry: check `url` and `username`"
            ) from failure
        finally:
            if self._dirty or self._connection is None or self._connection.sock is None:
                self.hang_up()

    def _followed(self, headers: Mapping[str, str]) -> Answer:
        """The last answer of those that it takes: asked who we are, and redirected."""
        until_ns = self._clock.monotonic_ns() + round(self._timeout_s * 1e9)
        url, asked, redirects = self.url, False, 0
        while True:
            answer = self._once(url, headers, until_ns)
            if answer.status == http.client.UNAUTHORIZED and not asked and self._login is not None:
                asked = True
                self._take_challenge(answer, url)
                continue
            target = answer.headers.get("Location")
            if answer.status not in {301, 302, 303, 307, 308} or target is None:
                return answer
            redirects += 1
            url, asked = self._redirected(url, target, redirects), False

    def _take_challenge(self, answer: Answer, url: str) -> None:
        self._challenge = read_challenge(answer.headers.get_all("WWW-Authenticate") or [])
        if self._challenge is None:
            raise CaptureError(f"{self.shown}: asks for a way to sign in that is neither basic nor digest")
        if self._challenge.scheme == "basic" and url.startswith("http:") and not self._warned:
            self._warned = True
            _log.warning("%s: takes the password in the clear: use https, or digest", self.shown)

    def hang_up(self) -> None:
        """Close the connection; the next `get` makes a new one. For the thread that gets."""
        with self._lock:
            line, self._connection, self._line = self._line, None, None
        if line is not None:
            line.sock.close()

    def _once(self, url: str, headers: Mapping[str, str], until_ns: int) -> Answer:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent: dict[str, str | bytes] = {
            "Accept": "image/*",
            "Accept-Encoding": "identity",
            "User-Agent": "edgevision",
            **headers,
        }
        if self._challenge is not None and self._login is not None:
            sent["Authorization"] = self._challenge.answer(self._login, method="GET", target=target).encode()
        for kept in (True, False):
            is_new = self._connect(parts, until_ns)
            connection = self._connection
            assert connection is not None  # noqa: S101  for mypy: made by _connect
            self._dirty = True
            try:
                connection.request("GET", target, headers=sent)
                response = connection.getresponse()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # The server may end a kept connection whenever it likes: that is no fault, once.
                self.hang_up()
                if is_new or not kept or self._closed:
                    raise
                continue
            break
        at_ns, mono_ns = self._clock.time_ns(), self._clock.monotonic_ns()
        body = self._body(response)
        self._dirty = False
        return Answer(status=response.status, headers=response.headers, body=body, at_ns=at_ns, mono_ns=mono_ns)

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        told = response.length
        if told is not None and told > self._max_bytes:
            raise CaptureError(f"{self.shown}: {told} bytes are above max_bytes ({self._max_bytes})")
        content = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            content += chunk
            if len(content) > self._max_bytes:
                raise CaptureError(f"{self.shown}: the answer is longer than max_bytes ({self._max_bytes})")
        if told is not None and len(content) < told:
            raise http.client.IncompleteRead(bytes(content), told - len(content))
        response.close()  # or the connection counts it as unread
        return bytes(content)

    def _connect(self, parts: Any, until_ns: int) -> bool:
        """Have a connection to where `parts` says; whether it is new."""
        where = (parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        if self._connection is not None and self._where == where and self._line is not None:
            self._line.until_ns = until_ns
            return False
        self.hang_up()
        _, host, port = where
        left_s = max(0.001, (until_ns - self._clock.monotonic_ns()) / 1e9)
        line = _Line(socket.create_connection((host, port), timeout=left_s), self._clock)
        line.until_ns = until_ns
        with self._lock:
            self._line = line  # from here on `close` ends a handshake too
            closed = self._closed
        if closed:
            raise TimeoutError
        line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "https" and self._context is not None:
            name = self._server_name or host
            line.sock = wrapped = self._context.wrap_socket(
                line.sock, server_hostname=name, do_handshake_on_connect=False
            )
            wrapped.settimeout(line.left_s())
            wrapped.do_handshake()
        connection = http.client.HTTPConnection(host, port)
        connection.sock = line
        self._connection, self._where = connection, where
        return True

    def _redirected(self, url: str, target: str, count: int) -> str:
        new = urljoin(url, target)
        old_parts, parts = urlsplit(url), urlsplit(new)
        if count > MAX_REDIRECTS:
            raise CaptureError(
                f"{self.shown}: redirects more than {MAX_REDIRECTS} times; give the last address as `url`"
            )
        same = parts.hostname == old_parts.hostname and parts.scheme in {"http", "https"}
        if not same or (old_parts.scheme == "https" and parts.scheme == "http"):
            raise CaptureError(
                f"{self.shown}: redirects to {redact_url(new)[:200]}, which is not followed (another host, or no longer "
                "https); give that address as `url` if it is right"
            )
        if parts.scheme == "https" and self._context is None:
            self._context = make_context(None)
        self._challenge = None
        return new

    def _why(self, failure: OSError) -> str:
        host = urlsplit(self.url).hostname
        if isinstance(failure, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({failure.verify_message}): set ca_file to its authority, or to the "
                "camera's own certificate, and server_name where the certificate is for another name"
            )
        if isinstance(failure, ssl.SSLError):
            return f"TLS failed ({failure.reason or failure}): is it an https port?"
        if isinstance(failure, socket.gaierror):
            return f"the host name {host!r} cannot be resolved ({failure.strerror}); check the name and the DNS"
        if isinstance(failure, TimeoutError):
            return f"no whole answer within {self._timeout_s:g} s (timeout_s): check the camera, the network and the address"
        return f"{failure.strerror or failure}; check the address and the port, and that the camera is on"
