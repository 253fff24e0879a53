"""Real brokers for tests, as plain context managers: a test file makes its own fixture of them in three lines.

    from support_brokers import Listener, Mosquitto

    @pytest.fixture
    def broker(mosquitto, tmp_path):
        with Mosquitto(mosquitto, tmp_path) as broker:
            yield broker

`Mosquitto` can be killed, restarted on its port, and stopped in its tracks; `Listener` is a subscriber that remembers
and waits; `Certificates` is a private authority; `raw_server` is whatever a test wants to answer on a port.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

HOST = "127.0.0.1"
PATIENCE_S = 20.0
"""How long a test waits before it says that something did not happen."""


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], what: str = "the condition", timeout_s: float = PATIENCE_S) -> None:
    """Wait until `condition` is true, or fail saying `what` did not come."""
    pause = threading.Event()
    end_s = monotonic() + timeout_s
    while not condition():
        assert monotonic() < end_s, f"{what} did not come within {timeout_s:g} s"
        pause.wait(0.005)


class HandClock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.now_ns = 0

    def time_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.now_ns += int(seconds * 1e9)
        return event.is_set()


@final
class Mosquitto:
    """A mosquitto process with its own config in `folder`."""

    def __init__(
        self,
        binary: str,
        folder: Path,
        *,
        settings: Sequence[str] = ("allow_anonymous true",),
        persistent: bool = False,
    ) -> None:
        self.host = HOST
        self.port = free_port()
        self._binary = binary
        self._folder = folder
        self._settings = [f"persistence {str(persistent).lower()}", f"persistence_location {folder}/", *settings]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Mosquitto:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start (again) on the same port; `persistent`, it remembers what `stop` left."""
        config = self._folder / f"mosquitto-{self.port}.conf"
        # A child of root would change to a user that cannot read the test's files.
        user = ["user root"] if os.geteuid() == 0 else []
        listener = [f"listener {self.port} {HOST}"]
        config.write_text("\n".join([*user, *listener, "log_dest none", *self._settings]) + "\n")
        self._process = subprocess.Popen([self._binary, "-c", str(config)], stderr=subprocess.DEVNULL)
        wait_until(self._listens, f"mosquitto on port {self.port}")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"mosquitto ended with {self._process.returncode}"
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def kill(self) -> None:
        """SIGKILL: nobody is told."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def stop(self) -> None:
        """SIGTERM: clients are disconnected properly."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A message as a subscriber got it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    content_type: str | None
    expires_s: int | None
    """Lifetime left (MQTT 5)."""


