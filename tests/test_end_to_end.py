"""The main job: the daemon as a process, a real camera file, a real model, a real broker, and a subscriber of its own."""

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support_brokers import Certificates, Listener, Mosquitto, wait_until

import edgevision
from edgevision import asyncapi, messages

SCHEMAS = {name: jsonschema.Draft202012Validator(schema) for name, schema in asyncapi.json_schemas().items()}
PHOTOS = Path(edgevision.__file__).parent / "data" / "photos"


class MjpegCamera:
    """An HTTP camera that sends a JPEG twenty times a second, until it is told to break off."""

    def __enter__(self):
        camera, photo = self, (PHOTOS / "coffee.jpg").read_bytes()
        self._breaking = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                camera._breaking.clear()
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    while not camera._breaking.wait(0.05):
                        self.wfile.write(
                            b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(photo)
                        )
                        self.wfile.write(photo + b"\r\n")
                except OSError:
                    pass  # the reader has gone

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/live.mjpg"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def break_off(self):
        self._breaking.set()

    def __exit__(self, *_):
        self._breaking.set()
        self._server.shutdown()
        self._server.server_close()


class Daemon:
    """`edgevision run` on a config; its log lines as they come."""

    def __init__(self, folder, text, **environ):
        self.config = folder / "edgevision.yaml"
        # Its own, or daemons of other tests would share a journal.
        self.config.write_text(f"state_dir: {folder}/state\n{text}")
        self.lines = []
        self._changed = threading.Condition()
        self._environ = {**os.environ, **environ}

    def __enter__(self):
        command = [sys.executable, "-m", "edgevision", "run", "-c", str(self.config)]
        self.process: Any = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=self._environ)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def _read(self):
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()

    def wait_line(self, words, timeout_s=30):
        with self._changed:
            found = self._changed.wait_for(lambda: [line for line in self.lines if words in line], timeout_s)
            assert found, f"no log line with {words!r}: {self.lines}"
            return found[0]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stderr.close()
        assert not any("Traceback" in line for line in self.lines), self.lines


def content(heard):
    payload = heard.payload if heard.payload[:1] == b"{" else messages.read_jpeg_comment(heard.payload)
    found = json.loads(payload)
    SCHEMAS[found["schema"].split("/")[1]].validate(found)
    return found


def is_result(heard, camera="infeed"):
    return heard.topic.endswith(f"/{camera}/results")


def plain(text):
    """Without the model that needs the test material."""
    return text.replace("  bottles: {model: bottles, confidence: 0.5}\n", "")


@pytest.fixture
def models(tmp_path, shared):
    folder = tmp_path / "models"
    command = [sys.executable, "-m", "edgevision", "models", "add", str(shared / "models" / "yolox_nano.onnx")]
    environ = {**os.environ, "EDGEVISION_MODELS": str(folder)}
    subprocess.run(
        [*command, "--like", "yolox-nano", "--name", "bottles"], check=True, env=environ, stdout=subprocess.DEVNULL
    )
    return str(folder)


def yaml(port, source, more="", mqtt=""):
    return f"""\
device: box1
mqtt:
  host: 127.0.0.1
  port: {port}
  topic: acme/berlin/line3
{mqtt}
models:
  parts: {{model: efficientnet-lite0, backend: litert}}
  bottles: {{model: bottles, confidence: 0.5}}
cameras:
  - name: infeed
    source: {source}
    {more}
"""


