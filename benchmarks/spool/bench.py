"""What the spool costs and what it holds out: figures for the README, from real processes and a real broker.

cost     microseconds that publish() takes for a durable message, and for a live one
sync     milliseconds of a commit with one event and with 50, synchronous NORMAL and FULL
outage   the broker away for --seconds at 50 events a second, the publisher killed twice meanwhile
replay   --messages spooled ones: how fast they are sent, and what that does to live messages from publish() to a subscriber
live     the same with a whole daemon: from a frame's capture to its result at a subscriber, during the replay and after it
kills    --kills times SIGKILL at a random moment while publishing
stall    another process holds the journal's file for 10 s: what publish() takes then
freeze   the journal's disk answers nobody for 10 s (ext4, frozen by the kernel; needs root): the same

python benchmarks/spool/bench.py all --json spool.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parents[1] / "tests")]

from harness import Consume, Publisher, by_boot, faults, make_sink, quantiles  # noqa: E402
from publisher import make_event  # noqa: E402
from replaying import live, replay  # noqa: E402
from support_brokers import Listener, Mosquitto  # type: ignore[import-not-found]  # noqa: E402
from support_disks import Disk  # type: ignore[import-not-found]  # noqa: E402

from edgevision.host.benchmark.machine import environment, load_average  # noqa: E402
from edgevision.messages import Composer  # noqa: E402
from edgevision.publish._journal import Journal  # noqa: E402
from edgevision.publish._mqtt_sink import MqttSink  # noqa: E402
from edgevision.types import Message  # noqa: E402

KEEPS = ("allow_anonymous true", "max_queued_messages 0")


def time_publish(sink: MqttSink, messages: list[Message], per_s: float) -> dict[str, float]:
    """Microseconds of publish(), at a steady rate."""
    taken = []
    for message in messages:
        began_ns = time.perf_counter_ns()
        sink.publish(message)
        taken.append((time.perf_counter_ns() - began_ns) / 1000)
        time.sleep(1 / per_s)
    return quantiles(taken)


def cost(folder: Path, broker: Mosquitto, _: argparse.Namespace) -> dict[str, Any]:
    composer = Composer(topic="t", device="b", version="0")
    sink = make_sink(broker.port, folder / "state")
    events = [make_event(composer, number) for number in range(2000)]
    live = [Message(topic="t/live", payload=event.payload) for event in events]
    found = {"durable_us": time_publish(sink, events, 200), "live_us": time_publish(sink, live, 200)}
    sink.close()
    return found


def sync(folder: Path, _broker: Mosquitto, _: argparse.Namespace) -> dict[str, Any]:
    from edgevision.clock import SYSTEM_CLOCK

    composer = Composer(topic="t", device="b", version="0")
    journal = Journal(folder / "j.sqlite", clock=SYSTEM_CLOCK)
    found = {}
    number = 0
    for durable in (False, True):
        for size in (1, 50):
            taken = []
            for _round in range(200):
                rows = [(number + i, 1, time.monotonic_ns(), make_event(composer, i)) for i in range(size)]
                number += size
                began_s = time.perf_counter()
                journal.begin(durable=durable)
                journal.insert(rows)
                journal.commit()
                taken.append((time.perf_counter() - began_s) * 1000)
            found[f"{'FULL' if durable else 'NORMAL'}_{size}_ms"] = quantiles(taken)
    journal.close()
    return found


def outage(folder: Path, broker: Mosquitto, arguments: argparse.Namespace) -> dict[str, Any]:
    consume = Consume(broker.port, folder)
    publishers = [Publisher(broker.port, folder / "state", "--drain")]
    publishers[-1].wait_accepted(100)
    broker.stop()
    for _ in range(2):
        time.sleep(arguments.seconds / 3)
        publishers[-1].kill()
        publishers.append(Publisher(broker.port, folder / "state", "--drain"))
    time.sleep(arguments.seconds / 3)
    broker.start()
    time.sleep(10)
    publishers[-1].end()
    total = sum(publisher.accepted for publisher in publishers)
    while sum(map(len, by_boot(consume.lines()).values())) < total:
        time.sleep(0.1)
    consume.end()
    lines = consume.lines()
    found = by_boot(lines)
    return {
        "published": [publisher.published for publisher in publishers],
        "accepted": [publisher.accepted for publisher in publishers],
        "arrived": [len(found[publisher.boot_id]) for publisher in publishers],
        "boots_in_order": list(found) == [publisher.boot_id for publisher in publishers],
        "faults": faults(found, publishers),
        "late": sum(line["payload"]["historical"] for line in lines if "payload" in line),
        "consume": consume.said.splitlines()[-1],
    }


def kills(folder: Path, broker: Mosquitto, arguments: argparse.Namespace) -> dict[str, Any]:
    chance = random.Random(1)
    consume = Consume(broker.port, folder)
    publishers = []
    for number in range(arguments.kills):
        rate = "0" if number % 2 else "500"
        publishers.append(Publisher(broker.port, folder / "state", "--per-s", rate))
        publishers[-1].wait_accepted(1)
        time.sleep(chance.uniform(0, 0.2))
        publishers[-1].kill()
        if number % 10 == 5:
            broker.stop()
            broker.start()
    last = Publisher(broker.port, folder / "state", "--count", "1", "--drain")
    last.wait()
    publishers.append(last)
    total = sum(publisher.accepted for publisher in publishers)
    end_s = time.monotonic() + 60
    while sum(map(len, by_boot(consume.lines()).values())) < total and time.monotonic() < end_s:
        time.sleep(0.1)
    consume.end()
    found = by_boot(consume.lines())
    unsafe = [max(0, publisher.published - len(found.get(publisher.boot_id, []))) for publisher in publishers]
    paced = sorted(unsafe[:-1:2])  # at 500 a second; the others hand over faster than any disk commits
    return {
        "kills": arguments.kills,
        "accepted": total,
        "arrived": sum(map(len, found.values())),
        "faults": faults(found, publishers),
        "published_but_not_yet_accepted_and_lost": {
            "at_500_per_s": {"median": statistics.median(paced), "most": paced[-1]},
            "as_fast_as_it_goes": {"most": max(unsafe)},
        },
        "damaged_journals": len(list((folder / "state").glob("*damaged*"))),
        "consume": consume.said.splitlines()[-1],
    }


FROZEN_S = 10.0


def freeze(folder: Path, broker: Mosquitto, _: argparse.Namespace) -> dict[str, Any]:
    composer = Composer(topic="t", device="b", version="0")
    try:
        disk = Disk(folder).__enter__()
    except OSError as failure:
        return {"not_run": str(failure)}
    try:
        with Listener(broker.port, "t/#") as listener:
            sink = make_sink(broker.port, disk.path / "state")
            before = time_publish(sink, [make_event(composer, number) for number in range(500)], 50)
            sink.flush()
            disk.freeze()
            during = time_publish(sink, [make_event(composer, number) for number in range(int(50 * FROZEN_S))], 50)
            stats = sink.stats.spool
            arrived = len(listener.heard)
            disk.thaw()
            total = 500 + int(50 * FROZEN_S)
            listener.wait_count(total)
            end_s = time.monotonic() + 20
            while (sink.stats.queued or sink.stats.spool.state != "journal") and time.monotonic() < end_s:  # type: ignore[union-attr]
                time.sleep(0.05)
            after = sink.stats
            sink.close()
    finally:
        disk.__exit__()
    assert stats is not None
    assert after.spool is not None
    seqs = [json.loads(heard.payload)["seq"] for heard in listener.heard]
    return {
        "publish_before_us": before,
        "publish_during_us": during,
        "state_during": stats.state,
        "alarm_during": stats.alarm,
        "arrived_during": arrived - 500,
        "state_after": after.spool.state,
        "dropped": after.dropped,
        "in_order_and_none_missing": seqs == list(range(1, total + 1)),
    }


HOLD = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(10)
db.execute("ROLLBACK")
"""


