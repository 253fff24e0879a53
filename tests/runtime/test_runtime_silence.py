"""A polled camera in the whole daemon: repeating itself is a stall with its reason, and costs the reader nothing."""

import sys
import threading
from pathlib import Path

import cv2
import numpy as np
from support_brokers import wait_until
from support_http import HttpCamera, give

sys.path.insert(0, str(Path(__file__).parents[1] / "chaos"))
from chaos_support import House, make


def test_a_snapshot_camera_that_repeats_itself_is_stalled_and_its_reader_is_left_alone():
    frozen = threading.Event()
    frozen.set()

    def answer(handler, number):
        done, content = cv2.imencode(
            ".png", np.full((48, 64, 3), 90 if frozen.is_set() else 60 + number % 99, np.uint8)
        )
        assert done
        give(handler, content.tobytes(), kind="image/png")

    with HttpCamera(answer) as camera:
        source = {"type": "http_snapshot", "url": camera.url()}
        cameras = [{"name": "a", "model": "m", "source": source, "fps": 20, "stall_after_s": 1}]
        with House(make(cameras)) as house:
            seeing = house.state("a", "live")
            stalled = house.state("a", "stalled", after=seeing["seq"])
            assert stalled["reason"].startswith("no frame for 1 s: the same picture comes again and again")
            asked = len(camera.requests)
            # Two and a half of what kills a reader that gives nothing (reader.deadline_s, 1.5 s here).
            wait_until(lambda: len(camera.requests) > asked + 75, "further requests")
            assert house.service.stations["a"].camera.restarts == 0
            assert len(house.of("a/results")) == 1
            frozen.clear()
            house.state("a", "live", after=stalled["seq"])
