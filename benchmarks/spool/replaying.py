"""What a replay does to live messages: of a sink alone, from publish() to a subscriber, and of a daemon, from capture."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent), str(HERE.parents[1] / "tests")]

from daemon import make_video  # noqa: E402
from harness import Publisher, quantiles  # noqa: E402
from support_brokers import Mosquitto  # type: ignore[import-not-found]  # noqa: E402

LIVE = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from harness import make_sink
from edgevision.types import Message
sink = make_sink(int(sys.argv[2]), Path(sys.argv[3]))
pad = "x" * 700
began_s, number, first = time.monotonic(), 0, None
while True:
    number += 1
    payload = f'{{"at":{time.monotonic_ns()},"historical":false,"pad":"{pad}"}}'
    sink.publish(Message(topic="live", payload=payload.encode(), expires_s=60))
    spool = sink.stats.spool
    print(time.monotonic(), spool.replayed, spool.waiting, flush=True)
    if (number > 600 and not spool.waiting) or number > 20_000:
        break
    time.sleep(max(0.0, began_s + number / 60 - time.monotonic()))
sink.close()
"""


HEAR = """
import json, sys, time
import paho.mqtt.client as paho
client = paho.Client(paho.CallbackAPIVersion.VERSION2)
client.on_connect = lambda client, *_: client.subscribe("live")
client.on_subscribe = lambda *_: print("ready", flush=True)
client.on_message = lambda client, data, m: print((time.monotonic_ns() - json.loads(m.payload)["at"]) / 1e6, flush=True)
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_forever()
"""

COUNT = """
import sys
import paho.mqtt.client as paho
client = paho.Client(paho.CallbackAPIVersion.VERSION2)
client.on_connect = lambda client, *_: client.subscribe("t/#", 1)
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_forever()
"""


