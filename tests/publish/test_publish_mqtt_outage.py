"""The MQTT sink when the broker is away, dies, comes back empty, or hangs."""

import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support_brokers import Listener, Mosquitto, free_port, raw_server, wait_until

from edgevision.clock import SYSTEM_CLOCK
from edgevision.publish._mqtt_sink import MqttSink
from edgevision.publish.base import SinkContext
from edgevision.publish.mqtt import Options
from edgevision.retry import Backoff
from edgevision.types import Message


@pytest.fixture
def broker(mosquitto, tmp_path):
    with Mosquitto(mosquitto, tmp_path) as broker:
        yield broker


class SteppedClock:
    """The machine's clock, and leaps on demand."""

    def __init__(self) -> None:
        self._real = SYSTEM_CLOCK
        self.ahead_ns = 0

    def time_ns(self) -> int:
        return self._real.time_ns() + self.ahead_ns

    def monotonic_ns(self) -> int:
        return self._real.monotonic_ns() + self.ahead_ns

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return self._real.wait(event, seconds)


def make_sink(port: int, *, clock: Any = None, **settings: Any) -> MqttSink:
    births = iter(range(1000))

    def birth() -> Message:
        return Message(topic="t/status", payload=f'{{"birth":{next(births)}}}'.encode(), qos=1, retain=True)

    context = SinkContext(device="d", birth=birth, **({"clock": clock} if clock else {}))
    options = Options.model_validate({"host": "127.0.0.1", "port": port, **settings})
    return MqttSink(options=options, context=context, backoff=Backoff(first_s=0.02, max_s=0.1))


def number(value: int, *, qos: Any = 1, **fields: Any) -> Message:
    return Message(topic="n", payload=f'{{"n":{value},"historical":false}}'.encode(), qos=qos, **fields)


