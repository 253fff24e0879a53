"""`edgevision consume` and `Consumer` against a real broker."""

import json
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from support_brokers import Certificates, Mosquitto, free_port, raw_server, wait_until

from edgevision.consume import Consumer, ConsumerOptions, JsonLinesFile
from edgevision.demo.broker import EmbeddedBroker
from edgevision.errors import StateError
from edgevision.publish._mqtt_sink import MqttSink
from edgevision.publish.base import SinkContext
from edgevision.publish.mqtt import Options
from edgevision.retry import Backoff
from edgevision.types import Message

BOOT = "ab" * 16


@pytest.fixture
def broker(mosquitto, tmp_path):
    (tmp_path / "broker").mkdir()
    with Mosquitto(mosquitto, tmp_path / "broker", persistent=True) as broker:
        yield broker


@pytest.fixture
def sink(broker):
    options = Options(host="127.0.0.1", port=broker.port)
    sink = MqttSink(options=options, context=SinkContext(device="d"), backoff=Backoff(first_s=0.02, max_s=0.1))
    yield sink
    sink.close()


def message(seq, topic="t/events", *, pad="", **fields):
    content = {
        "boot_id": BOOT,
        "seq": seq,
        "published_at": "2026-01-01T00:00:00.000000Z",
        "historical": False,
        "pad": pad,
    }
    return Message(topic=topic, payload=json.dumps({**content, **fields}).encode(), qos=1)


@dataclass
class At:
    """Something that listens."""

    port: int


class Running:
    """A consumer in a thread of its own."""

    def __init__(self, broker, tmp_path, *, hand_on=None, patience_s=20, **options):
        self._patience_s = patience_s
        self.new, self.notices = [], []
        settings = {"host": "127.0.0.1", "port": broker.port, "client_id": "c", **options}
        self.consumer = Consumer(
            ConsumerOptions(broker=Options.model_validate(settings), topics=("t/#",), state=tmp_path / "seen.sqlite"),
            hand_on=hand_on or self._hand_on,
            backoff=Backoff(first_s=0.02, max_s=0.1),
        )
        self.failure = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _hand_on(self, new, notices):
        self.new += new
        self.notices += notices

    def _run(self):
        try:
            self.consumer.run(self._stopping)
        except StateError as failure:
            self.failure = failure

    def __enter__(self):
        self._thread.start()
        if not self.consumer.connected.wait(self._patience_s):
            self.__exit__()
            raise AssertionError("not connected")
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join(20)
        self.consumer.close()

    @property
    def seqs(self):
        return [found.seq for found in self.new]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_each_message_once_over_restarts_of_both_sides(broker, sink, tmp_path, protocol):
    with Running(broker, tmp_path, protocol=protocol) as running:
        for seq in (1, 2, 2, 5):
            sink.publish(message(seq))
        wait_until(lambda: len(running.seqs) == 3)
    for seq in (5, 6):
        sink.publish(message(seq))  # while nobody listens: the broker keeps it for the session
    wait_until(lambda: sink.stats.queued == 0)
    broker.stop()
    broker.start()
    with Running(broker, tmp_path, protocol=protocol) as again:
        for seq in (3, 4, 4):
            sink.publish(message(seq, historical=True))
        wait_until(lambda: again.consumer.counts.duplicates >= 2)
        assert again.seqs == [6, 3, 4]
        assert [found.historical for found in again.new] == [False, True, True]
    assert [(notice.notice, notice.first, notice.last) for notice in running.notices + again.notices] == [
        ("gap", 3, 4),
        ("gap-closed", 3, 4),
    ]


