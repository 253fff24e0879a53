"""A real HTTP(S) server on this machine whose every answer a test decides."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, final


@final
class HttpCamera:
    """Calls `answer(handler, number)` for each request, `number` counting from 0; keeps the requests' headers."""

    def __init__(
        self, answer: Callable[[Any, int], None], *, tls: tuple[Path, Path] | None = None, protocol: str = "HTTP/1.1"
    ) -> None:
        camera = self
        self.requests: list[dict[str, str]] = []
        self.connections = 0
        self.ending = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = protocol
            timeout = 20
            disable_nagle_algorithm = True

            def setup(self):
                super().setup()
                camera.connections += 1

            def do_GET(self):
                number = len(camera.requests)
                camera.requests.append(
                    {"path": self.path, **{key.lower(): value for key, value in self.headers.items()}}
                )
                try:
                    answer(self, number)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                pass  # a client that turns away is what many tests are about

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._scheme = "http" if tls is None else "https"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    def url(self, path: str = "/snap.jpg", *, login: str = "") -> str:
        return f"{self._scheme}://{login}{'@' if login else ''}127.0.0.1:{self.port}{path}"

    def __enter__(self) -> HttpCamera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.socket.close()


def give(handler: Any, body: bytes, *, status: int = 200, kind: str | None = "image/jpeg", **headers: str) -> None:
    """A proper answer; underscores in header names stand for dashes."""
    handler.send_response(status)
    if kind is not None:
        handler.send_header("Content-Type", kind)
    if status != 304:
        handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if status != 304:
        handler.wfile.write(body)


def reset(handler: Any) -> None:
    """End the connection without a word."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)
