"""A broker inside the demo, so that it needs no other machine and no other program: amqtt, in a child process.

For the demo and for tests only; it speaks MQTT 3.1.1 and knows neither users nor TLS, so it listens on this machine
alone. A production line wants Mosquitto, EMQX or the like. The child ends when its standard input closes, which happens
however the parent dies.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import subprocess
import sys
import tempfile
import threading
from types import TracebackType
from typing import IO, TYPE_CHECKING, final

from edgevision import registry
from edgevision.errors import PublishError

if TYPE_CHECKING:
    from amqtt.broker import Broker

HOST = "127.0.0.1"
PORT = 1883

_START_S = 20.0
_STOP_S = 5.0


@final
class EmbeddedBroker:
    """`with EmbeddedBroker() as broker:` a broker at `broker.host`, `broker.port` listens until the block ends."""

    def __init__(self, port: int = PORT) -> None:
        """Remember the port that is wanted; where it is taken (or 0), a free one is used."""
        self.host = HOST
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> EmbeddedBroker:
        """Start, and return when it listens.

        Raises:
            PluginError: amqtt is not installed.
            PublishError: the broker does not start.
        """
        registry.require("amqtt", package="edgevision[demo]", purpose="the demo's broker")
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
            [sys.executable, "-W", "ignore", "-m", "edgevision.demo.broker", "--port", str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for the demo, which then ends us
        )
        line = self._first_line(self._process)
        if not line.isdigit():
            problem = self._last_error()
            self.close()
            raise PublishError(f"the demo's broker did not start: {problem}")
        self.port = int(line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the broker."""
        self.close()

    def close(self) -> None:
        """End the broker; may be called twice."""
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    @staticmethod
    def _first_line(process: subprocess.Popen[bytes]) -> bytes:
        """The port, or nothing where the child ended or took too long."""
        if process.stdout is None:
            return b""
        watchdog = threading.Timer(_START_S, process.kill)
        watchdog.start()
        try:
            return process.stdout.readline().strip()
        finally:
            watchdog.cancel()

    def _last_error(self) -> str:
        if self._errors is None:
            return "unknown"
        self._errors.seek(0)
        lines = self._errors.read(65536).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"no answer within {_START_S:g} s"


def _usable_port(wanted: int) -> int:
    """`wanted` where it is free, or else a port that is."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue  # taken, or a privileged one: any free port does
            return int(probe.getsockname()[1])
    raise PublishError(f"no free port on {HOST}")


async def _start(wanted: int) -> tuple[Broker, int]:
    """A broker that listens at `wanted`, or at a free port where that one is taken, also in the very last moment."""
    from amqtt.broker import Broker
    from amqtt.errors import BrokerError

    for attempt in (wanted, 0):
        port = _usable_port(attempt)
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        try:
            await broker.start()
        except (BrokerError, OSError):
            if attempt == 0:
                raise
        else:
            return broker, port
    raise PublishError(f"no free port on {HOST}")


async def _serve(port: int) -> None:
    broker, port = await _start(port)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    parent_gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), parent_gone.set)  # nothing is ever written: it closes
    await parent_gone.wait()
    await broker.shutdown()


def main() -> None:
    """Serve until the standard input closes."""
    parser = argparse.ArgumentParser(prog="python -m edgevision.demo.broker", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT, help="where to listen; a free port is used if it is taken")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # amqtt tells every connection that ends
    asyncio.run(_serve(arguments.port))


if __name__ == "__main__":
    main()
