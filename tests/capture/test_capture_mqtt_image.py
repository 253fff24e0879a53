"""Pictures over a real broker, and everything else that may come on the topic."""

import subprocess
import threading
from typing import Any

import pytest
from capture_support import jpeg, number_of, picture
from pydantic import ValidationError
from support_brokers import PATIENCE_S, Certificates, Mosquitto, free_port, publisher, raw_server, wait_until

from edgevision.broker.subscription import Heard, Subscription
from edgevision.capture import mqtt_image
from edgevision.capture.base import SourceContext
from edgevision.capture.reader import Job, Limits, Reader
from edgevision.errors import CaptureError


@pytest.fixture
def broker(mosquitto, tmp_path):
    with Mosquitto(mosquitto, tmp_path) as running:
        yield running


class Reading:
    """Reads a source in a thread; `connected` is set when it first says that nothing comes."""

    def __init__(self, port: int, **options: Any) -> None:
        self.faults: list[str] = []
        self.frames: list[Any] = []
        self.failure = ""
        self.connected = threading.Event()
        given = {"host": "127.0.0.1", "port": port, "topic": "cam/1", "connect_timeout_s": 3, **options}
        context = SourceContext(camera="line-1", idle=self._idle)
        self.source = mqtt_image.create(mqtt_image.Options(**given), context)
        self._thread = threading.Thread(target=self._read)

    def _idle(self, fault: str) -> None:
        self.faults.append(fault)
        self.connected.set()

    def _read(self) -> None:
        try:
            for frame in self.source.frames():
                self.frames.append(frame)
        except CaptureError as failure:
            self.failure = str(failure)

    def __enter__(self):
        self._thread.start()
        assert self.connected.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()
        self.join()

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    @property
    def numbers(self) -> list[int]:
        return [number_of(frame.image) for frame in self.frames]


def failure_of(**options: Any) -> str:
    source = mqtt_image.create(
        mqtt_image.Options(**{"host": "127.0.0.1", "topic": "t", "connect_timeout_s": 1, **options}),
        SourceContext(camera="a"),
    )
    with pytest.raises(CaptureError) as caught:
        list(source.frames())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_pictures_come_and_what_is_none_is_counted(broker, protocol, caplog):
    with publisher(broker.port) as publish, Reading(broker.port, max_bytes=5000, protocol=protocol) as reading:
        publish("cam/1", jpeg(picture(1)))
        wait_until(lambda: reading.numbers == [1])
        publish("cam/1", b"no picture")
        publish("cam/1", jpeg(picture(2))[:300])
        publish("cam/1", b"")
        publish("cam/1", bytes(6000))
        publish("cam/2", jpeg(picture(9)))
        publish("cam/1", jpeg(picture(3)))
        wait_until(lambda: len(reading.frames) == 2)
    assert reading.numbers == [1, 3]
    # With MQTT 5 the broker itself keeps back what is too large for the packet size that we told it, and only then.
    assert reading.source.unreadable == 4
    assert [frame.sequence for frame in reading.frames] == [0, 5]
    assert reading.frames[0].origin is None
    assert "is not a picture that can be read" in caplog.text


def test_a_retained_picture_is_of_the_past(broker, caplog):
    with publisher(broker.port) as publish:
        publish("cam/1", jpeg(picture(1)), retain=True)
        with Reading(broker.port) as reading:
            publish("cam/1", jpeg(picture(2)))
            wait_until(lambda: reading.numbers == [2])
    assert "a retained message on 'cam/1' is left out" in caplog.text


def test_with_a_wildcard_the_topic_is_told(broker):
    with publisher(broker.port) as publish, Reading(broker.port, topic="plant/+/image") as reading:
        publish("plant/left/image", jpeg(picture(1)))
        publish("plant/right/image", jpeg(picture(2)))
        wait_until(lambda: len(reading.frames) == 2)
    assert [frame.origin for frame in reading.frames] == ["plant/left/image", "plant/right/image"]


@pytest.mark.parametrize("quiet", ["fault", "normal"])
def test_what_silence_means_is_the_users_to_say(broker, quiet):
    with Reading(broker.port, quiet=quiet) as reading:
        pass
    told = f"connected to 127.0.0.1:{broker.port}, and no picture on cam/1" if quiet == "fault" else ""
    assert set(reading.faults) == {told}


@pytest.mark.parametrize("quiet", ["fault", "normal"])
def test_what_cannot_be_read_is_no_silence_until_a_picture_comes(broker, quiet):
    options = {"protocol": "3.1.1", "max_bytes": 5000, "quiet": quiet}
    with publisher(broker.port) as publish, Reading(broker.port, **options) as reading:
        silence = reading.faults[0]
        for content, words in ((b"no picture", "is not a picture that can be read"), (bytes(6000), "above max_bytes")):
            publish("cam/1", content)
            wait_until(lambda words=words: words in reading.faults[-1] and reading.faults[-1] == reading.faults[-2])  # type: ignore[misc]
            assert reading.faults[-1].startswith("a message on cam/1")
        publish("cam/1", jpeg(picture(1)))
        wait_until(lambda: reading.faults[-1] == silence)
    assert reading.numbers == [1]


