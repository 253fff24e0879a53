"""A TCP proxy that can be told to misbehave: the network between two real processes, in which cables are pulled.

    with Proxy(broker.port) as proxy:      # connect to proxy.port
        proxy.swallow()                    # half-open: bytes are taken and go nowhere, new connections are not answered
        proxy.through()

What went wrong with a connection stays wrong: one that lost bytes is cut before bytes go through again.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, final

HOST = "127.0.0.1"
Way = Literal["up", "down"]
Tap = Callable[[int, Way, bytes], None]
"""Told of what goes through, before it does: the connection's number, from the client (`up`) or to it, and the bytes."""
_CHUNK = 4096


def reset(connection: socket.socket) -> None:
    """Close so that the other side gets an RST, and wake whoever waits for it."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@final
class Proxy:
    """From a port of its own to `target_port`, in one of its moods."""

    def __init__(self, target_port: int, *, tap: Tap | None = None, seed: int = 0) -> None:
        """Listens once entered."""
        self.port = 0
        self.accepted = 0
        """Connections since the start."""
        self._target_port = target_port
        self._tap = tap
        self._random = random.Random(seed)
        self._mood: Literal["through", "swallow", "slow", "garble"] = "through"
        self._bytes_per_s = 0.0
        self._delay_s = 0.0
        self._garble_every = 0
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._ending = threading.Event()

    def __enter__(self) -> Proxy:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._stop_listening()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def through(self) -> None:
        """All is well, for new connections."""
        spoiled = self._mood in {"swallow", "garble"}
        self._mood = "through"
        if spoiled:
            self.cut()
        if self._listener is None:
            self._listen()

    def swallow(self) -> None:
        """Half-open: nobody gets an answer, and nobody is told."""
        self._mood = "swallow"

    def slow(self, *, bytes_per_s: float, delay_s: float = 0.0) -> None:
        """A thin line: so many bytes a second in each direction of each connection, every piece `delay_s` late."""
        self._bytes_per_s, self._delay_s = bytes_per_s, delay_s
        self._mood = "slow"

    def garble(self, *, every: int) -> None:
        """A bad line: about one byte in `every` is another one."""
        self._garble_every = every
        self._mood = "garble"

    def refuse(self) -> None:
        """Nobody listens any more, and the connections that are there are reset."""
        self._stop_listening()
        self.cut()

    def cut(self) -> None:
        """Reset the connections that are there."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                reset(end)

    def _listen(self) -> None:
        self._listener = listener = socket.create_server((HOST, self.port))
        self.port = int(listener.getsockname()[1])
        self._spawn(self._serve, listener)

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _spawn(self, work: Callable[..., None], *arguments: Any) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=work, args=arguments, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed
            self.accepted += 1
            try:
                target = socket.create_connection((HOST, self._target_port), 5)
            except OSError:
                reset(client)
                continue
            target.settimeout(None)
            for end in (client, target):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.append((client, target))
            self._spawn(self._pump, self.accepted, "up", client, target)
            self._spawn(self._pump, self.accepted, "down", target, client)

    def _pump(self, number: int, way: Way, source: socket.socket, sink: socket.socket) -> None:
        lost = False  # a piece of the stream is missing: what follows would be no protocol any more
        try:
            while piece := source.recv(_CHUNK):
                mood = self._mood
                lost = lost or mood == "swallow"
                if lost:
                    continue
                if mood == "slow":
                    self._ending.wait(self._delay_s + len(piece) / self._bytes_per_s)
                if mood == "garble":
                    piece = self._garbled(piece)
                # Told before it goes on: what is answered must be known before the answer.
                if self._tap is not None:
                    self._tap(number, way, piece)
                sink.sendall(piece)
        except OSError:
            pass  # reset by one of the sides, or by us
        if lost and not self._ending.is_set():
            return  # in a half-open connection nobody hears that the other has gone
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _garbled(self, piece: bytes) -> bytes:
        spoiled = bytearray(piece)
        for place in range(len(spoiled)):
            if self._random.randrange(self._garble_every) == 0:
                spoiled[place] = self._random.randrange(256)
        return bytes(spoiled)
