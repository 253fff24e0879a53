"""Durable messages through the real sink: saved first, kept over outages and restarts, bounded, and whatever the disk does."""

import json
import logging
import sqlite3
import threading
from typing import Any

import pytest
from support_brokers import HandClock, Listener, Mosquitto, free_port, wait_until

from edgevision.clock import SYSTEM_CLOCK
from edgevision.errors import StateError
from edgevision.publish import _journal, _spool_keeper, _spool_memory
from edgevision.publish._journal import Journal
from edgevision.publish._mqtt_sink import MqttSink
from edgevision.publish._pace import Pace
from edgevision.publish._spool import Spool
from edgevision.publish._spool_keeper import SpoolKeeper
from edgevision.publish._spool_memory import BULK, LANES, PRECIOUS
from edgevision.publish._spool_options import SpoolOptions
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


def event(number: int, **fields: Any) -> Message:
    payload = f'{{"n":{number},"historical":false}}'.encode()
    return Message(**{"topic": "n", "payload": payload, "qos": 1, "durable": True, "priority": 1, **fields})


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


def test_memory_is_bounded_while_the_disk_is_away_and_the_lowest_priority_goes_first(tmp_path):
    (tmp_path / "spool.sqlite").mkdir()  # what is no file cannot be opened, and not set aside as one either
    spool, keeper, _ = keep(tmp_path)
    keeper._once(closing=False)
    for number in range(3000):
        spool.put(event(number, priority=number % 3))
    assert (spool.stats.waiting, spool.stats.state) == (1000, "memory")
    assert spool.stats.drops == {"the disk was too slow or failed": 2000}
    items = take_all(spool)
    assert [number for number in values(items) if number % 3 != 2] == []
    for item in items:
        spool.settle(item, None, late=False)
    assert (len(spool._unsaved), len(spool._memory), sum(map(len, spool._waiting.values()))) == (0, 0, 0)
    keeper.close(0)


def test_a_state_that_waits_at_the_front_keeps_nothing_of_what_was_given_up_behind_it(tmp_path):
    (tmp_path / "spool.sqlite").mkdir()
    spool, keeper, clock = keep(tmp_path)
    keeper._once(closing=False)

    def held():
        return len(spool._unsaved) + sum(map(len, spool._waiting.values()))

    spool.put(event(0, retain=True, priority=2))
    for number in range(1, 20_001):
        spool.put(event(number))
    assert spool.stats.waiting == 1000
    assert held() <= 2 * (2 * 1000 + 64)
    items = take_all(spool)
    assert values(items) == [0, *range(19_002, 20_001)], "the state, and the newest events, in order"
    spool.put_back(items)
    keeper.close(0)

    # The same where they expire, as at a broker that is away, and have the state's priority.
    spool, keeper, clock = keep(tmp_path)
    keeper._once(closing=False)
    spool.put(event(0, retain=True))
    for _ in range(200):
        for number in range(50):
            spool.put(event(number, expires_s=1.0))
        spool.put(event(50))
        clock.now_ns += 2 * 10**9
        found = spool.take(PRECIOUS)
        assert values([found]) == [50]
        spool.settle(found, None, late=False)
    assert spool.stats.drops == {"expired": 200 * 50}
    assert held() <= 2 * (2 * 51 + 64)
    assert values(take_all(spool)) == [0]
    keeper.close(0)


class HungDisk(Journal):
    """A journal on a disk that takes nothing until it is told to."""

    released = threading.Event()

    def begin(self, *, durable):
        assert HungDisk.released.wait(60)
        super().begin(durable=durable)


def test_a_disk_that_hangs_holds_up_nobody_but_the_keeper(tmp_path, monkeypatch):
    monkeypatch.setattr(_spool_memory, "STALLED_S", 0.05)
    HungDisk.released.clear()
    spool, keeper, _ = keep(tmp_path, clock=SYSTEM_CLOCK, journal=HungDisk)
    keeper.start()
    for number in range(50):
        spool.put(event(number))
    wait_until(lambda: spool.stats.state == "memory")
    assert "does not answer" in spool.stats.alarm
    taken = take_all(spool)
    assert values(taken) == list(range(50)), "sent without the disk"
    for item in taken[:20]:
        spool.settle(item, None, late=False)
    spool.put_back(taken[20:])
    keeper.close(0.0)  # does not wait for it either
    assert spool.stats.drops == {"not saved before the end": 30}
    HungDisk.released.set()
    keeper._thread.join(20)
    assert not keeper._thread.is_alive()