def packets(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """MQTT packets as they come: type, body."""
    stream = connection.makefile("rb")
    while head := stream.read(1):
        length, shift = 0, 0
        while True:
            byte = stream.read(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                break
        yield head[0] >> 4, stream.read(length)


def noting(heard: list[tuple[str, bytes]], last: int | None = None) -> Callable[[socket.socket], None]:
    """Enough of an MQTT 3.1.1 broker to note topics and payloads; dies after `last` messages of a connection."""

    def answer(connection: socket.socket) -> None:
        taken = 0
        for kind, body in packets(connection):
            if kind == 1:
                connection.sendall(b"\x20\x02\x00\x00")
            elif kind == 3:
                taken += 1
                if last is not None and taken > last:
                    return  # read, and never acknowledged
                end = 2 + int.from_bytes(body[:2], "big")
                heard.append((body[2:end].decode(), body[end + 2 :]))
                connection.sendall(b"\x40\x02" + body[end : end + 2])

    return answer


def values(heard: list[Any]) -> list[int]:
    return [json.loads(message.payload)["n"] for message in heard if message.topic == "n"]


def test_without_a_broker_drops_are_counted_exactly_and_the_newest_arrive():
    heard: list[tuple[str, bytes]] = []
    sink = make_sink(port := free_port(), queue_size=100, protocol="3.1.1")
    for value in range(350):
        sink.publish(number(value))
    assert (sink.stats.queued, sink.stats.dropped, sink.stats.sent) == (100, 250, 0)
    wait_until(lambda: "refuses connections" in sink.stats.state)
    with raw_server(noting(heard), port=port):
        wait_until(lambda: sink.stats.sent == 100)
        sink.close()
    assert [json.loads(payload)["n"] for topic, payload in heard if topic == "n"] == list(range(250, 350))
    assert (sink.stats.queued, sink.stats.dropped, sink.stats.sent) == (0, 250, 100)


def test_close_without_a_broker_is_quick_and_counts(caplog):
    sink = make_sink(free_port())
    for value in range(7):
        sink.publish(number(value))
    with caplog.at_level(logging.WARNING):
        sink.close(deadline_s=0.3)
    assert (sink.stats.dropped, sink.stats.queued) == (7, 0)
    assert "7 messages dropped (7 not delivered before the end)" in caplog.text


@pytest.mark.parametrize("qos", [1, 2])
def test_nothing_is_missing_or_out_of_order_over_restarts_of_the_broker(mosquitto, tmp_path, qos):
    """Numbered messages, three restarts while they flow; the broker keeps what it acknowledged, so nothing may miss."""
    settings = ["allow_anonymous true", "max_queued_messages 0"]
    with (
        Mosquitto(mosquitto, tmp_path, settings=settings, persistent=True) as broker,
        Listener(broker.port, "n", session="kept") as listener,
    ):
        sink = make_sink(broker.port, queue_size=5000, max_inflight=10)
        for part in range(4):
            for value in range(part * 300, part * 300 + 300):
                sink.publish(number(value, qos=qos))
            if part < 3:
                least = part * 300 + 50
                wait_until(lambda: sink.stats.sent >= least)  # noqa: B023 - used up before the next part
                broker.stop()
                broker.start()
                listener.wait_ready()
        wait_until(lambda: sink.stats.sent == 1200)
        listener.wait_for(lambda message: json.loads(message.payload)["n"] == 1199)
        sink.close()
        firsts = list(dict.fromkeys(values(listener.heard)))
    assert firsts == list(range(1200))
    assert (sink.stats.sent, sink.stats.dropped, sink.stats.queued) == (1200, 0, 0)


def test_every_message_reaches_the_wire_until_it_is_acknowledged():
    """A broker that acknowledges a few, reads one more and dies, again and again."""
    heard: list[tuple[str, bytes]] = []
    with raw_server(noting(heard, last=30)) as port:
        sink = make_sink(port, protocol="3.1.1", max_inflight=8)
        for value in range(200):
            sink.publish(number(value))
        wait_until(lambda: sink.stats.sent == 200)
        sink.close()
    # An acknowledgement that dies with its connection costs a repetition, never a gap and never the order.
    numbers = [json.loads(payload)["n"] for topic, payload in heard if topic == "n"]
    assert list(dict.fromkeys(numbers)) == list(range(200))
    assert sink.stats.dropped == 0


def test_a_broker_that_lost_its_memory_is_told_again(broker):
    sink = make_sink(broker.port)
    for payload in (b'{"s":1}', b'{"s":2}'):
        sink.publish(Message(topic="t/cam/status", payload=payload, qos=1, retain=True))
    sink.publish(Message(topic="t/gone/status", payload=b'{"s":1}', qos=1, retain=True))
    sink.publish(Message(topic="t/gone/status", payload=b"", qos=1, retain=True))
    wait_until(lambda: sink.stats.sent == 4)
    broker.kill()
    wait_until(lambda: not sink.stats.connected)
    broker.start()
    wait_until(lambda: sink.stats.connected)
    with Listener(broker.port, "t/#") as listener:
        assert listener.wait_for(lambda message: message.topic == "t/cam/status").payload == b'{"s":2}'
        assert listener.wait_for(lambda message: message.topic == "t/status").payload == b'{"birth":1}'
        assert "t/gone/status" not in {message.topic for message in listener.heard}
    sink.close()
    assert sink.stats.sent == 4  # told again is not counted again


@pytest.mark.parametrize("durable", [False, True])
def test_a_state_that_comes_while_the_birth_is_made_is_what_stays(broker, tmp_path, durable):
    def state(number: int) -> Message:
        return Message(topic="t/status", payload=f'{{"n":{number}}}'.encode(), qos=1, retain=True, durable=durable)

    known: list[MqttSink] = []
    ready = threading.Event()

    def birth() -> Message:
        assert ready.wait(10)
        made = state(1)
        known[0].publish(state(2))
        return made

    context = SinkContext(device="d", birth=birth, state_dir=tmp_path / "state")
    known.append(MqttSink(options=Options(host="127.0.0.1", port=broker.port), context=context))
    ready.set()
    wait_until(lambda: known[0].stats.sent == 1)
    known[0].publish(number(1))
    wait_until(lambda: known[0].stats.sent == 2)
    with Listener(broker.port, "t/status") as listener:
        assert listener.wait_count(1)[0].payload == b'{"n":2}'
    known[0].close()


def test_birth_comes_first_and_what_waited_is_marked_as_late():
    """A server that notes the order in which messages come after CONNECT."""
    clock = SteppedClock()
    heard: list[tuple[str, bytes]] = []

    sink = make_sink(port := free_port(), clock=clock, protocol="3.1.1")
    sink.publish(number(1))
    sink.publish(Message(topic="n/image", payload=b"\xff", qos=1, content_type="image/jpeg"))
    sink.publish(Message(topic="n/odd", payload=b"not json", qos=1))
    sink.publish(Message(topic="n/status", payload=b'{"historical":false}', qos=1, retain=True))
    clock.ahead_ns = 5 * 10**9
    with raw_server(noting(heard), port=port):
        wait_until(lambda: sink.stats.sent == 4)
        clock.ahead_ns = 10 * 10**9
        sink.publish(number(2))
        wait_until(lambda: sink.stats.sent == 5)
        sink.close()
    assert heard == [
        ("t/status", b'{"birth":0}'),
        ("n", b'{"n":1,"historical":true}'),
        ("n/image", b"\xff"),
        ("n/odd", b"not json"),
        ("n/status", b'{"historical":false}'),
        ("n", b'{"n":2,"historical":false}'),
    ]


def test_expired_messages_are_not_sent_after_an_outage(mosquitto, tmp_path):
    clock = SteppedClock()
    broker = Mosquitto(mosquitto, tmp_path)
    sink = make_sink(broker.port, clock=clock)
    sink.publish(number(1, expires_s=2.0))
    sink.publish(number(2, expires_s=3600.0))
    clock.ahead_ns = 3 * 10**9
    wait_until(lambda: sink.stats.dropped == 1)  # also while there is nobody to send to
    with broker:
        wait_until(lambda: sink.stats.sent == 1)
        sink.close()
    assert (sink.stats.sent, sink.stats.dropped) == (1, 1)


def test_a_frozen_broker_is_noticed_by_the_keepalive_and_nothing_is_lost(broker, caplog):
    with caplog.at_level(logging.WARNING):
        sink = make_sink(broker.port, keepalive_s=1, connect_timeout_s=0.5)
        wait_until(lambda: sink.stats.connected)
        broker.freeze()
        for value in range(50):
            sink.publish(number(value))
        wait_until(lambda: not sink.stats.connected, timeout_s=4.0)
        assert sink.stats.queued == 50
        broker.thaw()
        wait_until(lambda: sink.stats.sent == 50)
        sink.close()
    assert "has been silent for" in caplog.text
    assert sink.stats.dropped == 0


def test_a_frozen_broker_cannot_make_memory_grow(broker):
    sink = make_sink(broker.port, keepalive_s=60, queue_size=40)
    wait_until(lambda: sink.stats.connected)
    broker.freeze()
    for _ in range(300):
        sink.publish(Message(topic="image", payload=bytes(500_000), content_type="image/jpeg"))
    wait_until(lambda: sink.stats.queued <= 40 + 20)
    assert sink.stats.sent + sink.stats.dropped + sink.stats.queued == 300
    assert sink.stats.dropped > 200
    sink.close(deadline_s=0.2)
    assert sink.stats.queued == 0


def test_idle_connections_live_on_pings(broker):
    sink = make_sink(broker.port, keepalive_s=1)
    wait_until(lambda: sink.stats.connected)
    quiet = threading.Event()
    with Listener(broker.port, "t/status") as listener:
        # Three keepalives long nothing is said; a lost connection would show as a second birth.
        assert not quiet.wait(3.2)
        assert sink.stats.connected
        assert {message.payload for message in listener.heard} == {b'{"birth":0}'}
    sink.close()


VICTIM = """
import sys
from edgevision.publish.base import SinkContext
from edgevision.publish.mqtt import Options, create
from edgevision.types import Message

def status(state):
    return lambda: Message(topic="t/victim/status", payload=state, qos=1, retain=True)

create(
    Options(host="127.0.0.1", port=int(sys.argv[1])),
    SinkContext(device="victim", birth=status(b"online"), will=status(b"offline")),
)
sys.stdin.read()
"""


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_broker_speaks_the_last_will_of_a_killed_process(broker, protocol):
    program = VICTIM.replace("port=int(", f'protocol="{protocol}", port=int(')
    with (
        Listener(broker.port, "t/victim/status") as listener,
        subprocess.Popen([sys.executable, "-c", program, str(broker.port)], stdin=subprocess.PIPE) as victim,
    ):
        listener.wait_for(lambda message: message.payload == b"online")
        victim.kill()
        listener.wait_for(lambda message: message.payload == b"offline")
    with Listener(broker.port, "t/victim/status") as later:
        assert later.wait_for(lambda message: message.retain).payload == b"offline"


def test_two_clients_of_one_name_are_told_apart(broker, caplog):
    with caplog.at_level(logging.WARNING):
        first = make_sink(broker.port, client_id="twin")
        wait_until(lambda: first.stats.connected)
        second = make_sink(broker.port, client_id="twin")
        wait_until(lambda: "does another client use the client_id 'twin'" in caplog.text)
        first.close()
        second.close()