def test_a_broker_of_3_1_1_alone_is_spoken_to_in_3_1_1_and_that_is_said_once(tmp_path, caplog):
    pytest.importorskip("amqtt", reason="needs the demo's broker: pip install 'edgevision[demo]'")
    with EmbeddedBroker(0) as broker:
        with Running(broker, tmp_path, connect_timeout_s=1) as running:
            options = Options(host="127.0.0.1", port=broker.port)
            sink = MqttSink(options=options, context=SinkContext(device="d"), backoff=Backoff(first_s=0.02, max_s=0.1))
            for seq in (1, 2, 2, 3):
                sink.publish(message(seq))
            wait_until(lambda: len(running.seqs) == 3)
            sink.close()
        assert running.seqs == [1, 2, 3]
        assert running.consumer.counts.duplicates == 1
        lines = [record.message for record in caplog.records if record.message.startswith("consume:")]
        assert sum("does not speak MQTT 5: using 3.1.1" in line for line in lines) == 1
        with pytest.raises(AssertionError), Running(broker, tmp_path, connect_timeout_s=1, protocol="5", patience_s=3):
            pass
        assert "gives no answer within 1 s" in caplog.text, "who asks for 5 alone is not helped, and told"


def test_a_broker_that_closes_on_mqtt_5_without_a_word_is_probed(tmp_path, caplog):
    asked = []

    def answer(connection):
        connect = connection.recv(4096)
        asked.append(connect[8])  # the protocol level, after the fixed header and the name
        if connect[8] == 5:
            return
        connection.sendall(b"\x20\x02\x00\x00")
        subscribe = connection.recv(4096)
        connection.sendall(b"\x90\x03" + subscribe[2:4] + b"\x01")
        while connection.recv(4096):
            continue

    with raw_server(answer) as port, Running(At(port), tmp_path):
        assert asked == [5, 5, 5, 4]
    assert "closed the connection without an answer: is it an MQTT port" in caplog.text
    assert "does not speak MQTT 5: using 3.1.1" in caplog.text


def test_a_broker_that_answers_nothing_is_told_and_left(tmp_path, caplog):
    asked = []

    def read_on(connection):
        while packet := connection.recv(4096):
            asked.append(packet[8])

    def welcome_only(connection):
        connection.recv(4096)
        connection.sendall(b"\x20\x02\x00\x00")
        while connection.recv(4096):
            continue

    more: dict[str, Any] = {"connect_timeout_s": 0.1, "patience_s": 1}
    with raw_server(read_on) as port, pytest.raises(AssertionError), Running(At(port), tmp_path, **more):
        pass
    assert asked[:5] == [5, 5, 5, 4, 5], "3.1.1 did no better"
    assert f"127.0.0.1:{port} takes connections but gives no answer within 0.1 s" in caplog.text
    more["protocol"] = "3.1.1"
    with raw_server(welcome_only) as port, pytest.raises(AssertionError), Running(At(port), tmp_path, **more):
        pass
    assert f"the broker at 127.0.0.1:{port} does not answer our subscription within 0.1 s" in caplog.text


def test_hostile_payloads_are_counted_and_told_and_end_nothing(broker, sink, tmp_path, caplog):
    with Running(broker, tmp_path) as running:
        for payload in (b"", b"\xff" * 100, b"[" * 50_000, b'{"seq": 1e999}', b"\xff\xd8\xff\xfe\x00\x00"):
            sink.publish(Message(topic="t/\u202e evil", payload=payload, qos=1))
        sink.publish(message(1))
        wait_until(lambda: running.seqs == [1])
    assert running.consumer.counts.malformed == 5
    assert "is left out: not JSON" in caplog.text
    assert "Traceback" not in caplog.text


def test_what_could_not_be_handed_on_comes_again(broker, sink, tmp_path):
    def refuse(new, notices):
        raise StateError("--output is full")

    with Running(broker, tmp_path, hand_on=refuse) as running:
        sink.publish(message(1))
        wait_until(lambda: running.failure)
    with Running(broker, tmp_path) as again:
        wait_until(lambda: again.seqs == [1])