class SmallDisk(Journal):
    """A journal on a disk that is full after a few pages, until it is given room: SQLite's own limit, and its own error."""

    full = True

    def begin(self, *, durable):
        self._db.execute(f"PRAGMA max_page_count = {12 if SmallDisk.full else 1_000_000}").fetchone()
        super().begin(durable=durable)


def keep(tmp_path, *, clock=None, journal=Journal, **options):
    clock = clock or HandClock()
    spool = Spool(max_messages=1000, max_bytes=10**7, clock=clock, on_ready=lambda: None)
    settings = SpoolOptions.model_validate(options)
    keeper = SpoolKeeper(spool, path=tmp_path / "spool.sqlite", options=settings, clock=clock, open_journal=journal)
    return spool, keeper, clock


def take_all(spool, lanes=LANES):
    found = []
    for lane in lanes:
        while (item := spool.take(lane)) is not None:
            found.append(item)
    return sorted(found, key=lambda item: item.number)


def values(items):
    return [json.loads(item.message.payload)["n"] for item in items]


def test_a_full_disk_degrades_to_memory_and_what_is_there_goes_on(tmp_path):
    SmallDisk.full = True
    spool, keeper, clock = keep(tmp_path, journal=SmallDisk)
    for number in range(100):
        spool.put(event(number, payload=f'{{"n":{number},"pad":"{"x" * 400}"}}'.encode()))
        keeper._once(closing=False)
        clock.now_ns += 10**7
    stats = spool.stats
    assert (stats.state, stats.waiting) == ("memory", 100)
    assert "database or disk is full" in stats.alarm
    assert 0 < stats.saved < 100
    first = take_all(spool)
    assert values(first) == list(range(100)), "those on the disk and those in memory, in order"
    for item in first[:50]:
        spool.settle(item, None, late=False)
    spool.put_back(first[50:])
    SmallDisk.full = False
    clock.now_ns += 10 * 10**9
    keeper._once(closing=False)
    assert (spool.stats.state, spool.stats.unsaved, spool.stats.alarm) == ("journal", 0, "")
    assert values(take_all(spool)) == list(range(50, 100))
    keeper._once(closing=True)
    keeper._close_journal()
    reopened = Journal(tmp_path / "spool.sqlite", clock=clock)
    assert [json.loads(r.message.payload)["n"] for r in reopened.read(lane=1, after=0, limit=99)] == list(
        range(50, 100)
    ), "the late ones stand where they belong"
    reopened.close()
    keeper.close(0)


@pytest.mark.parametrize(("when_full", "kept"), [("oldest", "events"), ("lowest", "both")])
def test_a_full_journal_gives_up_by_policy_and_counts(tmp_path, when_full, kept):
    spool, keeper, _ = keep(tmp_path, max_bytes=65536, when_full=when_full)
    for number in range(300):
        spool.put(event(number, priority=number % 3, topic=f"p{number % 3}", payload=b'{"n":%d}' % number + b" " * 500))
    keeper._once(closing=False)
    left = values(take_all(spool))
    stats = spool.stats
    assert stats.journal_bytes <= 65536
    assert len(left) + stats.drops["the journal was full"] == 300 == stats.waiting + sum(stats.drops.values())
    if when_full == "oldest":
        assert left == list(range(300 - len(left), 300))
    else:
        assert {number % 3 for number in left} == {2, 1} or {number % 3 for number in left} == {2}
        assert left == sorted(left)
    keeper.close(0)


def test_a_backlog_larger_than_memory_is_read_back_in_order(tmp_path):
    spool, keeper, clock = keep(tmp_path)
    expected = []
    for part in range(5):
        for number in range(part * 900, part * 900 + 900):
            spool.put(event(number))
            expected.append(number)
        keeper._once(closing=False)
        clock.now_ns += 10**8
    assert len(spool._memory) <= 1100
    found: list[int] = []
    while len(found) < len(expected):
        items = take_all(spool)
        assert items
        found += values(items)
        for item in items:
            spool.settle(item, None, late=True)
        keeper._once(closing=False)
        clock.now_ns += 10**8
    assert found == expected
    assert (spool.stats.sent, spool.stats.waiting) == (4500, 0)
    keeper.close(0)


