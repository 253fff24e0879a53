"""Nothing that was accepted is lost, doubled or out of order, whatever is killed when: real processes, a real broker."""

import random
import sys
import threading
from pathlib import Path

import pytest
from chaos_support import LONG
from support_brokers import Mosquitto, wait_until

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "spool"))

from harness import Consume, Publisher, by_boot, faults  # type: ignore[import-not-found]

KEEPS = ["allow_anonymous true", "max_queued_messages 0"]


@pytest.fixture
def broker(mosquitto, tmp_path):
    with Mosquitto(mosquitto, tmp_path, settings=KEEPS, persistent=True) as broker:
        yield broker


def expect(consume, publishers):
    total = sum(publisher.accepted for publisher in publishers)
    wait_until(lambda: sum(map(len, by_boot(consume.lines()).values())) >= total, "every accepted event")
    consume.end()
    lines = consume.lines()
    assert faults(by_boot(lines), publishers) == []
    return lines


def test_an_outage_and_two_kills_cost_nothing(broker, tmp_path):
    consume = Consume(broker.port, tmp_path)
    publishers = [Publisher(broker.port, tmp_path / "state", "--per-s", "300")]
    publishers[-1].wait_accepted(100)
    broker.stop()
    for accepted in (200, 300):
        publishers[-1].wait_accepted(accepted)
        publishers[-1].kill()
        publishers.append(Publisher(broker.port, tmp_path / "state", "--per-s", "300", "--drain"))
    publishers[-1].wait_accepted(200)
    broker.start()
    publishers[-1].wait_accepted(400)
    publishers[-1].end()
    lines = expect(consume, publishers)
    assert list(by_boot(lines)) == [publisher.boot_id for publisher in publishers]
    late = [line["payload"]["seq"] for line in lines if line.get("payload", {}).get("boot_id") == publishers[1].boot_id]
    assert all(
        line["payload"]["historical"]
        for line in lines
        if line.get("payload", {}).get("boot_id") == publishers[1].boot_id
    )
    assert len(late) >= 300


def test_kills_at_random_moments(broker, tmp_path):
    chance = random.Random(5)
    consume = Consume(broker.port, tmp_path)
    publishers = []
    pause = threading.Event()
    for _ in range(20 if LONG else 4):
        publishers.append(Publisher(broker.port, tmp_path / "state", "--per-s", "0"))
        publishers[-1].wait_accepted(1)
        pause.wait(chance.uniform(0, 0.2))  # the moment is the point
        publishers[-1].kill()
    publishers.append(Publisher(broker.port, tmp_path / "state", "--count", "1", "--drain"))
    publishers[-1].wait()
    expect(consume, publishers)
    assert not list((tmp_path / "state").glob("*damaged*"))


def test_a_consumer_that_is_killed_hands_each_message_on_once(broker, tmp_path):
    chance = random.Random(7)
    consume = Consume(broker.port, tmp_path)
    publisher = Publisher(broker.port, tmp_path / "state", "--per-s", "1000")
    pause = threading.Event()
    for _ in range(10 if LONG else 2):
        before = len(consume.lines())
        wait_until(lambda: len(consume.lines()) > before + 20, "lines")  # noqa: B023 - used up at once
        pause.wait(chance.uniform(0, 0.1))
        consume.kill()
        consume.start()
    publisher.end()
    expect(consume, [publisher])
