"""Durable messages through the real sink: saved first, kept over outages and restarts, and whatever the disk does."""

import json
import logging
import sqlite3
from typing import Any

import pytest
from spool_support import event
from support_brokers import Listener, Mosquitto, free_port, wait_until

from edgevision.errors import StateError
from edgevision.publish import _journal, _spool_keeper, _spool_memory
from edgevision.publish._mqtt_sink import MqttSink
from edgevision.publish.base import SinkContext
from edgevision.publish.mqtt import Options
from edgevision.retry import Backoff
from edgevision.types import Message


@pytest.fixture
def broker(mosquitto, tmp_path):
    (tmp_path / "broker").mkdir()
    with Mosquitto(mosquitto, tmp_path / "broker", persistent=True) as broker:
        yield broker


def make_sink(port, state_dir, birth=None, **settings: Any) -> MqttSink:
    context = SinkContext(device="d", state_dir=state_dir, birth=birth)
    options = Options.model_validate({"host": "127.0.0.1", "port": port, **settings})
    return MqttSink(options=options, context=context, backoff=Backoff(first_s=0.02, max_s=0.1))


def spool_of(sink):
    assert sink.stats.spool is not None
    return sink.stats.spool


def heard_numbers(listener, topic="n"):
    return [json.loads(heard.payload)["n"] for heard in listener.heard if heard.topic == topic]


def test_what_an_earlier_run_left_comes_first_in_order_and_as_history(broker, tmp_path):
    port = free_port()
    for start in (0, 10):
        sink = make_sink(port, tmp_path / "state")
        for number in range(start, start + 10):
            sink.publish(event(number))
        sink.close(deadline_s=0.2)
        assert (sink.stats.queued, sink.stats.dropped) == (start + 10, 0), "kept, and not counted as dropped"
    with Listener(broker.port) as listener:
        sink = make_sink(broker.port, tmp_path / "state")
        sink.publish(event(20))
        listener.wait_count(21)
        wait_until(lambda: sink.stats.queued == 0)
        assert (sink.stats.sent, spool_of(sink).recovered, spool_of(sink).replayed) == (21, 20, 20)
        sink.close()
        assert heard_numbers(listener) == list(range(21))
        assert [json.loads(heard.payload)["historical"] for heard in listener.heard] == [True] * 20 + [False]
    again = make_sink(broker.port, tmp_path / "state")
    wait_until(lambda: "writes to" in spool_of(again).reason)
    assert spool_of(again).recovered == 0, "what the broker has acknowledged is gone"
    again.close()


def test_nothing_is_sent_before_it_is_safe_and_flush_waits_for_that(broker, tmp_path, monkeypatch):
    monkeypatch.setattr(_journal, "_BUSY_S", 600.0)
    monkeypatch.setattr(_spool_memory, "STALLED_S", 600.0)
    with Listener(broker.port) as listener:
        sink = make_sink(broker.port, tmp_path / "state")
        sink.publish(event(1))
        assert sink.flush(10)
        assert spool_of(sink).saved == 1
        listener.wait_count(1)
        other = sqlite3.connect(tmp_path / "state" / "spool.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")  # the disk stalls
        for number in range(2, 102):
            sink.publish(event(number))
        sink.publish(Message(topic="live", payload=b"{}"))
        listener.wait_for(lambda heard: heard.topic == "live")
        assert heard_numbers(listener) == [1], "the live one went ahead, and the unsafe ones did not"
        assert spool_of(sink).unsaved == 100
        assert not sink.flush(0.0)
        other.execute("ROLLBACK")
        other.close()
        listener.wait_count(102)
        assert heard_numbers(listener) == list(range(1, 102))
        sink.close()
    assert spool_of(sink).saved == 101