def test_old_and_expired_messages_are_given_up_by_the_monotonic_clock_alone(tmp_path):
    class Jumping(HandClock):
        def time_ns(self):
            return -(10**18) if self.now_ns < 10**9 else 4 * 10**18  # from 1938 to 2096

    spool, keeper, clock = keep(tmp_path, clock=Jumping(), max_age_s=3600)
    spool.put(event(1))
    spool.put(event(2, expires_s=100.0))
    keeper._once(closing=False)
    clock.now_ns += 10 * 10**9
    spool.put(event(3))
    keeper._once(closing=False)
    assert spool.stats.waiting == 3, "the calendar went mad, and nothing is lost"
    clock.now_ns += 200 * 10**9
    keeper._once(closing=False)
    assert spool.stats.drops == {"expired": 1}
    clock.now_ns += 3395 * 10**9
    keeper._once(closing=False)
    assert spool.stats.drops == {"expired": 1, "too old": 1}
    assert values(take_all(spool)) == [3]
    keeper.close(0)


def test_a_journal_that_is_damaged_in_use_is_set_aside_and_what_is_in_memory_saved_anew(tmp_path, caplog):
    spool, keeper, clock = keep(tmp_path)
    for number in range(20):
        spool.put(event(number))
    keeper._once(closing=False)
    (tmp_path / "spool.sqlite").unlink()
    spool.put(event(20))
    clock.now_ns += 10**9
    with caplog.at_level(logging.WARNING):
        keeper._once(closing=False)
        keeper._once(closing=False)
    assert "was deleted or replaced while it was in use" in caplog.text
    assert (spool.stats.set_aside, spool.stats.unsaved, spool.stats.state) == (1, 0, "journal")
    assert "was damaged" in spool.stats.alarm
    clock.now_ns += 23 * 3600 * 10**9
    keeper._once(closing=False)
    assert "and is gone" in spool.stats.alarm, "there is no file to remove: the alarm stands for a day"
    clock.now_ns += 2 * 3600 * 10**9
    keeper._once(closing=False)
    assert spool.stats.alarm == ""
    keeper._close_journal()
    reopened = Journal(tmp_path / "spool.sqlite", clock=clock)
    assert reopened.count == 21
    reopened.close()
    keeper.close(0)


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


def test_the_alarm_of_a_damaged_journal_outlives_a_restart_and_ends_when_the_file_is_taken_away(tmp_path):
    (tmp_path / "spool.sqlite").write_bytes(b"garbage" * 1000)
    spool, keeper, clock = keep(tmp_path)
    keeper._once(closing=False)
    (aside,) = tmp_path.glob("spool-damaged-*.sqlite")
    assert f"was damaged (file is not a database) and is set aside as {aside} (what it held" in spool.stats.alarm
    keeper._once(closing=True)
    keeper.close(0)
    spool, keeper, clock = keep(tmp_path)
    keeper._once(closing=False)
    assert spool.stats.alarm.startswith(f"a damaged journal was set aside as {aside}")
    assert "removing the file ends this alarm" in spool.stats.alarm
    aside.unlink()
    clock.now_ns += 11 * 10**9
    keeper._once(closing=False)
    assert (spool.stats.alarm, spool.stats.state) == ("", "journal")
    keeper.close(0)


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


def test_what_kind_of_message_has_which_lane(tmp_path):
    spool, keeper, _ = keep(tmp_path)
    spool.put(event(0, retain=True, priority=2, topic="cam/status"))
    spool.put(event(1, topic="cam/events"))
    spool.put(event(2, priority=0, topic="cam/results"))
    keeper._once(closing=False)
    assert [values(take_all(spool, [lane])) for lane in LANES] == [[0], [1], [2]]
    assert (PRECIOUS, BULK) == (1, 2), "as they stand in journals that are out there"
    keeper.close(0)


def test_the_pace_is_kept_whatever_the_calendar_says():
    clock = HandClock()
    pace = Pace(100, clock=clock)
    passed = 0
    for _ in range(1000):
        while pace.wait_s() == 0:
            pace.spend()
            passed += 1
        clock.now_ns += 10**7
    assert 999 <= passed <= 1002
