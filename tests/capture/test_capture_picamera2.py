"""The Raspberry Pi's camera without one: the error here, and the source against a stand-in that answers as picamera2 0.3 does.

picamera2 needs the libcamera of Raspberry Pi OS, which cannot be had on other machines.
"""

import concurrent.futures
import importlib.util
import logging
import sys
import threading
import time
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from edgevision.capture import picamera2
from edgevision.capture.base import SourceContext
from edgevision.errors import CaptureError, PluginError


class Request:
    def __init__(self, camera: Any, number: int) -> None:
        self._camera, self._number = camera, number
        camera.held += 1

    def get_metadata(self) -> dict[str, Any]:
        return {"SensorTimestamp": time.clock_gettime_ns(time.CLOCK_BOOTTIME) - 30_000_000, "ExposureTime": 3990,
                "AnalogueGain": 1.0, "FrameDuration": 33333}  # fmt: skip

    def make_array(self, name: str) -> Any:
        assert name == "main"
        width, height = self._camera.config["main"]["size"]
        return np.full((height, width, 3), (self._number, 1, 2), np.uint8)

    def release(self) -> None:
        self._camera.held -= 1


class Job:
    def __init__(self, make: Any) -> None:
        self._make = make

    def get_result(self, timeout: float) -> Any:
        if self._make is None:
            raise concurrent.futures.TimeoutError
        return self._make()


class Picamera2:
    made: Any = None
    broken = ""
    silent_after = 10_000

    def __init__(self, camera_num: int = 0) -> None:
        if self.broken:
            raise RuntimeError(self.broken)
        type(self).made = self
        self.number, self.held, self.count = camera_num, 0, 0
        self.calls: list[str] = []
        self.camera_controls = {"ExposureTime": (75, 11_766_829, None), "AnalogueGain": (1.0, 16.0, None)}

    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        return [{"Model": "imx477", "Id": "/base/i2c@1/imx477@1a", "Num": 0}, {"Model": "ov9281", "Id": "/x", "Num": 1}]

    def create_video_configuration(self, **given: Any) -> dict[str, Any]:
        return given

    def configure(self, config: dict[str, Any]) -> None:
        self.config = config

    def camera_configuration(self) -> dict[str, Any]:
        return self.config

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")

    def capture_request(self, wait: Any) -> Job:
        assert wait is False
        self.count += 1
        number = self.count
        return Job(None if number > self.silent_after else lambda: Request(self, number))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> type[Picamera2]:
    class Fresh(Picamera2):
        pass

    module = ModuleType("picamera2")
    module.Picamera2 = Fresh  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    return Fresh


def source(**options: Any) -> Any:
    return picamera2.create(picamera2.Options(**options), SourceContext(camera="line-1"))


@pytest.mark.skipif(importlib.util.find_spec("picamera2") is not None, reason="picamera2 is installed")
def test_without_picamera2_the_package_is_named() -> None:
    with pytest.raises(PluginError, match=r"apt-get install python3-picamera2.*--system-site-packages"):
        source()


def test_pictures_come_with_the_sensors_time_and_every_buffer_goes_back(library: type[Picamera2]) -> None:
    made = source(camera="ov9281", width=640, height=480, controls={"ExposureTime": 4000})
    before_ns = time.monotonic_ns()
    frames = made.frames()
    first, second = islice(frames, 2)
    assert library.made.number == 1
    assert library.made.config["main"] == {"size": (640, 480), "format": "RGB888"}
    assert library.made.config["controls"] == {"ExposureTime": 4000}
    assert first.image.shape == (480, 640, 3)
    assert first.image[0, 0].tolist() == [1, 1, 2]
    assert [first.sequence, second.sequence] == [0, 1]
    assert before_ns - 60_000_000 < first.captured_mono_ns < time.monotonic_ns() - 20_000_000
    made.close()
    assert list(frames) == []
    assert library.made.held == 0
    assert library.made.calls == ["start", "stop", "close"]


def test_what_the_camera_made_of_its_controls_is_told_once(library: type[Picamera2], caplog: Any) -> None:
    made = source(controls={"ExposureTime": 4000, "AnalogueGain": 2.0, "FrameRate": 60.0})
    with caplog.at_level(logging.WARNING):
        list(islice(made.frames(), 40))
    assert [record.getMessage() for record in caplog.records] == [
        "picamera2 0: AnalogueGain was asked to be 2.0, the camera gives 1",
        "picamera2 0: FrameRate was asked to be 60.0, the camera gives 30.0003",
    ]


def test_what_cannot_be_is_told(library: type[Picamera2]) -> None:
    for options, words in (
        ({"camera": 2}, r"is not found; found: 0 imx477; 1 ov9281\. Check the ribbon cable"),
        (
            {"controls": {"ExposurTime": 1}},
            "controls.ExposurTime: the camera has no such control; did you mean ExposureTime",
        ),
    ):
        with pytest.raises(CaptureError, match=words):
            next(source(**options).frames())
    library.broken = "Failed to acquire camera: Device or resource busy"
    with pytest.raises(CaptureError, match="Device or resource busy; does another program have it"):
        next(source().frames())
    with pytest.raises(ValidationError):
        picamera2.Options(controls={"a b": 1})


def test_a_camera_that_falls_silent_is_a_fault_and_close_ends_the_wait(library: type[Picamera2]) -> None:
    library.silent_after = 1
    with pytest.raises(CaptureError, match=r"nothing came for .* \(read_timeout_s\): check the ribbon cable"):
        list(source(read_timeout_s=0.05).frames())
    assert library.made.calls == ["start", "stop", "close"]
    made = source(read_timeout_s=300)
    frames = made.frames()
    next(frames)
    threading.Timer(0.05, made.close).start()
    assert list(frames) == []