def test_a_file_is_cut_back_to_what_was_marked(tmp_path):
    path = tmp_path / "out.jsonl"
    file = JsonLinesFile(path, marked=None)
    file.write([b"one\n", b"two\n"])
    marked = file.mark
    file.write([b"three\n"])
    file.close()
    again = JsonLinesFile(path, marked=marked)
    again.write([b"3\n"])
    again.close()
    assert path.read_text() == "one\ntwo\n3\n"
    other = JsonLinesFile(tmp_path / "other.jsonl", marked=marked)
    other.close()
    with pytest.raises(StateError, match=r"--output .* cannot be written"):
        JsonLinesFile(tmp_path, marked=None)
    full = JsonLinesFile(tmp_path / "full", marked=None)
    full.close()


def command(port, tmp_path, *more):
    base = [sys.executable, "-m", "edgevision", "consume", "--port", str(port), "-t", "t/#", "--client-id", "cli"]
    return [*base, "--state", str(tmp_path / "seen.sqlite"), *more]


def test_the_command_prints_json_lines_and_ends_clean_on_ctrl_c(broker, sink, tmp_path):
    with subprocess.Popen(
        command(broker.port, tmp_path, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert "connected to" in process.stderr.readline()
        for seq in (1, 3, 3, 2):
            sink.publish(message(seq))
        lines = [json.loads(process.stdout.readline()) for _ in range(5)]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0
    assert sorted(line["payload"]["seq"] for line in lines if "payload" in line) == [1, 2, 3]
    assert [line["notice"] for line in lines if "notice" in line] == ["gap", "gap-closed"]
    assert "3 messages handed on (0 late), 1 duplicates removed, 1 gaps (1 closed), 0 left out as malformed" in said
    assert "Traceback" not in said


def test_lines_for_people_hold_nothing_that_a_terminal_obeys(broker, sink, tmp_path):
    with subprocess.Popen(
        command(broker.port, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert "connected to" in process.stderr.readline()
        sink.publish(message(1, label="\x1b[2Jcup", kind="appeared"))
        line = process.stdout.readline()
        process.terminate()
        process.communicate(timeout=20)
    assert line == "2026-01-01T00:00:00.000000Z t/events 1 appeared \N{REPLACEMENT CHARACTER}[2Jcup\n"


def test_wrong_arguments_and_no_broker_are_one_line_each(tmp_path):
    done = subprocess.run(
        command(free_port(), tmp_path, "--host", "mqtt://x"), capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "bare host name" in done.stderr
    with subprocess.Popen(
        command(free_port(), tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "refuses connections" in process.stderr.readline()
        process.terminate()
        process.communicate(timeout=20)
        assert process.returncode == 0


def test_tls_and_passwords_are_as_elsewhere(mosquitto, tmp_path):
    (tmp_path / "certs").mkdir()
    certificates = Certificates(tmp_path / "certs")
    key = certificates.issue("server")
    (tmp_path / "passwords").touch()
    subprocess.run(
        ["mosquitto_passwd", "-b", str(tmp_path / "passwords"), "qa", "right"], check=True, capture_output=True
    )
    (tmp_path / "secret").write_text("right\n")
    settings = [
        "allow_anonymous false",
        f"password_file {tmp_path}/passwords",
        f"cafile {certificates.ca}",
        f"certfile {key[0]}",
        f"keyfile {key[1]}",
    ]
    with Mosquitto(mosquitto, tmp_path, settings=settings) as broker:
        more = ["--username", "qa", "--password-file", str(tmp_path / "secret"), "--ca-file", str(certificates.ca)]
        with subprocess.Popen(command(broker.port, tmp_path, *more), stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert "connected to" in process.stderr.readline()
            process.terminate()
            process.communicate(timeout=20)
        with subprocess.Popen(
            command(broker.port, tmp_path, *more[:-2], "--tls"), stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            assert "certificate" in process.stderr.readline()
            process.terminate()
            process.communicate(timeout=20)
