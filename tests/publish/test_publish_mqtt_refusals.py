"""Brokers that will not have us, and ports that are no brokers: one line in plain words each, and never a secret."""

import logging
import random
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support_brokers import Certificates, Listener, Mosquitto, free_port, raw_server, wait_until

from edgevision.broker.tls import TlsOptions, make_context
from edgevision.publish._mqtt_sink import MqttSink
from edgevision.publish.base import SinkContext
from edgevision.publish.mqtt import Options
from edgevision.retry import Backoff
from edgevision.types import Message

SECRET = "S3CRET-pass"


def make_sink(port: int, **settings: Any) -> MqttSink:
    options = Options.model_validate({"host": "127.0.0.1", "port": port, "connect_timeout_s": 1.0, **settings})
    return MqttSink(options=options, context=SinkContext(device="d"), backoff=Backoff(first_s=0.02, max_s=0.05))


def state_of(words: str, caplog: pytest.LogCaptureFixture, port: int, **settings: Any) -> None:
    """The sink comes to say `words`, once in the log, in one line, without a traceback and without the password."""
    with caplog.at_level(logging.DEBUG):
        sink = make_sink(port, **settings)
        sink.publish(Message(topic="t", payload=b"{}", qos=1))
        tried = sink._backoff
        wait_until(lambda: words in sink.stats.state and tried.attempts >= 4, words)
        assert "next try in" in sink.stats.state
        assert not sink.stats.connected
        sink.close(deadline_s=0.0)
    assert sink.stats.dropped == 1
    told = [record for record in caplog.records if words in record.getMessage()]
    assert len(told) == 1
    assert "\n" not in told[0].getMessage()
    assert not any(record.exc_info for record in caplog.records)
    assert SECRET not in caplog.text
    assert SECRET not in sink.stats.state


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def guarded(mosquitto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker that knows the user `camera`."""
    folder = tmp_path_factory.mktemp("guarded")
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("needs mosquitto_passwd: apt-get install mosquitto")
    subprocess.run([tool, "-b", "-c", str(folder / "passwords"), "camera", SECRET], check=True)
    settings = ["allow_anonymous false", f"password_file {folder}/passwords"]
    with Mosquitto(mosquitto, folder, settings=settings) as broker:
        yield broker


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("settings", [{}, {"username": "camera", "password": "S3CRET-pass-wrong"}])
def test_a_wrong_password(guarded: Mosquitto, caplog, protocol: str, settings: dict[str, Any]) -> None:
    state_of("check username and password", caplog, guarded.port, protocol=protocol, **settings)


def test_the_right_password(guarded: Mosquitto) -> None:
    with Listener(guarded.port, username="camera", password=SECRET) as listener:
        sink = make_sink(guarded.port, username="camera", password=SECRET)
        sink.publish(Message(topic="t", payload=b"{}"))
        listener.wait_count(1)
        sink.close()


def test_a_password_file_is_read_anew_for_each_connection(guarded: Mosquitto, tmp_path: Path) -> None:
    file = tmp_path / "password"
    sink = make_sink(guarded.port, username="camera", password_file=file)
    wait_until(lambda: f"password_file {file} cannot be read: No such file" in sink.stats.state)
    file.write_text("wrong\n")
    wait_until(lambda: "check username and password" in sink.stats.state)
    file.write_text(SECRET + "\n")
    wait_until(lambda: sink.stats.connected)
    sink.close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70 + ".example"])
def test_an_unknown_host(caplog, host: str) -> None:
    state_of(f"host '{host}' is not", caplog, 1883, host=host)


def test_nobody_listens(caplog) -> None:
    port = free_port()
    state_of(f"127.0.0.1:{port} refuses connections: no broker listens there", caplog, port)


def test_a_port_that_never_answers(caplog) -> None:
    def read_on(connection: socket.socket) -> None:
        while connection.recv(4096):
            continue

    with raw_server(read_on) as port:
        state_of("takes connections but gives no answer within 0.1 s", caplog, port, connect_timeout_s=0.1)


def test_a_port_that_closes_at_once(caplog) -> None:
    with raw_server(lambda connection: None) as port:
        state_of("without an answer: is it an MQTT port", caplog, port)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x02\x00\x63", b"\xff" * 50, b"SSH-2.0-x\r\n"]
)
def test_a_port_that_speaks_something_else(caplog, answer: bytes) -> None:
    def speak(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    with raw_server(speak) as port:
        sink = make_sink(port)
        wait_until(lambda: "next try in" in sink.stats.state)
        assert f"127.0.0.1:{port}" in sink.stats.state
        assert "internal error" not in caplog.text
        sink.close()


def test_no_bytes_whatever_break_the_sink(caplog) -> None:
    """Fuzz: random answers before and after a true welcome never reach the top of the thread, and it goes on trying."""
    dice = random.Random(7)
    connections = []

    def babble(connection: socket.socket) -> None:
        connections.append(1)
        connection.recv(4096)
        if len(connections) % 2:
            connection.sendall(b"\x20\x03\x00\x00\x00")
        kind = bytes([dice.choice((0x20, 0x40, 0x50, 0x62, 0x70, 0x90, 0xD0, 0xE0, 0x30, 0x32, dice.randrange(256)))])
        body = dice.randbytes(dice.randrange(0, 12))
        connection.sendall(kind + bytes([len(body)]) + body)

    with caplog.at_level(logging.DEBUG), raw_server(babble) as port:
        sink = make_sink(port, protocol="5")
        sink.publish(Message(topic="t", payload=b"{}", qos=2))
        wait_until(lambda: len(connections) >= 80)
        sink.close(deadline_s=0.0)
    assert "internal error" not in caplog.text
    assert sink.stats.queued == 0


def tls_settings(certificates: Certificates, server: tuple[Path, Path], *more: str) -> list[str]:
    cert, key = server
    return ["allow_anonymous true", f"certfile {cert}", f"keyfile {key}", f"cafile {certificates.ca}", *more]


@pytest.fixture(scope="module")
def tls_broker(
    mosquitto: str, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mosquitto]:
    settings = tls_settings(certificates, certificates.issue("server"))
    with Mosquitto(mosquitto, tmp_path_factory.mktemp("tls"), settings=settings) as broker:
        yield broker


def test_tls_with_our_own_authority(tls_broker: Mosquitto, certificates: Certificates) -> None:
    sink = make_sink(tls_broker.port, tls={"ca_file": certificates.ca})
    for _ in range(100):
        sink.publish(Message(topic="t", payload=bytes(20_000), qos=1))
    wait_until(lambda: sink.stats.sent == 100)
    sink.close()


def test_tls_with_an_authority_we_do_not_trust(tls_broker: Mosquitto, certificates: Certificates, caplog) -> None:
    words = f"is not signed by tls.ca_file {certificates.other_ca}: set tls.ca_file"
    state_of(words, caplog, tls_broker.port, tls={"ca_file": certificates.other_ca})


def test_tls_without_a_ca_file_trusts_the_system_alone(tls_broker: Mosquitto, caplog) -> None:
    state_of("is not signed by an authority this system trusts", caplog, tls_broker.port, tls=True)


def test_tls_to_an_expired_certificate(mosquitto: str, certificates: Certificates, tmp_path: Path, caplog) -> None:
    settings = tls_settings(certificates, certificates.issue("expired", expired=True))
    with Mosquitto(mosquitto, tmp_path, settings=settings) as broker:
        state_of("has expired: renew it on the broker", caplog, broker.port, tls={"ca_file": certificates.ca})


def test_tls_to_a_certificate_of_another_name(
    mosquitto: str, certificates: Certificates, tmp_path: Path, caplog
) -> None:
    settings = tls_settings(certificates, certificates.issue("elsewhere", names="DNS:broker.plant"))
    with Mosquitto(mosquitto, tmp_path, settings=settings) as broker:
        state_of("is for another name", caplog, broker.port, tls={"ca_file": certificates.ca})
        sink = make_sink(broker.port, tls={"ca_file": certificates.ca, "server_name": "broker.plant"})
        wait_until(lambda: sink.stats.connected)
        sink.close()


def test_tls_to_a_plain_port(guarded: Mosquitto, certificates: Certificates, caplog) -> None:
    words = ("does not speak TLS: set tls: false", "closed the connection during the TLS handshake: is it a TLS port?")
    sink = make_sink(guarded.port, tls={"ca_file": certificates.ca})
    wait_until(lambda: any(text in sink.stats.state for text in words))
    sink.close(deadline_s=0.0)


def test_no_tls_to_a_tls_port(tls_broker: Mosquitto, caplog) -> None:
    state_of("set tls: true", caplog, tls_broker.port)


def test_tls_that_asks_who_we_are(mosquitto: str, certificates: Certificates, tmp_path: Path, caplog) -> None:
    settings = tls_settings(certificates, certificates.issue("mutual"), "require_certificate true")
    cert, key = certificates.issue("camera", passphrase=SECRET)
    with Mosquitto(mosquitto, tmp_path, settings=settings) as broker:
        state_of("wants a client certificate: set tls.cert_file", caplog, broker.port, tls={"ca_file": certificates.ca})
        ours = {"ca_file": certificates.ca, "cert_file": cert, "key_file": key, "key_password": SECRET}
        sink = make_sink(broker.port, tls=ours)
        wait_until(lambda: sink.stats.connected)
        sink.close()


def test_certificates_are_always_checked(certificates: Certificates) -> None:
    for options in (TlsOptions(), TlsOptions(ca_file=certificates.ca)):
        context = make_context(options, 1.0)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