def test_a_frame_becomes_a_detection_at_a_subscriber(tmp_path, shared, mosquitto, models):
    video = shared / "video" / "bottle-detection.mp4"
    more = """model: bottles
    fps: 10
    rules: [{type: presence, label: bottle, frames: 2}]
    snapshot: {what: crops, interval_s: 1}
  - name: photos
    source: {type: images, path: "PHOTOS", loop: true}
    model: parts
    fps: 5""".replace("PHOTOS", str(PHOTOS))
    text = yaml(0, f"{{type: opencv, url: {video}, loop: true}}", more)
    with Mosquitto(mosquitto, tmp_path) as broker, Listener(broker.port) as listener:
        with Daemon(tmp_path, text.replace("port: 0", f"port: {broker.port}"), EDGEVISION_MODELS=models) as daemon:
            listener.wait_for(lambda heard: is_result(heard) and b'"label":"bottle"' in heard.payload, 60)
            listener.wait_for(lambda heard: heard.topic.endswith("infeed/events") and b'"appeared"' in heard.payload)
            listener.wait_for(lambda heard: heard.topic.endswith("infeed/image"))
            listener.wait_for(lambda heard: is_result(heard, "photos") and b"espresso" in heard.payload)
            daemon.stop()
        listener.wait_for(lambda heard: heard.topic == "acme/berlin/line3/box1/status" and b"SIGTERM" in heard.payload)
    by_topic: dict[str, list[Any]] = {}
    for heard in listener.heard:
        by_topic.setdefault(heard.topic.removeprefix("acme/berlin/line3/box1/"), []).append((heard, content(heard)))
    assert set(by_topic) == {
        "status",
        "telemetry",
        *("infeed/" + kind for kind in ("status", "results", "events", "image")),
        "photos/status",
        "photos/results",
    }
    for topic, found in by_topic.items():
        seqs = [payload["seq"] for _, payload in found]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), f"{topic}: a message is lost or doubled"
    bottle = next(
        item for _, payload in by_topic["infeed/results"] for item in payload["detections"] if item["label"] == "bottle"
    )
    assert bottle["confidence"] >= 0.5
    left, top, right, bottom = bottle["xyxy"]
    assert 0 <= left < right <= 640
    assert 0 <= top < bottom <= 360
    events = [payload["kind"] for _, payload in by_topic["infeed/events"]]
    assert "appeared" in events
    assert events[-1] == "unknown", "nobody looks after the end"
    assert by_topic["infeed/image"][0][1]["label"] == "bottle"
    assert {heard.content_type for heard, _ in by_topic["infeed/image"]} == {"image/jpeg"}
    assert [payload["state"] for _, payload in by_topic["status"]][-2:] == ["stopping", "offline"]


def test_the_broker_comes_late_goes_and_comes_back(tmp_path, mosquitto):
    broker, copy = Mosquitto(mosquitto, tmp_path, persistent=True), tmp_path / "copy.jsonl"
    mqtt = f"sinks: [{{type: jsonl, path: {copy}}}]\nmqtt:\n  results: {{qos: 1}}\n"
    text = yaml(broker.port, f'{{type: images, path: "{PHOTOS}", loop: true}}', "model: parts\n    fps: 20")
    with Daemon(tmp_path, plain(text).replace("mqtt:\n", mqtt)) as daemon:
        daemon.wait_line("refuses connections")
        # More than a second of results must wait: a younger message is no news from the past.
        wait_until(lambda: copy.exists() and copy.read_text().count("/results") > 40, "two seconds of results")
        with broker, Listener(broker.port, session="watcher") as listener:
            live = content(listener.wait_for(lambda h: is_result(h) and not content(h)["historical"], 60))
            early = content(listener.wait_for(is_result))
            assert early["historical"]
            assert early["seq"] == 1, "what waited for the broker arrives too, and first"
            # Stopped in order, the broker keeps the listener's session: what comes before the listener is back is not lost.
            broker.stop()
            broker.start()
            later = content(listener.wait_for(lambda h: is_result(h) and content(h)["seq"] > live["seq"] + 60, 60))
            seqs = [content(heard)["seq"] for heard in listener.heard if is_result(heard)]
            status = [content(heard) for heard in listener.heard if heard.topic.endswith("/box1/status")]
        assert later["camera_state"] == "live"
        # QoS 1 is at least once: after an outage a message may come twice, and none may be missing.
        assert sorted(set(seqs)) == list(range(1, max(seqs) + 1))
        assert status[-1]["state"] == "online"


def test_results_of_a_daemon_that_was_killed_without_a_broker_arrive_as_history(tmp_path, mosquitto):
    broker, copy = Mosquitto(mosquitto, tmp_path), tmp_path / "copy.jsonl"
    mqtt = f"sinks: [{{type: jsonl, path: {copy}}}]\nmqtt:\n  results: {{qos: 1, durable: true}}\n"
    text = yaml(broker.port, f'{{type: images, path: "{PHOTOS}", loop: true}}', "model: parts\n    fps: 20")
    text = plain(text).replace("mqtt:\n", mqtt)
    with Daemon(tmp_path, text) as daemon:
        daemon.wait_line("refuses connections")
        wait_until(lambda: copy.exists() and copy.read_text().count("/results") > 30, "results")
        daemon.process.kill()
    first = [json.loads(line)["payload"] for line in copy.read_text().splitlines() if "/results" in line]
    with broker, Listener(broker.port) as listener, Daemon(tmp_path, text) as daemon:
        listener.wait_for(lambda heard: is_result(heard) and not content(heard)["historical"], 60)
        daemon.stop()
        listener.wait_for(lambda heard: b"SIGTERM" in heard.payload)
    found = [content(heard) for heard in listener.heard]
    late = [payload for payload in found if payload["boot_id"] == first[0]["boot_id"]]
    results = [payload["seq"] for payload in late if payload["schema"] == "edgevision/result/1"]
    assert results == list(range(1, len(results) + 1)), "in order, and none missing"
    assert len(results) >= len(first) - 5, "all but those of the last commit"
    assert {payload["camera_state"] for payload in late if payload["schema"] == "edgevision/camera-status/1"} == {
        "starting",
        "live",
    }
    assert all(payload["historical"] for payload in late)


