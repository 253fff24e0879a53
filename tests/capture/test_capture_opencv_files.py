import logging
import os
import shutil
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from capture_support import FakeClock, jpeg, number_of, picture, source, take, write_avi

from edgevision.capture import opencv
from edgevision.errors import CaptureError


def test_every_frame_in_order(tmp_path: Path) -> None:
    frames = take(source(str(write_avi(tmp_path / "a.avi", 40)), pace="max"), 100)
    assert [number_of(frame.image) for frame in frames] == list(range(40))
    assert [frame.sequence for frame in frames] == list(range(40))
    assert {frame.camera for frame in frames} == {"line-1"}
    assert {frame.image.shape for frame in frames} == {(120, 160, 3)}


def test_a_real_film_is_delivered_whole(shared: Path) -> None:
    camera = source(str(shared / "video" / "bottle-detection.mp4"), pace="max")
    assert not camera.live
    seen = [(frame.sequence, frame.image.shape) for frame in camera.frames()]
    assert seen == [(number, (360, 640, 3)) for number in range(1189)]


def test_ten_of_29_8_frames_a_second_by_media_time(shared: Path) -> None:
    camera = source(str(shared / "video" / "bottle-detection.mp4"), fps=10, pace="max")
    sequences = [frame.sequence for frame in camera.frames()]
    seconds = 1189 / 29.833333
    assert abs(len(sequences) - 10 * seconds) <= 1  # 399; every third frame would be 397
    assert sequences == list(range(len(sequences)))


def test_realtime_is_the_speed_of_recording(tmp_path: Path) -> None:
    clock = FakeClock()
    frames = take(source(str(write_avi(tmp_path / "a.avi", 26)), clock=clock), 100)
    times = [frame.captured_mono_ns for frame in frames]
    assert [after - before for before, after in pairwise(times)] == [40_000_000] * 25
    assert frames[0].captured_at_ns == 1_700_000_001_000_000_000


def test_a_reader_that_was_held_up_gets_no_burst_and_loses_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    times = []
    for frame in source(str(write_avi(tmp_path / "a.avi", 20)), clock=clock).frames():
        times.append((number_of(frame.image), clock.now_ns))
        if frame.sequence == 5:
            clock.now_ns += 3_000_000_000
    assert [number for number, _ in times] == list(range(20))
    gaps = [after - before for (_, before), (_, after) in pairwise(times)]
    assert gaps == [40_000_000] * 5 + [3_000_000_000] + [40_000_000] * 13


def test_fps_and_pace_together(tmp_path: Path) -> None:
    clock = FakeClock()
    frames = take(source(str(write_avi(tmp_path / "a.avi", 50)), fps=5, clock=clock), 100)
    assert [number_of(frame.image) for frame in frames] == list(range(0, 50, 5))
    assert frames[-1].captured_mono_ns - frames[0].captured_mono_ns == 1_800_000_000


def test_a_loop_goes_on_in_time_and_number(tmp_path: Path) -> None:
    clock = FakeClock()
    frames = take(source(str(write_avi(tmp_path / "a.avi", 10)), loop=True, clock=clock), 35)
    assert [number_of(frame.image) for frame in frames] == [*range(10)] * 3 + [*range(5)]
    assert [frame.sequence for frame in frames] == list(range(35))
    times = [frame.captured_mono_ns for frame in frames]
    assert {after - before for before, after in pairwise(times)} == {40_000_000}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_loop_leaves_no_file_open(tmp_path: Path) -> None:
    camera = source(str(write_avi(tmp_path / "a.avi", 2)), loop=True, pace="max")
    frames = camera.frames()
    for _ in range(10):
        next(frames)
    before = open_files()
    for _ in range(400):
        next(frames)
    assert open_files() <= before
    camera.close()
    assert list(frames) == []
    assert open_files() < before


def test_a_bare_stream_of_jpegs_is_paced_by_25_a_second(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.mjpeg"
    path.write_bytes(b"".join(jpeg(picture(number)) for number in range(30)))
    clock = FakeClock()
    with caplog.at_level(logging.WARNING):
        frames = take(source(str(path), clock=clock, fps=5), 100)
    assert [number_of(frame.image) for frame in frames] == list(range(0, 30, 5))
    assert frames[-1].captured_mono_ns - frames[0].captured_mono_ns == 1_000_000_000


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg to make a bare H.264 stream")
def test_a_file_without_times_is_paced_by_its_rate_and_says_so(
    shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, film = tmp_path / "bare.h264", shared / "video" / "bottle-detection.mp4"
    convert = ["ffmpeg", "-v", "error", "-i", str(film), "-t", "3", "-c:v", "copy", "-an", "-f", "h264", str(path)]
    subprocess.run(convert, check=True)
    clock = FakeClock()
    with caplog.at_level(logging.WARNING):
        frames = take(source(str(path), clock=clock, fps=5), 100)
    assert 15 <= len(frames) <= 19  # 90 frames at 29.8 or 25 a second, as this OpenCV tells it
    gaps_ns = [after.captured_mono_ns - before.captured_mono_ns for before, after in pairwise(frames)]
    assert all(abs(gap_ns - 200_000_000) <= 40_000_000 for gap_ns in gaps_ns)
    assert f"{path}: " in caplog.text
    assert "frame times stand still or jump; the file's frame rate was used" in caplog.text


def test_close_ends_a_wait_at_once(tmp_path: Path) -> None:
    path = write_avi(tmp_path / "slow.avi", 3, fps=0.1)
    camera = source(str(path))
    first, ended = threading.Event(), threading.Event()

    def run() -> None:
        for _ in camera.frames():
            first.set()
        ended.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert first.wait(10)
    camera.close()
    camera.close()
    assert ended.wait(5)  # the next frame would have been due after 10 s
    thread.join()


def fault(path: Any, **options: Any) -> Any:
    with pytest.raises(CaptureError) as caught:
        list(source(str(path), pace="max", **options).frames())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fault("no.mp4") == f"{tmp_path}/no.mp4: no such video file; check `url`"
    assert fault(tmp_path) == f"{tmp_path}: is a folder; for pictures in a folder use `type: images`"
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert "is empty (0 bytes)" in fault("empty.mp4")
    (tmp_path / "text.mp4").write_text("this is a text\n" * 100)
    assert f"{tmp_path}/text.mp4: is not a video" in fault("text.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "is not a regular file" in fault("pipe.mp4")


def test_a_header_without_a_picture_does_not_loop_for_ever(tmp_path: Path) -> None:
    path = write_avi(tmp_path / "a.avi", 3)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"movi") + 4])
    text = fault(path, loop=True)
    assert "holds no picture" in text or "is not a video" in text


