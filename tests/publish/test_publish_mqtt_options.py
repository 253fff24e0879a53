import logging

import pytest
from pydantic import ValidationError
from support_brokers import Certificates, HandClock

from edgevision.broker import words
from edgevision.broker.tls import TlsOptions, make_context
from edgevision.errors import PublishError
from edgevision.publish._mqtt_client import packet_bytes
from edgevision.publish._mqtt_retained import RetainedMemory
from edgevision.publish._queue import BoundedQueue
from edgevision.publish._report import Report
from edgevision.publish.base import SinkContext
from edgevision.publish.mqtt import Options, create
from edgevision.types import Message


@pytest.mark.parametrize(
    ("settings", "fix"),
    [
        ({"host": "mqtt://broker"}, "give the bare host name"),
        ({"host": "broker:1883"}, "give the host alone and the number under port"),
        ({"host": "bro ker"}, "white space"),
        ({"host": ""}, "at least 1 character"),
        ({"host": "b", "port": 0}, "greater than or equal to 1"),
        ({"host": "b", "username": "u", "password": "p", "password_file": "/p"}, "keep one"),
        ({"host": "b", "password": "p"}, "without username"),
        ({"host": "b", "protocol": "4"}, "'auto', '5' or '3.1.1'"),
        ({"host": "b", "tls": {"cert_file": "/c"}}, "belong together"),
        ({"host": "b", "tls": {"key_password": "p"}}, "without key_file"),
        ({"host": "b", "tls": {"insecure": True}}, "Extra inputs"),
        ({"host": "b", "queue_size": 0}, "greater than or equal to 1"),
    ],
)
def test_a_wrong_option_is_refused_with_its_fix(settings, fix):
    with pytest.raises(ValidationError, match=fix):
        Options.model_validate(settings)


def test_ports_and_names():
    assert Options(host="b").where == "b:1883"
    assert Options.model_validate({"host": "b", "tls": True}).where == "b:8883"
    assert Options.model_validate({"host": "b", "tls": False}).broker_port == 1883
    assert Options(host="[::1]", port=7).where == "[::1]:7"
    assert Options.model_validate({"host": "b", "protocol": 5}).protocol == "5"


def test_a_secret_is_never_shown():
    options = Options.model_validate(
        {
            "host": "b",
            "username": "u",
            "password": "S3CRET",
            "tls": {"cert_file": "c", "key_file": "k", "key_password": "S3CRET"},
        }
    )
    assert "S3CRET" not in repr(options) + str(options) + options.model_dump_json()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_a_certificate_file_that_cannot_be_used_is_told_when_the_sink_is_made(tmp_path, certificates):
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    cert, key = certificates.issue("options")
    _, locked = certificates.issue("locked", passphrase="right word")
    for tls, text in [
        ({"ca_file": tmp_path / "none.pem"}, r"tls.ca_file .*none.pem cannot be read: No such file"),
        ({"ca_file": empty}, r"tls.ca_file .*empty.pem holds no certificate"),
        ({"cert_file": cert, "key_file": tmp_path / "none.key"}, r"tls.key_file .*none.key cannot be read"),
        ({"cert_file": cert, "key_file": locked}, r"right tls.key_password"),
        ({"cert_file": cert, "key_file": key, "ca_file": tmp_path}, r"cannot be read|holds no certificate"),
    ]:
        with pytest.raises(PublishError, match=text):
            create(Options.model_validate({"host": "127.0.0.1", "tls": tls}), SinkContext(device="d"))


def test_an_encrypted_key_opens_with_its_password(certificates):
    cert, key = certificates.issue("encrypted", passphrase="right word")
    options = TlsOptions.model_validate({"cert_file": cert, "key_file": key, "key_password": "right word"})
    assert make_context(options, 1.0).check_hostname


def test_retained_memory_keeps_the_newest_and_is_bounded():
    memory = RetainedMemory()
    memory.keep(Message(topic="a", payload=b"1", retain=True))
    memory.keep(Message(topic="b", payload=b"1", retain=True))
    memory.keep(Message(topic="a", payload=b"2", retain=True))
    assert [(message.topic, message.payload) for message in memory.all()] == [("b", b"1"), ("a", b"2")]
    memory.keep(Message(topic="b", payload=b"", retain=True))
    assert [message.topic for message in memory.all()] == ["a"]
    for number in range(1200):
        memory.keep(Message(topic=f"n/{number}", payload=b"1", retain=True))
    assert (len(memory.all()), memory.forgotten) == (1000, 201)
    memory.keep(Message(topic="big", payload=bytes(16 * 2**20), retain=True))
    assert [message.topic for message in memory.all()] == ["big"]


@pytest.mark.parametrize(("payload", "size"), [(0, 6), (122, 128), (123, 129), (124, 131), (16_000, 16_007)])
def test_packet_length(payload, size):
    # 1 command + 1 to 4 of length + 2 + topic + 1 of empty properties + payload
    assert packet_bytes(topic_bytes=1, payload_bytes=payload, qos=0, properties_bytes=1) == size


def test_a_lasting_trouble_is_told_ever_more_rarely(caplog):
    clock = HandClock()
    report = Report(log=logging.getLogger("edgevision.test"), name="mqtt", clock=clock)
    with caplog.at_level(logging.INFO, "edgevision.test"):
        for _ in range(24 * 60):  # a day of one failure a minute
            report.trouble("no broker")
            clock.now_ns += 60 * 10**9
        count = len(caplog.records)
        assert 20 < count < 40
        assert caplog.records[0].getMessage() == "mqtt: no broker"
        assert caplog.records[1].getMessage() == "mqtt: no broker (1 more times)"
        report.trouble("another")
        report.recovered()
        report.trouble("no broker")
        assert [record.getMessage() for record in caplog.records[count:]] == ["mqtt: another", "mqtt: no broker"]


def test_drops_are_told_once_a_minute_with_their_reasons(caplog):
    clock = HandClock()
    queue = BoundedQueue(max_messages=1, max_bytes=100, clock=clock)
    report = Report(log=logging.getLogger("edgevision.test"), name="mqtt", clock=clock)
    with caplog.at_level(logging.INFO, "edgevision.test"):
        for _ in range(3):
            queue.put(Message(topic="t", payload=b"x"))
            report.drops(queue)
        clock.now_ns += 61 * 10**9
        queue.drop("refused", 4)
        report.drops(queue)
    assert [record.getMessage() for record in caplog.records] == [
        "mqtt: 1 messages dropped (1 the queue was full), 1 in all",
        "mqtt: 5 messages dropped (4 refused, 1 the queue was full), 6 in all",
    ]


def test_words_name_the_client_where_it_is_to_blame():
    assert "'cam-7'" in words.thrown_out("b:1883", "Session taken over", "cam-7")
    assert words.refused("b:1883", "Something new", "cam-7") == "the broker at b:1883 refuses us: Something new"
    assert words.thrown_out("b:1883", "Something new", "x").endswith("ended the connection: Something new")
    assert "no way to" in words.unreachable(
        OSError(113, "No route to host"), host="b", where="b:1", timeout_s=1, trusted="x"
    )
