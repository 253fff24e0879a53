"""V4L2 without a camera: faults against real device nodes, and the settings against a stand-in for `cv2.VideoCapture`.

No camera can be had on every machine that runs these tests; the stand-in answers as OpenCV's V4L2 backend does.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from capture_support import FakeClock, picture, source, take

from edgevision.capture import _diagnose, _open
from edgevision.errors import CaptureError


def test_a_missing_device_is_named() -> None:
    with pytest.raises(CaptureError, match=r"^/dev/video250: cannot be opened: No such file.*present: .*plugged in"):
        take(source(250), 1)
    with pytest.raises(CaptureError, match=r"^/dev/v4l/by-id/none: cannot be opened: No such file"):
        take(source("/dev/v4l/by-id/none"), 1)


def test_what_is_no_camera_is_told_apart() -> None:
    with pytest.raises(CaptureError, match=r"^/dev/null: cannot be opened: it is not a video device"):
        take(source("/dev/null"), 1)
    assert _diagnose.why_not_usable("/dev/null").startswith("it does not answer as a V4L2 camera")


def test_no_permission_for_a_device(tmp_path: Path) -> None:
    node = tmp_path / "video0"
    node.touch(0o000)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    code = (
        "import os, sys\n"
        "from edgevision.capture._diagnose import why_not_usable\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(why_not_usable(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(node)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("no permission; add the user that runs edgevision to the group that owns")


def test_busy_and_metadata_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel answers to VIDIOC_QUERYCAP decides; the answers are laid out as struct v4l2_capability."""

    def answer(capabilities: int) -> None:
        layout = bytes(88) + capabilities.to_bytes(4, sys.byteorder) + bytes(12)
        monkeypatch.setattr("fcntl.ioctl", lambda *_: layout)

    answer(0x04200001)
    assert "it is busy: another program has it; `fuser /dev/null`" in _diagnose.why_not_usable("/dev/null")
    answer(0x04A00000)
    assert "it takes no pictures" in _diagnose.why_not_usable("/dev/null")


class Camera:
    """A V4L2 capture that knows 640x480 at 30 only, whose `broken` frames cannot be decoded, and that ends after them."""

    def __init__(self, *, frames: int = 10, broken: frozenset[int] = frozenset(), image: Any = None) -> None:
        self.properties: dict[int, float] = {}
        self.settings: list[tuple[int, float]] = []
        self.frames, self.broken, self.image = frames, broken, image
        self.grabbed = self.retrieved = self.released = 0

    def set(self, key: int, value: float) -> bool:
        self.settings.append((key, value))
        fixed = {cv2.CAP_PROP_FRAME_WIDTH: 640, cv2.CAP_PROP_FRAME_HEIGHT: 480, cv2.CAP_PROP_FPS: 30}
        self.properties[key] = fixed.get(key, value)
        return True

    def get(self, key: int) -> float:
        return self.properties.get(key, 0.0)

    def grab(self) -> bool:
        self.grabbed += 1
        return self.grabbed <= self.frames

    def retrieve(self) -> tuple[bool, Any]:
        self.retrieved += 1
        if self.grabbed - 1 in self.broken:
            raise cv2.error("the JPEG is damaged")
        return True, picture(self.grabbed - 1) if self.image is None else self.image

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Any:
    def plugged(camera: Camera) -> Camera:
        monkeypatch.setattr(_open, "_capture", lambda *_: camera)
        monkeypatch.delenv("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", raising=False)
        return camera

    return plugged


def test_settings_are_read_back_and_a_difference_is_said(plug: Any, caplog: pytest.LogCaptureFixture) -> None:
    camera = plug(Camera())
    with caplog.at_level(logging.WARNING):
        take(source(0, width=1280, height=480, fps_request=30, fourcc="MJPG", read_timeout_s=2.5), 1)
    assert [key for key, _ in camera.settings] == [
        cv2.CAP_PROP_FOURCC,
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
        cv2.CAP_PROP_FPS,
        cv2.CAP_PROP_BUFFERSIZE,
    ]
    assert camera.settings[-1][1] == 1
    assert [record.getMessage() for record in caplog.records] == [
        "/dev/video0: width was asked to be 1280, the camera gives 640"
    ]
    assert os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] == "3"
    del os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"]
    assert camera.released == 1


