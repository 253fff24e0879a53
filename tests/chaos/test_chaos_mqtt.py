"""A thousand brokers that talk nonsense to the daemon, and a thousand messages that are none to the consumer."""

import json
import logging
import select
import socket
import threading
from queue import Queue

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_brokers import Listener, Mosquitto, raw_server, wait_until

from edgevision.consume import Consumer, ConsumerOptions
from edgevision.publish._mqtt_sink import MqttSink
from edgevision.publish.base import SinkContext
from edgevision.publish.mqtt import Options
from edgevision.retry import Backoff
from edgevision.types import Message

CONNACK = b"\x20\x03\x00\x00\x00"  # MQTT 5: welcome, no properties
KINDS = st.sampled_from([kind << 4 for kind in range(16)] + [0x32, 0x3B, 0x62, 0xF7])
PACKETS = st.tuples(KINDS, st.binary(max_size=24), st.integers(-2, 3)).map(
    lambda packet: bytes([packet[0], max(0, len(packet[1]) + packet[2])]) + packet[1]
)
NONSENSE = st.one_of(
    st.binary(min_size=1, max_size=64), st.lists(PACKETS, min_size=1, max_size=4).map(b"".join),
    st.lists(PACKETS, min_size=1, max_size=4).map(lambda packets: CONNACK + b"".join(packets)),
    st.just(b"\xff" * 8), st.binary(max_size=8).map(lambda tail: CONNACK + b"\x30\xff\xff\xff\x7f" + tail),
)  # fmt: skip


class Babbler:
    """A port where each connection is told the next piece of nonsense, and is then closed."""

    def __init__(self):
        self.pieces: Queue[bytes] = Queue()
        self.told = threading.Semaphore(0)

    def __call__(self, connection: socket.socket) -> None:
        connection.recv(4096)
        piece = self.pieces.get()
        if not alive(connection):
            self.pieces.put(piece)  # the caller has given up meanwhile: the next one is told
            return
        try:
            connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
        finally:
            self.told.release()


def alive(connection: socket.socket) -> bool:
    try:
        return not select.select([connection], [], [], 0)[0] or connection.recv(1, socket.MSG_PEEK) != b""
    except OSError:
        return False


@pytest.fixture(scope="module")
def babbling(tmp_path_factory):
    babbler = Babbler()
    with raw_server(babbler) as port:
        sink = MqttSink(
            options=Options(host="127.0.0.1", port=port, protocol="5", queue_size=10, connect_timeout_s=2),
            context=SinkContext(device="box", state_dir=tmp_path_factory.mktemp("state")),
            backoff=Backoff(first_s=0.001, max_s=0.002),
        )
        sink.publish(Message(topic="t", payload=b"{}", qos=1, durable=True))
        yield babbler, sink
        babbler.pieces.put(b"")
        sink.close(deadline_s=0.0)


@settings(max_examples=1000)
@given(piece=NONSENSE)
def test_a_thousand_brokers_that_talk_nonsense_leave_the_sink_alive_and_its_message_kept(babbling, piece):
    babbler, sink = babbling
    babbler.pieces.put(piece)
    assert babbler.told.acquire(timeout=20), "the sink does not call any more"
    assert sink.stats.queued + sink.stats.sent == 1
    assert sink.stats.dropped == 0


def test_the_sink_was_never_surprised(babbling, mosquitto, tmp_path, caplog):
    """After all that: nothing of it was an internal error, and the message still arrives at a broker that is one."""
    babbler, sink = babbling
    with caplog.at_level(logging.DEBUG):
        for piece in (b"\x00", CONNACK + b"\x40\x02\x00\x07", CONNACK + b"\xe0\x00"):
            babbler.pieces.put(piece)
            assert babbler.told.acquire(timeout=20)
    assert "internal error" not in caplog.text
    assert "internal error" not in sink.stats.state


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
ENVELOPES = st.fixed_dictionaries(
    {
        "boot_id": st.just("0" * 32) | JSON,
        "seq": st.integers(0, 2**53) | JSON | st.sampled_from([-1, 0.5, True, 2**53 + 1, "1"]),
        "published_at": st.just("2026-01-01T00:00:00.000000Z") | JSON,
    },
    optional={"historical": JSON, "state": JSON},
)
# What mosquitto lets through: it cuts off whoever publishes to a topic with control characters.
TOPICS = st.text(
    st.characters(codec="utf-8", exclude_characters="#+", exclude_categories=("Cc", "Cn", "Cs", "Co")),
    min_size=1,
    max_size=20,
)
PAYLOADS = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    ENVELOPES.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=60).map(lambda tail: b"\xff\xd8" + tail),
    st.integers(1, 30_000).map(lambda depth: b"[" * depth),
)


class Fed:
    """A consumer behind a real broker, and a client that publishes whatever it is told."""

    def __init__(self, binary, folder):
        self.handed_on = []
        self.broker = Mosquitto(binary, folder)
        self.folder = folder
        self.stopping = threading.Event()

    def __enter__(self):
        self.broker.__enter__()
        options = ConsumerOptions(
            broker=Options(host="127.0.0.1", port=self.broker.port, client_id="c"),
            topics=("x/#",),
            state=self.folder / "seen.sqlite",
        )
        self.consumer = Consumer(options, hand_on=lambda new, _: self.handed_on.extend(new))
        self.thread = threading.Thread(target=self.consumer.run, args=(self.stopping,))
        self.thread.start()
        self.listener = Listener(self.broker.port, "x/#").__enter__()
        assert self.consumer.connected.wait(20)
        return self

    def __exit__(self, *_):
        self.listener.__exit__()
        self.stopping.set()
        self.thread.join(20)
        self.consumer.close()
        self.broker.__exit__()

    def send(self, topic, payload):
        self.listener._client.publish(topic, payload, qos=1).wait_for_publish(20)


@pytest.fixture(scope="module")
def fed(mosquitto, tmp_path_factory):
    with Fed(mosquitto, tmp_path_factory.mktemp("fed")) as fed:
        yield fed


@settings(max_examples=1000)
@given(topic=TOPICS, payload=PAYLOADS)
def test_a_thousand_messages_that_are_none_end_nothing(fed, topic, payload):
    fed.send(f"x/{topic}", payload)
    assert fed.thread.is_alive()


def test_the_consumer_still_hands_on_what_is_good_and_has_counted_the_rest(fed, caplog):
    good = {"boot_id": "a" * 32, "seq": 1, "published_at": "2026-01-01T00:00:00.000000Z", "historical": False}
    fed.send("x/good/events", json.dumps(good))
    wait_until(lambda: any(found.topic == "x/good/events" for found in fed.handed_on))
    counts = fed.consumer.counts
    wait_until(lambda: counts.malformed + counts.handed_on + counts.duplicates == len(fed.listener.heard))
    assert "Traceback" not in caplog.text