def test_a_second_daemon_on_one_state_dir_is_refused_in_one_line(tmp_path, mosquitto):
    with Mosquitto(mosquitto, tmp_path) as broker:
        text = yaml(broker.port, f'{{type: images, path: "{PHOTOS}", loop: true}}', "model: parts\n    fps: 5")
        with Daemon(tmp_path, plain(text)) as daemon:
            daemon.wait_line("state=live")
            with Daemon(tmp_path, plain(text)) as second:
                line = second.wait_line("is in use by another edgevision")
                assert f"process {daemon.process.pid}" in line
                assert second.process.wait(30) == 8
            assert daemon.process.poll() is None


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("password", "check username and password"),
        ("ca", "certificate"),
    ],
)
def test_a_broker_that_refuses_is_one_clear_line_and_the_daemon_runs_on(tmp_path, mosquitto, broken, words):
    (tmp_path / "certs").mkdir()
    certificates = Certificates(tmp_path / "certs")
    key = certificates.issue("server")
    passwords = tmp_path / "passwords"
    passwords.touch()
    tool = "mosquitto_passwd"
    subprocess.run([tool, "-b", str(passwords), "box", "right"], check=True, stderr=subprocess.DEVNULL)
    settings = [
        "allow_anonymous false",
        f"password_file {passwords}",
        f"cafile {certificates.ca}",
        f"certfile {key[0]}",
        f"keyfile {key[1]}",
    ]
    (tmp_path / "secret").write_text("wrong-hunter2\n" if broken == "password" else "right\n")
    ca = certificates.ca if broken == "password" else certificates.other_ca
    mqtt = f"  username: box\n  password_file: {tmp_path}/secret\n  tls: {{ca_file: {ca}}}"
    with Mosquitto(mosquitto, tmp_path, settings=settings) as broker:
        text = yaml(broker.port, f'{{type: images, path: "{PHOTOS}", loop: true}}', "model: parts\n    fps: 5", mqtt)
        with Daemon(tmp_path, plain(text)) as daemon:
            line = daemon.wait_line(words)
            assert str(broker.port) in line
            daemon.wait_line("state=live")
            assert daemon.process.poll() is None
            daemon.stop()
            assert not any(re.search("hunter2", line) for line in daemon.lines)


def test_the_last_will_speaks_when_the_daemon_is_killed(tmp_path, mosquitto):
    with Mosquitto(mosquitto, tmp_path) as broker, Listener(broker.port) as listener:
        text = yaml(broker.port, f'{{type: images, path: "{PHOTOS}", loop: true}}', "model: parts\n    fps: 5")
        with Daemon(tmp_path, plain(text)) as daemon:
            listener.wait_for(is_result, 60)
            daemon.process.kill()
            will = content(listener.wait_for(lambda heard: b"last will" in heard.payload))
    assert (will["state"], will["seq"]) == ("offline", 0)


def test_a_camera_that_is_killed_is_told_and_comes_back(tmp_path, mosquitto):
    """An HTTP MJPEG camera that goes away in the middle of a stream."""
    with Mosquitto(mosquitto, tmp_path) as broker, Listener(broker.port) as listener, MjpegCamera() as camera:
        text = yaml(broker.port, f"{{type: opencv, url: '{camera.url}', read_timeout_s: 2}}", "model: parts")
        with Daemon(tmp_path, plain(text)) as daemon:
            listener.wait_for(is_result, 60)
            camera.break_off()
            listener.wait_for(lambda heard: heard.topic.endswith("infeed/status") and b'"failed"' in heard.payload, 60)
            count = sum(map(is_result, listener.heard))
            listener.wait_for(lambda heard: sum(map(is_result, listener.heard)) > count + 3, 60)
            daemon.stop()
    states = [content(heard)["camera_state"] for heard in listener.heard if heard.topic.endswith("infeed/status")]
    assert states[0] == "starting"
    assert [state for state in states if state in {"live", "failed"}][:3] == ["live", "failed", "live"]
