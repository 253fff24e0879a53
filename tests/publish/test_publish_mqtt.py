"""The MQTT sink against real brokers that are well."""

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support_brokers import Listener, Mosquitto, wait_until

from edgevision.demo.broker import EmbeddedBroker
from edgevision.messages import mark_historical
from edgevision.publish._mqtt_sink import MqttSink
from edgevision.publish.base import SinkContext
from edgevision.publish.mqtt import Options, create
from edgevision.retry import Backoff
from edgevision.types import Message


@pytest.fixture
def broker(mosquitto: str, tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(mosquitto, tmp_path) as broker:
        yield broker


def birth() -> Message:
    return Message(topic="t/d/status", payload=b'{"state":"online"}', qos=1, retain=True)


def will() -> Message:
    return Message(topic="t/d/status", payload=b'{"state":"offline"}', qos=1, retain=True)


def make_sink(port: int, **settings: Any) -> MqttSink:
    return MqttSink(
        options=Options.model_validate({"host": "127.0.0.1", "port": port, **settings}),
        context=SinkContext(device="d", birth=birth, will=will),
        backoff=Backoff(first_s=0.05, max_s=0.2),
    )


def test_everything_of_a_message_arrives(broker: Mosquitto) -> None:
    with Listener(broker.port) as listener:
        sink = create(Options(host=broker.host, port=broker.port), SinkContext(device="d", birth=birth))
        sink.publish(Message(topic="t/ü", payload=b'{"n":1}', qos=1, expires_s=60.0))
        sink.publish(Message(topic="t/image", payload=b"\xff\xd8", qos=2, content_type="image/jpeg"))
        first, second, third = listener.wait_count(3)
        sink.close()
    assert (first.topic, first.payload) == ("t/d/status", b'{"state":"online"}')
    assert (second.topic, second.payload, second.qos) == ("t/ü", b'{"n":1}', 1)
    assert second.content_type == "application/json"
    assert second.expires_s is not None
    assert 58 <= second.expires_s <= 60
    assert (third.content_type, third.expires_s) == ("image/jpeg", None)
    stats = sink.stats
    assert (stats.sent, stats.dropped, stats.queued, stats.connected, stats.state) == (2, 0, 0, False, "closed")


def test_state_tells_where_and_which_mqtt(broker: Mosquitto) -> None:
    sink = make_sink(broker.port)
    wait_until(lambda: sink.stats.connected)
    assert sink.stats.state == f"connected to 127.0.0.1:{broker.port} (MQTT 5)"
    sink.close()
    sink.close()
    sink.publish(Message(topic="late", payload=b"{}"))
    assert (sink.stats.sent, sink.stats.dropped) == (0, 1)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_order_is_kept_and_nothing_is_missing(broker: Mosquitto, protocol: str, qos: Any) -> None:
    with Listener(broker.port, "numbers") as listener:
        sink = make_sink(broker.port, protocol=protocol, max_inflight=7)
        for number in range(300):
            sink.publish(Message(topic="numbers", payload=str(number).encode(), qos=qos))
        heard = listener.wait_count(300)
        sink.close()
    assert [int(message.payload) for message in heard] == list(range(300))
    assert (sink.stats.sent, sink.stats.dropped) == (300, 0)


def test_large_messages_pass(broker: Mosquitto) -> None:
    with Listener(broker.port, "image") as listener:
        sink = make_sink(broker.port)
        pictures = [bytes([number]) * 3_000_000 for number in range(5)]
        for picture in pictures:
            sink.publish(Message(topic="image", payload=picture, qos=1, content_type="image/png"))
        assert [message.payload for message in listener.wait_count(5)] == pictures
        sink.close()


def test_close_delivers_what_waits_and_is_no_last_will(broker: Mosquitto) -> None:
    with Listener(broker.port) as listener:
        sink = make_sink(broker.port)  # not even connected yet
        for number in range(200):
            sink.publish(Message(topic="n", payload=str(number).encode(), qos=1))
        sink.close(deadline_s=10.0)
        assert sink.stats.sent == 200
        probe = make_sink(broker.port, client_id="probe")
        probe.publish(Message(topic="done", payload=b"{}", qos=1))
        listener.wait_for(lambda message: message.topic == "done")
        probe.close()
        assert sum(message.topic == "n" for message in listener.heard) == 200
        assert b'{"state":"offline"}' not in {message.payload for message in listener.heard}


def test_a_sleeping_connection_is_woken_by_a_message(broker: Mosquitto) -> None:
    # With this keepalive nothing else would wake it for ten seconds.
    sink = make_sink(broker.port, keepalive_s=600)
    wait_until(lambda: sink._waker.sleeps)
    for count in range(1, 21):
        sink.publish(Message(topic="n", payload=b"{}", qos=1))
        wait_until(lambda: sink.stats.sent == count, timeout_s=2.0)  # noqa: B023 - used up at once
    sink.close()


def test_threads_may_publish_together(broker: Mosquitto) -> None:
    with Listener(broker.port, "n/#") as listener:
        sink = make_sink(broker.port, queue_size=5000)

        def work(name: int) -> None:
            for number in range(200):
                sink.publish(Message(topic=f"n/{name}", payload=str(number).encode(), qos=1))

        threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        heard = listener.wait_count(600)
        sink.close()
    for name in range(3):
        assert [int(m.payload) for m in heard if m.topic == f"n/{name}"] == list(range(200))


def test_a_topic_that_cannot_be_is_dropped_and_told(broker: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    sink = make_sink(broker.port)
    with caplog.at_level(logging.WARNING):
        for topic in ("a/#", "x" * 70_000, "\ud800"):
            sink.publish(Message(topic=topic, payload=b"{}"))
        sink.publish(Message(topic="fine", payload=b"{}", qos=1))
        wait_until(lambda: sink.stats.sent == 1)
        sink.close()
    assert sink.stats.dropped == 3
    assert "not a message to publish" in caplog.text


def test_a_broker_limit_on_size_drops_the_giant_alone(
    mosquitto: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Mosquitto(mosquitto, tmp_path, settings=["allow_anonymous true", "max_packet_size 2000"]) as broker:
        sink = make_sink(broker.port)
        with caplog.at_level(logging.WARNING):
            sink.publish(Message(topic="t", payload=bytes(5000), qos=1))
            sink.publish(Message(topic="t", payload=b"{}", qos=1))
            wait_until(lambda: sink.stats.sent == 1)
            sink.close()
    assert sink.stats.dropped == 1
    assert "larger than the broker's limit of 2000 bytes" in caplog.text


def test_a_refused_topic_is_counted_and_told(mosquitto: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "acl").write_text("topic write allowed/#\n")
    settings = ["allow_anonymous true", f"acl_file {tmp_path}/acl"]
    with Mosquitto(mosquitto, tmp_path, settings=settings) as broker:
        sink = make_sink(broker.port)
        with caplog.at_level(logging.WARNING):
            sink.publish(Message(topic="forbidden", payload=b"{}", qos=1))
            sink.publish(Message(topic="allowed/a", payload=b"{}", qos=1))
            wait_until(lambda: sink.stats.sent == 1 and sink.stats.dropped == 1)
            sink.close()
    assert "does not let us publish on 'forbidden', and the message is lost: check its access rules" in caplog.text


def test_a_broker_without_mqtt_5_gets_3_1_1_and_we_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("amqtt")
    with EmbeddedBroker(0) as broker, caplog.at_level(logging.INFO), Listener(broker.port, "n", five=False) as listener:
        # amqtt takes our first CONNECT, with its last will, for half a packet; the probe after it gets the answer.
        sink = make_sink(broker.port, connect_timeout_s=0.5)
        for number in range(50):
            sink.publish(Message(topic="n", payload=str(number).encode(), qos=1, expires_s=60.0))
        heard = listener.wait_count(50)
        assert sink.stats.state.endswith("(MQTT 3.1.1)")
        sink.close()
    assert [int(message.payload) for message in heard] == list(range(50))
    assert sink._backoff.attempts == 1
    assert [r.levelname for r in caplog.records if "does not speak MQTT 5" in r.getMessage()] == ["WARNING"]


def test_mqtt_5_alone_means_no_stepping_down(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("amqtt")
    with EmbeddedBroker(0) as broker:
        options = Options(host=broker.host, port=broker.port, protocol="5")
        sink = create(options, SinkContext(device="d"))
        wait_until(lambda: "does not speak this version of MQTT: set protocol: auto" in sink.stats.state)
        sink.close(deadline_s=0.5)


def test_payloads_are_json_after_marking() -> None:
    # The default of the sink is the contract's own function: they must fit together.
    assert json.loads(mark_historical(b'{"historical":false,"n":1}')) == {"historical": True, "n": 1}
