"""What `capture/base.py` promises, of every capture plug-in there is: a new one fails here until it is told how to run it."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import ValidationError
from support_brokers import Mosquitto
from support_http import HttpCamera, give

from edgevision.capture._orient import Oriented
from edgevision.capture.base import FrameSource, SourceContext
from edgevision.errors import CaptureError, PluginError
from edgevision.registry import available, load


def _film(folder: Path) -> dict[str, Any]:
    writer = cv2.VideoWriter(str(folder / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 500, (64, 48))
    for number in range(20):
        writer.write(np.full((48, 64, 3), number, np.uint8))
    writer.release()
    return {"url": str(folder / "a.avi"), "loop": True}


def _pictures(folder: Path) -> dict[str, Any]:
    for number in range(20):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((48, 64, 3), number, np.uint8))
    return {"path": str(folder), "loop": True}


def _watched(folder: Path) -> dict[str, Any]:
    for number in range(60):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((48, 64, 3), number, np.uint8))
    return {"path": str(folder), "settle_s": 0.01, "poll_s": 0.01, "order": "mtime"}


def _snapshots(_: Path) -> dict[str, Any]:
    return {"url": SERVER[0].url()}


def png(number: int) -> bytes:
    done, content = cv2.imencode(".png", np.full((48, 64, 3), number % 200, np.uint8))
    assert done
    return content.tobytes()


def _number(handler: Any, number: int) -> None:
    give(handler, png(number), kind="image/png")


def _producer() -> str:
    """The GenTL producer that comes with the `genicam` package for trying out: three cameras that show a bouncing ball."""
    genicam = pytest.importorskip("genicam", reason="needs pip install 'edgevision[genicam]'")
    return str(Path(genicam.__file__).with_name("viky.cti"))


SERVER: list[HttpCamera] = []


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with HttpCamera(_number) as server:
        SERVER.append(server)
        yield
        SERVER.clear()


class PictureFeed:
    """A broker on which somebody publishes a picture every few milliseconds."""

    def __init__(self, folder: Path) -> None:
        binary = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if binary is None:
            pytest.skip("needs the mosquitto binary: apt-get install mosquitto")
        self.broker = Mosquitto(binary, folder)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._publish)

    def start(self) -> dict[str, Any]:
        self.broker.start()
        self._thread.start()
        return {"host": self.broker.host, "port": self.broker.port, "topic": "pictures"}

    def _publish(self) -> None:
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.connect(self.broker.host, self.broker.port)
        client.loop_start()
        number = 0
        while not self._ending.wait(0.004):
            client.publish("pictures", png(number), 0)
            number += 1
        client.disconnect()
        client.loop_stop()

    def end(self) -> None:
        self._ending.set()
        self._thread.join(10)
        self.broker.kill()


FEEDS: list[PictureFeed] = []


@pytest.fixture(autouse=True)
def _feeds() -> Iterator[None]:
    yield
    while FEEDS:
        FEEDS.pop().end()


def _published(folder: Path) -> dict[str, Any]:
    FEEDS.append(PictureFeed(folder))
    return FEEDS[-1].start()


ENDLESS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "genicam": lambda _: {"producer": _producer(), "device": "0", "settings": {"Width": 160, "Height": 120}},
    "gstreamer": lambda _: {"pipeline": "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=500/1"},
    "hot_folder": _watched,
    "http_snapshot": _snapshots,
    "images": _pictures,
    "opencv": _film,
    "mqtt_image": _published,
    "picamera2": lambda _: {"width": 64, "height": 64},
    "synthetic": lambda _: {"width": 64, "height": 48},
}
"""Options under which a plug-in yields frames for ever; 500 a second are asked of it."""

MISSING: dict[str, dict[str, Any] | None] = {
    "genicam": {"producer": "/no/such/producer.cti"},
    "gstreamer": None,
    "hot_folder": {"path": "/no/such/folder"},
    "http_snapshot": {"url": "http://nobody.invalid/no/such/picture"},
    "images": {"path": "/no/such/folder"},
    "mqtt_image": None,
    "picamera2": None,
    "opencv": {"url": "/no/such/film.mp4"},
    "synthetic": None,
}
"""Options that name something that is not there; None where nothing can be missing, or no path names it."""


SIZES = {"genicam": (160, 120), "picamera2": (64, 64)}
"""Width and height of the pictures, where they are not 64x48."""


@pytest.fixture(params=available("capture"))
def name(request: pytest.FixtureRequest) -> str:
    assert request.param in ENDLESS, f"tell the contract test how to run the capture plug-in {request.param!r}"
    assert request.param in MISSING
    return str(request.param)


def make(name: str, options: dict[str, Any], fps: float | None = 500.0) -> FrameSource:
    plugin = load("capture", name)
    try:
        made: FrameSource = plugin.create(plugin.Options(**options), SourceContext(camera="line-1", fps=fps))
    except PluginError as missing:
        pytest.skip(str(missing))
    return made


@pytest.fixture
def endless(name: str, tmp_path: Path) -> Iterator[FrameSource]:
    made = make(name, ENDLESS[name](tmp_path))
    yield made
    made.close()


def test_unknown_options_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="colour_of_the_wall"):
        load("capture", name).Options(**{**ENDLESS[name](tmp_path), "colour_of_the_wall": "red"})


def test_it_is_imported_without_opening_anything(name: str) -> None:
    code = (
        f"import threading, os, edgevision.capture.{name}\n"
        "assert threading.active_count() == 1\n"
        "print([os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if int(n) > 3])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr == ""


def test_frames_are_bgr_pictures(endless: FrameSource, name: str) -> None:
    width, height = SIZES.get(name, (64, 48))
    for frame in islice(endless.frames(), 10):
        assert frame.image.shape == (height, width, 3)
        assert frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous
        assert frame.camera == "line-1"
        assert frame.roi is None


def test_frames_share_no_memory(endless: FrameSource) -> None:
    frames = list(islice(endless.frames(), 3))
    assert not any(np.shares_memory(one.image, other.image) for one, other in pairwise(frames))


def test_sequence_and_times_rise(endless: FrameSource) -> None:
    frames = list(islice(endless.frames(), 45))  # over a loop
    assert [frame.sequence for frame in frames] == list(range(45))
    assert all(before.captured_mono_ns <= after.captured_mono_ns for before, after in pairwise(frames))
    assert all(before.captured_at_ns <= after.captured_at_ns for before, after in pairwise(frames))


def test_live_is_known_before_it_is_opened(endless: FrameSource) -> None:
    assert isinstance(endless.live, bool)


def test_close_from_another_thread_ends_frames(endless: FrameSource) -> None:
    began, ended = threading.Event(), threading.Event()

    def read() -> None:
        for _ in endless.frames():
            began.set()
        ended.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert began.wait(10)
    endless.close()
    endless.close()
    assert ended.wait(5)
    reader.join(5)


def test_closed_before_it_was_opened_gives_nothing(endless: FrameSource) -> None:
    endless.close()
    assert list(endless.frames()) == []


@pytest.mark.parametrize("absent", [known for known, options in MISSING.items() if options is not None])
def test_what_is_missing_is_said_when_it_is_opened(absent: str) -> None:
    made = make(absent, MISSING[absent] or {})  # making one never looks
    with pytest.raises(CaptureError, match="/no/such/") as caught:
        next(iter(made.frames()))
    assert "\n" not in str(caught.value)
    made.close()


def test_the_wrapper_keeps_the_contract(endless: FrameSource, name: str) -> None:
    width, height = SIZES.get(name, (64, 48))
    wrapped = Oriented(endless, rotation=90, flip="horizontal", roi=(0.5, 0.5, 1, 1))
    assert wrapped.live == endless.live
    frames = wrapped.frames()
    for number, frame in enumerate(islice(frames, 10)):
        assert frame.sequence == number
        assert frame.image.shape == (width, height, 3)
        assert frame.image.flags.c_contiguous
        assert frame.roi == (height // 2, width // 2, height, width)
    wrapped.close()
    assert list(frames) == []