def live_latency(broker: Mosquitto, state: Path) -> tuple[dict[str, float], list[list[float]]]:
    """Milliseconds from publish() to a subscriber of live results, 60 a second; and the sink's counts on the way."""
    counting = subprocess.Popen([sys.executable, "-c", COUNT, str(broker.port)])
    with subprocess.Popen([sys.executable, "-c", HEAR, str(broker.port)], stdout=subprocess.PIPE, text=True) as hearing:
        assert hearing.stdout is not None
        hearing.stdout.readline()
        done = subprocess.run(
            [sys.executable, "-c", LIVE, str(HERE), str(broker.port), str(state)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        hearing.terminate()
        latencies = [float(line) for line in hearing.stdout]
    counting.terminate()
    counting.wait()
    return quantiles(latencies[5:]), [[float(word) for word in line.split()] for line in done.stdout.splitlines()]


ROUNDS = 4
"""The first with all messages, the others with a quarter; a quiet time before each, because the machine's load changes."""


def replay(folder: Path, broker: Mosquitto, arguments: argparse.Namespace) -> dict[str, Any]:
    rounds: list[dict[str, Any]] = []
    for number in range(ROUNDS):
        state = folder / f"state-{number}"
        count = arguments.messages if number == 0 else arguments.messages // 4
        quiet, _ = live_latency(broker, folder / "other")
        broker.stop()
        spooled = Publisher(broker.port, state, "--per-s", "0", "--count", str(count))
        spooled.wait()
        broker.start()
        journal_bytes = (state / "spool.sqlite").stat().st_size
        during, counts = live_latency(broker, state)
        moving = [row for row in counts if row[1] > 0 and row[2] > 0]
        per_s = (moving[-1][1] - moving[0][1]) / (moving[-1][0] - moving[0][0])
        rounds.append(
            {
                "spooled": spooled.accepted,
                "journal_bytes": journal_bytes,
                "replayed": counts[-1][1],
                "replay_per_s": round(per_s),
                "live_quiet_ms": quiet,
                "live_during_ms": during,
            }
        )
    quiet_ms = statistics.median(one["live_quiet_ms"]["p99"] for one in rounds)
    during_ms = statistics.median(one["live_during_ms"]["p99"] for one in rounds)
    return {
        "replay_per_s": rounds[0]["replay_per_s"],
        "live_p99_ms": {"quiet": quiet_ms, "during": during_ms, "ratio": round(during_ms / quiet_ms, 2)},
        "rounds": rounds,
    }


WATCH = """
import json, sys, time
from datetime import datetime
import paho.mqtt.client as paho
def hear(client, data, message):
    told = json.loads(message.payload)
    captured_s = datetime.fromisoformat(told["captured_at"].replace("Z", "+00:00")).timestamp()
    now_s = time.time()
    print(now_s, (now_s - captured_s) * 1e3, told["latency_ms"]["total"], flush=True)
client = paho.Client(paho.CallbackAPIVersion.VERSION2)
client.on_connect = lambda client, *_: client.subscribe("t/box/cam/results")
client.on_message = hear
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_forever()
"""

LATE = """
import sys, time
import paho.mqtt.client as paho
times = []
def hear(client, data, message):
    times.append(time.time())
    if len(times) == int(sys.argv[2]):
        print(times[0], times[-1], flush=True)
client = paho.Client(paho.CallbackAPIVersion.VERSION2)
client.on_connect = lambda client, *_: client.subscribe("t/box/cam/events", 1)
client.on_subscribe = lambda *_: print("ready", flush=True)
client.on_message = hear
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_forever()
"""
QUIET_S = 40.0


def live(folder: Path, broker: Mosquitto, arguments: argparse.Namespace) -> dict[str, Any]:
    """A daemon with one camera at 30 frames a second whose spool has a backlog: its results during the replay and after it."""
    state = folder / "state"
    broker.stop()
    Publisher(broker.port, state, "--per-s", "0", "--count", str(arguments.messages)).wait()
    broker.start()
    config = {
        "device": "box",
        "state_dir": str(state),
        "mqtt": {"host": "127.0.0.1", "port": broker.port, "topic": "t"},
        "models": {"m": {"model": "efficientnet-lite0", "threads": 1}},
        "cameras": [{"name": "cam", "source": film(folder), "model": "m", "fps": 30}],
    }
    file = folder / "config.json"
    file.write_text(json.dumps(config))  # JSON is YAML
    # Into a file: a pipe that is read at the end would be full before.
    with (folder / "heard").open("w") as heard:
        watch = subprocess.Popen([sys.executable, "-c", WATCH, str(broker.port)], stdout=heard)
        late = subprocess.Popen(
            [sys.executable, "-c", LATE, str(broker.port), str(arguments.messages)], stdout=subprocess.PIPE, text=True
        )
        assert late.stdout is not None
        late.stdout.readline()
        daemon = subprocess.Popen([sys.executable, "-m", "edgevision", "run", "-c", str(file), "--log-level", "error"])
        try:
            began_s, ended_s = map(float, late.stdout.readline().split())
            time.sleep(QUIET_S)
        finally:
            daemon.terminate()
            daemon.wait(30)
            for process in (watch, late):
                process.kill()
                process.wait()
    results = [tuple(map(float, line.split())) for line in (folder / "heard").read_text().splitlines()]
    during = [row[1:] for row in results if began_s + 1 < row[0] < ended_s]
    after = [row[1:] for row in results if row[0] > ended_s + 1]

    def figures(place: int) -> dict[str, Any]:
        busy, quiet = (quantiles([row[place] for row in part]) for part in (during, after))
        return {"during": busy, "after": quiet, "p99_ratio": round(busy["p99"] / quiet["p99"], 2)}

    return {
        "replayed": arguments.messages,
        "replay_per_s": round(arguments.messages / (ended_s - began_s)),
        "results": {"during": len(during), "after": len(after)},
        "capture_to_subscriber_ms": figures(0),
        "capture_to_publish_ms": figures(1),
    }


def film(folder: Path) -> dict[str, Any]:
    """A camera of 1280x720 at 30 frames a second."""
    return {"type": "opencv", "url": str(make_video(folder / "film.avi", fps=30)), "loop": True}