def stall(folder: Path, broker: Mosquitto, _: argparse.Namespace) -> dict[str, Any]:
    composer = Composer(topic="t", device="b", version="0")
    with Listener(broker.port, "t/#") as listener:
        sink = make_sink(broker.port, folder / "state")
        sink.publish(make_event(composer, 0))
        sink.flush()
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder / "state" / "spool.sqlite")], stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        holder.stdout.readline()
        taken = time_publish(sink, [make_event(composer, number) for number in range(500)], 50)
        stats = sink.stats.spool
        during = len(listener.heard)
        holder.wait()
        holder.stdout.close()
        listener.wait_count(501)
        sink.flush(20)
        end_s = time.monotonic() + 20
        while (sink.stats.queued or sink.stats.spool.state != "journal") and time.monotonic() < end_s:  # type: ignore[union-attr]
            time.sleep(0.05)
        after = sink.stats
        sink.close()
    assert stats is not None
    assert after.spool is not None
    seqs = [json.loads(heard.payload)["seq"] for heard in listener.heard]
    return {
        "publish_us": taken,
        "state_during": stats.state,
        "alarm_during": stats.alarm,
        "arrived_during": during,
        "state_after": after.spool.state,
        "in_order_and_none_missing": seqs == list(range(1, 502)),
    }


PARTS: dict[str, Callable[[Path, Mosquitto, argparse.Namespace], dict[str, Any]]] = {
    "cost": cost,
    "sync": sync,
    "stall": stall,
    "freeze": freeze,
    "replay": replay,
    "live": live,
    "outage": outage,
    "kills": kills,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "all"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    binary = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if binary is None:
        raise SystemExit("needs mosquitto: apt-get install mosquitto")
    results: dict[str, Any] = {"environment": environment(), "sqlite": sqlite3.sqlite_version, "niceness": os.nice(0)}
    results["scheduler"] = "SCHED_OTHER" if os.sched_getscheduler(0) == os.SCHED_OTHER else "real-time"
    results["load_average_before"] = load_average()
    for name in PARTS if "all" in arguments.parts else arguments.parts:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "broker").mkdir()
            with Mosquitto(binary, Path(folder) / "broker", settings=KEEPS, persistent=True) as broker:
                results[name] = PARTS[name](Path(folder), broker, arguments)
        print(name, json.dumps(results[name], indent=1), flush=True)
        results["load_average_after"] = load_average()
        if arguments.json is not None:  # after each: one that fails takes nothing of the others along
            arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
