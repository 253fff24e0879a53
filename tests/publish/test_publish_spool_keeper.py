"""The spool and its keeper, without a sink: order, bounds, lanes, and disks that are full, hung or damaged."""

import json
import logging
import threading

import pytest
from spool_support import event, keep, take_all, values
from support_brokers import HandClock, wait_until

from edgevision.clock import SYSTEM_CLOCK
from edgevision.publish import _spool_memory
from edgevision.publish._journal import Journal
from edgevision.publish._pace import Pace
from edgevision.publish._spool_memory import BULK, LANES, PRECIOUS


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
