"""GStreamer pipelines: the error of an OpenCV without it here, and the real thing in the system's Python."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
from pydantic import ValidationError

from edgevision.capture import gstreamer
from edgevision.capture.base import SourceContext
from edgevision.errors import PluginError

HAS_GSTREAMER = cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)
REPOSITORY = Path(gstreamer.__file__).parents[2]

SCRIPT = """\
import json, sys
sys.path.insert(0, sys.argv[1])
sys.path.append(sys.argv[2])  # behind the system's own numpy and OpenCV
from edgevision.capture import gstreamer
from edgevision.capture.base import SourceContext
from edgevision.capture.reader import Job, Limits, Reader
from edgevision.errors import EdgevisionError

asked = json.loads(sys.argv[3])
options = {"pipeline": asked["pipeline"], "read_timeout_s": asked.get("read_timeout_s", 5)}
if asked.get("process"):
    limits = Limits(frame_s=2, first_frame_s=asked.get('opens_within_s', 20), memory_bytes=512 << 20)
    source = Reader(Job(camera="a", type="gstreamer", options=options), limits, live=True).source()
else:
    source = gstreamer.create(gstreamer.Options(**options), SourceContext(camera="a", fps=asked.get("fps")))
told = {"live": source.live, "frames": [], "failure": ""}
try:
    for frame in source.frames():
        told["frames"].append((frame.sequence, frame.image.shape, str(frame.image.dtype), int(frame.image[0, 0, 0])))
        if len(told["frames"]) == asked.get("count", 3):
            source.close()
except EdgevisionError as failure:
    told["failure"] = str(failure)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def system_python() -> str:
    """A Python of this one's version, whose OpenCV has GStreamer."""
    python = shutil.which("python3", path="/usr/bin")
    check = "import sys, cv2; print(sys.version_info[:2], cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))"
    done = subprocess.run([python or "false", "-c", check], capture_output=True, text=True, check=False)
    if done.stdout.strip() != f"{sys.version_info[:2]} True" or shutil.which("gst-inspect-1.0") is None:
        pytest.skip("needs a system Python of this version and apt-get install python3-opencv gstreamer1.0-tools")
    assert python is not None
    return python


def run(python: str, pipeline: str, **asked: Any) -> dict[str, Any]:
    site = Path(sys.modules["pydantic"].__file__ or "").parents[1]
    command = [python, "-c", SCRIPT, str(REPOSITORY), str(site), json.dumps({"pipeline": pipeline, **asked})]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.skipif(HAS_GSTREAMER, reason="this OpenCV has GStreamer")
def test_an_opencv_without_gstreamer_is_told_with_the_fix() -> None:
    with pytest.raises(PluginError) as caught:
        gstreamer.create(gstreamer.Options(pipeline="videotestsrc"), SourceContext(camera="a"))
    text = str(caught.value)
    assert cv2.__file__ in text
    assert "apt-get install python3-opencv" in text
    assert "--system-site-packages" in text


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("", "at least 1"),
        (" ! ", "is empty"),
        ("videotestsrc !", "ends in `!`"),
        ("x" * 9000, "8192"),
        ("a\0b", "is empty"),
    ],
)
def test_pipelines_that_cannot_be_meant(pipeline: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        gstreamer.Options(pipeline=pipeline)


def test_a_password_in_a_pipeline_is_not_shown_and_a_change_of_it_is_seen() -> None:
    one = repr(gstreamer.Options(pipeline="rtspsrc location=rtsp://u:s3cret@cam/1 ! decodebin"))
    assert "s3cret" not in one
    assert one != repr(gstreamer.Options(pipeline="rtspsrc location=rtsp://u:other@cam/1 ! decodebin"))


@pytest.mark.parametrize("process", [False, True])
def test_pictures_of_a_real_pipeline(system_python: str, process: bool) -> None:
    pipeline = "videotestsrc is-live=true pattern=red ! video/x-raw,width=160,height=120,framerate=30/1"
    told = run(system_python, pipeline, process=process)
    assert told["failure"] == ""
    assert told["live"] is True
    assert [frame[:3] for frame in told["frames"]] == [[number, [120, 160, 3], "uint8"] for number in range(3)]
    assert told["frames"][0][3] < 20, "red has no blue, and blue comes first"


def test_a_sink_of_its_own_is_left_as_it_is_and_grey_becomes_bgr(system_python: str) -> None:
    told = run(system_python, "videotestsrc is-live=true ! video/x-raw,format=GRAY8,width=64,height=48 ! appsink")
    assert told["frames"][0][1] == [48, 64, 3]


def test_the_end_and_a_failing_element_are_errors(system_python: str) -> None:
    ended = run(system_python, "videotestsrc is-live=true num-buffers=2 ! video/x-raw,width=64,height=48", count=9)
    assert len(ended["frames"]) == 2
    assert "broke off: the pipeline ended, or an element failed" in ended["failure"]
    failing = run(system_python, "videotestsrc is-live=true ! identity error-after=4", count=9)
    assert "broke off" in failing["failure"]


def test_what_cannot_be_run_is_told(system_python: str) -> None:
    missing = run(system_python, "nvarguscamerasrc sensor-id=0 ! nvvidconv ! video/x-raw,format=BGRx")
    assert "GStreamer has no element 'nvarguscamerasrc' here" in missing["failure"]
    assert "nvidia-l4t-gstreamer" in missing["failure"]


@pytest.mark.parametrize(
    "pipeline",
    [
        "videotestsrc is-live=true ! video/x-raw,width=64,height=48 ! identity sleep-time=99000000",
        "videotestsrc no-such-property=1 ! video/x-raw,width=64",  # OpenCV 4.6 runs what it understood of it, and waits
    ],
)
def test_a_pipeline_that_hangs_is_ended_with_its_process(system_python: str, pipeline: str) -> None:
    told = run(system_python, pipeline, process=True, opens_within_s=4)
    assert told["frames"] == []
    assert "and was killed" in told["failure"] or "cannot be run" in told["failure"]