def test_a_fixed_exposure_is_set_after_its_mode_and_read_back(plug: Any, caplog: pytest.LogCaptureFixture) -> None:
    camera = plug(Camera())
    with caplog.at_level(logging.WARNING):
        take(source(0, exposure_ms=2.5), 1)
    assert camera.settings[-2:] == [(cv2.CAP_PROP_AUTO_EXPOSURE, 1), (cv2.CAP_PROP_EXPOSURE, 25)]
    assert caplog.records == []

    camera = plug(Camera())
    camera.get = lambda key: {cv2.CAP_PROP_EXPOSURE: 156.0}.get(key, camera.properties.get(key, 0.0))
    with caplog.at_level(logging.WARNING):
        take(source(0, exposure_ms=2.5), 1)
    assert caplog.records[-1].getMessage() == "/dev/video0: exposure_ms was asked to be 2.5, the camera gives 15.6"

    camera = plug(Camera())
    camera.get = lambda key: {cv2.CAP_PROP_AUTO_EXPOSURE: 1.0}.get(key, camera.properties.get(key, 0.0))
    with caplog.at_level(logging.WARNING):
        take(source(0, exposure_ms="auto"), 1)
    assert caplog.records[-1].getMessage() == "/dev/video0: exposure mode was asked to be auto, the camera gives manual"

    camera = plug(Camera())
    take(source(0), 1)
    assert not {key for key, _ in camera.settings} & {cv2.CAP_PROP_AUTO_EXPOSURE, cv2.CAP_PROP_EXPOSURE}


def test_an_unplugged_camera_is_an_error_and_is_released(plug: Any) -> None:
    camera = plug(Camera(frames=3))
    frames = source(0, clock=FakeClock()).frames()
    assert [frame.sequence for frame in (next(frames), next(frames), next(frames))] == [0, 1, 2]
    with pytest.raises(CaptureError, match=r"^/dev/video0: broke off: the camera was unplugged or failed$"):
        next(frames)
    assert camera.released == 1


def test_a_camera_that_gives_nothing(plug: Any) -> None:
    plug(Camera(frames=0))
    with pytest.raises(CaptureError, match="/dev/video0: gave no frame"):
        take(source(0, clock=FakeClock()), 1)


def test_unwanted_frames_are_grabbed_and_not_decoded(plug: Any) -> None:
    camera = plug(Camera(frames=100))
    clock = FakeClock()
    grab = camera.grab

    def grab_at_50_a_second() -> bool:
        clock.now_ns += 20_000_000
        return bool(grab())

    camera.grab = grab_at_50_a_second
    frames = take(source(0, fps=10, clock=clock), 10)
    assert [frame.sequence for frame in frames] == list(range(10))
    assert (camera.grabbed, camera.retrieved) == (46, 10)


def test_a_damaged_frame_is_a_drop_and_many_are_an_error(plug: Any, caplog: pytest.LogCaptureFixture) -> None:
    plug(Camera(broken=frozenset({2, 3})))
    with caplog.at_level(logging.WARNING):
        frames = take(source(0), 5)
    assert [frame.sequence for frame in frames] == [0, 1, 4, 5, 6]
    assert [record.getMessage() for record in caplog.records if "frame" in record.getMessage()] == [
        "camera line-1: /dev/video0: frame 2 cannot be decoded and is dropped"
    ]
    plug(Camera(frames=100, broken=frozenset(range(1, 100))))
    faults: list[str] = []
    with pytest.raises(CaptureError, match="30 frames in a row cannot be decoded"):
        take(source(0, idle=faults.append), 50)
    # At one frame a minute that is half an hour, in which the reason is known.
    assert faults == ["/dev/video0: its frames cannot be decoded"] * 29


def test_damaged_frames_between_good_ones_are_only_drops(plug: Any) -> None:
    plug(Camera(frames=200, broken=frozenset(range(1, 200, 2))))
    assert [frame.sequence for frame in take(source(0), 80)] == list(range(0, 160, 2))


def test_a_grey_camera_gives_bgr(plug: Any) -> None:
    plug(Camera(image=np.full((120, 160), 512, np.uint16)))
    (frame,) = take(source(0), 1)
    assert frame.image.shape == (120, 160, 3)
    assert (frame.image == 2).all()
