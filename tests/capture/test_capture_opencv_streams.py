"""Streams against real servers: HTTP MJPEG of our own on loopback, RTSP by GStreamer where it is installed."""

import base64
import os
import signal
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from capture_support import jpeg, number_of, picture, source, take

from edgevision.errors import CaptureError

SYSTEM_PYTHON = "/usr/bin/python3"
HAS_GSTREAMER = (
    Path(SYSTEM_PYTHON).exists()
    and subprocess.run(
        [SYSTEM_PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"], capture_output=True, check=False
    ).returncode
    == 0
)
needs_rtsp = pytest.mark.skipif(
    not HAS_GSTREAMER,
    reason="needs an RTSP server: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good",
)


class Camera(ThreadingHTTPServer):
    """An MJPEG camera; sends `count` pictures at 50 a second and then, as told, ends or falls silent."""

    daemon_threads = True

    def __init__(self, count: Any = 10_000, *, then: Any = "end", password: Any = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.count, self.then, self.password = count, then, password
        self.stop, self.sent = threading.Event(), 0
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that goes away is no error."""

    def __enter__(self) -> Any:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.shutdown()
        self.thread.join()
        self.server_close()

    def url(self, user: Any = "") -> Any:
        return f"http://{user}127.0.0.1:{self.server_port}/video"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        camera = cast("Camera", self.server)
        expected = "Basic " + base64.b64encode(f"operator:{camera.password}".encode()).decode()
        if camera.password and self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(camera.count):
            content = jpeg(picture(number))
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(content))
            self.wfile.write(content + b"\r\n")
            camera.sent += 1
            if camera.stop.wait(0.02):
                return
        if camera.then == "silence":
            camera.stop.wait(30)


def test_http_mjpeg() -> None:
    with Camera() as camera:
        stream = source(camera.url())
        assert stream.live
        frames = take(stream, 20)
    numbers = [number_of(frame.image) for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + 20))
    assert [frame.sequence for frame in frames] == list(range(20))
    times = [frame.captured_mono_ns for frame in frames]
    assert times == sorted(times)
    assert abs(frames[-1].captured_at_ns / 1e9 - time.time()) < 5


def test_unwanted_frames_are_read_and_never_become_lag() -> None:
    with Camera() as camera:
        frames = take(source(camera.url(), fps=10), 10)
        behind = camera.sent % 60 - number_of(frames[-1].image)
    assert [frame.sequence for frame in frames] == list(range(10))
    seconds = (frames[-1].captured_mono_ns - frames[0].captured_mono_ns) / 1e9
    assert 0.7 < seconds < 2.0  # 0.9 s at 10 a second; 0.18 s were all 50 given
    assert behind < 15


def test_a_stream_that_ends_is_an_error() -> None:
    with Camera(15) as camera, pytest.raises(CaptureError, match="broke off: the other side ended the stream"):
        list(source(camera.url()).frames())


def test_a_stream_that_falls_silent_is_an_error_within_the_read_timeout() -> None:
    with Camera(15, then="silence") as camera:
        frames = source(camera.url(), read_timeout_s=1.0).frames()
        for _ in range(10):
            next(frames)
        last_s = time.monotonic()
        with pytest.raises(CaptureError, match=r"broke off: nothing came for [0-9.]+ s \(read_timeout_s\)"):
            list(frames)
        assert time.monotonic() - last_s < 3.0


def test_a_host_that_accepts_and_says_nothing_is_an_error_within_the_open_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for scheme in ("rtsp", "http"):
            started_s = time.monotonic()
            with pytest.raises(CaptureError, match=r"no video within 1 s \(open_timeout_s\)"):
                take(source(f"{scheme}://127.0.0.1:{port}/x", open_timeout_s=1.0), 1)
            assert time.monotonic() - started_s < 4.0


def test_a_password_is_used_and_never_shown() -> None:
    with Camera(password="s3cret") as camera:
        assert len(take(source(camera.url("operator:s3cret@")), 3)) == 3
        with pytest.raises(CaptureError, match="gives no video; check the path, the user name and password") as caught:
            take(source(camera.url("operator:wr0ng@")), 1)
    assert "wr0ng" not in str(caught.value)
    assert "http://***@127.0.0.1" in str(caught.value)


def test_a_password_by_file_may_hold_anything_and_is_read_for_each_connection(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3:cr@t/é%41\n")
    with Camera(password="s3:cr@t/é%41") as camera:
        assert len(take(source(camera.url(), username="operator", password_file=secret), 3)) == 3
        secret.write_text("other")
        with pytest.raises(CaptureError, match="check the path, the user name and password") as caught:
            take(source(camera.url(), username="operator", password_file=secret), 1)
        assert "other" not in str(caught.value)
        secret.unlink()
        with pytest.raises(CaptureError, match=r"password_file .*/password: cannot be read: No such file"):
            take(source(camera.url(), username="operator", password_file=secret), 1)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(CaptureError, match=rf"rtsp://127\.0\.0\.1:{port}/x: .*Connection refused; check the address"):
        take(source(f"rtsp://127.0.0.1:{port}/x"), 1)
    with pytest.raises(CaptureError, match=r"host name 'no-such-camera\.invalid' cannot be resolved"):
        take(source("rtsp://no-such-camera.invalid/x", open_timeout_s=5), 1)


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "stimeout;1")
    with pytest.raises(CaptureError):
        take(source("rtsp://127.0.0.1:1/x", transport="udp"), 1)
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "stimeout;1"


def test_close_from_another_thread_ends_a_stream() -> None:
    with Camera() as camera:
        stream = source(camera.url())
        frames = stream.frames()
        next(frames)
        threading.Timer(0.2, stream.close).start()
        assert len(list(frames)) > 0
        assert list(stream.frames()) == []


@pytest.fixture
def rtsp(request: Any) -> Any:
    """A running RTSP server: its process and its port."""
    server = subprocess.Popen(
        [SYSTEM_PYTHON, str(Path(__file__).with_name("rtsp_server.py")), *getattr(request, "param", ())],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        yield server, int(server.stdout.readline())
    finally:
        server.send_signal(signal.SIGCONT)
        server.kill()
        server.communicate()


@needs_rtsp
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp(rtsp: Any, transport: str) -> None:
    _, port = rtsp
    camera = source(f"rtsp://127.0.0.1:{port}/cam", transport=transport)
    frames = []
    for frame in islice(camera.frames(), 25):
        frames.append(frame)
        over_udp = bool(psutil.Process().net_connections("udp"))
        assert over_udp == (transport == "udp")
    assert [frame.sequence for frame in frames] == list(range(25))
    assert frames[0].image.shape == (120, 160, 3)


@needs_rtsp
@pytest.mark.parametrize("rtsp", [("secret",)], indirect=True)
def test_rtsp_with_a_password(rtsp: Any, tmp_path: Path) -> None:
    _, port = rtsp
    assert len(take(source(f"rtsp://operator:s3cret@127.0.0.1:{port}/cam"), 2)) == 2
    (tmp_path / "password").write_text("s3cret\n")
    by_file = source(f"rtsp://127.0.0.1:{port}/cam", username="operator", password_file=tmp_path / "password")
    assert len(take(by_file, 2)) == 2
    with pytest.raises(CaptureError, match=r"rtsp://\*\*\*@127.0.0.1:.*user name and password") as caught:
        take(source(f"rtsp://operator:wr0ng@127.0.0.1:{port}/cam"), 1)
    assert "wr0ng" not in str(caught.value)


@needs_rtsp
@pytest.mark.parametrize(
    ("blow", "words"),
    [(signal.SIGKILL, "ended the stream"), (signal.SIGSTOP, r"nothing came for .* \(read_timeout_s\)")],
)
def test_an_rtsp_server_that_dies_or_hangs_is_an_error_within_the_read_timeout(
    rtsp: Any, blow: Any, words: str
) -> None:
    server, port = rtsp
    frames = source(f"rtsp://127.0.0.1:{port}/cam", read_timeout_s=1.5).frames()
    for _ in range(10):
        next(frames)
    server.send_signal(blow)
    struck_s = time.monotonic()
    with pytest.raises(CaptureError, match=words):
        list(frames)
    assert time.monotonic() - struck_s < 4.0