def test_a_cut_off_film(shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = (shared / "video" / "bottle-detection.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: len(content) // 2])  # an mp4 whose index lies at the end cannot be read at all
    assert "is not a video that can be read" in fault(path)


def test_a_film_that_ends_early_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_avi(tmp_path / "a.avi", 100)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 4])
    with caplog.at_level(logging.WARNING):
        frames = take(source(str(path), pace="max"), 1000)
    assert 10 <= len(frames) <= 30
    assert "cut off or damaged" in caplog.text
    assert str(path) in caplog.text


def test_a_whole_film_says_nothing(tmp_path: Path, shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        take(source(str(write_avi(tmp_path / "a.avi", 100)), pace="max"), 1000)
        take(source(str(shared / "video" / "bottle-detection.mp4"), pace="max"), 10_000)
        take(source(str(shared / "video" / "bolt-multi-size-detection.gif"), pace="max"), 10_000)
    assert caplog.text == ""


def test_no_permission(tmp_path: Path) -> None:
    path = write_avi(tmp_path / "a.avi", 3)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from edgevision.capture._diagnose import check_file\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: check_file(Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    path.chmod(0)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"CaptureError {path}: no permission to read it; check its owner and mode\n"


def test_nobody_else_writes_to_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("this is a text\n" * 100)
    code = (
        "import sys\n"
        "from edgevision.capture import opencv\n"
        "from edgevision.capture.base import SourceContext\n"
        "from edgevision.errors import CaptureError\n"
        "for url in sys.argv[1:]:\n"
        "    try: list(opencv.create(opencv.Options(url=url), SourceContext(camera='c')).frames())\n"
        "    except CaptureError as error: print(error)\n"
    )
    urls = [str(tmp_path / "text.mp4"), "rtsp://u:s3cret@127.0.0.1:1/x", "http://u:s3cret@127.0.0.1:1/x", "250"]
    done = subprocess.run([sys.executable, "-c", code, *urls], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(urls)
    assert "s3cret" not in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": ""}, "is empty"),
        ({"url": "ftp://host/a"}, "unknown kind of address ftp://; known: rtsp"),
        ({"url": "rtsp:///x"}, "names no host"),
        ({"url": "http://host:99999/"}, "no valid host and port"),
        ({"url": -1}, "0 to 255"),
        ({"url": "rtsp://cam/1", "loop": True}, "loop: only for video files, and `url` is a stream"),
        ({"url": 0, "pace": "max"}, "pace: only for video files, and `url` is a device"),
        ({"url": "a.mp4", "width": 640, "height": 480}, "width, height: only for V4L2 cameras"),
        ({"url": 0, "width": 640}, "give both or neither"),
        ({"url": "http://cam/1", "transport": "udp"}, "transport: only for rtsp"),
        ({"url": "rtsp://cam/1", "exposure_ms": 5}, "exposure_ms: only for V4L2 cameras, and `url` is a stream"),
        ({"url": 0, "exposure_ms": "never"}, "exposure_ms"),
        ({"url": 0, "username": "u"}, "username: only for streams, and `url` is a device"),
        ({"url": "rtsp://cam/1", "password": "p"}, "a password is given without username"),
        ({"url": "rtsp://a:b@cam/1", "username": "u"}, "the address holds a user name too"),
        ({"url": 0, "fourcc": "MJPEG"}, "fourcc"),
        ({"url": 0, "read_timeout_s": 0}, "read_timeout_s"),
        ({"url": 0, "speed": 1}, "speed"),
    ],
)
def test_options_that_cannot_be(options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        opencv.Options(**options)


@pytest.mark.parametrize(
    ("url", "kind"),
    [(0, "device"), ("1", "device"), ("/dev/v4l/by-id/cam", "device"), ("rtsp://cam/1", "stream"),
     ("HTTP://cam/", "stream"),
     ("a.mp4", "file"), ("C:film.mp4", "file"), ("/data/a.mp4", "file"), ("file:///data/a.mp4", "file")],
)  # fmt: skip
def test_what_an_address_is(url: str, kind: str) -> None:
    assert opencv.Options(url=url).kind == kind
