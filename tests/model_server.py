"""A web server that hands out one file, as badly as it is told; and a proxy that notes what went through it."""

from __future__ import annotations

import http.server
import os
import re
import select
import socket
import ssl
import threading
import urllib.request
from pathlib import Path
from typing import Any, final


@final
class ModelServer:
    """Serves `content` at any path. `faults` is taken from the front, one a request; then it behaves."""

    def __init__(
        self, content: bytes, *faults: str, etag: str | None = '"v1"', tls: tuple[Path, Path] | None = None
    ) -> None:
        self.content = content
        self.faults = list(faults)
        self.etag = etag
        self.asked: list[tuple[str, str | None]] = []
        """Path and Range of every request."""
        self.location = ""
        self.halfway = threading.Event()
        """Set when a stalling answer has sent its half."""
        self.closing = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.scheme = "https" if tls else "http"
        self.port = self._server.server_port

    def url(self, path: str = "m.onnx") -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/{path}"

    def __enter__(self) -> ModelServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: Any) -> None:  # noqa: C901  one line for each thing that servers do wrong
        self.asked.append((request.path, request.headers.get("Range")))
        fault = self.faults.pop(0) if self.faults else ""
        content, begin = self.content, 0
        if fault.isdigit():
            request.send_error(int(fault))
            return
        if fault == "redirect":
            request.send_response(302)
            request.send_header("Location", self.location)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        same = request.headers.get("If-Range") in {None, self.etag}
        if asked and same and fault != "no ranges":
            begin = int(asked[1])
            request.send_response(206)
            shown = begin - 1 if fault == "wrong range" else begin
            request.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        else:
            request.send_response(200)
        rest = content[begin:]
        length = len(rest)
        if fault == "corrupt":
            rest = rest[:-1] + bytes([rest[-1] ^ 1])
        if fault == "longer":
            rest, length = rest + b"more", len(rest) + 4
        if fault == "says less":
            length -= 100
        if fault == "endless":
            rest += b"x" * 1000
        if fault == "gzip":
            request.send_header("Content-Encoding", "gzip")
        if fault not in {"no length", "endless"}:
            request.send_header("Content-Length", str(length))
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        if fault in {"truncate", "stall", "garble"}:
            rest = rest[: len(rest) // 2]
        try:
            request.wfile.write(rest)
            request.wfile.flush()
        except OSError:
            return  # the other side has enough
        if fault == "garble":
            with socket.socket(fileno=os.dup(request.connection.fileno())) as under_tls:
                under_tls.sendall(b"this is no TLS")
        if fault == "stall":
            self.halfway.set()
            self.closing.wait()
        request.close_connection = True


@final
class Proxy:
    """An HTTP proxy: hands http: addresses on, and tunnels the others (CONNECT)."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with direct.open(self.path) as answer:
                    body = answer.read()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

            def do_CONNECT(self) -> None:
                outer.asked.append(self.path)
                host, _, port = self.path.partition(":")
                with socket.create_connection((host, int(port))) as there:
                    self.send_response(200)
                    self.end_headers()
                    ends = {self.connection: there, there: self.connection}
                    while True:
                        ready, _, _ = select.select(list(ends), [], [])
                        for end in ready:
                            block = end.recv(65536)
                            if not block:
                                return
                            ends[end].sendall(block)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
