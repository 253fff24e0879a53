"""A process with the real sink and the real messages: what the benchmarks and the chaos tests kill.

It publishes events of one camera, and says on standard output, a line at a time: `boot ID`, then `ACCEPTED PUBLISHED`: how many
of its events are safe on the disk, and how many it has handed to the sink. It ends in order when standard input is closed.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from pathlib import Path

import numpy as np

from edgevision.messages import Composer, ModelRef
from edgevision.publish._mqtt_sink import MqttSink
from edgevision.publish.base import SinkContext
from edgevision.publish.mqtt import Options
from edgevision.retry import Backoff
from edgevision.types import Event, Frame, Message

MODEL = ModelRef(name="m", version="1", sha256="0" * 64)


def make_event(composer: Composer, number: int) -> Message:
    """An event as the daemon makes it."""
    frame = Frame(
        image=np.zeros((8, 8, 3), np.uint8),
        camera="cam",
        sequence=number,
        captured_at_ns=time.time_ns(),
        captured_mono_ns=0,
    )
    event = Event(kind="appeared", camera="cam", rule="r", occurred_at_ns=time.time_ns(), label=f"part {number}")
    return composer.event(event, frame, model=MODEL, state="live", dropped=0)


def main() -> None:
    """Publish until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--per-s", type=float, default=50.0, help="0: as fast as the disk takes them")
    parser.add_argument("--count", type=int, default=0, help="0: until standard input is closed")
    parser.add_argument("--drain", action="store_true", help="before the end, wait until everything is delivered")
    arguments = parser.parse_args()
    composer = Composer(topic="t", device="box", version="0")
    sink = MqttSink(
        options=Options(host="127.0.0.1", port=arguments.port, queue_size=5000),
        context=SinkContext(device="box", state_dir=arguments.state_dir),
        backoff=Backoff(first_s=0.05, max_s=0.5),
    )
    os.write(1, f"boot {composer.boot_id}\n".encode())
    number = 0
    began_s = time.monotonic()
    while not arguments.count or number < arguments.count:
        number += 1
        sink.publish(make_event(composer, number))
        spool = sink.stats.spool
        assert spool is not None
        os.write(1, f"{spool.saved} {number}\n".encode())
        if arguments.per_s:
            wait_s = max(0.0, began_s + number / arguments.per_s - time.monotonic())
        else:
            wait_s = 0.0
            if spool.unsaved > 2000:
                sink.flush(10)
        if select.select([sys.stdin], [], [], wait_s)[0]:
            break
    while arguments.drain and sink.stats.queued:
        time.sleep(0.01)
    sink.flush(10)
    stats = sink.stats
    assert stats.spool is not None
    os.write(1, f"{stats.spool.saved} {number}\n".encode())
    sink.close()


if __name__ == "__main__":
    main()