@final
class Listener:
    """A subscriber that remembers everything and reconnects by itself; use it as a context manager."""

    def __init__(
        self,
        port: int,
        topics: str = "#",
        *,
        five: bool = True,
        session: str = "",
        username: str = "",
        password: str = "",
        tls: tuple[Path, Path, Path] | None = None,
    ) -> None:
        """`session` names a subscription that the broker keeps while the listener is away (MQTT 3.1.1); `tls` is the
        authority, our certificate and its key."""
        self.heard: list[Heard] = []
        self._topics = topics
        self._where = (HOST, port)
        self._ready = threading.Event()
        self._arrived = threading.Condition()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=session,
            clean_session=False if session else None,
            protocol=MQTTProtocolVersion.MQTTv5 if five and not session else MQTTProtocolVersion.MQTTv311,
        )
        self._client.reconnect_delay_set(1, 1)
        if tls is not None:
            authority, certificate, key = map(str, tls)
            self._client.tls_set(authority, certificate, key)
        if username:
            self._client.username_pw_set(username, password)
        self._client.on_connect = lambda client, *_: client.subscribe(self._topics, 1)
        self._client.on_disconnect = lambda *_: self._ready.clear()
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._remember

    def __enter__(self) -> Listener:
        self._client.connect(*self._where)
        self._client.loop_start()
        self.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait_ready(self) -> None:
        """Wait until subscribed (again)."""
        assert self._ready.wait(PATIENCE_S), "the subscriber did not connect"

    def _remember(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        with self._arrived:
            self.heard.append(
                Heard(
                    topic=message.topic,
                    payload=bytes(message.payload),
                    qos=message.qos,
                    retain=message.retain,
                    content_type=getattr(message.properties, "ContentType", None),
                    expires_s=getattr(message.properties, "MessageExpiryInterval", None),
                )
            )
            self._arrived.notify_all()

    def wait_for(self, predicate: Callable[[Heard], bool], timeout_s: float = PATIENCE_S) -> Heard:
        """The first message, of those heard and to come, for which `predicate` is true."""
        with self._arrived:
            found = self._arrived.wait_for(lambda: next(filter(predicate, self.heard), None), timeout_s)
            assert found is not None, f"not heard within {timeout_s:g} s; heard were {self.heard[-5:]}"
            return found

    def wait_count(self, count: int, timeout_s: float = PATIENCE_S) -> list[Heard]:
        """All that was heard, once it is `count` or more."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.heard) >= count, timeout_s), f"heard {len(self.heard)}"
            return list(self.heard)


@contextmanager
def publisher(port: int) -> Iterator[Any]:
    """`publish(topic, payload)`, which returns when the broker has it."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect(HOST, port)
    client.loop_start()

    def publish(topic: str, payload: bytes, *, retain: bool = False) -> None:
        client.publish(topic, payload, 1, retain).wait_for_publish(PATIENCE_S)

    yield publish
    client.disconnect()
    client.loop_stop()


class Certificates:
    """A private authority in `folder`, made with openssl; one key for all, because making keys is slow."""

    def __init__(self, folder: Path) -> None:
        self._openssl = shutil.which("openssl") or "openssl"
        self._folder = folder
        self.ca = self._authority("ca")
        self.other_ca = self._authority("other")

    def _run(self, *arguments: str) -> None:
        subprocess.run([self._openssl, *arguments], check=True, cwd=self._folder, capture_output=True)

    def _authority(self, name: str) -> Path:
        self._run(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"),
            *("-subj", f"/CN=edgevision test {name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"),
            # Python 3.13 wants of an authority what RFC 5280 does.
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
        return self._folder / f"{name}.pem"

    def issue(
        self, name: str, *, names: str = f"IP:{HOST},DNS:localhost", expired: bool = False, passphrase: str = ""
    ) -> tuple[Path, Path]:
        """A certificate and its key, signed by `ca`."""
        new_key = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        secret = ("-passout", f"pass:{passphrase}") if passphrase else ("-nodes",)
        self._run(*new_key, *secret, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (self._folder / f"{name}.ext").write_text(
            f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
        )
        (self._folder / f"{name}.index").write_text("")
        dates = ("-startdate", "20200101000000Z", "-enddate", "20200201000000Z") if expired else ("-days", "30")
        self._sign(name, dates)
        return self._folder / f"{name}.pem", self._folder / f"{name}.key"

    def _sign(self, name: str, dates: tuple[str, ...]) -> None:
        # `openssl ca`, because `openssl x509 -req` cannot set dates in the past.
        (self._folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=d\n[d]\nnew_certs_dir=.\ndatabase={name}.index\npolicy=p\ndefault_md=sha256\n"
            "rand_serial=yes\n[p]\ncommonName=supplied\n"
        )
        self._run(
            *("ca", "-batch", "-notext", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key", *dates),
            *("-extfile", f"{name}.ext", "-in", f"{name}.csr", "-out", f"{name}.pem"),
        )


@contextmanager
def raw_server(answer: Callable[[socket.socket], None], port: int = 0) -> Iterator[int]:
    """A TCP port on which `answer` is called with each connection, in turn; it is closed afterwards. Gives the port."""
    server = socket.create_server((HOST, port))
    open_connections: list[socket.socket] = []
    ending = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            if ending.is_set():
                connection.close()
                return
            open_connections.append(connection)
            connection.settimeout(PATIENCE_S)
            try:
                answer(connection)
            except OSError:
                continue
            finally:
                connection.close()

    thread = threading.Thread(target=serve, name="raw-server")
    thread.start()
    try:
        yield int(server.getsockname()[1])
    finally:
        ending.set()
        # Wakes the accept, and the read of a connection still open.
        for connection in open_connections:
            with suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
        socket.create_connection(server.getsockname()).close()
        thread.join(PATIENCE_S)
        server.close()