def test_a_disk_that_stalls_for_long_is_told_and_messages_go_out_without_it(broker, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(_spool_keeper, "RETRY_S", 0.1)
    with Listener(broker.port) as listener, caplog.at_level(logging.INFO):
        sink = make_sink(broker.port, tmp_path / "state")
        sink.publish(event(0))
        assert sink.flush(10)
        other = sqlite3.connect(tmp_path / "state" / "spool.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for number in range(1, 51):
            sink.publish(event(number))
        listener.wait_count(51)
        assert spool_of(sink).state == "memory"
        assert "only in memory" in spool_of(sink).alarm
        other.execute("ROLLBACK")
        other.close()
        sink.publish(event(51))
        wait_until(lambda: spool_of(sink).state == "journal")
        assert spool_of(sink).alarm == ""
        listener.wait_count(52)
        sink.close()
    assert heard_numbers(listener) == list(range(52))
    assert caplog.text.count("durable messages are kept in memory until it can be") <= 1


def test_a_folder_that_cannot_be_used_degrades_to_memory_and_comes_back(broker, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(_spool_keeper, "RETRY_S", 0.1)
    (tmp_path / "state").write_text("a file, where a folder should be")
    with Listener(broker.port) as listener, caplog.at_level(logging.INFO):
        sink = make_sink(broker.port, tmp_path / "state")
        sink.publish(event(1))
        listener.wait_count(1)
        assert spool_of(sink).state == "memory"
        assert "cannot write the journal" in spool_of(sink).alarm
        (tmp_path / "state").unlink()
        wait_until(lambda: spool_of(sink).state == "journal")
        sink.publish(event(2))
        assert sink.flush(10)
        listener.wait_count(2)
        sink.close()
    assert spool_of(sink).saved == 1
    assert caplog.text.count("cannot write the journal") == 1
    assert "again" in caplog.text


def test_a_damaged_journal_at_the_start_is_never_fatal(broker, tmp_path, caplog):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "spool.sqlite").write_bytes(b"garbage" * 1000)
    with Listener(broker.port) as listener, caplog.at_level(logging.WARNING):
        sink = make_sink(broker.port, tmp_path / "state")
        sink.publish(event(1))
        listener.wait_count(1)
        assert sink.flush(10)
        sink.close()
    assert "was damaged (file is not a database) and is set aside as" in caplog.text
    assert len(list((tmp_path / "state").glob("spool-damaged-*.sqlite"))) == 1


def test_a_second_sink_is_refused_the_journal_that_the_first_still_holds(tmp_path):
    sink = make_sink(free_port(), tmp_path / "state")
    with pytest.raises(StateError, match="held by an earlier sink of this very process"):
        make_sink(free_port(), tmp_path / "state")
    sink.close(deadline_s=0.2)
    make_sink(free_port(), tmp_path / "state").close(deadline_s=0.2)


def test_states_are_told_in_order_and_the_newest_is_what_stays(broker, tmp_path):
    births = iter(range(100, 200))

    def birth() -> Message:
        return event(next(births), topic="t/status", retain=True)

    port = free_port()
    sink = make_sink(port, tmp_path / "state", birth=birth)
    for number in range(3):
        sink.publish(event(number, topic="t/status", retain=True))
        sink.publish(event(number, topic="t/cam/status", retain=True))
    sink.close(deadline_s=0.2)
    with Listener(broker.port) as listener:
        sink = make_sink(broker.port, tmp_path / "state", birth=birth)
        sink.publish(event(50, topic="t/cam/status", retain=True))
        listener.wait_count(8)
        wait_until(lambda: sink.stats.queued == 0)
        assert heard_numbers(listener, "t/status")[:3] == [0, 1, 2]
        assert heard_numbers(listener, "t/status")[-1] >= 100
        assert heard_numbers(listener, "t/cam/status") == [0, 1, 2, 50]
        sink.close()
    with Listener(broker.port) as later:
        later.wait_count(2)
        assert {heard.topic: json.loads(heard.payload)["n"] for heard in later.heard}["t/cam/status"] == 50
        assert {heard.topic: json.loads(heard.payload)["n"] for heard in later.heard}["t/status"] >= 100


def test_a_live_event_overtakes_a_backlog_of_results_and_a_live_result_does_not(broker, tmp_path):
    sink = make_sink(free_port(), tmp_path / "state", queue_size=2000)
    for number in range(1500):
        sink.publish(event(number, topic="cam/results", priority=0))
    assert sink.flush(10)
    sink.close(deadline_s=0.2)
    with Listener(broker.port) as listener:
        sink = make_sink(broker.port, tmp_path / "state", spool={"replay_per_s": 1000})
        listener.wait_count(100)
        sink.publish(event(1500, topic="cam/results", priority=0))
        sink.publish(event(1, topic="cam/events"))
        sink.publish(event(2, topic="cam/events"))
        listener.wait_count(1503)
        sink.close()
    assert heard_numbers(listener, "cam/results") == list(range(1501)), "in order, the live one last"
    assert heard_numbers(listener, "cam/events") == [1, 2]
    at = [index for index, heard in enumerate(listener.heard) if heard.topic == "cam/events"]
    assert at[1] < 1400, "events did not wait for the results of before"
    assert all(not json.loads(listener.heard[index].payload)["historical"] for index in at)
    assert json.loads(listener.heard[0].payload)["historical"]
