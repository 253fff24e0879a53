"""Readers that hang, crash, leak and are killed: it costs their own camera seconds, and the others nothing."""

import logging
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from chaos_support import House, camera, comm, install_plugin, make, nothing_left, seconds_since, shared_memory

STALL_S = 2.0
DEADLINE_S = 1.5 * STALL_S


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    install_plugin(tmp_path, monkeypatch)


def faulty(name, tmp_path, fault="none", **more):
    source = {"type": "faulty", "fault": fault, "marker": str(tmp_path / f"{name}.marker"), **more}
    return camera(name, source, fps=15, reader={"memory_mb": 256, "open_deadline_s": 8})


REASONS = {
    "block": f"gave no frame for {DEADLINE_S:g} s (reader.deadline_s) and was killed",
    "deaf": f"gave no frame for {DEADLINE_S:g} s (reader.deadline_s) and was killed",
    "segfault": "ended by SIGSEGV",
    "leak": "above reader.memory_mb (256), and was killed",
    "exit": "ended with status 3",
    "raise": "internal error: ZeroDivisionError('a bug in the plug-in')",
    "fail": "the camera was unplugged",
}


def test_every_fault_costs_its_own_camera_seconds_and_the_others_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO, "edgevision")
    cameras = [faulty(fault, tmp_path, fault) for fault in REASONS]
    with nothing_left(), House(make([*cameras, faulty("good", tmp_path)])) as house:
        for fault, reason in REASONS.items():
            failed = house.state(fault, "failed", timeout_s=30)
            assert reason in failed["reason"]
            house.state(fault, "live", after=failed["seq"], timeout_s=15)
        for fault in REASONS:
            house.result(fault, after=house.last_seq(f"{fault}/results"))
        assert house.service.stations["good"].camera.restarts == 0
        assert {result["camera_state"] for result in house.of("good/results")} == {"live"}
        times = [station.camera.captured for station in house.service.stations.values()]
        assert house.service.stations["good"].camera.captured == max(times)
    traces = [record.fields for record in caplog.records if "traceback" in getattr(record, "fields", {})]
    assert [(fields["camera"], "in _raise" in fields["traceback"]) for fields in traces] == [("raise", True)]


@pytest.mark.parametrize("blow", [signal.SIGSTOP, signal.SIGKILL])
def test_a_reader_that_is_stopped_or_killed_comes_back(tmp_path, blow):
    with nothing_left(), House(make([faulty("hit", tmp_path), faulty("good", tmp_path)])) as house:
        house.state("hit", "live")
        house.result("good")
        victim, good_before = house.reader("hit"), house.service.stations["good"].camera.captured
        told = house.last_seq("hit/status")
        victim.send_signal(blow)
        struck_s = time.monotonic()
        noticed = house.state("hit", "stalled", "failed", after=told)
        assert seconds_since(struck_s) < 2 * STALL_S
        failed = noticed if noticed["camera_state"] == "failed" else house.state("hit", "failed", after=noticed["seq"])
        assert seconds_since(struck_s) < 2 * DEADLINE_S
        failed_s = time.monotonic()
        house.state("hit", "live", after=failed["seq"])
        assert seconds_since(failed_s) < 5
        good = house.service.stations["good"].camera
        assert good.captured - good_before > 0.6 * 15 * seconds_since(struck_s)
        assert not victim.is_running()


def test_a_library_that_shouts_is_repeated_with_its_camera_bounded_and_without_passwords(tmp_path, caplog):
    with House(make([faulty("loud", tmp_path, "noise")])) as house:
        house.result("loud", after=30)
    said = [record.fields for record in caplog.records if record.message == "camera reader says"]
    assert said[0]["text"] == "libcam: error 0 at http://***@cam/x"
    assert {fields["camera"] for fields in said} == {"loud"}
    assert len(said) == 200
    assert "hunter2" not in caplog.text
    assert said[-1]["note"] == "further lines are left out"


def test_a_secret_in_a_config_stands_in_no_argument_and_no_environment(tmp_path):
    with House(make([faulty("a", tmp_path, secret="hunter2")])) as house:
        house.state("a", "live")
        reader = house.reader("a")
        assert not any("hunter2" in text for text in [*reader.cmdline(), *reader.environ().values()])


DAEMON = """
device: box
sinks: [{{type: jsonl, path: {folder}/messages.jsonl}}]
models: {{m: {{model: efficientnet-lite0}}}}
cameras:
  - {{name: a, model: m, fps: 10, source: {{type: faulty}}}}
  - {{name: b, model: m, fps: 10, source: {{type: faulty, fault: block}}}}
  - {{name: c, model: m, fps: 10, source: {{type: faulty, fault: deaf}}}}
  - {{name: d, model: m, fps: 10, source: {{type: faulty}}}}
"""


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV])
def test_nothing_outlives_the_daemon_however_it_dies(tmp_path, blow):
    config = tmp_path / "edgevision.yaml"
    config.write_text(DAEMON.format(folder=tmp_path))
    segments = shared_memory()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "XDG_STATE_HOME": str(tmp_path)}
    arguments = [sys.executable, "-m", "edgevision", "run", "-c", str(config)]
    with subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr is not None
        live: set[str] = set()
        while len(live) < 4:
            line = daemon.stderr.readline()
            assert line, "the daemon ended"
            if "state=live" in line:
                live |= {word for word in line.split() if word.startswith("camera=")}
        readers = [child for child in psutil.Process(daemon.pid).children() if comm(child.pid).startswith("ev-")]
        assert {comm(child.pid) for child in readers} == {"ev-a", "ev-b", "ev-c", "ev-d"}
        next(child for child in readers if comm(child.pid) == "ev-d").send_signal(signal.SIGSTOP)
        daemon.send_signal(blow)
        daemon.stderr.read()
        daemon.wait(20)
    _, alive = psutil.wait_procs(readers, timeout=5)
    assert alive == []
    assert shared_memory() == segments