def test_a_topic_that_is_never_without_a_message_says_too_that_they_are_no_pictures(broker, monkeypatch):
    monkeypatch.setattr(Subscription, "take", lambda _: [Heard(topic="cam/1", payload=b"x", at_ns=0, mono_ns=0)])
    with Reading(broker.port, quiet="normal") as reading:
        wait_until(lambda: len(reading.faults) > 40)
    assert all("is not a picture that can be read" in fault for fault in reading.faults)
    assert reading.failure == ""


def test_pictures_none_of_which_can_be_read_are_counted_in_a_process_of_its_own_too(broker):
    options = {"host": broker.host, "port": broker.port, "topic": "cam/1", "quiet": "normal"}
    limits = Limits(frame_s=5, first_frame_s=20, memory_bytes=512 << 20)
    reader = Reader(Job(camera="a", type="mqtt_image", options=options), limits, live=True)
    faults: list[str] = []
    source = reader.source(faults.append)
    thread = threading.Thread(target=lambda: list(source.frames()))
    thread.start()
    wait_until(lambda: faults == [""] * len(faults) and len(faults) > 0)
    with publisher(broker.port) as publish:
        for _ in range(3):
            publish("cam/1", b"no picture")
        wait_until(lambda: source.unreadable == 3)
        wait_until(lambda: "is not a picture that can be read" in faults[-1])
    source.close()
    thread.join(PATIENCE_S)
    reader.close()
    assert not thread.is_alive()


def test_it_is_read_in_a_process_of_its_own(broker):
    options = {"host": broker.host, "port": broker.port, "topic": "cam/1", "quiet": "normal"}
    limits = Limits(frame_s=5, first_frame_s=20, memory_bytes=512 << 20)
    reader = Reader(Job(camera="a", type="mqtt_image", options=options), limits, live=True)
    connected, seen = threading.Event(), threading.Event()
    source = reader.source(lambda fault: connected.set() if fault == "" else None)
    numbers: list[int] = []

    def read():
        for frame in source.frames():
            numbers.append(number_of(frame.image))
            seen.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert connected.wait(PATIENCE_S)
    with publisher(broker.port) as publish:
        publish("cam/1", jpeg(picture(5)))
    assert seen.wait(PATIENCE_S)
    source.close()
    thread.join(PATIENCE_S)
    reader.close()
    assert numbers == [5]


def test_a_broker_that_goes_is_a_fault(broker):
    with Reading(broker.port) as reading:
        broker.kill()
        reading.join()
    assert f"connection to 127.0.0.1:{broker.port} lost" in reading.failure


def _hang_up(connection):
    connection.recv(9)


def _say_nothing(connection):
    connection.recv(10_000)
    connection.recv(10_000)  # until it is closed


def test_a_broker_that_is_not_there_or_is_none():
    assert "refuses connections: no broker listens there" in failure_of(port=free_port())
    with raw_server(_hang_up) as port:
        assert "closed the connection without an answer" in failure_of(port=port)
    with raw_server(_say_nothing) as port:
        assert "takes connections but gives no answer within 1 s" in failure_of(port=port)


def test_login_and_rights(mosquitto, tmp_path):
    (tmp_path / "acl").write_text("user reader\ntopic read allowed\n")
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    passwd = mosquitto.replace("sbin/mosquitto", "bin/mosquitto_passwd")
    subprocess.run([passwd, "-b", "-c", str(tmp_path / "users"), "reader", "s3cret"], check=True)
    settings = ["allow_anonymous false", f"password_file {tmp_path / 'users'}", f"acl_file {tmp_path / 'acl'}"]
    with Mosquitto(mosquitto, tmp_path, settings=settings) as broker:
        login: dict[str, Any] = {"port": broker.port, "username": "reader"}
        with Reading(topic="allowed", password_file=secret, **login) as reading:
            assert reading.failure == ""
        assert "check username and password" in failure_of(password="wrong", topic="allowed", **login)
        assert "check username and password" in failure_of(port=broker.port)


def test_tls_is_checked(mosquitto, tmp_path):
    certificates = Certificates(tmp_path)
    certificate, key = certificates.issue("broker")
    settings = ["allow_anonymous true", f"certfile {certificate}", f"keyfile {key}"]
    with Mosquitto(mosquitto, tmp_path, settings=settings) as broker:
        with Reading(broker.port, tls={"ca_file": certificates.ca}) as reading:
            assert reading.failure == ""
        assert "is not signed by" in failure_of(port=broker.port, tls={"ca_file": certificates.other_ca})


@pytest.mark.parametrize("topic", ["a/#/b", "#a", "a+/b", "", "a\0b", "#/a"])
def test_topics_that_cannot_be(topic):
    with pytest.raises(ValidationError, match="topic"):
        mqtt_image.Options(host="h", topic=topic)


@pytest.mark.parametrize("topic", ["a", "a/b", "/a", "+/b", "a/+/b", "a/#", "#", "+"])
def test_topics_that_can_be(topic):
    assert mqtt_image.Options(host="h", topic=topic).topic == topic
