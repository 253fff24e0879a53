"""The wall clock jumps by years, forwards and back, under a daemon at work: nothing is lost, late, or out of order.

libfaketime (Debian's `faketime`) gives the process another wall clock, which the test steps; the
monotonic one stays the machine's.
"""

import json
import time
from datetime import datetime
from pathlib import Path

import pytest
from support_brokers import Listener, Mosquitto, wait_until
from support_daemon import ServiceManager

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
needs_faketime = pytest.mark.skipif(LIBRARY is None, reason="needs another clock: apt-get install faketime")
YEAR_S = 366 * 86_400

CONFIG = """\
device: box
state_dir: {folder}/state
mqtt:
  host: 127.0.0.1
  port: {port}
  results: {{qos: 1, durable: true, expires_s: null}}
  telemetry: {{interval_s: 1}}
models: {{m: {{model: efficientnet-lite0}}}}
cameras:
  - {{name: a, model: m, fps: 10, stall_after_s: 2, source: {{type: synthetic, live: true, width: 160, height: 120}}}}
"""


class Clock:
    """The daemon's wall clock: what it is off by stands in a file that libfaketime reads at every look."""

    def __init__(self, folder):
        self._file = folder / "faketime"
        self.step(0)
        self.environ = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, offset_s):
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset_s:+d}\n")
        new.replace(self._file)


def off_by_s(content):
    """How far a message's time is from ours, in seconds."""
    told = datetime.fromisoformat(content["published_at"].replace("Z", "+00:00")).timestamp()
    return told - time.time()


@needs_faketime
def test_a_wall_clock_that_jumps_by_years_breaks_no_order_no_deadline_and_no_journal(mosquitto, tmp_path):
    (tmp_path / "broker").mkdir()
    clock = Clock(tmp_path)
    file = tmp_path / "edgevision.yaml"
    settings = ["allow_anonymous true", "max_queued_messages 0"]
    with Mosquitto(mosquitto, tmp_path / "broker", settings=settings, persistent=True) as broker:
        file.write_text(CONFIG.format(folder=tmp_path, port=broker.port))
        with (
            Listener(broker.port, "edgevision/#", session="listener") as listener,
            ServiceManager(tmp_path, file, **clock.environ) as manager,
        ):

            def contents(kind):
                heard = [heard for heard in list(listener.heard) if heard.topic.endswith(kind)]
                return [json.loads(heard.payload) for heard in heard]

            def more(count=10):
                before = len(contents("a/results"))
                wait_until(lambda: len(contents("a/results")) >= before + count, "results")

            manager.wait_told("1 of 1 cameras live")
            more()
            assert abs(off_by_s(contents("a/results")[-1])) < 10
            for offset_s in (3 * YEAR_S, -5 * YEAR_S):
                clock.step(offset_s)
                more()
                assert abs(off_by_s(contents("a/results")[-1]) - offset_s) < 10, "the step has reached it"
                told = len(contents("box/telemetry"))
                wait_until(lambda: len(contents("box/telemetry")) > told, "telemetry goes on")  # noqa: B023 - used up
            broker.stop()  # what is made now waits in the journal, over two steps
            waiting = manager.wait_told("WATCHDOG=1")
            clock.step(2 * YEAR_S)
            manager.wait_told("WATCHDOG=1", len(waiting) + 2)
            clock.step(0)
            manager.wait_told("WATCHDOG=1", len(waiting) + 4)
            broker.start()
            more(30)
            assert manager.terminate() == 0
            results = contents("a/results")
            telemetry = contents("box/telemetry")[-1]
    firsts = list(dict.fromkeys(result["seq"] for result in results))
    assert firsts == list(range(1, len(firsts) + 1)), "none is missing, none is out of order"
    assert {result["camera_state"] for result in results} == {"live"}
    assert telemetry["sinks"]["mqtt"]["dropped"] == 0
    assert telemetry["cameras"]["a"]["restarts"] == 0
    assert telemetry["process"]["uptime_s"] < 120
    assert any(result["historical"] for result in results)
    fresh = [result for result in results[-3:] if not result["historical"]]
    assert fresh, "what is sent at once is not called late"
